//! Which terms are believed, and of whom.

use super::fixtures::*;
use crate::decide::board::{Member, parse};
use crate::decide::record::{Record, Status};

/// An agent that finds no lock key, and members' keys that mention this term, has taken the lock.
fn after_hearing_of(term: u64) -> Node {
    let mut node = node().finding(|lock| {
        lock.delete_key();
        lock.members_term = term;
    });
    node.attaches();
    node.watch_shows_lock();
    node.takes_lock();
    node.settles();
    node
}

/// Anybody who may write a key can write such a term, and no lock protects a member's key.
#[test]
fn a_term_that_nobody_can_have_counted_to_is_not_believed() {
    for term in [Record::MAX_FIRST_TERM, Record::MAX_TERM - 1] {
        let node = after_hearing_of(term);
        assert_eq!(node.lock.record().expect("a record").term, 1, "{term}");
    }
    let member = |term: u64| {
        format!(
            r#"{{"v":1,"instance":"i","replicaset":"r","name":"n","uri":"u","role":"replica","term":{term},"lease_ms":1}}"#
        )
    };
    let reads = |term: u64| parse::<Member>(member(term).as_bytes()).is_some();
    assert!(reads(Record::MAX_TERM - 1));
    assert!(!reads(Record::MAX_TERM));
    assert!(!reads(u64::MAX));
}

/// The highest that is believed leaves room: hands change on.
#[test]
fn after_the_highest_term_that_is_believed_terms_go_on() {
    let node = after_hearing_of(Record::MAX_FIRST_TERM - 1);
    let record = node.lock.record().expect("a record that can be read");
    assert_eq!(record.term, Record::MAX_FIRST_TERM);
}

/// Whoever may write the lock key may say there what they like; the master says its own again, and nobody remembers it.
#[test]
fn a_term_or_a_refresh_that_a_hand_wrote_into_the_lock_is_no_end() {
    for (term, refresh) in [
        (Record::MAX_TERM - 1, 1),
        (7, u64::MAX),
        (6, u64::MAX),
        (7 + Record::MAX_TERMS_AHEAD, 40),
    ] {
        let mut node = replica();
        node.lock.put_record(None, &record().says(Status::Fenced));
        node.watch_shows_lock();
        node.settles();
        node.lives_on(3.secs());
        let mut node = node.serving();
        let own = node.lock.record().expect("its own");
        let mut false_one = own.clone();
        (false_one.term, false_one.refresh) = (term, refresh);
        let holder = node.lock.holder().cloned();
        node.lock.put_record(holder, &false_one);
        node.watch_shows_lock();
        node.lives_on(8.secs());
        assert!(
            node.state.highest_term < 100,
            "{term}: {}",
            node.state.highest_term
        );
        let last = node.lock.record().expect("a record that can be read");
        assert!(last.term < 100 && last.refresh < 1000, "{last:?}");
    }
}
