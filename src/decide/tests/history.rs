//! Changes of hands as they are written down, and rows that an ex-master brings back.

use std::collections::BTreeMap;

use super::fixtures::*;
use crate::decide::board::{Cause, HistoryLine, Party, Returned, Stages, VERSION};
use crate::decide::event::Event;
use crate::decide::ids::SessionId;
use crate::decide::plan::Action;
use crate::decide::record::{Status, Vclock};
use crate::decide::state::State;

fn vclock(one: u64, two: u64) -> Vclock {
    BTreeMap::from([("1".to_owned(), one), ("2".to_owned(), two)])
}

fn party(instance: &str) -> Party {
    Party {
        instance: instance.to_owned(),
        name: format!("{instance}:3301"),
    }
}

/// The change of hands in which `from` lost to `to`, which had `vclock`.
pub(super) fn line(term: u64, from: &str, to: &str, vclock: Vclock) -> HistoryLine {
    HistoryLine {
        v: VERSION,
        term,
        at: 0,
        at_ms: 0,
        cause: Cause::Released,
        reason: String::new(),
        ended: None,
        by: None,
        outage: None,
        from: Some(party(from)),
        to: party(to),
        rows_at_risk: 0,
        risk_known: None,
        last_word_age_ms: None,
        rate_rows_per_s: None,
        last_refresh: None,
        vclock,
        returned: None,
        interruptions: Vec::new(),
        stages_ms: Stages::default(),
    }
}

fn is_history(action: &Action) -> bool {
    matches!(action, Action::WriteHistory { .. } | Action::ReadHistory)
}

#[test]
fn a_new_master_writes_down_whom_it_followed_and_what_it_lacked() {
    let mut before = record().says(Status::Fenced);
    before.vclock = vclock(3, 25);
    before.reason = "the instance died: it is a zombie".to_owned();
    let mut node = node()
        .finding(|lock| {
            lock.put_record(None, &before);
        })
        .having(|instance| instance.vclock = vclock(3, 20))
        .attached()
        .seeing_lock();
    let promote = node.comes_to(|action| matches!(action, Action::Promote { .. }));
    let mut answer = node.carries_out(&promote).expect("an answer");
    // Rows that come between the promotion and its answer were not there when it became master.
    node.instance.vclock = vclock(99, 23);
    if let Event::GuardAnswered { probe, .. } = &mut answer {
        probe.vclock.clone_from(&node.instance.vclock);
    }
    node.hears(answer);
    node.settles();
    let line = node.lock.history.get(&7).expect("a line");
    assert_eq!(
        line.from,
        Some(Party {
            instance: OTHER.to_owned(),
            name: "10.0.0.2:3301".to_owned()
        })
    );
    assert_eq!(line.to.instance, OWN);
    assert_eq!(line.rows_at_risk, 5);
    assert_eq!(line.vclock, vclock(3, 20));
    assert_eq!(line.reason, "the instance died: it is a zombie");
    assert_eq!(node.lock.record().unwrap().base, vclock(3, 20));
    let stages = line.stages_ms;
    assert!(stages.elected <= stages.acquired && stages.acquired <= stages.promoted);
    assert!(stages.promoted > 0, "{stages:?}");
}

#[test]
fn a_line_that_could_not_be_written_is_written_later_and_once() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.lives_on(1.secs());
    assert!(node.lock.history.contains_key(&7));
    node.lock.history.clear();
    node.lives_on(20.secs());
    assert!(node.lock.history.is_empty(), "once is enough");
}

#[test]
fn its_own_term_taken_again_is_no_change_of_hands() {
    let mut node = master();
    node.lock.history.clear();
    let session = node.own_session();
    node.lock.end_session(&session);
    // As of a Consul that has lost its data and counts from the beginning since.
    node.state.hold.gained.as_mut().unwrap().index = u64::MAX;
    node.watch_shows_lock();
    node.lives_on(3.secs());
    assert!(node.state.is_serving());
    assert!(node.state.hold.gained.as_ref().unwrap().index <= node.lock.index);
    assert!(node.lock.history.is_empty());
}

#[test]
fn an_agent_that_adopts_a_term_writes_nothing() {
    let mut node = master();
    node.lock.history.clear();
    node.state = State::new(settings());
    node.attaches();
    node.watch_shows_lock();
    node.lives_on(3.secs());
    assert!(node.state.is_serving());
    assert!(node.lock.history.is_empty());
}

#[test]
fn the_vclock_at_the_promotion_stays_that_of_the_first_in_its_term() {
    let mut node = master();
    let base = node.lock.record().unwrap().base;
    node.instance.vclock = vclock(50, 0);
    node.is_killed();
    let mut node = master();
    node.instance.vclock = vclock(50, 0);
    node.lives_on(5.secs());
    assert_eq!(node.lock.record().unwrap().base, base);
}

/// A replica in term 8 of the other instance; the history is this.
fn returning(lines: &[HistoryLine], own: u64) -> Node {
    let mut node = node()
        .finding(|lock| {
            let theirs = SessionId::new("theirs");
            lock.put_record(Some(theirs), &record().term(8));
            for line in lines {
                lock.history.insert(line.term, line.clone());
            }
        })
        .having(|instance| instance.vclock = vclock(own, 4))
        .attached()
        .seeing_lock();
    node.lives_on(15.secs());
    node
}

fn counted(node: &Node, term: u64) -> Option<u64> {
    let line = node.lock.history.get(&term)?;
    line.returned.as_ref().map(|back| back.rows)
}

#[test]
fn an_ex_master_counts_the_rows_that_its_successor_did_not_have() {
    let lines = [
        line(7, OTHER, OWN, vclock(10, 4)),
        line(8, OWN, OTHER, vclock(40, 4)),
    ];
    let node = returning(&lines, 57);
    assert_eq!(counted(&node, 8), Some(17));
    assert_eq!(counted(&node, 7), None);
    let known = node.state.past.returned.clone().expect("it is in the dump");
    assert_eq!(known.returned.unwrap().rows, 17);
}

#[test]
fn an_ex_master_without_such_rows_says_so_too() {
    let node = returning(&[line(8, OWN, OTHER, vclock(40, 4))], 40);
    assert_eq!(counted(&node, 8), Some(0));
}

#[test]
fn who_was_never_master_counts_nothing() {
    let node = returning(&[line(8, "third", OTHER, vclock(40, 4))], 40);
    assert_eq!(counted(&node, 8), None);
    assert!(!node.state.pending.history);
}

#[test]
fn a_reign_that_was_counted_is_not_counted_again() {
    let mut done = line(8, OWN, OTHER, vclock(40, 4));
    done.returned = Some(Returned {
        at: 1,
        at_ms: 1_500,
        rows: 3,
    });
    let node = returning(&[line(5, OWN, OTHER, vclock(1, 1)), done], 57);
    assert_eq!(counted(&node, 8), Some(3));
    assert_eq!(counted(&node, 5), None);
}

#[test]
fn an_old_reign_is_not_charged_with_a_later_ones_rows() {
    let lines = [
        line(6, OWN, OTHER, vclock(40, 4)),
        line(7, OTHER, OWN, vclock(40, 9)),
    ];
    let node = returning(&lines, 57);
    assert_eq!(counted(&node, 6), None);
    assert_eq!(counted(&node, 7), None);
}

#[test]
fn the_line_of_the_new_master_is_waited_for() {
    let mut node = returning(&[], 57);
    let mut written = returning(&[line(8, OWN, OTHER, vclock(40, 4))], 57);
    assert_eq!(counted(&written, 8), Some(17));
    written.lives_on(5.secs());
    // Not for ever: each look is a request.
    node.lives_on(30.secs());
    for _ in 0..20 {
        node.passes(1.secs());
        assert!(!node.round().actions.iter().any(is_history));
    }
}

#[test]
fn the_line_of_the_new_master_may_come_late() {
    let mut node = node()
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record().term(8));
        })
        .having(|instance| instance.vclock = vclock(57, 4))
        .attached()
        .seeing_lock();
    node.lives_on(2.secs());
    let late = line(8, OWN, OTHER, vclock(40, 4));
    node.lock.history.insert(8, late);
    node.lives_on(2.secs());
    assert_eq!(counted(&node, 8), Some(17));
}

#[test]
fn an_ex_master_whose_process_lives_counts_as_well() {
    let mut node = master();
    assert_eq!(counts_its_rows(&mut node).rows, 17);
    assert!(!node.instance.is_writable());
}

/// Of a master whose lock another one has in term 8, without 17 of its rows.
pub(super) fn counts_its_rows(node: &mut Node) -> Returned {
    node.instance.vclock = vclock(57, 4);
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(8));
    node.lock
        .history
        .insert(8, line(8, OWN, OTHER, vclock(40, 4)));
    node.watch_shows_lock();
    node.lives_on(3.secs());
    let line = node.lock.history.get(&8).expect("a line");
    line.returned.clone().expect("it is back")
}
