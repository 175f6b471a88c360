//! R3: whoever gains the lock is promoted only when the predecessor's lease is over. Also: who may run, and how.

use super::fixtures::*;
use crate::event::Event;
use crate::ids::SessionId;
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::Status;
use crate::term::Term;

fn is_acquire(action: &Action) -> bool {
    matches!(action, Action::Acquire { .. })
}

fn after(record: &crate::record::Record) -> Node {
    node()
        .finding(|lock| {
            lock.put_record(None, record);
        })
        .attached()
        .seeing_lock()
}

#[test]
fn after_a_fenced_master_the_lock_is_taken_and_the_instance_promoted_at_once() {
    let mut node = after(&record().says(Status::Fenced));
    let started_at = node.now;
    node.settles();
    let node = node.serving();
    assert_eq!(node.instance.guard.term.get(), 7);
    assert!(node.now.since(started_at) < 10.ms());
}

#[test]
fn after_anyone_else_it_waits_for_lease_and_margin_since_the_last_change() {
    for status in [Status::Active, Status::Promoting] {
        let mut node = after(&record().says(status));
        let seen_at = node.now;
        let until = seen_at + LEASE_AND_MARGIN;
        let plan = node.settles();
        assert_eq!(plan.reason, Reason::WaitingForPredecessorLease { until });
        assert!(plan.wake_at.expect("a timer") <= until);
        node.lives_on(LEASE_AND_MARGIN - 300.ms());
        assert!(!node.state.holds_lock());
        node.lives_on(600.ms());
        assert_eq!(node.serving().instance.guard.term.get(), 7);
    }
}

#[test]
fn a_change_of_the_record_starts_the_wait_anew() {
    let mut node = after(&record());
    node.passes(9.secs());
    node.lock.put_record(None, &record().refreshed(41));
    node.watch_shows_lock();
    let until = node.now + LEASE_AND_MARGIN;
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

#[test]
fn seeing_the_same_record_again_does_not_start_the_wait_anew() {
    let mut node = after(&record());
    let until = node.now + LEASE_AND_MARGIN;
    node.is_watched(9.secs());
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

#[test]
fn the_time_in_which_a_holder_was_seen_to_do_nothing_counts() {
    let mut node = replica();
    let until = node.state.lock.unchanged.clone().expect("a record").since + LEASE_AND_MARGIN;
    node.lives_on(4.secs());
    node.lock.put_record(None, &record());
    node.watch_shows_lock();
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

#[test]
fn time_without_consul_does_not_count() {
    let mut node = after(&record());
    node.passes(5.secs());
    node.watch_fails();
    node.passes(5.secs());
    node.watch_shows_lock();
    let until = node.now + LEASE_AND_MARGIN;
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

/// The timing's own bound, as the tests have it.
const UNREAD_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

#[test]
fn a_gap_between_two_answers_that_a_hold_and_a_slow_answer_explain_counts() {
    let mut node = after(&record());
    assert_eq!(node.state.settings.timing.unread_limit(), UNREAD_LIMIT);
    let until = node.now + LEASE_AND_MARGIN;
    for failures in [0, 1, 2] {
        for _ in 0..failures {
            node.watch_fails();
        }
        node.passes(UNREAD_LIMIT - 3.secs() - 10.ms());
        node.watch_shows_lock();
        assert_eq!(
            node.plan().reason,
            Reason::WaitingForPredecessorLease { until },
            "what became of questions without an answer is no matter"
        );
    }
    node.passes(UNREAD_LIMIT + 1.ms());
    node.watch_shows_lock();
    let until = node.now + LEASE_AND_MARGIN;
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

/// A Consul that hangs answers when it goes on, as if nothing had been.
#[test]
fn an_answer_that_came_late_vouches_for_nothing_before_its_question_and_little_behind_it() {
    let mut node = after(&record());
    let asked_at = node.now;
    node.passes(60.secs());
    node.hears(Event::LockRead {
        asked_at,
        by_watch: true,
        result: Ok(node.lock.sight()),
    });
    node.watch_shows_lock();
    let until = node.now + LEASE_AND_MARGIN;
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

/// The watch is held until the holder's refresh; what follows may be cut short by a proxy.
#[test]
fn a_change_vouches_for_the_time_from_when_it_was_heard() {
    let mut node = after(&record());
    let asked_at = node.now;
    node.passes(UNREAD_LIMIT - 1.secs());
    node.lock.put_record(None, &record().refreshed(41));
    node.hears(Event::LockRead {
        asked_at,
        by_watch: true,
        result: Ok(node.lock.sight()),
    });
    let until = node.now + LEASE_AND_MARGIN;
    node.passes(UNREAD_LIMIT - 1.secs());
    node.watch_shows_lock();
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

#[test]
fn a_free_lock_is_not_taken_while_consul_cannot_be_read() {
    for record in [record(), record().says(Status::Fenced)] {
        let mut node = after(&record);
        node.watch_fails();
        node.passes(60.secs());
        let plan = node.plan();
        assert!(
            matches!(plan.reason, Reason::WaitingForConsul { .. }),
            "{plan:?}"
        );
        assert!(does!(plan, Action::ReadLock), "{plan:?}");
        assert!(
            !does!(plan, Action::CreateSession | Action::Acquire { .. }),
            "{plan:?}"
        );
    }
}

#[test]
fn the_wait_is_for_the_predecessors_lease_not_for_ones_own() {
    let node = after(&record().lease_of(30.secs()));
    let until = node.now + 30.secs() + 850.ms();
    assert_eq!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { until }
    );
}

#[test]
fn without_a_key_it_asks_for_the_terms_takes_the_lock_and_waits_a_full_lease() {
    let mut node = node().finding(|lock| {
        lock.delete_key();
        lock.members_term = Term::from(11);
    });
    node.attaches();
    node.watch_shows_lock();
    // The member key is written first, one call there at a time.
    let acquire = node.runs_until(is_acquire);
    assert!(node.state.member_terms.is_some());
    let Action::Acquire { index, .. } = &acquire else {
        unreachable!()
    };
    assert_eq!(*index, None);
    node.answers(&acquire);
    node.settles();
    assert_eq!(node.lock.record().expect("a record").term.get(), 12);
    let Reason::WaitingForPredecessor { until } = node.plan().reason else {
        panic!("{:?}", node.plan().reason)
    };
    assert!(until.since(node.now) > LEASE);
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(!node.instance.is_writable());
    node.lives_on(1500.ms());
    assert_eq!(node.serving().instance.guard.term.get(), 12);
}

#[test]
fn terms_that_cannot_be_read_are_asked_for_again() {
    let mut node = node()
        .finding(|lock| lock.delete_key())
        .attached()
        .seeing_lock();
    let ask = node.runs_until(|action| matches!(action, Action::ReadBoard));
    node.loses(&ask);
    assert!(!does!(
        node.turn(),
        Action::ReadBoard | Action::Acquire { .. }
    ));
    node.passes(200.ms());
    assert!(does!(node.turn(), Action::ReadBoard));
}

#[test]
fn terms_are_asked_for_again_when_the_key_went_missing_again() {
    let mut node = waiting_holder();
    node.watch_shows_lock();
    node.lock.delete_key();
    node.watch_shows_lock();
    assert!(node.state.member_terms.is_none());
    node.is_watched(LEASE_AND_MARGIN);
    let next = node.runs_until(|action| is_acquire(action) || matches!(action, Action::ReadBoard));
    assert_eq!(next, Action::ReadBoard);
}

#[test]
fn while_it_waits_it_refreshes_a_record_that_makes_others_wait_too() {
    let mut node = waiting_holder();
    let first = node.lock.record().expect("a record");
    assert_eq!(first.status, Status::Promoting);
    node.lives_on(6.secs());
    let later = node.lock.record().expect("a record");
    assert!(later.refresh >= first.refresh + 2 && later.status == Status::Promoting);
}

#[test]
fn a_record_written_while_waiting_carries_the_predecessors_longer_lease() {
    let mut node = after(&record().lease_of(30.secs()));
    node.lock.put(None, "overwritten");
    node.watch_shows_lock();
    // It remembers whose lease it was, and lets that one have the lock again.
    node.lives_on(30.secs());
    assert_eq!(node.lock.holder(), None);
    node.lives_on(1.secs());
    let record = node.lock.record().expect("a record");
    assert_eq!((record.instance.as_str(), record.lease()), (OWN, 30.secs()));
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPredecessor { until } if until.since(node.now) > 30.secs()
    ));
}

#[test]
fn a_key_without_a_record_is_taken_at_its_index_and_a_full_lease_passes() {
    for value in [b"{\"v\":1}".to_vec(), b"".to_vec(), vec![b' '; 70_000]] {
        let mut node = node();
        let index = node.lock.put(None, value);
        let mut node = node.attached().seeing_lock();
        let acquire = node.runs_until(is_acquire);
        let Action::Acquire {
            index: at, attempt, ..
        } = &acquire
        else {
            unreachable!()
        };
        assert_eq!(*at, Some(index));
        assert_eq!(attempt.gain.expect("a gain").wait, Some(LEASE_AND_MARGIN));
    }
}

#[test]
fn a_record_of_another_version_is_left_alone() {
    let mut node = node();
    node.lock.put(None, r#"{"v":2,"term":9}"#);
    let mut node = node.attached().seeing_lock();
    node.lives_on(60.secs());
    assert!(matches!(
        node.plan().reason,
        Reason::UnknownRecordVersion { .. }
    ));
    assert!(node.lock.holder().is_none() && !node.instance.is_writable());
}

#[test]
fn a_lost_session_within_the_lease_changes_nothing_but_the_session() {
    let mut node = master();
    let session = node.own_session();
    node.lock.end_session(&session);
    node.watch_shows_lock();
    assert!(!node.state.holds_lock() && node.state.session.doubted);
    for _ in 0..20 {
        let plan = node.turn();
        assert!(!does!(plan, Action::Guard(GuardCommand::Fence { .. })));
        for action in &plan.actions {
            node.answers(action);
            assert!(node.instance.is_writable());
        }
    }
    let node = node.serving();
    assert_eq!(node.lock.record().expect("a record").term.get(), 7);
    assert_ne!(node.own_session(), session);
    assert_eq!(
        node.instance.guard.session.as_deref(),
        Some(node.own_session().as_str())
    );
}

#[test]
fn a_master_whose_lease_ended_takes_its_own_free_lock_again_without_waiting() {
    let mut node = master();
    let session = node.own_session();
    node.passes(LEASE_AND_MARGIN);
    node.lock.end_session(&session);
    node.watch_shows_lock();
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert!(!node.instance.is_writable());
    let started_at = node.now;
    node.settles();
    let node = node.serving();
    assert_eq!(node.instance.guard.term.get(), 7, "nothing changed hands");
    assert!(node.now.since(started_at) < 10.ms());
}

#[test]
fn a_hold_that_never_came_to_announce_itself_is_taken_again_with_a_wait() {
    let mut node = node().attached().seeing_lock();
    let promote =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.answers(&promote);
    let session = node.own_session();
    node.lock.end_session(&session);
    node.passes(LEASE_AND_MARGIN);
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.watch_shows_lock();
    let acquire = node.runs_until(is_acquire);
    let Action::Acquire { attempt, .. } = &acquire else {
        unreachable!()
    };
    assert_eq!(attempt.record.term.get(), 7);
    assert_eq!(attempt.gain.expect("a gain").wait, Some(LEASE_AND_MARGIN));
}

#[test]
fn a_restarted_instance_is_its_own_successor_and_waits_like_any_other() {
    let mut node = master();
    node.lock
        .end_session(&node.state.session.id.clone().unwrap());
    node.instance.restart(node.now);
    node.attaches();
    node.watch_shows_lock();
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { .. }
    ));
}

#[test]
fn a_lock_that_changed_hands_is_the_end_of_a_reign() {
    let mut node = master();
    node.lock.put_record(None, &record().term(8));
    node.watch_shows_lock();
    let plan = node.turn();
    assert!(
        does!(plan, Action::Guard(GuardCommand::Fence { .. }))
            && !does!(plan, Action::Acquire { .. })
    );
    assert!(node.state.hold.record.is_none());
}

#[test]
fn a_lock_held_by_somebody_else_is_the_end_of_a_reign() {
    let mut node = master();
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(8));
    node.watch_shows_lock();
    assert!(does!(
        node.round(),
        Action::Guard(GuardCommand::Fence { .. })
    ));
    node.settles();
    assert!(!node.instance.is_writable());
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
    assert_eq!(
        node.instance.guard.term.get(),
        8,
        "its guard has learnt the higher term"
    );
    assert_eq!(
        node.state.session.id, None,
        "a session without use is removed"
    );
}

#[test]
fn an_unfit_instance_does_not_run() {
    for unfit in [
        |node: &mut Node| node.state.settings.priority = Some(-1),
        |node: &mut Node| {
            node.instance.status = "loading".to_owned();
            node.attaches();
        },
        |node: &mut Node| node.hears(Event::FellSilent),
    ] {
        let mut node = node().attached().seeing_lock();
        unfit(&mut node);
        node.settles();
        assert!(matches!(node.plan().reason, Reason::NotACandidate { .. }));
        assert_eq!(node.lock.holder(), None);
    }
}

#[test]
fn the_session_is_written_down_in_the_guard_before_the_lock_is_taken_with_it() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    let Action::Acquire { session, .. } = &acquire else {
        unreachable!()
    };
    assert_eq!(
        node.instance.guard.session.as_deref(),
        Some(session.as_str())
    );
}

#[test]
fn a_guard_that_did_not_write_the_session_down_is_told_again() {
    let mut node = node().attached().seeing_lock();
    let remember =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Remember { .. })));
    node.loses(&remember);
    assert!(!node.state.session.remembered);
    node.passes(60.ms());
    let plan = node.turn();
    assert!(
        does!(plan, Action::Guard(GuardCommand::Remember { .. }))
            && !does!(plan, Action::Acquire { .. })
    );
}

#[test]
fn a_session_left_unrenewed_is_renewed_before_the_lock_is_taken_with_it() {
    let mut node = after(&record().says(Status::Fenced));
    let remember =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Remember { .. })));
    node.answers(&remember);
    node.passes(8.secs());
    let plan = node.turn();
    assert!(does!(plan, Action::RenewSession { .. }) && !does!(plan, Action::Acquire { .. }));
}

#[test]
fn a_lock_that_somebody_was_faster_at_is_looked_at_again() {
    let mut node = node().attached().seeing_lock();
    let acquire = node.runs_until(is_acquire);
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(7));
    node.answers(&acquire);
    assert_eq!(node.plan().reason, Reason::LookingAgain);
    node.passes(20.ms());
    assert!(does!(node.turn(), Action::ReadLock));
    node.answers(&Action::ReadLock);
    node.settles();
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
}

#[test]
fn a_holder_without_a_readable_record_is_followed_by_nobody() {
    for value in ["rubbish", r#"{"v":9}"#] {
        let mut node = replica();
        node.lock.put(Some(SessionId::new("theirs")), value);
        node.watch_shows_lock();
        assert!(matches!(
            node.plan().reason,
            Reason::LockHeldByUnknown { .. }
        ));
        assert!(!does!(node.plan(), Action::Acquire { .. }));
    }
}

#[test]
fn replication_follows_the_master_only_where_it_is_asked_to() {
    assert_eq!(replica().instance.guard.follows, None);
    let node = node()
        .with(|settings| settings.follow = true)
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record());
        })
        .attached()
        .seeing_lock()
        .settled();
    assert_eq!(
        node.instance.guard.follows.as_deref(),
        Some("10.0.0.2:3301")
    );
    let mut master = master();
    master.state.settings.follow = true;
    master.settles();
    assert_eq!(master.instance.guard.follows.as_deref(), Some(""));
}

#[test]
fn a_master_that_is_not_active_yet_is_not_followed() {
    let node = node()
        .with(|settings| settings.follow = true)
        .finding(|lock| {
            let promoting = record().says(Status::Promoting);
            lock.put_record(Some(SessionId::new("theirs")), &promoting);
        })
        .attached()
        .seeing_lock()
        .settled();
    assert_eq!(node.instance.guard.follows, None);
}

#[test]
fn without_a_word_from_consul_nothing_is_done_at_the_lock() {
    let mut node = node().attached();
    let plan = node.turn();
    assert!(matches!(plan.reason, Reason::WaitingForConsul { .. }));
    assert!(!does!(plan, Action::CreateSession | Action::Acquire { .. }));
    node.watch_fails();
    assert!(
        node.plan()
            .reason
            .to_string()
            .contains("connection refused")
    );
    assert!(!does!(
        node.plan(),
        Action::CreateSession | Action::Acquire { .. }
    ));
}

#[test]
fn without_a_word_from_the_instance_nothing_is_done_at_the_lock() {
    let node = node().seeing_lock();
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForInstance { .. }
    ));
    assert!(node.plan().actions.is_empty());
}

/// Two agents of one instance, the first of which left a write under way: the second's must not look like it.
#[test]
fn a_restarted_agents_first_write_does_not_look_like_one_its_forerunner_left_under_way() {
    let mut first = node().attached().seeing_lock();
    let left_under_way = first.runs_until(is_acquire);
    let mut second = first;
    second.state = crate::state::State::new(settings());
    second.state.settings.agent = "second".to_owned();
    let mut second = second.attached().seeing_lock();
    let acquire = second.runs_until(is_acquire);
    let stamp = |action: &Action| {
        let Action::Acquire { attempt, .. } = action else {
            unreachable!()
        };
        attempt.record.stamp()
    };
    assert_ne!(stamp(&left_under_way), stamp(&acquire));
}
