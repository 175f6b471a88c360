//! A restarted agent carries on with what its guard wrote down, and with nothing else.

use super::fixtures::*;
use crate::ids::SessionId;
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::Status;
use crate::slots::Place;
use crate::state::State;

/// The agent of this node is killed and started again.
fn restarted(mut node: Node) -> Node {
    node.state = State::new(node.state.settings.clone());
    node.passes(500.ms());
    node
}

#[test]
fn a_restarted_agent_carries_on_with_the_lock_of_the_session_that_the_guard_wrote_down() {
    let mut node = restarted(master()).attached().seeing_lock();
    assert!(node.state.holds_lock());
    assert!(matches!(node.plan().reason, Reason::Serving));
    for _ in 0..20 {
        let plan = node.turn();
        assert!(!does!(
            plan,
            Action::Guard(GuardCommand::Fence { .. } | GuardCommand::Promote { .. })
        ));
        for action in &plan.actions {
            node.answers(action);
            assert!(node.instance.is_writable());
        }
    }
    assert_eq!(
        node.serving().lock.record().expect("a record").term.get(),
        7
    );
}

#[test]
fn the_order_of_first_words_does_not_matter() {
    let mut node = restarted(master()).seeing_lock();
    assert!(!node.state.holds_lock());
    node.attaches();
    assert!(node.state.holds_lock() && node.state.is_serving());
}

#[test]
fn the_adopted_session_is_asked_after_before_anything_rests_on_it() {
    let node = restarted(master()).attached().seeing_lock();
    assert!(node.state.session.doubted && node.state.session.remembered);
    assert!(does!(node.plan(), Action::RenewSession { .. }));
}

#[test]
fn a_lock_held_with_a_session_that_the_guard_did_not_write_down_is_somebody_elses() {
    let mut node = restarted(master());
    node.instance.guard.session = None;
    let mut node = node.attached().seeing_lock();
    assert!(!node.state.holds_lock());
    node.settles();
    assert!(!node.instance.is_writable());
}

#[test]
fn a_record_of_another_instance_is_not_adopted() {
    let mut node = restarted(master());
    let session = SessionId::new(node.instance.guard.session.clone().unwrap());
    node.lock.put_record(Some(session), &record().term(9));
    let node = node.attached().seeing_lock();
    assert!(node.state.holds_lock() && node.state.hold.record.is_none());
    assert!(!node.state.is_serving());
}

#[test]
fn a_restarted_agent_does_not_promote_on_a_reading_it_never_took() {
    let mut node = restarted(waiting_holder()).attached().seeing_lock();
    assert!(node.state.hold.record.is_some() && node.state.hold.reading.is_none());
    assert!(!does!(
        node.turn(),
        Action::Guard(GuardCommand::Promote { .. } | GuardCommand::Grant { .. })
    ));
}

#[test]
fn a_restarted_agent_that_waited_for_a_predecessor_waits_again() {
    let mut node = restarted(waiting_holder()).attached().seeing_lock();
    let started_at = node.now;
    node.settles();
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(!node.instance.is_writable());
    node.lives_on(2.secs());
    let node = node.serving();
    assert!(node.now.since(started_at) > LEASE_AND_MARGIN);
}

#[test]
fn a_restarted_agent_whose_instance_is_under_an_older_lease_waits_for_the_predecessor_too() {
    let mut node = restarted(master());
    let session = SessionId::new(node.instance.guard.session.clone().unwrap());
    let promoting = record().of(OWN).term(9).says(Status::Promoting);
    node.lock.put_record(Some(session), &promoting);
    let mut node = node.attached().seeing_lock();
    node.settles();
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(
        node.instance.guard.term.get() < 9 || !node.instance.is_writable(),
        "promoted in term 9 without having waited"
    );
}

#[test]
fn the_lease_that_the_guard_reports_is_respected_by_an_agent_that_granted_none() {
    let mut node = restarted(master());
    node.attaches();
    let lease = node.state.instance.lease.expect("a lease");
    let left = node.instance.lease_left(node.now).expect("a lease");
    assert!(lease.over_at.since(node.now) > left);
    assert!(lease.due_at.since(node.now) <= left + 1.ms());
    assert!(node.state.may_be_writable(node.now));
}

#[test]
fn an_instance_that_was_writable_before_there_was_a_guard_counts_as_leased() {
    let mut node = node().having(|instance| {
        instance.ro = false;
        instance.read_only = false;
        instance.guard.landed = false;
    });
    node.attaches();
    assert!(node.state.may_be_writable(node.now) && node.state.may_hold_lease());
}

#[test]
fn a_new_connection_forgets_old_troubles() {
    let mut node = master();
    node.freezes();
    node.instance.frozen = false;
    node.attaches();
    assert!(node.state.instance.silent_since.is_none());
    assert!(node.state.instance.kill_failed.is_none());
    assert!(node.state.pending.retry_at(Place::Guard).is_none());
}

#[test]
fn readings_of_an_instance_that_was_restarted_since_are_not_used() {
    let mut node = master();
    let old = node.state.hold.reading.expect("a reading");
    node.instance.restart(node.now);
    node.instance.ahead = 1.secs();
    node.is_cut_off();
    node.attaches();
    assert_eq!(node.state.hold.reading, None);
    let plan = node.plan();
    assert!(
        !does!(
            plan,
            Action::Guard(GuardCommand::Promote { .. } | GuardCommand::Grant { .. })
        ),
        "{plan:?}"
    );
    node.settles();
    let node = node.serving();
    assert!(
        node.instance.guard.deadline < old.t0,
        "a deadline on the new process's clock"
    );
}

#[test]
fn a_write_that_was_under_way_when_the_instance_was_restarted_grants_nothing_to_the_new_one() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.instance.restart(node.now);
    node.instance.ahead = 1.secs();
    node.attaches();
    node.answers(&refresh);
    assert_eq!(node.state.hold.reading, None);
    assert!(!does!(
        node.plan(),
        Action::Guard(GuardCommand::Promote { .. } | GuardCommand::Grant { .. })
    ));
}

/// The answer was read from the old connection, and its event comes after the new connection's first word.
#[test]
fn an_answer_of_the_process_before_is_not_taken_for_the_new_ones() {
    let mut node = master().later(1.secs());
    let probe = node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    let late_answer = node.carries_out(&probe).unwrap();
    node.instance.restart(node.now);
    node.instance.ahead = 1.secs();
    node.attaches();
    node.hears(late_answer);
    let clock = node.instance.clock(node.now);
    let reading = node.state.instance.reading.expect("a reading");
    assert!(reading.t0 <= clock, "a reading of another process's clock");
}

/// Until then it asks nobody for promises.
#[test]
fn a_restarted_agent_puts_a_record_of_its_own_in_the_lock_at_once() {
    let mut node = restarted(master().with(|settings| settings.agent = "second".to_owned()));
    node = node.attached().seeing_lock();
    // As where the agent's clock has just begun: no refresh is due.
    node.state.hold.accepted_at = node.now;
    node.settles();
    let record = node.lock.record().expect("a record");
    assert_eq!((record.agent.as_str(), record.term.get()), ("second", 7));
    let plan = node.round();
    assert!(!does!(plan, Action::Refresh { .. }), "{plan:?}");
}
