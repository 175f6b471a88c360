//! R2: the lock is given up only when the instance is known read-only, known dead, or past its lease.

use std::time::Duration;

use super::fixtures::*;
use super::toys::follower;
use crate::event::{Event, KillResult};
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::{Record, Status};
use crate::vclock::Vclock;

fn is_release(action: &Action) -> bool {
    matches!(action, Action::Release { .. })
}

/// Whoever reads the reason has to mend what is wrong now; the proof stands for the release all the same.
#[test]
fn a_death_does_not_hide_why_the_next_process_cannot_be_attached() {
    let mut node = master();
    node.is_killed();
    let words = |node: &Node| node.plan().reason.to_string();
    for why in ["Incorrect password", "it is being bootstrapped"] {
        node.hears(Event::Unreachable {
            why: why.to_owned(),
        });
        assert!(!node.state.may_be_writable(node.now), "{why}");
        let release = node.runs_until(is_release);
        node.loses(&release);
        node.passes(1.secs());
    }
    node.settles();
    assert!(!node.state.holds_lock());
    assert_eq!(node.lock.record().map(|it| it.status), Some(Status::Fenced));
    let said = words(&node);
    assert!(
        said.contains("it is being bootstrapped") && said.contains("is dead"),
        "{said}"
    );
    assert!(!said.contains("Incorrect password"), "{said}");
}

fn is_promote(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Promote { .. }))
}

fn is_fence(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Fence { .. }))
}

fn released(node: &Node) -> Option<Record> {
    part!(node.plan(), Action::Release { record, .. } => (**record).clone())
}

#[test]
fn the_lock_of_a_dead_master_is_released_at_once_as_fenced() {
    let mut node = master();
    node.is_killed();
    assert_eq!(released(&node).expect("a release").status, Status::Fenced);
    assert!(matches!(node.plan().reason, Reason::InstanceDied { .. }));
    node.settles();
    let record = node.lock.record().expect("a record");
    assert_eq!((record.status, record.term.get()), (Status::Fenced, 7));
    assert_eq!(node.lock.holder(), None);
}

/// It may have acknowledged something, and others go by that.
#[test]
fn the_last_word_says_that_it_was_promoted_though_no_other_word_of_it_arrived() {
    let mut node = node()
        .having(|instance| instance.vclock = Vclock::from([("1".to_owned(), 10)]))
        .attached()
        .seeing_lock();
    let promote = node.runs_until(is_promote);
    node.answers(&promote);
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.loses(&refresh);
    assert!(!node.lock.record().expect("a record").was_promoted());
    node.is_killed();
    node.lives_on(1.secs());
    let last_word = node.lock.record().expect("a record");
    assert_eq!(last_word.status, Status::Fenced);
    assert!(last_word.was_promoted());
}

/// Who has come back since it was last heard would not be among them, and nobody would wait for that one's ballot.
/// Neither as active nor before its fence: it is no master any more when it gives the lock up.
#[test]
fn the_last_word_of_one_that_stops_says_that_it_was_promoted() {
    let mut node = node()
        .having(|instance| instance.vclock = Vclock::from([("1".to_owned(), 10)]))
        .attached()
        .seeing_lock();
    let promote = node.runs_until(is_promote);
    node.answers(&promote);
    node.is_asked_to_stop();
    let fence = node.runs_until(is_fence);
    node.answers(&fence);
    node.settles();
    let last_word = node.lock.record().expect("a record");
    assert_eq!(last_word.status, Status::Fenced);
    assert!(last_word.was_promoted());
}

#[test]
fn the_last_word_names_nobody_that_followed_where_the_instance_was_not_heard_lately() {
    for (cut_off, named) in [(Duration::ZERO, vec![OTHER]), (2100.ms(), vec![])] {
        let mut node = master().having(|instance| instance.replication = vec![follower(OTHER)]);
        node.answers(&Action::Guard(GuardCommand::Probe));
        node.is_cut_off();
        node.passes(cut_off);
        node.is_killed();
        assert_eq!(released(&node).expect("a release").following, named);
    }
}

/// The agent that replaced us adopted our session, and what it has handed to the guard since nobody here knows.
#[test]
fn the_lock_is_not_released_over_the_word_of_the_agent_that_replaced_us() {
    let mut node = master();
    let session = node.own_session();
    let mut record = node.lock.record().expect("a record");
    record.agent = "second".to_owned();
    record.refresh += 1;
    node.lock.put_record(Some(session), &record);
    node.watch_shows_lock();
    node.is_killed();
    node.settles();
    assert_eq!(node.lock.record(), Some(record));
    assert!(node.lock.holder().is_some());
}

/// What we know of the guard is from before that agent attached, however short a time ago.
#[test]
fn nothing_is_written_over_the_word_of_another_agent_before_the_guard_was_asked_anew() {
    let mut node = master().later(2500.ms());
    node.answers(&Action::Guard(GuardCommand::Probe));
    let session = node.own_session();
    let mut record = node.lock.record().expect("a record");
    record.agent = "second".to_owned();
    record.refresh += 1;
    node.lock.put_record(Some(session), &record);
    node.watch_shows_lock();
    let plan = node.turn();
    assert!(!does!(plan, Action::Refresh { .. }), "{plan:?}");
    assert!(does!(plan, Action::Guard(GuardCommand::Probe)), "{plan:?}");
    node.answers(&Action::Guard(GuardCommand::Probe));
    let plan = node.turn();
    assert!(does!(plan, Action::Refresh { .. }), "{plan:?}");
}

#[test]
fn a_lost_connection_is_no_death() {
    let mut node = master().having(|instance| instance.frozen = true);
    node.state.settings.kill_hung = false;
    node.is_cut_off();
    let last_word = node.state.instance.lease.expect("a lease").over_at;
    while node.now < last_word {
        assert!(released(&node).is_none());
        node.passes(50.ms());
    }
    assert_eq!(released(&node).expect("a release").status, Status::Fenced);
}

#[test]
fn the_lease_of_an_instance_that_cannot_be_asked_is_over_a_margin_after_it_was_granted() {
    let node = master();
    let lease = node.state.instance.lease.expect("a lease");
    let reading = node.state.hold.reading.expect("a reading");
    assert_eq!(lease.over_at, reading.reply_at + LEASE_AND_MARGIN);
    assert_eq!(lease.due_at, reading.reply_at + LEASE);
}

#[test]
fn a_stopping_master_is_fenced_first_and_released_then() {
    let mut node = master();
    node.is_asked_to_stop();
    let fence = node.runs_until(is_fence);
    assert!(released(&node).is_none());
    node.answers(&fence);
    assert_eq!(released(&node).expect("a release").status, Status::Fenced);
}

#[test]
fn a_holder_that_may_not_be_promoted_gives_the_lock_up() {
    for unfit in [
        |node: &mut Node| node.state.settings.priority = Some(-1),
        |node: &mut Node| {
            node.instance.status = "orphan".to_owned();
            node.attaches();
        },
        |node: &mut Node| {
            node.hears(Event::FellSilent);
            // A moment of silence is no reason yet.
            assert!(released(node).is_none());
            node.passes(2.secs());
        },
    ] {
        let mut node = waiting_holder();
        unfit(&mut node);
        assert!(released(&node).is_some(), "{:?}", node.plan());
    }
}

#[test]
fn a_fence_that_failed_is_no_fence() {
    let mut node = master();
    node.is_asked_to_stop();
    let fence = node.runs_until(is_fence);
    node.loses(&fence);
    assert!(released(&node).is_none());
    node.passes(60.ms());
    assert!(
        does!(node.plan(), Action::Guard(GuardCommand::Fence { .. })),
        "and it is tried again"
    );
}

#[test]
fn read_only_is_not_enough_while_commits_are_in_flight() {
    let mut node = master();
    node.is_asked_to_stop();
    let fence = node.runs_until(is_fence);
    let _ = node.carries_out(&fence);
    node.instance.guard.landed = false;
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert!(node.state.live_probe().expect("a probe").ro);
    assert!(released(&node).is_none());
}

#[test]
fn meant_to_be_writable_is_not_fenced() {
    let mut node = master();
    node.is_asked_to_stop();
    let fence = node.runs_until(is_fence);
    let _ = node.carries_out(&fence);
    // An orphan is read-only by itself and turns writable when it has synced.
    node.instance.read_only = false;
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert!(released(&node).is_none());
}

#[test]
fn a_lease_on_its_way_to_the_guard_counts_as_running() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.is_asked_to_stop();
    let plan = node.turn();
    assert!(
        does!(plan, Action::Guard(GuardCommand::Fence { .. }))
            && !does!(plan, Action::Release { .. })
    );
    node.answers(&promote);
    assert!(node.instance.is_writable() && released(&node).is_none());
}

#[test]
fn a_lease_handed_over_without_an_answer_counts_as_running() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.loses_reply(&promote);
    node.is_cut_off();
    node.is_asked_to_stop();
    assert!(node.instance.is_writable());
    let over_at = node.state.instance.lease.expect("a lease").over_at;
    while node.now < over_at {
        assert!(released(&node).is_none());
        node.passes(100.ms());
    }
}

/// The guard's promotion waits for the synchronous queue, and requests of one connection do not wait for each other.
#[test]
fn a_fence_answered_while_the_promotion_still_works_proves_nothing() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.is_asked_to_stop();
    let fence = node.runs_until(is_fence);
    node.answers(&fence);
    let release = released(&node);
    node.answers(&promote);
    assert!(
        release.is_none() || !node.instance.is_writable(),
        "released as {:?}, and then the promotion was carried out",
        release.map(|record| record.status)
    );
}

/// As above, with a promotion that the agent has given up waiting for.
#[test]
fn a_look_at_the_guard_does_not_prove_that_an_unanswered_promotion_came_to_nothing() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.passes(2.secs());
    node.loses(&promote);
    node.instance.guard.promoting = true;
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.is_asked_to_stop();
    let release = released(&node);
    let _ = node.carries_out(&promote);
    assert!(
        release.is_none() || !node.instance.is_writable(),
        "released as {:?}, and then the promotion was carried out",
        release.map(|record| record.status)
    );
}

/// As above, with a connection that ended while the promotion worked: Tarantool carries out what it has read.
#[test]
fn a_new_connection_does_not_prove_that_the_last_ones_promotion_came_to_nothing() {
    let mut node = node().attached().seeing_lock();
    let promote = node.runs_until(is_promote);
    node.loses(&promote);
    node.is_cut_off();
    node.instance.guard.promoting = true;
    node.attaches();
    node.is_asked_to_stop();
    let release = released(&node);
    let _ = node.carries_out(&promote);
    assert!(
        release.is_none() || !node.instance.is_writable(),
        "released as {:?}, and then the promotion was carried out",
        release.map(|record| record.status)
    );
}

#[test]
fn fenced_is_not_said_while_the_predecessor_may_still_be_writable() {
    let mut node = waiting_holder();
    node.is_asked_to_stop();
    let last_word = released(&node).expect("a release");
    assert_eq!(last_word.status, Status::Promoting);
    assert!(
        last_word.lease() >= LEASE,
        "so that others wait for that long"
    );
}

#[test]
fn fenced_is_said_once_the_predecessor_is_over() {
    let mut node = waiting_holder();
    node.lives_on(LEASE_AND_MARGIN + 1.secs());
    let mut node = node.serving();
    node.is_asked_to_stop();
    let release = node.runs_until(is_release);
    let Action::Release { record, .. } = release else {
        unreachable!()
    };
    assert_eq!(record.status, Status::Fenced);
}

#[test]
fn fenced_is_not_said_by_a_holder_whose_key_was_overwritten() {
    let mut node = node();
    let session = node.lock.create_session(node.now);
    node.instance.guard.session = Some(session.to_string());
    node.lock.put(Some(session), "overwritten");
    let mut node = node.attached().seeing_lock();
    assert!(node.state.holds_lock() && node.state.hold.record.is_none());
    node.is_asked_to_stop();
    let last_word = released(&node).expect("a release");
    assert_eq!(last_word.status, Status::Promoting);
}

#[test]
fn the_last_word_carries_the_vclock_and_a_counter_of_its_own() {
    let mut node = master();
    node.is_asked_to_stop();
    let before = node.lock.record().expect("a record").refresh;
    node.instance.vclock.insert("1".to_owned(), 99);
    let release = node.runs_until(is_release);
    let Action::Release { record, .. } = release else {
        unreachable!()
    };
    assert!(record.refresh > before);
    assert_eq!(record.vclock.get("1"), Some(&99));
    assert_eq!(record.reason, "the agent was asked to stop");
}

#[test]
fn whoever_gave_the_lock_up_lets_others_go_first() {
    let mut node = waiting_holder();
    node.hears(Event::FellSilent);
    node.passes(2.secs());
    let release = node.runs_until(is_release);
    node.hears(Event::SpokeAgain);
    node.answers(&release);
    node.attaches();
    assert!(!does!(
        node.plan(),
        Action::Acquire { .. } | Action::ReadBoard
    ));
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPredecessorLease { .. }
    ));
}

#[test]
fn whoever_gave_the_lock_up_without_hearing_so_lets_others_go_first() {
    let mut node = master();
    node.instance.status = "orphan".to_owned();
    node.passes(1.secs());
    node.hears(Event::Unsuitable {
        why: "for a moment".to_owned(),
    });
    node.passes(LEASE_AND_MARGIN);
    let release = node.runs_until(is_release);
    node.loses_reply(&release);
    node.instance.status = "running".to_owned();
    node.attaches();
    node.watch_shows_lock();
    node.lives_on(1.secs());
    assert_eq!(node.lock.holder(), None);
}

/// A disk that hangs keeps a process from dying; no code of it runs again, so nothing is gained by waiting.
#[test]
fn a_killed_instance_that_cannot_die_does_not_keep_the_lock_past_its_lease() {
    let mut node = master();
    node.freezes();
    for _ in 0..300 {
        node.passes(100.ms());
        for action in node.turn().actions {
            if is_release(&action) {
                return;
            }
            if matches!(action, Action::Kill) {
                node.hears(Event::KillEnded {
                    result: KillResult::Killed,
                });
            } else {
                node.answers(&action);
            }
        }
    }
    panic!("20 s after its lease: {:?}", node.plan());
}

/// What WAL errors do to the barrier: the guard answers at once, and has not landed.
#[test]
fn a_fence_that_does_not_land_is_not_repeated_without_a_pause() {
    let mut node = master();
    node.is_asked_to_stop();
    for _ in 0..8 {
        let fence = node.runs_until(is_fence);
        let _ = node.carries_out(&fence);
        node.instance.guard.landed = false;
        node.hears(Event::GuardAnswered {
            command: crate::event::GuardCommandKind::Fence,
            probe: Box::new(node.instance.probe(node.now)),
            refused: None,
        });
        if !does!(node.plan(), Action::Guard(GuardCommand::Fence { .. })) {
            return;
        }
    }
    panic!("eight fences in a millisecond");
}

/// The agent that replaced us has begun a new term under our session: to write ours again would take terms back.
#[test]
fn a_higher_term_of_the_agent_that_replaced_us_is_not_written_over() {
    let mut node = master();
    let session = node.own_session();
    let mut record = node.lock.record().expect("a record").term(8);
    record.agent = "second".to_owned();
    node.lock.put_record(Some(session), &record);
    node.watch_shows_lock();
    for _ in 0..20 {
        node.round();
        assert!(node.lock.record().expect("a record").term.get() >= 8);
        node.passes(100.ms());
    }
}
