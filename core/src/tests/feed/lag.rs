//! How far behind the master a replica says that it is.

use super::*;
use crate::event::Event;
use crate::lag::{Arrival, Behind};
use crate::timing::Tick;

impl Node {
    fn behind(&self) -> Behind {
        let behind = self.state.behind(self.now);
        behind.expect("it was looked at after a word of the master")
    }

    fn says_lag(&mut self, peer: usize, lag_s: f64) {
        let upstream = self.instance.replication[peer].upstream.as_mut();
        upstream.expect("it has one").lag_s = Some(lag_s);
    }

    /// So many seconds, in each of which the master writes ten rows that arrive; returns when the member's key was written.
    fn is_written_to(&mut self, seconds: u64, rows: u64) -> Vec<Tick> {
        let mut written = vec![self.state.catalog.member_written_at];
        for second in 1..=seconds {
            self.instance.vclock = vclock(rows + 10 * second);
            self.lives_beside_master(1, rows + 10 * second - 5);
            written.push(self.state.catalog.member_written_at);
        }
        written.dedup();
        written
    }
}

#[test]
fn a_replica_at_which_everything_arrives_is_behind_by_nothing() {
    let mut node = fed();
    node.says_lag(0, 0.004);
    let written = node.is_written_to(25, 10);
    assert_eq!(
        node.behind(),
        Behind {
            of: OTHER.to_owned(),
            rows: 0,
            ms: 0,
            arrival: Arrival::Arriving
        }
    );
    // That rows are written is news to Consul once in MEMBER_INTERVAL.
    assert!(written.len() <= 4, "{written:?}");
    assert_eq!(node.own_key().behind, Some(node.behind()));
}

#[test]
fn an_idle_replica_writes_its_key_no_more() {
    for lag_s in [0.0, 0.03, -5.0, 30.0] {
        let mut node = fed();
        node.lives_beside_master(11, 10);
        let written_at = node.state.catalog.member_written_at;
        for second in 0..60_u32 {
            node.says_lag(0, lag_s + f64::from(second % 3) * 0.04);
            node.lives_beside_master(1, 10);
        }
        assert_eq!(node.state.catalog.member_written_at, written_at, "{lag_s}");
        assert_eq!((node.behind().rows, node.behind().ms), (0, 0));
    }
}

/// Rows that the master wrote after the replica had been looked at are missing there by no fault of its own.
#[test]
fn rows_count_from_a_look_that_came_after_the_word_that_has_them() {
    let mut node = fed();
    node.lives_beside_master(2, 10);
    node.instance.vclock = vclock(1_000);
    node.refreshed(1_000);
    assert_eq!(node.behind().rows, 0);
    // An answer that was under way when the word came.
    node.passes(1.secs());
    let asked = node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    node.instance.vclock = vclock(1_001);
    let answer = node.carries_out(&asked).expect("it answers");
    node.refreshed(2_000);
    node.hears(answer);
    assert_eq!(node.behind().rows, 0);
    node.lives_on(2.secs());
    assert_eq!(node.behind().rows, 999);
}

#[test]
fn a_stopped_applier_lacks_more_rows_for_a_longer_time() {
    let mut node = fed();
    let written_at = node.state.catalog.member_written_at;
    node.stops();
    node.lives_beside_master(3, 110);
    let soon = node.behind();
    assert_eq!((soon.arrival, soon.rows), (Arrival::Stopped, 100));
    assert!((1_500..=3_000).contains(&soon.ms), "{soon:?}");
    // That it has stopped is news.
    let key = node.own_key().behind.expect("it is known");
    assert_eq!(key.arrival, Arrival::Stopped);
    assert!(node.state.catalog.member_written_at > written_at);
    node.lives_beside_master(20, 910);
    let later = node.behind();
    assert_eq!((later.arrival, later.rows), (Arrival::Stopped, 900));
    assert!((21_500..=23_000).contains(&later.ms), "{later:?}");
    let key = node.own_key().behind.expect("it is known");
    assert!(key.ms + 10_000 >= later.ms && key.rows == 900, "{key:?}");
}

#[test]
fn a_replica_that_is_connected_to_nobody_says_so_though_it_lacks_nothing() {
    let mut node = fed();
    for peer in 0..2 {
        node.replicates(peer, "disconnected", None);
    }
    node.lives_beside_master(5, 10);
    let behind = node.behind();
    assert_eq!((behind.arrival, behind.rows), (Arrival::Disconnected, 0));
    assert!(behind.ms >= 3_500, "{behind:?}");
}

#[test]
fn rows_that_stand_still_are_on_their_way_for_a_moment_only() {
    let mut node = fed();
    node.lives_beside_master(1, 20);
    let moment = node.behind();
    assert_eq!((moment.arrival, moment.rows), (Arrival::Arriving, 10));
    node.lives_beside_master(4, 20);
    let behind = node.behind();
    assert_eq!((behind.arrival, behind.rows), (Arrival::Stalled, 10));
    assert!(behind.ms >= 3_000, "{behind:?}");
}

/// It has at each moment what the master had five seconds before.
#[test]
fn a_slow_replica_is_as_late_as_the_oldest_word_that_it_lacks_rows_of() {
    let mut node = fed();
    let mut written = Vec::new();
    for second in 0..30 {
        node.instance.vclock = vclock(10 + second * 10);
        node.lives_beside_master(1, 60 + second * 10);
        written.push(node.state.catalog.member_written_at);
    }
    // That the figures differ each second is news once in MEMBER_INTERVAL.
    written.dedup();
    assert!(written.len() <= 5, "{written:?}");
    let behind = node.behind();
    assert_eq!((behind.arrival, behind.rows), (Arrival::Arriving, 50));
    assert!((3_500..=5_500).contains(&behind.ms), "{behind:?}");
}

/// The clocks of two machines may differ: Tarantool's own figure counts within what the words prove.
#[test]
fn a_clock_that_is_wrong_makes_no_lag() {
    for (lag_s, bounds) in [(0.7, 0..=700), (30.0, 0..=1_000), (-30.0, 0..=0)] {
        let mut node = fed();
        node.says_lag(0, lag_s);
        node.is_written_to(5, 10);
        let behind = node.behind();
        assert_eq!((behind.arrival, behind.rows), (Arrival::Arriving, 0));
        assert!(bounds.contains(&behind.ms), "{lag_s}: {behind:?}");
    }
    let mut node = fed();
    node.says_lag(0, 0.0);
    for second in 0..30 {
        node.instance.vclock = vclock(10 + second * 10);
        node.lives_beside_master(1, 60 + second * 10);
    }
    assert!(node.behind().ms >= 3_500, "{:?}", node.behind());
}

#[test]
fn an_instance_that_does_not_answer_has_no_lag_that_looks_healthy() {
    let mut node = fed();
    node.lives_beside_master(2, 10);
    node.hears(Event::FellSilent);
    for rows in [110, 210, 310, 410] {
        node.refreshed(rows);
        node.passes(1.secs());
    }
    let behind = node.behind();
    assert_eq!((behind.arrival, behind.rows), (Arrival::Silent, 400));
    assert!((4_000..4_500).contains(&behind.ms), "{behind:?}");
}

#[test]
fn without_a_master_elsewhere_nothing_is_known() {
    assert_eq!(master().state.behind(Tick::default()), None);
    let mut node = fed();
    node.lives_beside_master(2, 10);
    node.lock
        .put_record(None, &record().refreshed(99).says(Status::Fenced));
    node.watch_shows_lock();
    assert_eq!(node.state.behind(node.now), None);
    // Another one's rows are others.
    let third = Record {
        vclock: vclock(10),
        ..record().of(THIRD).term(8).refreshed(1)
    };
    node.lock.put_record(Some(SessionId::new("its")), &third);
    node.watch_shows_lock();
    assert_eq!(node.state.behind(node.now), None);
    node.lives_on(2.secs());
    assert_eq!(node.behind().of, THIRD);
}

#[test]
fn words_are_bounded_and_the_oldest_is_kept() {
    let mut node = fed();
    let since = node.now;
    for second in 1..200 {
        // Other rows than those arrive, so that it does not stand still.
        node.instance.vclock.insert("3".to_owned(), second);
        node.lives_beside_master(1, 10 + second);
    }
    let behind = node.behind();
    assert_eq!((behind.arrival, behind.rows), (Arrival::Arriving, 199));
    let all = u64::try_from(node.now.since(since).as_millis()).unwrap();
    assert!(behind.ms + 2_000 >= all, "{behind:?} of {all}");
    let words = node.state.instance.feed.as_ref().unwrap().lag.words();
    assert!(words <= 16, "{words}");
}
