//! R1: writable only under a lease that rests on a clock reading taken before an accepted write was sent.

use super::fixtures::*;
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::Status;
use crate::term::Term;

fn is_acquire(action: &Action) -> bool {
    matches!(action, Action::Acquire { .. })
}

fn is_promote(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Promote { .. }))
}

fn is_refresh(action: &Action) -> bool {
    matches!(action, Action::Refresh { .. })
}

#[test]
fn is_not_promoted_before_consul_has_accepted_its_record() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    for _ in 0..20 {
        node.passes(100.ms());
        assert!(!does!(
            node.turn(),
            Action::Guard(GuardCommand::Promote { .. })
        ));
    }
    node.loses(&acquire);
    assert!(!does!(
        node.turn(),
        Action::Guard(GuardCommand::Promote { .. })
    ));
}

#[test]
fn the_lease_counts_from_the_clock_read_before_the_record_was_sent() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    let clock_when_sent = node.instance.clock(node.now);
    node.passes(700.ms());
    node.answers(&acquire);
    let (term, deadline) =
        part!(node.plan(), Action::Guard(GuardCommand::Promote { term, deadline, .. }) => (*term, *deadline))
            .expect("a promotion");
    assert_eq!(term.get(), 7);
    assert!(deadline <= clock_when_sent + LEASE, "{deadline:?}");
}

#[test]
fn the_longer_lease_counts_from_the_clock_read_before_the_refresh_was_sent() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    let clock_when_sent = node.instance.clock(node.now);
    node.passes(400.ms());
    node.answers(&refresh);
    let deadline =
        part!(node.turn(), Action::Guard(GuardCommand::Grant { deadline, .. }) => *deadline)
            .expect("a grant");
    assert!(deadline <= clock_when_sent + LEASE);
    assert!(deadline > node.instance.guard.deadline);
}

#[test]
fn a_quarter_of_the_lease_after_a_refresh_it_reads_the_clock_and_refreshes() {
    let mut node = master();
    node.lives_on(1.secs());
    assert_eq!(node.plan().reason, Reason::Serving);
    let due_at = node.state.hold.accepted_at + LEASE / 4;
    assert!(node.plan().wake_at.expect("a timer") <= due_at);
    node.now = due_at;
    let plan = node.turn();
    assert!(
        does!(plan, Action::Guard(GuardCommand::Probe)) && !does!(plan, Action::Refresh { .. })
    );
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert!(does!(node.turn(), Action::Refresh { .. }));
}

#[test]
fn without_an_answer_from_the_instance_nothing_is_refreshed() {
    let mut node = master().later(2400.ms());
    node.freezes();
    for _ in 0..50 {
        node.passes(100.ms());
        let plan = node.turn();
        assert!(!does!(
            plan,
            Action::Refresh { .. } | Action::Guard(GuardCommand::Grant { .. })
        ));
        for action in &plan.actions {
            node.answers(action);
        }
    }
}

#[test]
fn a_lost_refresh_lengthens_nothing_until_it_is_found_in_the_key() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    let reading = part!(node.plan(), Action::Refresh { attempt, .. } => attempt.reading);
    assert_eq!(reading, None, "one step at the lock at a time");
    let sent_with = node
        .state
        .hold
        .attempted
        .clone()
        .expect("an attempt")
        .attempt
        .reading;
    node.loses_reply(&refresh);
    assert!(!does!(
        node.plan(),
        Action::Guard(GuardCommand::Grant { .. })
    ));
    node.watch_shows_lock();
    let granted =
        part!(node.plan(), Action::Guard(GuardCommand::Grant { deadline, .. }) => *deadline);
    assert_eq!(granted, Some(sent_with.t0 + LEASE));
}

#[test]
fn a_refresh_that_never_arrived_lengthens_nothing() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    node.loses(&refresh);
    node.watch_shows_lock();
    assert!(!does!(
        node.plan(),
        Action::Guard(GuardCommand::Grant { .. })
    ));
}

#[test]
fn a_refused_refresh_lengthens_nothing() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(is_refresh);
    let session = node.own_session();
    node.lock.end_session(&session);
    node.answers(&refresh);
    assert!(!does!(
        node.plan(),
        Action::Guard(GuardCommand::Grant { .. })
    ));
    assert!(does!(node.plan(), Action::RenewSession { .. }));
}

#[test]
fn a_lease_half_gone_is_not_worth_a_promotion() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.loses(&promote);
    node.passes(LEASE / 2);
    node.answers(&Action::Guard(GuardCommand::Probe));
    let next = node.runs_until(|action| is_promote(action) || is_refresh(action));
    assert!(is_refresh(&next), "{next:?}");
}

#[test]
fn a_promotion_that_the_guard_refused_is_tried_again_after_a_pause() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.instance.guard.term = Term::from(8);
    node.answers(&promote);
    assert!(!node.instance.is_writable());
    assert!(!does!(
        node.turn(),
        Action::Guard(GuardCommand::Promote { .. })
    ));
    assert!(node.state.instance.guard_refused.is_some());
}

#[test]
fn a_holder_whose_guard_has_seen_a_higher_term_goes_above_it_and_waits() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.instance.guard.term = Term::from(8);
    node.answers(&promote);
    node.settles();
    let record = node.lock.record().expect("a record");
    assert_eq!((record.term.get(), record.status), (9, Status::Promoting));
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPredecessor { until } if until.since(node.now) > LEASE
    ));
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(!node.instance.is_writable());
    node.lives_on(1500.ms());
    assert_eq!(node.serving().instance.guard.term.get(), 9);
}

#[test]
fn a_lease_for_another_term_than_the_lock_is_ended() {
    let mut node = master();
    node.instance.guard.term = Term::from(5);
    node.passes(1.secs());
    node.settles();
    node.attaches();
    node.round();
    assert_eq!(
        node.instance.guard.last_fence.as_deref(),
        Some("its lease is for another term than the lock")
    );
}

#[test]
fn the_record_says_active_as_soon_as_the_instance_is_writable() {
    let node = master();
    let record = node.lock.record().expect("a record");
    assert_eq!(record.status, Status::Active);
    assert_eq!((record.term.get(), record.instance.as_str()), (7, OWN));
    assert_eq!(record.lease(), LEASE);
}

#[test]
fn a_master_stays_master_for_a_minute_of_nothing_but_refreshes() {
    let mut node = master();
    let refresh = node.lock.record().expect("a record").refresh;
    for _ in 0..240 {
        node.passes(250.ms());
        node.settles();
        assert!(node.instance.is_writable());
    }
    let record = node.lock.record().expect("a record");
    assert_eq!(record.term.get(), 7);
    assert!((20..=30).contains(&(record.refresh - refresh)));
}

#[test]
fn without_consul_a_master_serves_until_its_lease_ends_and_not_longer() {
    let mut node = master();
    for _ in 0..96 {
        node.passes(100.ms());
        for action in node.turn().actions {
            if action.guard_command_kind().is_some() {
                node.answers(&action);
            } else {
                node.loses(&action);
            }
        }
    }
    assert!(matches!(
        node.plan().reason,
        Reason::ServingWithoutConsul { .. }
    ));
    assert!(node.instance.is_writable());
    node.passes(500.ms());
    assert!(!node.instance.is_writable());
}

/// A rolling restart of the agents with a smaller `MASTER_LEASE`: what the old agent granted runs on.
#[test]
fn a_shorter_lease_is_not_announced_while_a_longer_one_still_runs() {
    let mut node = master();
    node.state = crate::state::State::new(settings());
    node.state.settings.timing = timing(2.secs());
    node.attaches();
    node.watch_shows_lock();
    let refresh = node.runs_until(is_refresh);
    let left = node.instance.lease_left(node.now).expect("a lease");
    assert!(left > 9.secs());
    node.answers(&refresh);
    let announced = node.lock.record().expect("a record").lease();
    assert!(
        announced >= left,
        "others wait {announced:?} and the instance stays writable for {left:?}"
    );
}
