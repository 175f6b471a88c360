//! R5: an instance that has not answered and whose lease has passed is killed before anything else happens.

use std::time::Duration;

use super::fixtures::*;
use crate::event::{Event, GuardCommandKind};
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::Status;

#[test]
fn a_hung_master_is_killed_after_its_lease_and_before_the_release() {
    let mut node = master();
    let due_at = node.state.instance.lease.expect("a lease").due_at;
    node.freezes();
    let mut killed = false;
    for _ in 0..200 {
        node.passes(100.ms());
        let plan = node.turn();
        if does!(plan, Action::Kill) {
            assert!(node.now >= due_at, "killed before its lease ended");
            assert_eq!(plan.reason, Reason::KillingHungInstance);
            killed = true;
        }
        assert!(
            killed || !does!(plan, Action::Release { .. }),
            "released before the kill"
        );
        for action in &plan.actions {
            node.answers(action);
        }
        if killed && !node.instance.alive {
            node.is_killed();
            let record = part!(node.plan(), Action::Release { record, .. } => record.clone());
            assert_eq!(record.expect("a release").status, Status::Fenced);
            return;
        }
    }
    panic!("it was not killed: {:?}", node.plan());
}

/// The whole host stood still. What its agent could not hear meanwhile is no silence of the instance's.
#[test]
fn after_it_overslept_an_agent_gives_its_instance_time_to_speak() {
    let mut node = master();
    node.oversleeps(30.secs());
    node.hears(Event::FellSilent);
    asks_for_a_whole_timeout(&mut node);
}

/// The instance stood still a moment before its agent did, and was called silent by then.
#[test]
fn a_silence_that_began_before_the_agent_stood_still_counts_from_its_waking() {
    let mut node = master();
    node.freezes();
    node.passes(300.ms());
    node.oversleeps(12.secs());
    asks_for_a_whole_timeout(&mut node);
}

#[test]
fn a_second_stall_gives_the_instance_as_much_time_again() {
    let mut node = master();
    node.freezes();
    node.oversleeps(12.secs());
    node.passes(1_900.ms());
    node.oversleeps(1.secs());
    asks_for_a_whole_timeout(&mut node);
}

/// Kills nothing for the timeout of a request, and then what still says nothing.
fn asks_for_a_whole_timeout(node: &mut Node) {
    node.instance.frozen = true;
    let woken_at = node.now;
    let patience = node.state.settings.timing.healthcheck_timeout();
    while node.now.since(woken_at) + 100.ms() < patience {
        let plan = node.turn();
        assert!(!does!(plan, Action::Kill), "{plan:?}");
        node.passes(50.ms());
    }
    node.passes(200.ms());
    assert!(does!(node.turn(), Action::Kill), "it hangs in truth");
}

/// A host on which no agent ever runs for the timeout of a request in a piece.
#[test]
fn an_agent_that_stands_still_again_and_again_ends_a_hung_instance_all_the_same() {
    let mut node = master();
    node.freezes();
    let patience = node.state.settings.timing.healthcheck_timeout();
    node.passes(30.secs());
    let mut asked = Duration::ZERO;
    while !does!(node.turn(), Action::Kill) {
        assert!(asked < patience * 6, "never killed");
        node.oversleeps(1.secs());
        assert!(asked >= patience * 3 || !does!(node.plan(), Action::Kill));
        node.passes(500.ms());
        asked += 500.ms();
    }
}

#[test]
fn a_question_that_the_agent_slept_through_is_no_word_of_the_guards() {
    let mut node = master();
    node.now = node.now + LEASE_AND_MARGIN;
    let probe = node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    node.oversleeps(12.secs());
    node.loses(&probe);
    let plan = node.plan();
    assert!(!does!(plan, Action::Kill), "{plan:?}");
}

/// What another agent may conclude from time is another matter: a lease ends, whoever ran meanwhile.
#[test]
fn a_lease_runs_out_while_its_agent_stands_still() {
    let mut node = master();
    let over_at = node.state.instance.lease.expect("a lease").over_at;
    node.oversleeps(12.secs());
    assert!(node.now > over_at);
    assert!(!node.state.may_be_writable(node.now));
}

#[test]
fn an_instance_that_died_while_its_agent_slept_is_not_taken_for_hung() {
    let mut node = master();
    node.passes(30.secs());
    let woken = node.turn();
    assert!(
        does!(woken, Action::Guard(GuardCommand::Probe)),
        "{woken:?}"
    );
    node.hears(Event::Died {
        proof: "process 1 is gone".to_owned(),
    });
    node.hears(Event::GuardFailed {
        command: GuardCommandKind::Probe,
        why: "there is no connection to the instance".to_owned(),
    });
    let plan = node.plan();
    assert!(!does!(plan, Action::Kill), "{plan:?}");
    assert!(
        matches!(plan.reason, Reason::InstanceDied { .. }),
        "{plan:?}"
    );
}

#[test]
fn until_then_it_waits_and_says_so() {
    let mut node = master();
    node.freezes();
    node.passes(3.secs());
    let until = node.state.instance.lease.expect("a lease").due_at;
    let plan = node.plan();
    assert_eq!(plan.reason, Reason::WaitingForSilentInstance { until });
    assert!(plan.wake_at.expect("a timer") <= until);
}

#[test]
fn a_moment_of_silence_changes_nothing() {
    let mut node = master();
    node.freezes();
    node.passes(500.ms());
    assert_eq!(node.plan().reason, Reason::Serving);
    node.hears(Event::SpokeAgain);
    assert!(node.state.instance.silent_since.is_none());
}

#[test]
fn the_second_report_of_silence_does_not_start_the_count_anew() {
    let mut node = master();
    node.freezes();
    let since = node.state.instance.silent_since;
    node.passes(1.secs());
    node.hears(Event::FellSilent);
    assert_eq!(node.state.instance.silent_since, since);
}

#[test]
fn an_instance_that_speaks_at_the_last_moment_is_spared() {
    let mut node = master().later(LEASE_AND_MARGIN);
    node.hears(Event::FellSilent);
    let kill = node.runs_until(|action| matches!(action, Action::Kill));
    // By now its guard has fenced.
    node.instance.guard_wakes(node.now);
    node.answers(&kill);
    assert!(node.instance.alive);
    node.hears(Event::SpokeAgain);
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert!(!does!(node.plan(), Action::Kill));
}

#[test]
fn a_silent_replica_that_never_had_a_lease_is_never_killed() {
    let mut node = replica();
    node.freezes();
    for _ in 0..600 {
        node.passes(100.ms());
        let plan = node.turn();
        assert!(!does!(plan, Action::Kill));
        for action in &plan.actions {
            node.answers(action);
        }
    }
    node.is_cut_off();
    node.passes(60.secs());
    assert!(!does!(node.plan(), Action::Kill));
}

#[test]
fn a_fenced_master_that_falls_silent_is_not_killed() {
    let mut node = master().later(LEASE_AND_MARGIN);
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.freezes();
    node.passes(60.secs());
    assert!(!does!(node.plan(), Action::Kill));
}

#[test]
fn a_promotion_without_an_answer_is_a_lease_to_kill_for() {
    let mut node = node().attached().seeing_lock();
    let promote =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.loses_reply(&promote);
    node.freezes();
    node.passes(LEASE - 100.ms());
    assert!(!does!(node.plan(), Action::Kill));
    node.passes(200.ms());
    assert!(does!(node.plan(), Action::Kill));
}

#[test]
fn a_master_cut_off_is_killed_after_its_lease() {
    let mut node = master();
    node.instance.frozen = true;
    node.is_cut_off();
    node.passes(LEASE - 100.ms());
    assert!(!does!(node.plan(), Action::Kill));
    node.passes(200.ms());
    assert!(does!(node.plan(), Action::Kill));
}

#[test]
fn a_kill_that_failed_is_tried_again_after_a_second() {
    let mut node = master().later(LEASE_AND_MARGIN);
    node.freezes();
    let kill = node.runs_until(|action| matches!(action, Action::Kill));
    node.loses(&kill);
    assert!(!does!(node.plan(), Action::Kill));
    node.passes(1.secs());
    assert!(does!(node.plan(), Action::Kill));
}

#[test]
fn where_it_cannot_be_killed_the_lock_is_released_after_lease_and_margin_and_the_reason_says_so() {
    for unkillable in [
        |node: &mut Node| node.state.settings.kill_hung = false,
        |node: &mut Node| {
            let Event::Attached { probe, .. } = node.instance.attached(node.now) else {
                unreachable!()
            };
            let process = Err("it runs in another PID namespace".to_owned());
            node.hears(Event::Attached { probe, process });
        },
    ] {
        let mut node = master();
        unkillable(&mut node);
        node.freezes();
        let lease = node.state.instance.lease.expect("a lease");
        node.now = lease.due_at.max(node.now);
        let plan = node.plan();
        assert!(
            matches!(plan.reason, Reason::HungInstanceLeftAlone { .. }),
            "{plan:?}"
        );
        assert!(!does!(plan, Action::Kill | Action::Release { .. }));
        assert!(plan.wake_at.expect("a timer") <= lease.over_at);
        node.now = lease.over_at;
        let plan = node.plan();
        assert!(does!(plan, Action::Release { .. }) && !does!(plan, Action::Kill));
        assert!(plan.reason.to_string().contains("IT IS NOT KILLED"));
    }
}

#[test]
fn a_guard_that_says_writable_after_the_lease_is_killed_if_it_does_not_fence() {
    let mut node = master();
    node.now = node.now + LEASE_AND_MARGIN;
    // Its fencing fiber is gone, and everything else works.
    assert!(!does!(node.plan(), Action::Kill), "it is asked first");
    assert!(does!(node.turn(), Action::Guard(GuardCommand::Probe)));
    node.hears(Event::GuardAnswered {
        command: crate::event::GuardCommandKind::Probe,
        probe: Box::new(node.instance.probe(node.now)),
        refused: None,
    });
    assert!(node.instance.is_writable());
    let fence =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Fence { .. })));
    node.loses(&fence);
    let kill = node.runs_until(|action| matches!(action, Action::Kill));
    node.answers(&kill);
    assert!(!node.instance.alive);
}

#[test]
fn a_guard_that_does_not_answer_after_the_lease_is_killed_though_pings_are_answered() {
    let mut node = master();
    node.now = node.now + LEASE_AND_MARGIN;
    let probe = node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    node.loses(&probe);
    assert!(does!(node.plan(), Action::Kill));
}

/// An operator's hand, seen by a routine probe in the moment before the guard saw it.
#[test]
fn an_instance_made_writable_by_hand_is_fenced_before_anyone_thinks_of_killing_it() {
    let mut node = replica().with(|settings| settings.priority = Some(-1));
    node.lives_on(30.secs());
    node.instance.ro = false;
    node.instance.read_only = false;
    node.hears(Event::GuardAnswered {
        command: crate::event::GuardCommandKind::Probe,
        probe: Box::new(node.instance.probe(node.now)),
        refused: None,
    });
    let plan = node.plan();
    assert!(
        does!(plan, Action::Guard(GuardCommand::Fence { .. })),
        "{plan:?}"
    );
    assert!(!does!(plan, Action::Kill), "{plan:?}");
}

/// Found by simulation: a disk that hangs keeps the last commits, and the lease's end alone does not say that they have
/// landed.
#[test]
fn after_the_lease_a_guard_whose_commits_have_not_landed_is_asked_before_anything_is_released() {
    let mut node = master();
    node.instance.ro = true;
    node.instance.read_only = true;
    node.instance.guard.leased = false;
    node.instance.guard.landed = false;
    node.hears(Event::GuardAnswered {
        command: crate::event::GuardCommandKind::Probe,
        probe: Box::new(node.instance.probe(node.now)),
        refused: None,
    });
    node.is_asked_to_stop();
    node.now = node.now + LEASE_AND_MARGIN;
    let plan = node.plan();
    assert!(does!(plan, Action::Guard(GuardCommand::Probe)), "{plan:?}");
    assert!(!does!(plan, Action::Release { .. }), "{plan:?}");
}

/// Found by simulation: it gave the lock up and took it again a thousand times a second.
#[test]
fn a_term_whose_last_commits_may_still_land_is_not_taken_again() {
    for lands in [true, false] {
        let mut node = master().with(|settings| settings.kill_hung = false);
        node.instance.ro = true;
        node.instance.read_only = true;
        node.instance.guard.leased = false;
        node.instance.guard.landed = false;
        // Its release does not say fenced, so the term would still be its own.
        node.state.hold.predecessor_over_at = Some(node.now + 1000.secs());
        let hangs = |action: &Action| {
            let writes = matches!(
                action,
                Action::Guard(GuardCommand::Promote { .. } | GuardCommand::Grant { .. })
            );
            writes || matches!(action, Action::Guard(GuardCommand::Fence { .. }))
        };
        while node.state.holds_lock() {
            node.is_watched(200.ms());
            node.round_losing(hangs);
        }
        let until = node.now + LEASE;
        while node.now < until {
            node.is_watched(200.ms());
            node.round_losing(hangs);
            assert!(!node.state.holds_lock());
        }
        node.instance.guard.landed = lands;
        while !node.state.holds_lock() {
            node.is_watched(200.ms());
            node.round_losing(hangs);
        }
        // What may never land is behind a term of its own.
        let term = node.lock.record().expect("a record").term;
        assert_eq!(term.get(), if lands { 7 } else { 8 });
    }
}

/// A master that is fenced, and whose barrier waits (`None`) or comes back unwritten.
fn fenced_without_landing(failure: Option<&str>) -> Node {
    let mut node = master();
    node.instance.wal_hangs = failure.is_none();
    node.instance.guard.barrier_failure = failure.map(str::to_owned);
    node.is_asked_to_stop();
    let fence =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Fence { .. })));
    node.answers(&fence);
    assert!(node.instance.ro && !node.instance.guard.landed);
    node
}

/// Whatever it does first about an instance that may still have commits in flight.
fn decision(node: &mut Node) -> Action {
    for _ in 0..80 {
        let plan = node.turn();
        for action in &plan.actions {
            if matches!(action, Action::Kill | Action::Release { .. }) {
                return action.clone();
            }
            node.answers(action);
        }
        node.passes(250.ms());
    }
    panic!("20 s after its fence: {:?}", node.plan());
}

#[test]
fn an_instance_whose_barrier_hangs_is_killed_after_its_lease() {
    let mut node = fenced_without_landing(None);
    let over_at = node.state.instance.lease.expect("a lease").over_at;
    let decision = decision(&mut node);
    assert!(matches!(decision, Action::Kill), "{decision:?}");
    assert!(node.now >= over_at);
}

/// It does not hang: it answers, is read-only, and nothing of it waits for a disk. R2 all the same: nobody has said that
/// its last commits have landed, so whoever comes next gives them a lease.
#[test]
fn an_instance_that_cannot_write_its_barrier_is_spared_and_its_release_does_not_say_fenced() {
    let mut node = fenced_without_landing(Some("no memory"));
    let over_at = node.state.instance.lease.expect("a lease").over_at;
    let decision = decision(&mut node);
    let Action::Release { record, .. } = decision else {
        panic!("{decision:?}");
    };
    assert!(node.now >= over_at, "released while its lease ran");
    assert_eq!(record.status, Status::Promoting);
}

#[test]
fn a_barrier_that_is_written_after_all_lets_the_release_say_fenced_at_once() {
    let mut node = fenced_without_landing(Some("no memory"));
    let over_at = node.state.instance.lease.expect("a lease").over_at;
    node.instance.guard.landed = true;
    node.instance.guard.barrier_failure = None;
    let decision = decision(&mut node);
    let Action::Release { record, .. } = decision else {
        panic!("{decision:?}");
    };
    assert!(node.now < over_at, "it waited for a lease");
    assert_eq!(record.status, Status::Fenced);
}
