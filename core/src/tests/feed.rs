//! A replica at which nothing of the master's rows arrives says so, and its check turns critical.

use super::fixtures::*;
use super::toys::follower;
use crate::board::Member;
use crate::ids::SessionId;
use crate::plan::{Action, GuardCommand, Health};
use crate::record::{Record, Status};
use crate::vclock::Vclock;
use std::collections::BTreeMap;

mod lag;

const THIRD: &str = "instance-third";
const DUPLICATE: &str = "Duplicate key exists in unique index 'pk'";

fn vclock(rows: u64) -> Vclock {
    BTreeMap::from([("1".to_owned(), rows)])
}

/// Follows the other instance and a third one, and has all ten rows.
fn fed() -> Node {
    let peers = vec![follower(OTHER), follower(THIRD)];
    let mut node = replica().having(|instance| instance.replication = peers);
    node.refreshed(10);
    node.lives_on(2.secs());
    assert_eq!(node.catalog().health, Health::Passing);
    node
}

impl Node {
    /// The master's record comes, with so many rows.
    fn refreshed(&mut self, rows: u64) {
        let last = self.lock.record().map_or(40, |record| record.refresh);
        let record = Record {
            vclock: vclock(rows),
            ..record().refreshed(last + 1)
        };
        self.lock
            .put_record(Some(SessionId::new("theirs")), &record);
        self.watch_shows_lock();
    }

    /// So many seconds, in which the master refreshes its lock and the instance is probed.
    fn lives_beside_master(&mut self, seconds: u64, rows: u64) {
        for _ in 0..seconds {
            self.refreshed(rows);
            self.lives_on(1.secs());
        }
    }

    fn replicates(&mut self, peer: usize, status: &str, message: Option<&str>) {
        let upstream = self.instance.replication[peer].upstream.as_mut();
        let upstream = upstream.expect("it has one");
        status.clone_into(&mut upstream.status);
        upstream.message = message.map(str::to_owned);
    }

    fn stops(&mut self) {
        for peer in 0..2 {
            self.replicates(peer, "stopped", Some(DUPLICATE));
        }
    }

    fn own_key(&self) -> Member {
        self.state.catalog.member.clone().expect("it is written")
    }

    #[track_caller]
    fn assert_health(&self, health: Health, words: &str) {
        let entry = self.catalog();
        assert_eq!(entry.health, health, "{}", entry.output);
        assert!(entry.output.contains(words), "{}", entry.output);
    }
}

#[test]
fn a_stopped_applier_is_said_at_once_and_critical_after_replica_max_idle_in_its_own_words() {
    let mut node = fed();
    node.stops();
    node.lives_beside_master(3, 10);
    let words = format!("replication from 10.0.0.2:3301 has stopped: {DUPLICATE}");
    node.assert_health(Health::Passing, &words);
    assert_eq!(node.own_key().cut_off, None);
    node.lives_beside_master(4, 10);
    node.assert_health(Health::Critical, &words);
    assert_eq!(node.own_key().cut_off, Some(words));
}

#[test]
fn it_passes_again_as_soon_as_its_rows_arrive() {
    let mut node = fed();
    node.stops();
    node.lives_beside_master(7, 10);
    for peer in 0..2 {
        node.replicates(peer, "follow", None);
    }
    node.answers(&Action::Guard(GuardCommand::Probe));
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Passing);
    assert!(!entry.output.contains("replication"), "{}", entry.output);
    node.settles();
    assert_eq!(node.own_key().cut_off, None);
}

/// Its key says that it is healthy all the same, for elections wait for the healthy: it may have acknowledged rows that
/// nobody else has.
#[test]
fn nothing_is_said_against_it_as_a_candidate() {
    let mut node = fed();
    node.stops();
    node.lives_beside_master(7, 10);
    assert_eq!(node.catalog().health, Health::Critical);
    assert_eq!(node.own_key().health, "passing");
    let fenced = record().refreshed(99).says(Status::Fenced);
    node.lock.put_record(None, &fenced);
    node.watch_shows_lock();
    node.settles();
    assert!(node.instance.is_writable(), "{:?}", node.plan().reason);
    assert_eq!(node.catalog().health, Health::Passing);
}

#[test]
fn without_any_upstream_it_is_critical_though_there_is_nothing_to_read() {
    let mut node = fed();
    for peer in &mut node.instance.replication {
        peer.upstream = None;
    }
    node.lives_beside_master(7, 10);
    node.assert_health(Health::Critical, "does not replicate from 10.0.0.2:3301");
}

#[test]
fn rows_that_come_by_way_of_another_member_are_rows() {
    let mut node = fed();
    node.instance.replication[0].upstream = None;
    for rows in 10..25 {
        node.instance.vclock = vclock(rows);
        node.lives_beside_master(1, rows);
    }
    node.assert_health(Health::Passing, "does not replicate from 10.0.0.2:3301");
    // That other one gets nothing itself.
    node.lives_beside_master(7, 30);
    node.assert_health(Health::Critical, "does not replicate from 10.0.0.2:3301");
}

#[test]
fn a_replica_that_follows_and_whose_rows_stand_still_is_critical() {
    let mut node = fed();
    node.lives_beside_master(3, 20);
    let said = node.catalog();
    assert_eq!(said.health, Health::Passing);
    assert!(!said.output.contains("arrive"), "{}", said.output);
    node.lives_beside_master(4, 20);
    node.assert_health(Health::Critical, "rows that it has do not arrive");
}

/// Being behind is `MAX_LAG_ROWS`' business.
#[test]
fn a_replica_that_catches_up_passes_however_far_behind_it_is() {
    let mut node = fed();
    for rows in 10..25 {
        node.instance.vclock = vclock(rows);
        node.lives_beside_master(1, 1_000);
    }
    assert_eq!(node.catalog().health, Health::Passing);
}

#[test]
fn without_a_word_of_the_master_it_stays_as_it_was() {
    for broken in [false, true] {
        let mut node = fed();
        node.stops();
        if broken {
            node.lives_beside_master(7, 10);
        }
        // Nothing was written since its last word, for all that is known.
        node.lives_on(7.secs());
        assert!(!node.state.holds_lock());
        let critical = node.catalog().health == Health::Critical;
        assert_eq!(critical, broken);
    }
}

#[test]
fn another_master_has_the_whole_time_to_be_followed_but_is_no_mending() {
    for broken in [false, true] {
        let mut node = fed();
        node.stops();
        node.lives_beside_master(if broken { 7 } else { 3 }, 10);
        let free = record().refreshed(90).says(Status::Fenced);
        node.state.settings.priority = Some(-1);
        node.lock.put_record(None, &free);
        node.watch_shows_lock();
        node.lives_on(1.secs());
        for second in 0..4 {
            let third = record().of(THIRD).term(7).refreshed(second);
            node.lock.put_record(Some(SessionId::new("its")), &third);
            node.watch_shows_lock();
            node.lives_on(1.secs());
            let critical = node.catalog().health == Health::Critical;
            assert_eq!(critical, broken, "{second}");
        }
    }
}

#[test]
fn a_setting_of_zero_says_it_and_leaves_it_passing() {
    let mut node = fed().with(|settings| settings.replica_max_idle = 0.secs());
    node.stops();
    node.lives_beside_master(30, 10);
    node.assert_health(Health::Passing, DUPLICATE);
}

/// Tarantool names another port and descriptor with each try, and no error between two of them.
#[test]
fn a_message_that_differs_in_numbers_alone_is_no_news_to_consul() {
    let mut node = fed();
    let tries = [
        Some("connect, called on fd 23, aka 127.0.0.1:42342: Connection refused"),
        None,
        Some("connect, called on fd 24, aka 127.0.0.1:42399: Connection refused"),
    ];
    let mut said = Vec::new();
    for message in tries {
        for peer in 0..2 {
            node.replicates(peer, "disconnected", message);
        }
        node.answers(&Action::Guard(GuardCommand::Probe));
        said.push(node.catalog().output);
    }
    assert!(said[0].contains("fd 23"), "{said:?}");
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    node.stops();
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.assert_health(Health::Passing, DUPLICATE);
}

#[test]
fn a_master_is_fed_by_nobody() {
    let mut node = master().having(|instance| {
        instance.replication = vec![follower(OTHER)];
        instance.replication[0].upstream = None;
    });
    node.lives_on(20.secs());
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Passing);
    assert_eq!(entry.output, "master: writable, the lease is running");
    assert_eq!(node.state.instance.feed, None);
}
