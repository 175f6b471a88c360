//! What checks are answered, state by state, and that a master check says yes only under a lease.

use proptest::prelude::*;

use super::fixtures::*;
use super::toys::follower;
use crate::board::Pause;
use crate::check::{Check, Snapshot, Trail, Wish};
use crate::decide;
use crate::event::{Event, LockStepKind};
use crate::ids::SessionId;
use crate::plan::{Action, GuardCommand};
use crate::record::Record;
use crate::router::{Identity, RouterEvent, RouterSettings, RouterState};
use crate::sight::ConsulFault;
use crate::timing::Tick;
use crate::vshard::{Look, Routes, VshardEvent};

const ANY: Wish = Wish {
    lag: None,
    idle: None,
};
/// In the order of the tables' columns.
const CHECKS: [Check; 7] = [
    Check::Master,
    Check::Replica(ANY),
    Check::Reads(ANY),
    Check::Health,
    Check::Liveness,
    Check::Readiness,
    Check::Consensus,
];

impl Node {
    /// As of a turn that ends now.
    fn snapshot(&self) -> Snapshot {
        let plan = decide(&self.state, self.now);
        Snapshot::of(&self.state, &plan, &Trail::default(), self.now)
    }

    /// Which checks say yes now.
    fn row(&self) -> String {
        row(&self.snapshot(), self.now, self.now)
    }

    fn is_master_by_check(&self) -> bool {
        let snapshot = self.snapshot();
        snapshot.answer(Check::Master, self.now, self.now).is_ok()
    }
}

fn row(snapshot: &Snapshot, ran_at: Tick, now: Tick) -> String {
    let yes = |check| snapshot.answer(check, ran_at, now).is_ok();
    let marks = CHECKS.map(|check| if yes(check) { 'Y' } else { '-' });
    marks.into_iter().collect()
}

fn why(node: &Node, check: Check) -> String {
    let answer = node.snapshot().answer(check, node.now, node.now);
    answer.expect_err("a no")
}

/// Master, and the guard has said something since the agent connected.
fn heard_master() -> Node {
    let mut node = master();
    node.lives_on(1.secs());
    node
}

fn fed_replica() -> Node {
    let record = Record {
        vclock: [("1".to_owned(), 10)].into(),
        ..record()
    };
    let mut node = node()
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record);
        })
        .having(|instance| instance.replication = vec![follower(OTHER)])
        .attached()
        .seeing_lock()
        .settled();
    node.lives_on(2.secs());
    node
}

#[test]
fn every_check_in_every_state() {
    let started = Snapshot::of_nobody(LEASE);
    let now = Tick::at(1_000.secs());
    //                                        columns: master replica reads health liveness readiness consensus
    assert_eq!(row(&started, now, now), "----Y--", "just started");
    assert_eq!(node().row(), "----Y--", "not attached");
    assert_eq!(heard_master().row(), "Y-YYYYY", "master");
    assert_eq!(fed_replica().row(), "-YYYYYY", "replica");

    let mut stopping = fed_replica();
    stopping.is_asked_to_stop();
    assert_eq!(stopping.row(), "-YYYY-Y", "a replica that is to stop");

    let mut alone = node().finding(|lock| lock.delete_key()).attached();
    alone.watch_shows_lock();
    assert_eq!(alone.row(), "--YYY--", "nobody is master");

    let mut dead = heard_master();
    dead.is_killed();
    assert_eq!(dead.row(), "----Y--", "a dead master");
    let mut lost = fed_replica();
    lost.is_cut_off();
    assert_eq!(lost.row(), "----Y-Y", "a replica without a connection");

    let mut hung = heard_master();
    hung.freezes();
    assert_eq!(
        hung.row(),
        "Y-YYYYY",
        "a master that was silent for a moment"
    );
    let hung = hung.watched(2.secs());
    assert_eq!(hung.row(), "----Y-Y", "a master that hangs");

    let mut unread = heard_master();
    unread.watch_fails();
    assert_eq!(unread.row(), "Y-YYYY-", "a master without Consul");
    let unread = unread.later(LEASE);
    assert_eq!(unread.row(), "--YYY--", "and behind its lease");
}

#[test]
fn an_agent_that_stood_still_says_nothing_that_it_knew() {
    for node in [heard_master(), fed_replica()] {
        let (snapshot, ran_at) = (node.snapshot(), node.now);
        let thawed = ran_at + LEASE + MOMENT;
        assert_eq!(row(&snapshot, ran_at, thawed), "-------");
        // It turns, and has learned nothing yet.
        assert!(snapshot.answer(Check::Master, thawed, thawed).is_err());
        assert!(snapshot.answer(Check::Liveness, thawed, thawed).is_ok());
    }
}

#[test]
fn the_master_check_ends_before_the_lease_counted_from_the_question() {
    let mut node = heard_master();
    let probe = node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Probe)));
    let begun_at = node.now;
    // The answer is long on its way.
    let answer = node.carries_out(&probe).expect("an answer");
    let left =
        node.instance.guard.deadline.monotonic_ns - node.instance.clock(node.now).monotonic_ns;
    node.passes(3.secs());
    node.hears(answer);
    let snapshot = node.snapshot();
    let yes = |at| snapshot.answer(Check::Master, at, at).is_ok();
    let end = begun_at + std::time::Duration::from_nanos(left);
    assert!(yes(node.now));
    assert!(!yes(end), "at the end of the lease");
    assert!(!yes(end.before(150.ms())), "a clock may be 2 % fast");
    assert!(yes(end.before(400.ms())));
}

#[test]
fn a_word_that_came_with_the_connection_is_not_enough() {
    let mut node = heard_master();
    node.is_cut_off();
    node.attaches();
    assert!(node.state.is_serving());
    assert!(why(&node, Check::Master).contains("since its agent connected"));
    node.lives_on(1.secs());
    assert!(node.is_master_by_check());
}

#[test]
fn a_fence_that_is_ordered_says_no_until_the_guard_has_said_otherwise() {
    let mut node = heard_master();
    node.is_asked_to_stop();
    let is_fence = |action: &Action| matches!(action, Action::Guard(GuardCommand::Fence { .. }));
    let fence = node.comes_to(is_fence);
    assert!(why(&node, Check::Master).contains("making it read-only"));
    node.loses(&fence);
    assert!(why(&node, Check::Master).contains("making it read-only"));
}

#[test]
fn another_agents_guard_is_not_vouched_for() {
    let mut node = heard_master();
    node.hears(Event::Superseded {
        by: "second".to_owned(),
    });
    assert!(why(&node, Check::Master).contains("another agent"));
}

/// Paused, its guard standing down.
fn paused() -> Node {
    let mut node = heard_master().finding(|lock| {
        lock.pause = Some(Pause::default());
    });
    node.lives_on(6.secs());
    let probe = node.state.instance.probe.as_ref();
    assert!(probe.is_some_and(|probe| probe.guard.stood_down));
    node
}

#[test]
fn in_a_pause_a_word_counts_for_a_lease() {
    let node = paused();
    assert_eq!(node.row(), "Y-YYYYY");
    let snapshot = node.snapshot();
    let word_at = node.state.instance.answered_begun_at.expect("a word");
    let yes = |at| snapshot.answer(Check::Master, at, at).is_ok();
    assert!(yes(word_at + LEASE.saturating_sub(MOMENT)));
    assert!(!yes(word_at + LEASE));
}

#[test]
fn a_guard_that_may_have_stood_up_again_has_the_lease_that_it_said() {
    let node = paused();
    let word_at = node.state.instance.answered_begun_at.expect("a word");
    let mut trail = Trail::default();
    let up = Action::Guard(GuardCommand::StandDown { down: false });
    trail.note(&up, word_at);
    let plan = decide(&node.state, node.now);
    let snapshot = Snapshot::of(&node.state, &plan, &trail, node.now);
    let probe = node.state.instance.probe.as_ref().expect("a word");
    let left = probe.guard.deadline.monotonic_ns - probe.now.monotonic_ns;
    let end = word_at + std::time::Duration::from_nanos(left);
    assert!(end < word_at + LEASE);
    assert!(snapshot.answer(Check::Master, end, end).is_err());
    // What was said before that is no matter of this word's.
    let mut earlier = Trail::default();
    earlier.note(&up, word_at.before(MOMENT));
    let snapshot = Snapshot::of(&node.state, &plan, &earlier, node.now);
    assert!(snapshot.answer(Check::Master, end, end).is_ok());
}

#[test]
fn a_replica_that_is_not_fed_is_none_and_says_why() {
    let mut node = fed_replica();
    let upstream = node.instance.replication[0].upstream.as_mut();
    "stopped".clone_into(&mut upstream.expect("it has one").status);
    node.lives_on(2.secs());
    assert!(why(&node, Check::Replica(ANY)).contains("has stopped"));
    assert!(why(&node, Check::Readiness).contains("has stopped"));
    // Readers leave it when REPLICA_MAX_IDLE is over.
    let snapshot = node.snapshot();
    assert!(
        snapshot
            .answer(Check::Reads(ANY), node.now, node.now)
            .is_ok()
    );
}

fn router() -> RouterState {
    RouterState::new(RouterSettings {
        announce: "router:3301".to_owned(),
        interval: 1.secs(),
    })
}

fn look(unreachable: &[&str]) -> Box<Option<Look>> {
    let unreachable = unreachable.iter().map(|set| (*set).to_owned()).collect();
    let masters = [("first", "a1"), ("second", "b1")];
    let masters = masters.map(|(set, master)| (set.to_owned(), master.to_owned()));
    Box::new(Some(Look {
        routers: vec![Routes {
            masters: masters.into(),
            unreachable,
            ..Routes::default()
        }],
        ..Look::default()
    }))
}

#[test]
fn every_check_of_a_router() {
    let now = Tick::at(100.secs());
    let mut state = router();
    let row_of = |state: &RouterState| {
        let plan = crate::router::decide(state, now);
        row(&Snapshot::of_router(state, &plan, LEASE), now, now)
    };
    assert_eq!(row_of(&state), "----Y--", "just started");
    let identity = Identity::default();
    let look_at = |look| RouterEvent::Looked { result: look };
    let attached = RouterEvent::Attached {
        identity,
        look: look(&[]),
    };
    state.apply(attached, now);
    assert_eq!(row_of(&state), "---YYY-", "it knows no masters from Consul");
    let masters = VshardEvent::MastersSeen {
        masters: Default::default(),
    };
    state.apply(RouterEvent::Vshard(masters), now);
    assert_eq!(row_of(&state), "---YYYY");
    state.apply(look_at(Ok(look(&["first"]))), now);
    assert_eq!(row_of(&state), "---YY-Y", "a master is not connected");
    state.apply(look_at(Err("timed out".to_owned())), now);
    assert_eq!(row_of(&state), "----Y-Y", "it hangs");
    state.apply(look_at(Ok(look(&[]))), now);
    let fault = ConsulFault {
        why: "refused".to_owned(),
        denied: false,
    };
    state.apply(RouterEvent::Told { result: Err(fault) }, now);
    assert_eq!(row_of(&state), "---YYY-", "without Consul");
    let why = "it has ended".to_owned();
    state.apply(RouterEvent::Lost { why }, now);
    assert_eq!(row_of(&state), "----Y--", "it is gone");
}

proptest! {
    #![proptest_config(trying(300))]

    /// Whatever is answered, late or lost, and whenever the question comes: the guard's lease runs.
    #[test]
    fn the_master_check_never_says_yes_past_the_guards_own_lease(
        steps in prop::collection::vec((0_u8..6, 1_u64..4_000), 1..40),
        asked_ms in prop::collection::vec(0_u64..12_000, 4),
    ) {
        let mut node = heard_master();
        let mut trail = Trail::default();
        for (step, ms) in steps {
            match step {
                0 => node.watch_fails(),
                1 => node.freezes(),
                2 => {
                    node.instance.frozen = false;
                    node.hears(Event::SpokeAgain);
                }
                3 => node.passes(ms.ms()),
                4 => node.lives_on(ms.ms().min(1.secs())),
                _ => {
                    let plan = decide(&node.state, node.now);
                    for action in &plan.actions {
                        node.state.begin(action, node.now);
                        trail.note(action, node.now);
                    }
                    for action in &plan.actions {
                        match (ms % 3, action) {
                            (0, _) => node.loses_reply(action),
                            (1, Action::Refresh { .. }) => node.hears(Event::LockStepEnded {
                                step: LockStepKind::Refresh,
                                result: Err(fault()),
                            }),
                            _ => {
                                node.passes((ms / 4).ms());
                                node.answers(action);
                            }
                        }
                    }
                }
            }
            let plan = decide(&node.state, node.now);
            let snapshot = Snapshot::of(&node.state, &plan, &trail, node.now);
            for ms in &asked_ms {
                let now = node.now + ms.ms();
                if snapshot.answer(Check::Master, now, now).is_ok() {
                    let guard = &node.instance.guard;
                    prop_assert!(guard.leased && node.instance.clock(now) < guard.deadline);
                }
            }
        }
    }
}
