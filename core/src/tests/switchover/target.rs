//! What the target of a switchover does.

use super::*;

/// A replica, and the master's record names it.
fn named() -> Node {
    let mut node = replica();
    let mut named = record();
    named.handover_to = Some(OWN.to_owned());
    node.lock
        .put_record(Some(SessionId::new("theirs")), &named.refreshed(41));
    node.watch_shows_lock();
    node
}

#[test]
fn the_target_has_its_session_before_the_lock_is_free() {
    let mut node = named();
    node.settles();
    assert!(node.state.session.remembered);
    assert_eq!(
        node.instance.guard.session,
        Some(node.own_session().to_string())
    );
    let ballot = node.lock.ballots.get(OWN).expect("a ballot");
    assert_eq!((ballot.term.get(), ballot.excluded.clone()), (7, None));
    assert_eq!(ballot.index, node.lock.watch_index());
    // And keeps it while it is named.
    node.lives_on(3.secs());
    assert!(node.state.session.id.is_some());
}

#[test]
fn a_target_that_cannot_run_says_so_at_once() {
    let mut node = named();
    node.state.settings.priority = Some(-1);
    node.settles();
    let ballot = node.lock.ballots.get(OWN).expect("a ballot");
    assert_eq!(ballot.excluded.as_deref(), Some("PRIORITY is -1"));
    assert_eq!(node.state.session.id, None);
}

#[test]
fn a_target_that_is_silent_for_a_moment_says_neither_yes_nor_no() {
    let mut node = named();
    node.hears(Event::FellSilent);
    node.settles();
    assert!(node.lock.ballots.is_empty());
    node.hears(Event::SpokeAgain);
    node.settles();
    assert_eq!(node.lock.ballots.get(OWN).expect("a ballot").excluded, None);
}

#[test]
fn a_session_made_for_nothing_is_removed() {
    let mut node = named();
    node.settles();
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().refreshed(42));
    node.watch_shows_lock();
    node.settles();
    assert_eq!(node.state.session.id, None);
    let sessions = node.lock.sessions.len();
    assert_eq!(sessions, 0);
}

#[test]
fn a_restarted_heir_of_a_switchover_still_says_that_it_is_done() {
    let mut node = master();
    let mut own = node.lock.record().unwrap();
    own.cause = Cause::Switchover;
    let session = node.own_session();
    node.lock.put_record(Some(session), &own);
    node.lock.order(Switchover {
        state: SwitchoverState::Running,
        ..order(None)
    });
    node.state = crate::state::State::new(settings());
    node.attaches();
    node.watch_shows_lock();
    node.settles();
    node.lives_on(3.secs());
    assert_eq!(node.outcome().0, SwitchoverState::Done);
}
