//! What is known of the lock: answers out of order, lost replies, counters.

use super::fixtures::*;
use crate::event::{Event, LockStepKind};
use crate::ids::SessionId;
use crate::plan::{Action, Reason};
use crate::record::Status;
use crate::sight::{ConsulFault, LockSight};
use crate::slots::Place;
use crate::timing::Tick;

fn is_acquire(action: &Action) -> bool {
    matches!(action, Action::Acquire { .. })
}

fn is_refresh(action: &Action) -> bool {
    matches!(action, Action::Refresh { .. })
}

fn read(asked_at: Tick, by_watch: bool, sight: LockSight) -> Event {
    Event::LockRead {
        asked_at,
        by_watch,
        result: Ok(sight),
    }
}

#[test]
fn an_answer_from_before_the_last_step_is_no_news() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    let (before, asked_at) = (node.lock.sight(), node.now);
    node.answers(&acquire);
    assert!(node.state.holds_lock());
    node.hears(read(asked_at, true, before));
    assert!(node.state.holds_lock());
}

#[test]
fn an_answer_with_a_higher_index_is_news_whenever_it_was_asked_for() {
    let mut node = master();
    let long_ago = Tick::at(1.secs());
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(8));
    node.hears(read(long_ago, true, node.lock.sight()));
    assert!(!node.state.holds_lock());
}

#[test]
fn an_answer_asked_for_later_is_news_though_its_index_went_back() {
    // Consul's data was restored from a snapshot.
    let mut node = master();
    node.lock.index = 0;
    node.lock.put_record(None, &record().says(Status::Fenced));
    assert!(node.lock.sight().index < node.state.lock.sight.as_ref().unwrap().index);
    node.watch_shows_lock();
    assert!(!node.state.holds_lock());
}

#[test]
fn what_the_watch_saw_before_a_step_under_way_does_not_undo_it() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    let (before, asked_at) = (node.lock.sight(), node.now);
    let _ = node.carries_out(&refresh);
    let attempted = node.state.hold.attempted.clone();
    node.hears(read(asked_at, true, before));
    assert_eq!(node.state.hold.attempted, attempted);
    assert!(
        node.state.pending.is_busy(Place::Lock),
        "a watch ends no step"
    );
}

#[test]
fn the_watch_sees_the_write_before_its_reply_comes_and_the_reply_still_counts() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    let reply = node.carries_out(&refresh).unwrap();
    let attempted = node.state.hold.attempted.clone().unwrap();
    node.watch_shows_lock();
    assert_eq!(node.state.hold.reading, Some(attempted.attempt.reading));
    assert!(
        node.state.pending.is_busy(Place::Lock),
        "a watch ends no step"
    );
    node.hears(reply);
    assert!(!node.state.pending.is_busy(Place::Lock));
    assert_eq!(node.state.hold.reading, Some(attempted.attempt.reading));
}

#[test]
fn a_reply_that_comes_after_news_of_a_later_change_does_not_bring_the_old_sight_back() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    let reply = node.carries_out(&refresh).unwrap();
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(8));
    node.watch_shows_lock();
    assert!(!node.state.holds_lock());
    node.hears(reply);
    assert!(!node.state.holds_lock(), "{:?}", node.state.lock.sight);
}

#[test]
fn a_lost_acquisition_is_found_by_the_next_read() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    node.loses_reply(&acquire);
    assert!(!node.state.holds_lock() && node.state.lock.outdated);
    assert!(
        !does!(node.turn(), Action::Acquire { .. } | Action::ReadLock),
        "after a pause"
    );
    node.passes(200.ms());
    assert!(does!(node.turn(), Action::ReadLock));
    node.answers(&Action::ReadLock);
    assert!(node.state.holds_lock() && !node.state.lock.outdated);
    node.settles();
    assert_eq!(node.serving().instance.guard.term.get(), 7);
}

#[test]
fn an_acquisition_that_never_arrived_is_made_again() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    node.loses(&acquire);
    node.lives_on(1.secs());
    assert_eq!(node.serving().instance.guard.term.get(), 7);
}

#[test]
fn somebody_elses_record_is_not_mistaken_for_a_lost_write() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    node.loses(&acquire);
    node.lock.put_record(
        Some(SessionId::new("theirs")),
        &record().term(7).refreshed(41),
    );
    node.watch_shows_lock();
    assert!(node.state.hold.record.is_none() && node.state.hold.reading.is_none());
}

#[test]
fn a_failed_read_is_not_a_free_lock() {
    let mut node = replica();
    node.watch_fails();
    node.passes(60.secs());
    assert!(!does!(
        node.plan(),
        Action::CreateSession | Action::Acquire { .. }
    ));
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
}

#[test]
fn counters_never_repeat_whatever_becomes_of_the_writes() {
    let mut node = master();
    let mut sent = vec![node.state.hold.refresh_sent];
    for round in 0..40 {
        let write = node.comes_to(|action| is_refresh(action) || is_acquire(action));
        let (Action::Refresh { attempt, .. } | Action::Acquire { attempt, .. }) = &write else {
            unreachable!()
        };
        let refresh = attempt.record.refresh;
        assert!(
            sent.iter().all(|earlier| *earlier < refresh),
            "{refresh} after {sent:?}"
        );
        sent.push(refresh);
        match round % 4 {
            0 => node.answers(&write),
            1 => node.loses(&write),
            2 => node.loses_reply(&write),
            _ => {
                node.loses_reply(&write);
                node.watch_shows_lock();
            }
        }
    }
}

/// A write of this agent may still be on its way to Consul: a second one that looks like it would be taken for it.
#[test]
fn adopting_a_hold_does_not_let_the_counter_go_back() {
    let mut node = node();
    let session = node.lock.create_session(node.now);
    node.instance.guard.session = Some(session.to_string());
    node.lock.put(Some(session), "overwritten");
    let mut node = node.attached().seeing_lock();
    let mut first = None;
    let mut highest = 0;
    for _ in 0..30 {
        let write = node.runs_until(is_refresh);
        let Action::Refresh { attempt, .. } = &write else {
            unreachable!()
        };
        highest = attempt.record.refresh;
        first = first.or(Some(attempt.record.clone()));
        node.loses(&write);
        node.passes(250.ms());
    }
    let session = node.own_session();
    node.lock
        .put_record(Some(session), &first.expect("a write"));
    node.watch_shows_lock();
    let next = node.runs_until(is_refresh);
    let Action::Refresh { attempt, .. } = next else {
        unreachable!()
    };
    assert!(
        attempt.record.refresh > highest,
        "{} after {highest}",
        attempt.record.refresh
    );
}

#[test]
fn a_refused_refresh_is_followed_by_a_look_at_the_lock_not_by_another_refresh() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    // An operator deleted the key; the session lives, and the watch is in its pause after a failure.
    node.lock.delete_key();
    node.answers(&refresh);
    let mut refused = 0;
    for _ in 0..16 {
        let plan = node.turn();
        if does!(plan, Action::ReadLock) {
            assert_eq!(refused, 0);
            return;
        }
        node.passes(20.ms());
        refused += usize::from(does!(plan, Action::Refresh { .. }));
        for action in &plan.actions {
            node.answers(action);
        }
    }
    panic!("{refused} refreshes refused in {:?}", node.plan().reason);
}

#[test]
fn a_refused_release_is_followed_by_a_look_at_the_lock_not_by_another_release() {
    let mut node = master();
    node.is_asked_to_stop();
    let release = node.runs_until(|action| matches!(action, Action::Release { .. }));
    node.loses_reply(&release);
    node.passes(200.ms());
    let mut refused = 0;
    for _ in 0..16 {
        let plan = node.turn();
        if does!(plan, Action::ReadLock) {
            return;
        }
        refused += usize::from(does!(plan, Action::Release { .. }));
        for action in &plan.actions {
            node.answers(action);
        }
    }
    panic!("{refused} releases refused");
}

#[test]
fn a_session_that_is_gone_is_forgotten_and_the_lock_read_again() {
    let mut node = master().later(8.secs());
    node.lock.sessions.clear();
    let renew = node.runs_until(|action| matches!(action, Action::RenewSession { .. }));
    node.answers(&renew);
    assert_eq!(node.state.session.id, None);
    assert!(does!(node.turn(), Action::ReadLock));
}

#[test]
fn word_of_another_session_changes_nothing() {
    let mut node = master();
    let session = node.state.session.id.clone();
    node.hears(Event::SessionRenewed {
        session: SessionId::new("an older one"),
        result: Ok(false),
    });
    assert_eq!(node.state.session.id, session);
}

#[test]
fn a_session_call_that_failed_is_made_again_after_a_pause() {
    let mut node = node().attached().seeing_lock();
    let create = node.runs_until(|action| matches!(action, Action::CreateSession));
    node.loses(&create);
    assert!(!does!(node.turn(), Action::CreateSession));
    assert!(node.plan().wake_at.is_some());
    node.passes(200.ms());
    assert!(does!(node.turn(), Action::CreateSession));
}

#[test]
fn a_fault_is_forgotten_with_the_next_answer() {
    let mut node = replica();
    node.watch_fails();
    assert!(node.state.consul_fault.is_some() && node.state.lock.unreadable);
    node.watch_shows_lock();
    assert!(node.state.consul_fault.is_none() && !node.state.lock.unreadable);
}

/// Measured on 1.8.7: a server that has just become leader answers 404 to a renewal before it has read its log.
#[test]
fn a_session_that_consul_denies_and_the_key_shows_is_kept() {
    let mut node = master().later(1.secs());
    let session = node.own_session();
    for _ in 0..3 {
        node.state.session.doubted = true;
        let renewal = node.comes_to(|action| matches!(action, Action::RenewSession { .. }));
        assert_eq!(
            renewal,
            Action::RenewSession {
                session: session.clone()
            }
        );
        node.hears(Event::SessionRenewed {
            session: session.clone(),
            result: Ok(false),
        });
    }
    node.lives_on(3.secs());
    assert_eq!(node.lock.holder(), Some(&session));
    assert!(node.state.holds_lock() && node.state.is_serving());
    assert_eq!(node.lock.record().map(|record| record.term.get()), Some(7));
}

#[test]
fn a_session_that_is_gone_is_replaced_within_the_lease() {
    let mut node = master().later(1.secs());
    let session = node.own_session();
    node.lock.end_session(&session);
    node.state.session.doubted = true;
    node.lives_on(1.secs());
    assert!(node.state.holds_lock() && node.state.is_serving());
    assert_ne!(node.own_session(), session);
}

#[test]
fn one_call_at_a_time_in_each_place() {
    let mut node = master().later(2500.ms());
    let _refresh = node.runs_until(is_refresh);
    for _ in 0..10 {
        node.passes(100.ms());
        assert!(!does!(
            node.turn(),
            Action::Refresh { .. }
                | Action::ReadLock
                | Action::Acquire { .. }
                | Action::Release { .. }
        ));
    }
}

fn denied() -> ConsulFault {
    ConsulFault {
        why: "denied".to_owned(),
        denied: true,
    }
}

fn is_denied(node: &Node) -> bool {
    node.plan().reason
        == Reason::WaitingForConsul {
            why: "denied".to_owned(),
        }
}

/// Reads succeed in between, and say nothing about what may be written.
#[test]
fn a_denial_is_the_reason_until_a_newer_failure() {
    let is_create = |action: &Action| matches!(action, Action::CreateSession);
    let mut node = node().attached().seeing_lock();
    node.runs_until(is_create);
    let failed = |fault| Event::SessionCreated { result: Err(fault) };
    node.hears(failed(denied()));
    node.watch_shows_lock();
    assert!(is_denied(&node));
    node.comes_to(is_create);
    node.hears(failed(fault()));
    node.watch_shows_lock();
    assert!(!is_denied(&node), "{:?}", node.plan().reason);
}

#[test]
fn so_it_is_at_the_lock_and_until_an_answer() {
    let failed = |result| Event::LockStepEnded {
        step: LockStepKind::Acquire,
        result,
    };
    for newer in [Err(fault()), Ok(Err("somebody was first".to_owned()))] {
        let mut node = node().attached().seeing_lock();
        node.runs_until(is_acquire);
        node.hears(failed(Err(denied())));
        node.watch_shows_lock();
        assert!(is_denied(&node));
        node.comes_to(is_acquire);
        node.hears(failed(newer));
        node.watch_shows_lock();
        assert!(!is_denied(&node), "{:?}", node.plan().reason);
    }
}
