//! Changes of hands as they are written down, and rows that an ex-master brings back.

use crate::slots::Place;
use crate::term::Term;
use std::collections::BTreeMap;

use super::fixtures::*;
use crate::board::{HistoryLine, Party, Returned, Stages, VERSION};
use crate::ending::Known;
use crate::event::Event;
use crate::ids::SessionId;
use crate::plan::{Action, GuardCommand};
use crate::record::{Cause, Status};
use crate::sight::ConsulFault;
use crate::state::State;
use crate::vclock::Vclock;

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
pub(super) fn line(term: u32, from: &str, to: &str, vclock: Vclock) -> HistoryLine {
    HistoryLine {
        v: VERSION,
        term: Term::from(term),
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
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
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
                lock.history.insert(line.term.get(), line.clone());
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
    assert!(!node.state.pending.is_busy(Place::History));
}

#[test]
fn a_reign_that_was_counted_is_not_counted_again() {
    let mut done = line(8, OWN, OTHER, vclock(40, 4));
    done.returned = Some(Returned {
        at: 1,
        at_ms: 1_500,
        rows: 3,
        known: None,
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

#[test]
fn a_term_that_was_over_before_its_line_was_written_has_one_all_the_same() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.is_killed();
    node.lives_on(2.secs());
    assert!(!node.state.holds_lock());
    let line = node.lock.history.get(&7).expect("a line");
    assert_eq!((line.term.get(), line.to.instance.as_str()), (7, OWN));
    assert!(node.state.past.untold.is_empty());
    node.lock.history.clear();
    node.lives_on(5.secs());
    assert!(node.lock.history.is_empty(), "once is enough");
}

#[test]
fn the_line_of_a_term_that_is_over_is_not_in_the_way_of_the_next_one() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.is_killed();
    node.passes(1.secs());
    let release = node.comes_to(|action| matches!(action, Action::Release { .. }));
    node.answers(&release);
    for _ in 0..8 {
        let plan = node.round();
        assert!(!plan.actions.iter().any(is_history), "{:?}", plan.actions);
    }
    node.passes(300.ms());
    node.settles();
    assert!(node.lock.history.contains_key(&7));
}

#[test]
fn a_term_that_another_one_ended_has_its_line() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(8));
    node.watch_shows_lock();
    node.lives_on(2.secs());
    assert!(node.lock.history.contains_key(&7));
}

#[test]
fn an_instance_that_died_before_its_record_said_active_was_master_all_the_same() {
    let mut node = node().attached().seeing_lock();
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.answers(&promote);
    node.is_killed();
    node.lives_on(2.secs());
    assert!(!node.state.holds_lock());
    let line = node.lock.history.get(&7).expect("a line");
    assert_eq!(line.to.instance, OWN);
}

#[test]
fn a_term_without_a_promotion_has_no_line() {
    let mut node = node().attached().seeing_lock();
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.loses(&promote);
    node.is_killed();
    node.lives_on(2.secs());
    assert!(!node.state.holds_lock());
    assert!(node.lock.history.is_empty());
}

#[test]
fn a_look_at_the_history_does_not_keep_a_new_master_from_writing_its_line() {
    let mut node = node()
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record().term(8));
        })
        .attached()
        .seeing_lock();
    let read = node.comes_to(|action| matches!(action, Action::ReadHistory));
    node.lock
        .put_record(None, &record().term(8).says(Status::Fenced));
    node.watch_shows_lock();
    node.answers(&read);
    node.settles();
    assert!(node.state.is_serving());
    assert!(node.lock.history.contains_key(&9), "no second has passed");
}

#[test]
fn an_agent_that_stops_writes_the_line_of_its_last_term_first() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.is_asked_to_stop();
    let once_more = node.comes_to(is_history);
    node.lives_on(1.secs());
    assert!(!does!(node.plan(), Action::Exit { .. }));
    node.answers(&once_more);
    assert!(node.lock.history.contains_key(&7));
    assert!(does!(node.settles(), Action::Exit { .. }));
}

#[test]
fn an_agent_that_stops_does_not_wait_for_its_line_for_ever() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.is_asked_to_stop();
    for _ in 0..100 {
        let plan = node.round_losing(is_history);
        if does!(plan, Action::Exit { .. }) {
            return;
        }
        node.passes(500.ms());
    }
    panic!("it does not stop: {:?}", node.plan());
}

#[test]
fn an_agent_that_stops_does_not_wait_for_a_line_that_it_may_not_write() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.is_asked_to_stop();
    let once_more = node.comes_to(is_history);
    let denied = ConsulFault {
        denied: true,
        ..fault()
    };
    assert!(matches!(once_more, Action::WriteHistory { .. }));
    node.hears(Event::HistoryWritten {
        term: Term::from(7),
        result: Err(denied),
    });
    assert!(does!(node.settles(), Action::Exit { .. }));
}

#[test]
fn an_agent_that_ends_for_its_instance_writes_the_line_of_its_last_term_first() {
    let mut node = node().attached().seeing_lock();
    let write = node.comes_to(is_history);
    node.loses(&write);
    node.hears(Event::Unsuitable {
        why: "a story".to_owned(),
    });
    for _ in 0..100 {
        let plan = node.round();
        if does!(plan, Action::Exit { .. }) {
            assert!(node.lock.history.contains_key(&7));
            return;
        }
        node.passes(250.ms());
        node.watch_shows_lock();
    }
    panic!("it does not end: {:?}", node.plan());
}

#[test]
fn rows_of_a_later_term_of_its_own_are_not_charged_to_an_earlier_one() {
    let mut node = master();
    node.instance.vclock = vclock(57, 4);
    node.lives_on(2.secs());
    // The reign before: the line of the one after it, which is counted no more, has fewer rows of its.
    node.lock.history.clear();
    let old = line(5, OWN, OTHER, vclock(40, 4));
    node.lock.history.insert(5, old);
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(9));
    let newer = line(9, OTHER, "third", vclock(57, 4));
    node.lock.history.insert(9, newer);
    node.watch_shows_lock();
    node.lives_on(20.secs());
    assert_eq!(counted(&node, 5), None);
    assert_eq!(counted(&node, 9), None);
}

#[test]
fn the_line_of_its_own_successor_is_waited_for_though_later_ones_are_there() {
    let mut node = master();
    node.instance.vclock = vclock(57, 4);
    node.lives_on(2.secs());
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(9));
    let newer = line(9, OTHER, "third", vclock(57, 4));
    node.lock.history.insert(9, newer);
    node.watch_shows_lock();
    node.lives_on(3.secs());
    let late = line(8, OWN, OTHER, vclock(40, 4));
    node.lock.history.insert(8, late);
    node.lives_on(2.secs());
    assert_eq!(counted(&node, 8), Some(17));
}

#[test]
fn a_master_that_said_its_very_last_word_brings_back_no_more_than_that() {
    let mut exact = line(6, OWN, OTHER, vclock(40, 4));
    exact.risk_known = Some(Known::Exact);
    exact.rows_at_risk = 2;
    // The terms 7 and 8 were its own and another's, and both of their agents died before they wrote a line.
    let later = line(8, "third", OTHER, vclock(57, 4));
    let node = returning(&[exact, later], 57);
    assert_eq!(counted(&node, 6), Some(2));
}

#[test]
fn what_may_have_been_written_in_a_term_without_a_line_is_not_called_exact() {
    let known = |lines: &[HistoryLine]| {
        let node = returning(lines, 57);
        let line = node.lock.history.get(&6).expect("a line");
        let back = line.returned.clone().expect("it is back");
        (back.rows, back.known)
    };
    let ended = line(6, OWN, OTHER, vclock(40, 4));
    let (seventh, eighth) = (
        line(7, OTHER, "third", vclock(40, 9)),
        line(8, "third", OTHER, vclock(40, 9)),
    );
    assert_eq!(
        known(&[ended.clone(), eighth.clone()]),
        (17, Some(Known::AtMost))
    );
    assert_eq!(known(&[ended, seventh, eighth]), (17, None));
}

#[test]
fn a_master_again_counts_what_it_had_when_it_became_it() {
    let ended = line(6, OWN, OTHER, vclock(40, 4));
    let mut node = node()
        .finding(|lock| {
            lock.history.insert(6, ended);
        })
        .having(|instance| instance.vclock = vclock(57, 4))
        .attached()
        .seeing_lock();
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.answers(&promote);
    node.instance.vclock = vclock(99, 4);
    node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    node.lives_on(3.secs());
    assert_eq!(counted(&node, 6), Some(17));
    assert_eq!(counted(&node, 7), None);
}

/// Of an instance that was master of term 6 when it was killed with its agent, and is so again in term 7.
fn master_after_itself(own: u64, said: u64) -> HistoryLine {
    let mut before = record().of(OWN);
    before.vclock = vclock(said, 4);
    before.rate_rows_per_s = Some(100);
    let mut node = node()
        .finding(|lock| {
            lock.put_record(None, &before.clone().refreshed(39));
        })
        .having(|instance| instance.vclock = vclock(own, 4))
        .attached()
        .seeing_lock();
    node.lock.put_record(None, &before);
    node.watch_shows_lock();
    node.lives_on(15.secs());
    node.lock.history.get(&7).expect("a line").clone()
}

#[test]
fn a_master_that_follows_itself_has_its_own_rows() {
    let line = master_after_itself(57, 40);
    assert!(line.is_same_master(), "{line:?}");
    assert_eq!(
        (line.rows_at_risk, line.risk_known),
        (0, Some(Known::Exact))
    );
    assert_eq!(line.estimate_rows(), None);
}

#[test]
fn a_master_that_follows_itself_with_older_files_lacks_rows_all_the_same() {
    let line = master_after_itself(30, 40);
    assert_eq!(
        (line.rows_at_risk, line.risk_known),
        (10, Some(Known::AtLeast))
    );
    assert!(line.estimate_rows().is_some(), "{line:?}");
}
