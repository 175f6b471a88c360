//! What tests start from: the settings of an agent, and another's record.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::words::addresses::PeerAddrs;
use crate::words::record::{Cause, Record, Status};
use crate::words::settings::{Elector, Settings, SyncLoss};
use crate::words::term::Term;
use crate::words::timing::Timing;
use crate::words::vclock::Vclock;

/// The other member of the replica set.
pub const OTHER: &str = "instance-other";

/// The lease in these settings and in this record.
pub const LEASE: Duration = Duration::from_secs(10);

/// Settings with this lease.
///
/// # Panics
/// No other setting can be made to fit a lease as short as this.
#[must_use]
pub fn timing(lease: Duration) -> Timing {
    let (ttl, second) = (Duration::from_secs(15), Duration::from_secs(1));
    let timeout = lease.min(Duration::from_secs(4)) / 2;
    let liveness = Duration::from_millis(50);
    Timing::new(lease, lease.max(ttl), second, timeout, liveness).expect("a lease that fits")
}

/// The settings of an agent that does nothing but what every agent does.
///
/// # Panics
/// Never.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        timing: timing(LEASE),
        priority: Some(0),
        kill_hung: true,
        follow: false,
        elector: Elector::First,
        election_window: Duration::from_millis(250),
        sync_loss: SyncLoss::Refuse,
        max_lag_rows: 0,
        max_idle: Duration::ZERO,
        replica_max_idle: Duration::from_secs(5),
        failover_cooldown: Duration::ZERO,
        member_interval: Duration::from_secs(10),
        failsafe: false,
        peer_addrs: PeerAddrs::parse("10.0.0.0/24").expect("a network"),
        shared: BTreeMap::new(),
        agent: "first".to_owned(),
        announce: "10.0.0.1:3301".to_owned(),
    }
}

/// A record of the other instance, `active` in term 6.
#[must_use]
pub fn record() -> Record {
    Record {
        v: Record::VERSION,
        term: Term::from(6),
        instance: OTHER.to_owned(),
        replicaset: "replicaset".to_owned(),
        name: "10.0.0.2:3301".to_owned(),
        uri: "10.0.0.2:3301".to_owned(),
        agent: "first".to_owned(),
        status: Status::Active,
        lease_ms: 10_000,
        refresh: 40,
        vclock: Vclock::new(),
        members: Vec::new(),
        since: 0,
        since_ms: 0,
        reason: "because".to_owned(),
        cause: Cause::First,
        base: Vclock::new(),
        following: Vec::new(),
        split_off: Vec::new(),
        failsafe: false,
        paused: false,
        refused: false,
        last_master: None,
        unguarded: None,
        rate_rows_per_s: None,
        quorum: None,
        offered: false,
        tried: Default::default(),
        end: None,
        handover_to: None,
        problems: Vec::new(),
    }
}
