//! R4: a lock that is held and has not been refreshed for a lease is taken over, in one transaction.

use super::election::THIRD;
use super::fixtures::*;
use super::toys::{ToyLock, member};
use super::world::world_with;
use crate::ids::SessionId;
use crate::plan::{Action, Reason};
use crate::record::{Cause, Record, Status};
use crate::settings::Elector;
use crate::timing::Tick;

fn is_take_over(action: &Action) -> bool {
    matches!(action, Action::TakeOver { .. })
}

fn theirs() -> SessionId {
    SessionId::new("theirs")
}

/// A replica that sees `record` in a held lock.
fn under(record: &Record) -> Node {
    node()
        .finding(|lock| {
            lock.sessions.insert(theirs(), Tick::default());
            lock.put_record(Some(theirs()), record);
        })
        .attached()
        .seeing_lock()
        .settled()
}

fn due_at(node: &Node) -> Tick {
    node.state.lock.unchanged.as_ref().expect("a record").since + LEASE_AND_MARGIN
}

#[test]
fn a_holder_that_is_not_heard_of_for_lease_and_margin_loses_the_lock_at_its_index() {
    let mut node = under(&record());
    let due_at = due_at(&node);
    node.lives_on(due_at.since(node.now) - 300.ms());
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
    assert_eq!(node.lock.holder(), Some(&theirs()));
    assert!(node.plan().wake_at.is_some_and(|at| at <= due_at));
    node.is_watched(due_at.since(node.now));
    let look = node.turn();
    assert!(
        does!(look, Action::ReadLock),
        "one look before anything is done"
    );
    assert!(!does!(
        look,
        Action::TakeOver { .. } | Action::CreateSession
    ));
    node.answers(&Action::ReadLock);
    let seen = node.lock.key.as_ref().expect("a key").modify_index;
    let take_over = node.runs_until(is_take_over);
    let Action::TakeOver {
        holder,
        index,
        attempt,
        ..
    } = &take_over
    else {
        unreachable!()
    };
    assert_eq!((holder, *index), (&theirs(), seen));
    assert_eq!(attempt.record.cause, Cause::TakenOver);
    assert_eq!(
        attempt.gain.expect("a gain").wait,
        None,
        "the lease was waited out before"
    );
    node.answers(&take_over);
    node.settles();
    assert_eq!(
        node.serving().lock.record().expect("a record").term.get(),
        7
    );
}

#[test]
fn a_refresh_at_the_last_moment_refuses_it_and_nothing_changes() {
    let mut node = under(&record()).watched(LEASE_AND_MARGIN);
    let take_over = node.runs_until(is_take_over);
    node.lock
        .put_record(Some(theirs()), &record().refreshed(41));
    node.answers(&take_over);
    assert_eq!(node.lock.holder(), Some(&theirs()));
    node.lives_on(2.secs());
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
    assert_eq!(node.lock.record().expect("a record").refresh, 41);
    assert!(
        due_at(&node).since(node.now) > 8.secs(),
        "the count begins anew"
    );
    assert!(!node.instance.is_writable() && node.state.session.id.is_none());
}

#[test]
fn every_refresh_that_is_seen_starts_the_count_anew() {
    let mut node = under(&record());
    for refresh in 41..60 {
        node.lives_on(5.secs());
        node.lock
            .put_record(Some(theirs()), &record().refreshed(refresh));
        node.watch_shows_lock();
        assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
    }
}

#[test]
fn a_consul_that_has_fallen_silent_is_noticed_before_anything_is_taken() {
    let mut node = under(&record()).watched(LEASE_AND_MARGIN);
    let look = node.runs_until(|action| matches!(action, Action::ReadLock));
    node.loses(&look);
    node.passes(60.secs());
    assert!(!does!(
        node.plan(),
        Action::TakeOver { .. } | Action::CreateSession
    ));
    node.watch_shows_lock();
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
    assert!(
        due_at(&node).since(node.now) > LEASE,
        "the old holder has its time"
    );
}

/// It was its turn, and then it slept: Consul may have been away meanwhile, and be back since a moment.
#[test]
fn who_slept_looks_again_before_it_takes_anything_though_the_time_was_over() {
    for held in [true, false] {
        let mut node = under(&record());
        if !held {
            node.lock.end_session(&theirs());
            node.watch_shows_lock();
        }
        node.is_watched(LEASE_AND_MARGIN);
        let look = |action: &Action| matches!(action, Action::ReadLock);
        if held {
            let look = node.runs_until(look);
            node.answers(&look);
        }
        node.passes(6.secs());
        let look = node.runs_until(look);
        node.answers(&look);
        assert!(due_at(&node).since(node.now) > LEASE);
        assert_eq!(node.lock.record(), Some(record()));
    }
}

#[test]
fn nothing_is_taken_while_consul_cannot_be_read_though_it_was_asked_before() {
    let mut node = under(&record()).watched(LEASE_AND_MARGIN);
    let look = node.runs_until(|action| matches!(action, Action::ReadLock));
    node.answers(&look);
    node.watch_fails();
    for _ in 0..20 {
        let plan = node.round();
        assert!(!does!(
            plan,
            Action::TakeOver { .. } | Action::CreateSession
        ));
        node.passes(100.ms());
    }
}

#[test]
fn the_lease_that_is_waited_for_is_the_records() {
    let mut node = under(&record().lease_of(30.secs()));
    node.lives_on(30.secs());
    assert_eq!(node.lock.holder(), Some(&theirs()));
    node.lives_on(1.secs());
    node.serving();
}

#[test]
fn a_lock_held_without_a_record_is_taken_over_and_then_waited_for() {
    let mut node = under(&record());
    node.lock.put(Some(theirs()), "rubbish");
    node.watch_shows_lock();
    node.lives_on(LEASE_AND_MARGIN - 300.ms());
    assert!(matches!(
        node.plan().reason,
        Reason::LockHeldByUnknown { .. }
    ));
    node.lives_on(600.ms());
    assert!(node.state.holds_lock() && !node.instance.is_writable());
    node.lives_on(LEASE_AND_MARGIN);
    assert_eq!(
        node.serving().lock.record().expect("a record").cause,
        Cause::First
    );
}

#[test]
fn a_lock_held_with_a_record_from_a_backup_is_no_word_of_the_last_master() {
    let mut node = under(&record().term(9));
    node.lock.put_record(Some(theirs()), &record().term(4));
    node.watch_shows_lock();
    node.lives_on(LEASE_AND_MARGIN + 300.ms());
    assert!(node.state.holds_lock() && !node.instance.is_writable());
    assert_eq!(node.lock.record().expect("a record").term.get(), 10);
    node.lives_on(LEASE_AND_MARGIN);
    node.serving();
}

#[test]
fn a_record_of_another_version_is_never_taken_over() {
    let mut node = under(&record());
    node.lock.put(Some(theirs()), r#"{"v":2}"#);
    node.watch_shows_lock();
    node.lives_on(60.secs());
    assert_eq!(node.lock.holder(), Some(&theirs()));
}

#[test]
fn a_stranger_that_holds_a_fenced_record_has_a_lease_like_anybody() {
    let mut node = under(&record().says(Status::Fenced));
    node.lives_on(LEASE_AND_MARGIN - 300.ms());
    assert_eq!(node.lock.holder(), Some(&theirs()));
    node.lives_on(600.ms());
    node.serving();
}

#[test]
fn a_holder_whose_guard_stands_down_is_not_succeeded_by_time() {
    let paused = Record {
        paused: true,
        ..record()
    };
    let mut node = under(&paused);
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    assert_eq!(node.lock.holder(), Some(&theirs()));
}

#[test]
fn who_may_not_be_master_takes_nothing_over() {
    let mut node = under(&record()).with(|settings| settings.priority = Some(-1));
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::NotACandidate { .. }));
    assert_eq!(node.lock.holder(), Some(&theirs()));
}

#[test]
fn a_lost_reply_to_a_take_over_is_no_refusal() {
    let mut node = under(&record()).watched(LEASE_AND_MARGIN);
    let take_over = node.runs_until(is_take_over);
    node.loses_reply(&take_over);
    node.passes(200.ms());
    node.settles();
    node.serving();
}

#[test]
fn within_the_cooldown_of_a_failover_nothing_is_taken_by_time() {
    for cause in [Cause::Released, Cause::TakenOver] {
        let since = 1_700_000_000 + 990;
        for held in [true, false] {
            let recent = Record {
                cause,
                since,
                ..record()
            };
            let mut node = under(&recent).with(|settings| settings.failover_cooldown = 60.secs());
            if !held {
                node.lock.end_session(&theirs());
                node.watch_shows_lock();
            }
            node.lives_on(45.secs());
            assert!(matches!(node.plan().reason, Reason::CoolingDown { .. }));
            node.lives_on(6.secs());
            node.serving();
        }
    }
}

#[test]
fn a_cooldown_spares_what_was_no_failover_and_who_proved_itself_over() {
    let since = 1_700_000_000 + 990;
    for record in [
        Record {
            cause: Cause::First,
            since,
            ..record()
        },
        Record {
            cause: Cause::Switchover,
            since,
            ..record()
        },
        Record {
            cause: Cause::TakenOver,
            since,
            ..record().says(Status::Fenced)
        },
    ] {
        let mut node = under(&record).with(|settings| settings.failover_cooldown = 60.secs());
        node.lives_on(LEASE_AND_MARGIN + 500.ms());
        node.serving();
    }
}

#[test]
fn a_masters_clock_that_is_ahead_does_not_lengthen_the_cooldown() {
    let ahead = Record {
        cause: Cause::TakenOver,
        since: 1_800_000_000,
        ..record()
    };
    let mut node = under(&ahead).with(|settings| settings.failover_cooldown = 20.secs());
    node.lives_on(21.secs());
    node.serving();
}

/// However two candidates' steps interleave, the lock is taken over by one of them.
#[test]
fn of_two_that_take_over_at_once_one_does() {
    for seed in 0..40 {
        let mut world = world_with(3, seed * 5 + 1, |settings| {
            settings.elector = Elector::First
        });
        let (master, _) = world.plays_until_master(None);
        world.plays(5.secs());
        world.loses_machine(master);
        let (_, took) = world.plays_until_master(Some(master));
        assert!(took < LEASE_AND_MARGIN + 100.ms(), "{took:?}");
        world.plays(30.secs());
        assert_eq!(world.reigns.len(), 2, "seed {seed}");
    }
}

/// Whoever deletes the record has not made the guard of its writer stand up.
#[test]
fn a_paused_master_is_not_succeeded_when_its_record_is_deleted() {
    let mut node = replica();
    let mut paused = record();
    paused.paused = true;
    node.lock.put_record(None, &paused);
    node.watch_shows_lock();
    node.lock.delete_key();
    for _ in 0..40 {
        node.watch_shows_lock();
        let plan = node.round();
        assert!(!does!(plan, Action::Acquire { .. }), "{plan:?}");
        node.passes(1.secs());
    }
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
}

/// An agent that has just come knows no record; what is left of it is its writer's own key.
/// The last record that it saw was from before the pause.
#[test]
fn a_paused_master_whose_record_was_deleted_is_not_succeeded_by_who_missed_the_word() {
    let mut node = under(&record());
    let mut master = member(OTHER, "b:3301");
    master.stands_down = true;
    node.lock.members.insert(OTHER.to_owned(), master);
    node.lock.delete_key();
    node.watch_shows_lock();
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    assert_eq!(node.lock.holder(), None);
}

/// Its agent took the deleted lock again by a request of before the pause that was carried out late.
#[test]
fn a_record_without_the_word_does_not_outweigh_its_writers_key() {
    let mut node = under(&record());
    let mut master = member(OTHER, "b:3301");
    master.stands_down = true;
    node.lock.members.insert(OTHER.to_owned(), master);
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    node.lock
        .members
        .get_mut(OTHER)
        .expect("its key")
        .stands_down = false;
    node.comes_to(|action| matches!(action, Action::Acquire { .. } | Action::TakeOver { .. }));
}

/// Who wrote it was never promoted, so it does not say who served last.
#[test]
fn a_record_of_a_hold_without_a_promotion_says_nothing_of_other_guards() {
    let mut node = under(&Record {
        status: Status::Promoting,
        ..record()
    });
    let mut master = member(THIRD, "c:3301");
    master.stands_down = true;
    node.lock.members.insert(THIRD.to_owned(), master);
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    node.lock.members.remove(THIRD);
    node.comes_to(|action| matches!(action, Action::Acquire { .. } | Action::TakeOver { .. }));
}

/// Its request for the lock was sent before somebody else was master, and carried out late.
#[test]
fn who_gained_the_lock_without_a_record_is_not_promoted_while_another_guard_may_stand_down() {
    let mut node = node()
        .finding(|lock| lock.delete_key())
        .attached()
        .seeing_lock();
    let acquire = node.comes_to(|action| matches!(action, Action::Acquire { .. }));
    let mut master = member(OTHER, "b:3301");
    master.stands_down = true;
    node.lock.members.insert(OTHER.to_owned(), master);
    node.answers(&acquire);
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    assert!(!node.instance.is_writable());
    node.lock.members.remove(OTHER);
    node.lives_on(5.secs());
    assert!(node.instance.is_writable(), "{:?}", node.plan());
}

/// There is no record, and only the key of this member says that its guard may stand down.
fn is_gone_in_a_pause(lock: &mut ToyLock, instance: &str) {
    lock.delete_key();
    let mut member = member(instance, instance);
    member.stands_down = true;
    lock.members.insert(instance.to_owned(), member);
}

/// Others would hold back for its own old word.
#[test]
fn who_is_no_candidate_takes_back_what_its_key_says_of_a_pause() {
    let mut node = node()
        .with(|settings| settings.priority = Some(-1))
        .finding(|lock| is_gone_in_a_pause(lock, OWN))
        .attached()
        .seeing_lock();
    node.lives_on(5.secs());
    assert!(
        matches!(node.plan().reason, Reason::NotACandidate { .. }),
        "{:?}",
        node.plan()
    );
    assert!(!node.lock.members[OWN].stands_down);
}

#[test]
fn a_paused_master_whose_record_was_deleted_is_not_succeeded_by_a_newcomer() {
    let mut node = node()
        .finding(|lock| is_gone_in_a_pause(lock, OTHER))
        .attached()
        .seeing_lock();
    for _ in 0..40 {
        let plan = node.round();
        assert!(!does!(plan, Action::Acquire { .. }), "{plan:?}");
        node.passes(1.secs());
    }
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    node.lock.members.clear();
    node.comes_to(|action| matches!(action, Action::Acquire { .. }));
}
