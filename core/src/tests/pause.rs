//! A pause: nothing changes hands by itself, whatever happens in which order.

use crate::slots::Place;
use std::time::Duration;

use super::fixtures::*;
use crate::board::Pause;
use crate::event::Event;
use crate::plan::{Action, Ending, GuardCommand, Health, Reason};
use crate::record::Status;
use crate::state::State;

mod keys;

impl Node {
    fn is_paused_by_ann(&mut self) {
        self.lock.pause = Some(Pause {
            by: "ann".to_owned(),
            why: "moving racks".to_owned(),
            ..Pause::default()
        });
    }

    fn is_resumed(&mut self) {
        self.lock.pause = None;
    }

    /// Its agent is another process now.
    fn agent_restarts(&mut self) {
        self.state = State::new(settings());
        self.attaches();
        self.watch_shows_lock();
    }
}

/// A master whose guard stands down.
fn paused() -> Node {
    let mut node = master();
    node.is_paused_by_ann();
    node.lives_on(4.secs());
    assert!(node.instance.guard.stood_down, "{:?}", node.plan());
    node
}

fn is_stand(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::StandDown { .. }))
}

fn is_refresh(action: &Action) -> bool {
    matches!(action, Action::Refresh { .. })
}

fn says_paused(node: &Node) -> bool {
    node.lock.record().unwrap().paused
}

#[test]
fn the_record_says_so_before_the_guard_stands_down() {
    let mut node = master();
    node.is_paused_by_ann();
    for _ in 0..64 {
        let plan = node.turn();
        if plan.actions.iter().any(is_stand) {
            assert!(says_paused(&node), "and not with the same plan");
            return;
        }
        for action in &plan.actions {
            node.answers(action);
        }
        node.passes(100.ms());
    }
    panic!("it does not stand down: {:?}", node.plan());
}

#[test]
fn the_guard_does_not_stand_down_while_the_record_may_not_say_so() {
    let mut node = master();
    node.is_paused_by_ann();
    node.passes(3.secs());
    let refresh = node.runs_until(is_refresh);
    node.answers(&refresh);
    let refresh = node.runs_until(is_refresh);
    let Action::Refresh { attempt, .. } = &refresh else {
        unreachable!()
    };
    assert!(attempt.record.paused);
    node.loses(&refresh);
    for _ in 0..8 {
        let plan = node.turn();
        assert!(!plan.actions.iter().any(is_stand), "{plan:?}");
        node.passes(1.ms());
    }
}

#[test]
fn a_write_without_the_word_that_was_lost_comes_to_nothing_once_one_with_it_is_accepted() {
    let mut node = master();
    node.passes(3.secs());
    let lost = node.runs_until(is_refresh);
    node.loses(&lost);
    node.is_paused_by_ann();
    node.comes_to(is_stand);
    assert!(says_paused(&node));
    let late = node.lock.obey(&lost, node.now, node.now);
    let refused = matches!(
        late,
        Some(Event::LockStepEnded {
            result: Ok(Err(_)),
            ..
        })
    );
    assert!(refused, "{late:?}");
    assert!(says_paused(&node));
}

#[test]
fn a_guard_that_stands_down_outlives_its_lease() {
    let mut node = paused();
    node.watch_fails();
    node.passes(60.secs());
    assert!(node.instance.is_writable());
    assert!(node.state.may_be_writable(node.now));
    assert!(!does!(
        node.plan(),
        Action::Kill | Action::Release { .. } | Action::Guard(GuardCommand::Fence { .. })
    ));
}

#[test]
fn no_time_that_passes_releases_the_lock_of_a_guard_that_may_stand_down() {
    let mut node = master().with(|settings| settings.kill_hung = false);
    node.is_paused_by_ann();
    let stand = node.comes_to(is_stand);
    node.loses_reply(&stand);
    node.is_cut_off();
    node.lock.pause = None;
    for _ in 0..60 {
        node.passes(1.secs());
        let plan = node.round();
        assert!(!does!(plan, Action::Release { .. }), "{plan:?}");
    }
}

#[test]
fn a_stand_down_on_its_way_is_believed_to_have_arrived() {
    let mut node = master();
    node.is_paused_by_ann();
    let _ = node.comes_to(is_stand);
    node.passes(60.secs());
    assert!(node.state.may_be_writable(node.now));
}

#[test]
fn the_guard_stands_up_under_a_lease_before_the_record_says_so() {
    let mut node = paused();
    node.is_resumed();
    let stand = node.comes_to(is_stand);
    assert!(matches!(
        stand,
        Action::Guard(GuardCommand::StandDown { down: false })
    ));
    assert!(says_paused(&node), "not yet");
    node.answers(&stand);
    assert!(node.instance.is_writable(), "its lease runs");
    node.settles();
    assert!(!says_paused(&node));
    assert!(node.state.is_serving());
}

#[test]
fn a_guard_whose_lease_ended_in_the_pause_gets_a_new_one_before_it_stands_up() {
    let mut node = paused();
    // Consul is away for longer than the lease.
    let begun = node.now;
    while node.now.since(begun) < 30.secs() {
        node.passes(500.ms());
        node.round_losing(|action| action.guard_command_kind().is_none());
        assert!(node.instance.is_writable());
    }
    node.is_resumed();
    let stand = node.comes_to(is_stand);
    node.answers(&stand);
    assert!(node.instance.is_writable());
    node.settles();
    assert!(!says_paused(&node));
}

#[test]
fn the_guard_stays_down_for_as_long_as_the_lock_cannot_be_refreshed() {
    let mut node = paused();
    node.is_resumed();
    let begun = node.now;
    while node.now.since(begun) < 30.secs() {
        node.passes(100.ms());
        for action in node.turn().actions {
            let at_the_lock = matches!(action, Action::Refresh { .. } | Action::ReadLock);
            assert!(!is_stand(&action), "no lease runs, or will not for long");
            if at_the_lock {
                node.loses(&action);
            } else {
                node.answers(&action);
            }
        }
        if node.now.since(begun) < 8.secs() {
            // The lease still runs; a pause that ended now would be no harm.
            node.lock.pause = Some(Pause::default());
        } else {
            node.is_resumed();
        }
        assert!(node.instance.is_writable());
    }
}

#[test]
fn the_guard_does_not_stand_down_on_the_order_alone() {
    let mut node = master();
    node.is_paused_by_ann();
    let until = node.now + 2.secs();
    node.state.pending.retries(Place::Lock, Some(until));
    let board = Box::new(node.lock.board());
    node.hears(Event::BoardSeen {
        asked_at: node.now,
        result: Ok(board),
    });
    while node.now < until {
        let plan = node.round();
        assert!(!plan.actions.iter().any(is_stand), "{plan:?}");
        node.passes(50.ms());
    }
}

#[test]
fn a_dead_instance_keeps_its_lock_and_is_promoted_again_in_the_same_term() {
    let mut node = paused();
    node.is_killed();
    for _ in 0..40 {
        node.passes(1.secs());
        let plan = node.round();
        assert!(!does!(plan, Action::Release { .. }), "{plan:?}");
        assert!(matches!(
            &plan.reason,
            Reason::MasterPaused { lacking: Some(why), .. } if why.contains("dead")
        ));
    }
    assert!(says_paused(&node));
    node.instance.restart(node.now);
    node.attaches();
    node.lives_on(4.secs());
    assert!(node.instance.is_writable());
    let record = node.lock.record().unwrap();
    assert_eq!(
        (record.term.get(), record.status, record.paused),
        (7, Status::Active, true)
    );
    assert!(node.instance.guard.stood_down);
}

#[test]
fn the_lock_of_an_instance_that_died_in_a_pause_is_released_when_it_ends() {
    let mut node = paused();
    node.is_killed();
    node.lives_on(5.secs());
    assert!(node.lock.holder().is_some());
    node.is_resumed();
    node.lives_on(2.secs());
    let record = node.lock.record().unwrap();
    assert_eq!(record.status, Status::Fenced);
    assert!(!record.paused);
    assert_eq!(node.lock.holder(), None);
}

#[test]
fn a_hung_instance_is_not_killed_in_a_pause_and_is_when_it_ends() {
    let mut node = paused();
    node.freezes();
    for _ in 0..30 {
        node.passes(1.secs());
        let plan = node.round();
        assert!(
            !does!(plan, Action::Kill | Action::Release { .. }),
            "{plan:?}"
        );
    }
    let words = node.plan().reason.to_string();
    assert!(words.contains("LEFT AS IT IS"), "{words}");
    node.is_resumed();
    let kill = node.comes_to(|action| matches!(action, Action::Kill));
    assert!(node.lock.holder().is_some());
    node.answers(&kill);
    assert!(!node.instance.alive);
}

#[test]
fn an_instance_that_is_unfit_keeps_its_lock_in_a_pause() {
    let mut node = paused();
    node.instance.status = "orphan".to_owned();
    node.instance.ro = true;
    node.lives_on(10.secs());
    assert!(node.lock.holder().is_some());
    node.is_resumed();
    node.instance.guard.stood_down = false;
    node.instance.guard.leased = false;
    node.lives_on(6.secs());
    assert_eq!(node.lock.holder(), None);
}

#[test]
fn another_hand_at_read_only_is_left_alone_in_a_pause() {
    let mut node = paused();
    node.instance.ro = true;
    node.lives_on(20.secs());
    assert!(node.instance.ro, "an operator wanted that");
    assert!(node.lock.holder().is_some());
    node.is_resumed();
    node.lives_on(6.secs());
    assert!(node.instance.is_writable());
}

#[test]
fn an_agent_that_restarts_in_a_pause_finds_everything_as_it_was() {
    let mut node = paused();
    node.agent_restarts();
    let mut plans = 0;
    while plans < 40 {
        let plan = node.round();
        assert!(
            !does!(
                plan,
                Action::Guard(GuardCommand::Fence { .. })
                    | Action::Release { .. }
                    | Action::Guard(GuardCommand::StandDown { .. })
            ),
            "{plan:?}"
        );
        node.passes(200.ms());
        plans += 1;
    }
    assert!(says_paused(&node));
    assert!(node.instance.is_writable() && node.instance.guard.stood_down);
    assert_eq!(node.lock.record().unwrap().term.get(), 7);
}

#[test]
fn an_agent_that_knows_no_orders_yet_ends_no_pause() {
    let mut node = paused();
    node.state = State::new(settings());
    node.attaches();
    for _ in 0..40 {
        let plan = node.turn();
        assert!(
            !does!(
                plan,
                Action::Guard(GuardCommand::StandDown { .. })
                    | Action::Kill
                    | Action::Guard(GuardCommand::Fence { .. })
            ),
            "{plan:?}"
        );
        node.passes(1.secs());
    }
    assert!(node.instance.is_writable());
}

#[test]
fn an_agent_that_is_stopped_in_a_pause_leaves_all_as_it_is() {
    let mut node = paused();
    node.is_asked_to_stop();
    let plan = node.round();
    assert_eq!(
        part!(plan, Action::Exit { how } => *how),
        Some(Ending::Stopped)
    );
    assert!(!does!(
        plan,
        Action::Guard(GuardCommand::Fence { .. })
            | Action::Release { .. }
            | Action::Deregister
            | Action::DestroySession { .. }
    ));
    assert!(node.instance.is_writable());
    // And the next one finds it.
    node.agent_restarts();
    node.lives_on(5.secs());
    assert!(node.state.is_serving() && node.state.holds_lock());
}

/// The guard stands down already; its word has not arrived.
#[test]
fn an_agent_that_is_stopped_while_the_guard_stands_down_waits_for_its_word() {
    let stands_down =
        |action: &Action| matches!(action, Action::Guard(GuardCommand::StandDown { .. }));
    for is_answered in [true, false] {
        let mut node = master();
        node.is_paused_by_ann();
        let mut command = None;
        for _ in 0..40 {
            let actions = node.turn().actions;
            for action in &actions {
                if stands_down(action) {
                    command = Some(action.clone());
                } else {
                    node.answers(action);
                }
            }
            if command.is_some() {
                break;
            }
            node.passes(100.ms());
        }
        let command = command.expect("it is told to stand down");
        node.is_asked_to_stop();
        let plan = node.turn();
        let ends = does!(
            plan,
            Action::Guard(GuardCommand::Fence { .. }) | Action::Exit { .. }
        );
        assert!(!ends, "{plan:?}");
        if is_answered {
            node.answers(&command);
        } else {
            node.loses(&command);
        }
        node.settles();
        assert_eq!(node.instance.is_writable(), is_answered);
    }
}

#[test]
fn an_agent_that_is_stopped_before_the_guard_stands_down_fences_as_ever() {
    let mut node = master();
    node.is_paused_by_ann();
    node.is_asked_to_stop();
    node.settles();
    assert!(!node.instance.is_writable());
    assert_eq!(node.lock.record().unwrap().status, Status::Fenced);
    assert!(!says_paused(&node));
}

#[test]
fn a_lock_that_was_lost_in_a_pause_is_taken_again() {
    let mut node = paused();
    node.lives_on(60.secs());
    let session = node.own_session();
    node.lock.end_session(&session);
    node.watch_shows_lock();
    node.lives_on(2.secs());
    assert!(node.state.holds_lock());
    let record = node.lock.record().unwrap();
    assert_eq!((record.term.get(), record.paused), (7, true));
    assert!(node.instance.is_writable());
}

#[test]
fn a_stood_down_instance_whose_lock_somebody_took_is_fenced() {
    let mut node = paused();
    let theirs = crate::ids::SessionId::new("theirs");
    node.lock.put_record(Some(theirs), &record().term(9));
    node.watch_shows_lock();
    node.settles();
    assert!(!node.instance.is_writable());
}

#[test]
fn a_pause_is_said_in_the_catalog_and_in_the_member_key() {
    let node = paused();
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Warning);
    assert!(
        entry.output.contains("PAUSED by ann (moving racks)"),
        "{}",
        entry.output
    );
    let member = node.lock.members.get(OWN).unwrap();
    assert!(member.paused);
    assert_eq!(
        member.health, "passing",
        "it may be master when the pause ends"
    );
    let mut node = node;
    node.is_resumed();
    node.lives_on(5.secs());
    assert_eq!(node.catalog().health, Health::Passing);
    assert!(!node.lock.members.get(OWN).unwrap().paused);
}

#[test]
fn a_replica_says_that_its_master_is_paused() {
    let mut node = replica();
    let mut said = record().refreshed(41);
    said.paused = true;
    let theirs = crate::ids::SessionId::new("theirs");
    node.lock.put_record(Some(theirs), &said);
    node.watch_shows_lock();
    node.settles();
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Warning);
    assert!(entry.output.contains("PAUSED"), "{}", entry.output);
}

#[test]
fn a_pause_that_comes_and_goes_leaves_nothing_behind() {
    let mut node = master();
    for round in 0..10_u64 {
        node.is_paused_by_ann();
        node.lives_on(Duration::from_millis(700 * (round % 5)));
        node.is_resumed();
        node.lives_on(Duration::from_millis(900 * (round % 4)));
    }
    node.lives_on(6.secs());
    assert!(!node.instance.guard.stood_down && !says_paused(&node));
    assert!(node.state.is_serving());
}

#[test]
fn a_board_from_before_the_pause_ended_it_for_nobody() {
    let mut node = paused();
    let mut old = node.lock.board();
    old.pause = None;
    node.hears(Event::BoardSeen {
        asked_at: node.now,
        result: Ok(Box::new(old)),
    });
    node.lives_on(4.secs());
    assert!(node.instance.is_writable());
    node.lives_on(4.secs());
    assert!(node.instance.guard.stood_down, "and it stands down again");
}
