//! Asked to stop: read-only first, then the lock, then the catalog, then the session, then the end.

use super::fixtures::*;
use crate::event::Event;
use crate::observed::Peer;
use crate::plan::{Action, Ending, GuardCommand, Reason};
use crate::vclock::Vclock;

fn peer(behind: bool) -> Peer {
    Peer {
        id: 2,
        uuid: OTHER.to_owned(),
        upstream: None,
        downstream_status: Some("follow".to_owned()),
        downstream_vclock: Some(Vclock::from([(
            "1".to_owned(),
            if behind { 9 } else { 10 },
        )])),
    }
}

/// The names of all steps until the exit, without what any agent does all the time.
fn steps_to_the_end(node: &mut Node) -> Vec<&'static str> {
    let mut steps = Vec::new();
    for _ in 0..64 {
        let plan = node.turn();
        for action in &plan.actions {
            let names = [
                (
                    "fence",
                    matches!(action, Action::Guard(GuardCommand::Fence { .. })),
                ),
                ("release", matches!(action, Action::Release { .. })),
                ("deregister", matches!(action, Action::Deregister)),
                (
                    "destroy session",
                    matches!(action, Action::DestroySession { .. }),
                ),
                (
                    "exit",
                    matches!(
                        action,
                        Action::Exit {
                            how: Ending::Stopped
                        }
                    ),
                ),
            ];
            let Some((name, _)) = names.into_iter().find(|(_, is_it)| *is_it) else {
                let always = matches!(
                    action,
                    Action::Guard(GuardCommand::Probe)
                        | Action::Tell { .. }
                        | Action::WriteMember { .. }
                );
                assert!(always, "{action:?}");
                node.answers(action);
                continue;
            };
            steps.push(name);
            if name == "exit" {
                return steps;
            }
            node.answers(action);
        }
        if plan.actions.is_empty() {
            node.passes(10.ms());
        }
    }
    panic!("{steps:?}, then {:?}", node.plan());
}

#[test]
fn a_master_fences_releases_deregisters_and_ends() {
    let mut node = master();
    node.is_asked_to_stop();
    let steps = steps_to_the_end(&mut node);
    assert_eq!(
        steps,
        ["fence", "release", "deregister", "destroy session", "exit"]
    );
    assert!(!node.instance.is_writable() && node.lock.sessions.is_empty());
}

#[test]
fn a_replica_deregisters_and_ends() {
    let mut node = replica();
    node.is_asked_to_stop();
    assert_eq!(steps_to_the_end(&mut node), ["deregister", "exit"]);
}

#[test]
fn an_agent_that_knows_nothing_yet_ends_at_once() {
    let mut node = node();
    node.is_asked_to_stop();
    assert_eq!(steps_to_the_end(&mut node), ["exit"]);
}

#[test]
fn the_lock_of_a_dead_instance_is_released_without_a_fence() {
    let mut node = master();
    node.is_killed();
    node.is_asked_to_stop();
    let steps = steps_to_the_end(&mut node);
    assert_eq!(steps, ["release", "deregister", "destroy session", "exit"]);
}

#[test]
fn a_hung_instance_is_killed_before_the_release() {
    let mut node = master();
    node.freezes();
    node.is_asked_to_stop();
    let mut said = Vec::new();
    for _ in 0..150 {
        node.passes(100.ms());
        for action in node.turn().actions {
            let is_kill = matches!(action, Action::Kill);
            if is_kill || matches!(action, Action::Release { .. }) {
                said.push(is_kill);
            }
            node.answers(&action);
            if is_kill {
                node.is_killed();
            }
        }
    }
    assert_eq!(said, [true, false]);
}

#[test]
fn a_master_waits_read_only_for_a_replica_that_is_behind() {
    let mut node = master().having(|instance| instance.replication = vec![peer(true)]);
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.is_asked_to_stop();
    let fence =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Fence { .. })));
    node.answers(&fence);
    let plan = node.round();
    assert_eq!(
        plan.reason,
        Reason::Stopping {
            waiting_for: "a replica to have the last rows"
        }
    );
    assert!(!does!(plan, Action::Release { .. }));
    assert!(plan.wake_at.expect("a timer") <= node.now + 10.ms());
    node.instance.replication = vec![peer(false)];
    node.passes(10.ms());
    assert_eq!(steps_to_the_end(&mut node).first(), Some(&"release"));
}

#[test]
fn the_wait_for_a_replica_is_bounded() {
    let mut node = master().having(|instance| instance.replication = vec![peer(true)]);
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.is_asked_to_stop();
    let started_at = node.now;
    let fence =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Fence { .. })));
    node.answers(&fence);
    while !does!(node.plan(), Action::Release { .. }) {
        node.round();
        node.passes(10.ms());
        assert!(node.now.since(started_at) < 3.secs());
    }
    assert!(node.now.since(started_at) >= 2.secs());
}

#[test]
fn nobody_waits_for_a_replica_that_does_not_follow() {
    let mut gone = peer(true);
    gone.downstream_status = Some("stopped".to_owned());
    let mut node = master().having(|instance| instance.replication = vec![gone]);
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.is_asked_to_stop();
    assert_eq!(steps_to_the_end(&mut node)[..2], ["fence", "release"]);
}

#[test]
fn it_ends_some_day_though_consul_never_answers() {
    let mut node = master();
    node.is_asked_to_stop();
    let started_at = node.now;
    loop {
        node.passes(50.ms());
        let plan = node.turn();
        if does!(plan, Action::Exit { .. }) {
            break;
        }
        assert!(plan.wake_at.is_some(), "{plan:?}");
        for action in &plan.actions {
            if action.guard_command_kind().is_some() {
                node.answers(action);
            } else {
                node.loses(action);
            }
        }
    }
    let took = node.now.since(started_at);
    assert!(
        took >= LEASE_AND_MARGIN && took < LEASE_AND_MARGIN + 6.secs(),
        "{took:?}"
    );
    assert!(!node.instance.is_writable());
}

#[test]
fn the_first_request_to_stop_counts() {
    let mut node = master();
    node.is_asked_to_stop();
    let first = node.state.stopping;
    node.passes(1.secs());
    node.hears(Event::StopRequested { signal: "SIGINT" });
    assert_eq!(node.state.stopping, first);
}

#[test]
fn a_stopping_agent_does_not_run_for_the_lock() {
    let mut node = node().attached().seeing_lock();
    node.is_asked_to_stop();
    assert!(!does!(
        node.plan(),
        Action::CreateSession | Action::Acquire { .. }
    ));
}

#[test]
fn a_stopping_agent_looks_whether_a_lost_write_left_it_the_lock() {
    let mut node = master().later(2500.ms());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.lock.sessions.clear();
    node.loses(&refresh);
    node.hears(Event::SessionRenewed {
        session: node.own_session(),
        result: Ok(false),
    });
    node.is_asked_to_stop();
    node.passes(200.ms());
    let read = node.runs_until(|action| matches!(action, Action::ReadLock));
    assert_eq!(read, Action::ReadLock);
}
