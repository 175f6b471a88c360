//! Which terms are believed, and of whom.

use super::fixtures::*;
use crate::decide::board::{Member, parse};
use crate::decide::plan::Action;
use crate::decide::record::Record;

/// An agent that finds no lock key, and members' keys that mention this term, has taken the lock.
fn after_hearing_of(term: u64) -> Node {
    let mut node = node().finding(|lock| {
        lock.delete_key();
        lock.members_term = term;
    });
    node.attaches();
    node.watch_shows_lock();
    let acquire = node.runs_until(|action| matches!(action, Action::Acquire { .. }));
    node.answers(&acquire);
    node.settles();
    node
}

/// Anybody who may write a key can write such a term, and no lock protects a member's key.
#[test]
fn a_term_that_nobody_can_have_counted_to_is_not_believed() {
    for term in [Record::MAX_HEARD_TERM, Record::MAX_TERM - 1] {
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
    let node = after_hearing_of(Record::MAX_HEARD_TERM - 1);
    let record = node.lock.record().expect("a record that can be read");
    assert_eq!(record.term, Record::MAX_HEARD_TERM);
}
