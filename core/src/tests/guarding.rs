//! The instance and its guard: fitness, ownership, and hands other than ours.

use super::fixtures::*;
use crate::declared::Declared;
use crate::event::Event;
use crate::plan::{Action, Ending, GuardCommand, Health, Reason};
use crate::slots::Place;

#[test]
fn an_agent_that_was_superseded_touches_nothing_and_ends() {
    let mut node = master();
    node.hears(Event::Superseded {
        by: "another".to_owned(),
    });
    let plan = node.plan();
    assert!(does!(
        plan,
        Action::Exit {
            how: Ending::Superseded
        }
    ));
    assert!(!does!(
        plan,
        Action::Guard(GuardCommand::Fence { .. })
            | Action::Release { .. }
            | Action::Refresh { .. }
            | Action::Guard(GuardCommand::Grant { .. })
    ));
    assert!(matches!(plan.reason, Reason::Superseded { .. }));
}

#[test]
fn an_agent_whose_instance_cannot_be_mended_ends() {
    let mut node = node();
    node.hears(Event::Unsuitable {
        why: "no such user".to_owned(),
    });
    assert!(does!(
        node.plan(),
        Action::Exit {
            how: Ending::Unsuitable
        }
    ));
}

fn declared(failover: &str) -> Declared {
    Declared {
        failover: failover.to_owned(),
        replicaset: Some("a".to_owned()),
        ..Declared::default()
    }
}

#[test]
fn tarantools_own_failover_is_refused_with_a_word_of_what_to_change() {
    let synchro = Declared {
        synchro_mode: true,
        ..declared("supervised")
    };
    for (election, failover, word) in [
        (Some("candidate"), None, "box.cfg.election_mode"),
        (Some("manual"), None, "box.cfg.election_mode"),
        (
            Some("candidate"),
            Some(declared("election")),
            "replication.failover is 'election'",
        ),
        (
            None,
            Some(declared("manual")),
            "take `leader` out of the replica set",
        ),
        (
            Some("off"),
            Some(declared("off")),
            "take `database.mode` out",
        ),
        (
            Some("manual"),
            Some(synchro),
            "failover.replicasets.a.synchro_mode is true",
        ),
        (
            Some("manual"),
            Some(declared("supervised")),
            "box.cfg.election_mode",
        ),
    ] {
        let node = node()
            .having(|instance| {
                instance.election_mode = election.map(str::to_owned);
                instance.declared = failover.clone();
            })
            .attached();
        let plan = node.plan();
        assert!(does!(
            plan,
            Action::Exit {
                how: Ending::Unsuitable
            }
        ));
        assert!(plan.reason.to_string().contains(word), "{}", plan.reason);
    }
}

#[test]
fn harmless_modes_are_accepted() {
    for (election, failover) in [
        (Some("off"), None),
        (Some("voter"), Some(declared("supervised"))),
    ] {
        let node = node()
            .having(|instance| {
                instance.election_mode = election.map(str::to_owned);
                instance.declared = failover.clone();
            })
            .attached();
        assert!(!does!(node.plan(), Action::Exit { .. }));
    }
}

#[test]
fn a_holder_whose_instance_turns_unsuitable_fences_and_releases_before_it_ends() {
    let mut node = master();
    node.instance.election_mode = Some("manual".to_owned());
    node.passes(1.secs());
    let mut said = Vec::new();
    for _ in 0..20 {
        let plan = node.turn();
        for action in &plan.actions {
            if matches!(
                action,
                Action::Guard(GuardCommand::Fence { .. })
                    | Action::Release { .. }
                    | Action::Exit { .. }
            ) {
                said.push(action.clone());
            }
            node.answers(action);
        }
        if does!(plan, Action::Exit { .. }) {
            break;
        }
    }
    assert!(
        matches!(
            said.as_slice(),
            [
                Action::Guard(GuardCommand::Fence { .. }),
                Action::Release { .. },
                Action::Exit {
                    how: Ending::Unsuitable
                }
            ]
        ),
        "{said:?}"
    );
}

/// Its check would pass for as long as the TTL runs, and its key would say that all is well for good.
#[test]
fn an_agent_whose_instance_turns_unsuitable_says_so_before_it_ends() {
    let mut node = replica().settled();
    node.lives_on(1.secs());
    node.instance.election_mode = Some("manual".to_owned());
    node.answers(&Action::Guard(GuardCommand::Probe));
    let first = node.turn();
    assert!(!does!(first, Action::Exit { .. }), "{first:?}");
    for action in &first.actions {
        node.answers(action);
    }
    let last = node.plan();
    let how = part!(last, Action::Exit { how } => *how);
    assert_eq!(how, Some(Ending::Unsuitable), "{last:?}");
    let told = node.state.catalog.told.clone().expect("an entry");
    assert_eq!(told.health, Health::Critical);
    let key = node.state.catalog.member.clone().expect("a key");
    assert_eq!(key.health, "critical");
    assert!(
        key.reason.contains("election_mode is 'manual'"),
        "{}",
        key.reason
    );
}

#[test]
fn a_replica_that_turned_writable_is_fenced() {
    let mut node = replica().having(|instance| {
        instance.ro = false;
        instance.read_only = false;
    });
    node.attaches();
    assert!(does!(
        node.plan(),
        Action::Guard(GuardCommand::Fence { .. })
    ));
}

#[test]
fn a_guard_that_did_not_answer_is_asked_again_after_a_pause() {
    let mut node = replica().later(1.secs());
    let probe = node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    node.loses(&probe);
    assert!(!does!(node.turn(), Action::Guard(GuardCommand::Probe)));
    node.passes(50.ms());
    assert!(does!(node.turn(), Action::Guard(GuardCommand::Probe)));
}

#[test]
fn a_word_that_it_did_not_ask_for_ends_no_command() {
    let mut node = master().later(1.secs());
    let _probe = node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    node.attaches();
    assert!(
        node.state.pending.is_busy(Place::Guard),
        "its answer is still to come"
    );
    assert!(!does!(node.turn(), Action::Guard(GuardCommand::Probe)));
}

#[test]
fn a_dead_process_stays_dead_until_there_is_a_new_one() {
    let mut node = master();
    node.is_killed();
    node.is_cut_off();
    assert!(matches!(node.plan().reason, Reason::InstanceDied { .. }));
    node.instance.restart(node.now);
    node.attaches();
    assert!(node.state.live_probe().is_some());
}

#[test]
fn the_first_cause_of_silence_is_kept_with_the_latest_words() {
    let mut node = master();
    node.is_cut_off();
    let crate::state::Link::Down { since, .. } = node.state.instance.link else {
        panic!("it is not down")
    };
    node.passes(1.secs());
    node.hears(Event::Unreachable {
        why: "refused".to_owned(),
    });
    let expected = crate::state::Link::Down {
        why: "refused".to_owned(),
        since,
    };
    assert_eq!(node.state.instance.link, expected);
}

#[test]
fn a_holder_that_has_not_attached_yet_waits() {
    let mut node = master();
    node.state.instance.link = crate::state::Link::Unknown;
    let plan = node.turn();
    assert!(matches!(plan.reason, Reason::WaitingForInstance { .. }));
    assert!(!does!(
        plan,
        Action::Release { .. } | Action::Refresh { .. }
    ));
}
