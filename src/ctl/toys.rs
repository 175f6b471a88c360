//! Keys as agents write them, for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::build;
use super::view::{ClusterView, Sign, Signs};
use crate::consul::Found;
use crate::decide::board::{
    Ballot, HistoryLine, Member, Party, Pause, ServiceRef, Stages, Switchover, SwitchoverState,
    VERSION, WaitingKey,
};
use crate::decide::ids::SessionId;
use crate::decide::lag::{Arrival, Behind};
use crate::decide::record::{Cause, Record, Status};
use crate::decide::router::RouterKey;
use crate::decide::term::Term;
use crate::decide::vclock::Vclock;
use crate::keys::ClusterKeys;

/// 2026-11-21 14:03:12 UTC.
pub(super) const NOW: u64 = 1_795_269_792;
pub(super) const SET: &str = "5f6a3c1e-0000-4000-8000-000000000001";

/// The `ModifyIndex` of every key.
const INDEX: u64 = 100;

/// An instance's UUID, by its number.
pub(super) fn uuid(number: u64) -> String {
    format!("aaaaaaa{number}-0000-4000-8000-000000000000")
}

pub(super) fn name(number: u64) -> String {
    format!("db-{number}.example.net:3301")
}

pub(super) fn party(number: u64) -> Party {
    Party {
        instance: uuid(number),
        name: name(number),
    }
}

pub(super) fn vclock(rows: u64) -> Vclock {
    BTreeMap::from([("1".to_owned(), rows)])
}

/// A master that has served for two hours, instance 1 of three that follow it.
pub(super) fn record() -> Record {
    Record {
        v: Record::VERSION,
        term: Term::from(7),
        instance: uuid(1),
        replicaset: SET.to_owned(),
        name: name(1),
        uri: name(1),
        agent: "agent".to_owned(),
        status: Status::Active,
        lease_ms: 10_000,
        refresh: 42,
        vclock: vclock(1_000),
        members: vec![uuid(1), uuid(2), uuid(3)],
        since: NOW - 7_300,
        since_ms: 0,
        reason: "the one before was stopped by SIGTERM".to_owned(),
        cause: Cause::Released,
        base: vclock(10),
        following: vec![uuid(2), uuid(3)],
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

/// The lag behind instance 1, whose rows arrive.
pub(super) fn behind(rows: u64, ms: u64) -> Behind {
    Behind {
        of: uuid(1),
        rows,
        ms,
        arrival: Arrival::Arriving,
    }
}

pub(super) fn member(number: u64) -> Member {
    let following = BTreeMap::from([(uuid(1), "follow".to_owned())]);
    Member {
        v: VERSION,
        instance: uuid(number),
        replicaset: SET.to_owned(),
        name: name(number),
        uri: name(number),
        role: if number == 1 { "master" } else { "replica" }.to_owned(),
        health: "passing".to_owned(),
        reason: "following the master".to_owned(),
        cut_off: None,
        term: Term::from(7),
        lease_ms: 10_000,
        dead: false,
        shared: BTreeMap::new(),
        problems: Vec::new(),
        priority: 0,
        vclock: vclock(1_000),
        behind: (number != 1).then(|| behind(0, 0)),
        upstreams: following,
        unfollowed: false,
        anonymous: false,
        fingerprint: None,
        vshard: None,
        paused: false,
        stands_down: false,
        service: Some(ServiceRef {
            id: format!("tarantool@{}", name(number)),
            names: vec![
                "tarantool-master".to_owned(),
                "tarantool-replica".to_owned(),
            ],
        }),
        written: NOW - 3 * number,
        written_ms: 0,
        tarantool_version: "2.6.0".to_owned(),
        tarsec_version: "0.1.0".to_owned(),
    }
}

/// A ballot for the election that is on.
pub(super) fn ballot(number: u64) -> Ballot {
    Ballot {
        v: VERSION,
        instance: uuid(number),
        name: name(number),
        term: Term::from(8),
        index: INDEX,
        vclock: vclock(1_000),
        following: true,
        priority: 0,
        idle_ms: 0,
        same_configuration: true,
        unfollowed: false,
        excluded: None,
        vote: Some(true),
    }
}

pub(super) fn pause() -> Pause {
    Pause {
        by: "anna@ops1".to_owned(),
        at: NOW - 300,
        at_ms: 0,
        why: "moving racks".to_owned(),
        cluster: false,
    }
}

pub(super) fn switchover(state: SwitchoverState) -> Switchover {
    Switchover {
        id: "request".to_owned(),
        target: Some(uuid(2)),
        by: "anna@ops1".to_owned(),
        at: NOW - 1,
        catch_up_ms: 2_000,
        state,
        ..Switchover::nothing()
    }
}

pub(super) fn line(term: Term) -> HistoryLine {
    HistoryLine {
        v: VERSION,
        term,
        at: NOW - 7_300,
        at_ms: (NOW - 7_300) * 1000 + 123,
        cause: Cause::TakenOver,
        reason: "not heard of for a lease".to_owned(),
        ended: None,
        by: None,
        outage: None,
        from: Some(party(2)),
        to: party(1),
        rows_at_risk: 12,
        risk_known: None,
        last_word_age_ms: None,
        rate_rows_per_s: None,
        last_refresh: None,
        vclock: vclock(10),
        returned: None,
        interruptions: Vec::new(),
        stages_ms: Stages {
            elected: 3,
            acquired: 9,
            promoted: 21,
        },
    }
}

/// The keys of one cluster, and what was seen of its locks.
#[derive(Default)]
pub(super) struct Keys {
    found: Vec<Found>,
    signs: Signs,
}

impl Keys {
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// Three members, the first of which is master and was just seen.
    pub(super) fn healthy() -> Self {
        Self::none()
            .lock(&record())
            .member(&member(1))
            .member(&member(2))
            .member(&member(3))
            .seen(Duration::from_millis(400))
    }

    pub(super) fn put(mut self, key: &str, value: &[u8], session: Option<&str>) -> Self {
        let key = format!("tarsec/shop/{key}");
        self.found.retain(|entry| entry.key != key);
        self.found.push(Found {
            key,
            modify_index: INDEX,
            session: session.map(SessionId::new),
            value: value.to_vec(),
        });
        self
    }

    fn json(self, key: &str, value: &impl serde::Serialize) -> Self {
        self.put(
            &format!("{SET}/{key}"),
            &serde_json::to_vec(value).unwrap(),
            None,
        )
    }

    /// The lock, held under this record.
    pub(super) fn lock(self, record: &Record) -> Self {
        let key = format!("{}/leader", record.replicaset);
        self.put(&key, &record.to_bytes(), Some("session"))
    }

    pub(super) fn free_lock(self, record: &Record) -> Self {
        let key = format!("{}/leader", record.replicaset);
        self.put(&key, &record.to_bytes(), None)
    }

    pub(super) fn member(self, member: &Member) -> Self {
        let key = format!("{}/members/{}", member.replicaset, member.instance);
        self.put(&key, &serde_json::to_vec(member).unwrap(), None)
    }

    pub(super) fn waiting(self, agent: &str, word: &WaitingKey) -> Self {
        let key = format!("waiting/{agent}");
        self.put(&key, &serde_json::to_vec(word).unwrap(), None)
    }

    pub(super) fn router(self, router: &RouterKey) -> Self {
        let key = format!("routers/{}", router.instance);
        self.put(&key, &serde_json::to_vec(router).unwrap(), None)
    }

    pub(super) fn ballot(self, ballot: &Ballot) -> Self {
        self.json(&format!("ballots/{}", ballot.instance), ballot)
    }

    pub(super) fn pause(self, pause: &Pause) -> Self {
        self.json("pause", pause)
    }

    pub(super) fn cluster_pause(self, pause: &Pause) -> Self {
        self.put("pause", &serde_json::to_vec(pause).unwrap(), None)
    }

    pub(super) fn switchover(self, order: &Switchover) -> Self {
        self.json("switchover", order)
    }

    pub(super) fn line(self, line: &HistoryLine) -> Self {
        self.json(&format!("history/{}", line.term), line)
    }

    /// The lock was looked at for two seconds, and has changed so long ago.
    pub(super) fn seen(self, ago: Duration) -> Self {
        self.looked(Duration::from_secs(2), Some(ago))
    }

    pub(super) fn looked(mut self, watched: Duration, changed_ago: Option<Duration>) -> Self {
        for entry in &self.found {
            if entry.key.ends_with("/leader") {
                let sign = Sign {
                    watched,
                    changed_ago,
                };
                self.signs.insert(entry.key.clone(), sign);
            }
        }
        self
    }

    pub(super) fn view(&self) -> ClusterView {
        let keys = ClusterKeys::new("tarsec", "shop", None);
        build::cluster(&keys, &self.found, &self.signs, NOW * 1000)
    }
}
