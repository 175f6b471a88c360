//! Another master at an operator's wish.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fixtures::*;
use super::toys::{follower, member};
use crate::board::{Member, Pause, Switchover, SwitchoverState};
use crate::event::Event;
use crate::ids::SessionId;
use crate::observed::Peer;
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::{Cause, Status};
use crate::vclock::Vclock;

mod names;
mod target;

fn vclock(own: u64) -> Vclock {
    BTreeMap::from([("1".to_owned(), own)])
}

fn peer(instance: &str, confirmed: u64) -> Peer {
    Peer {
        id: 2,
        uuid: instance.to_owned(),
        upstream: follower(instance).upstream,
        downstream_status: Some("follow".to_owned()),
        downstream_vclock: Some(vclock(confirmed)),
    }
}

fn order(target: Option<&str>) -> Switchover {
    Switchover {
        id: "one".to_owned(),
        target: target.map(str::to_owned),
        by: "ann".to_owned(),
        state: SwitchoverState::Requested,
        ..Switchover::nothing()
    }
}

/// A master in term 7 with a replica that has everything.
fn pair() -> Node {
    let mut node = master();
    node.instance.replication = vec![peer(OTHER, 10)];
    let other = member(OTHER, "b:3301");
    node.lock.members.insert(OTHER.to_owned(), other);
    node.lives_on(1.secs());
    node
}

impl Node {
    fn is_ordered(&mut self, order: Switchover) {
        self.lock.order(order.clone());
        let index = self.lock.index;
        self.hears(Event::SwitchoverSeen {
            index,
            switchover: order,
        });
    }

    fn outcome(&self) -> (SwitchoverState, String) {
        let (_, order) = self.lock.switchover.as_ref().unwrap();
        (order.state, order.why.clone())
    }

    /// The target's agent has seen the record that names it, and has its session.
    fn target_gets_ready(&mut self, excluded: Option<&str>) {
        self.lock.says_ready(OTHER);
        let ballot = self.lock.ballots.get_mut(OTHER).unwrap();
        ballot.excluded = excluded.map(str::to_owned);
    }

    /// Ordered, accepted, announced, and the target is ready.
    fn ready_to_hand_over(mut self) -> Self {
        self.is_ordered(order(None));
        self.runs_until_announced();
        self.target_gets_ready(None);
        self
    }

    fn runs_until_announced(&mut self) {
        for _ in 0..64 {
            self.round();
            let record = self.lock.record().unwrap();
            if record.handover_to.as_deref() == Some(OTHER) {
                return;
            }
        }
        panic!("not announced: {:?}", self.plan());
    }
}

fn is_fence(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Fence { .. }))
}

fn is_release(action: &Action) -> bool {
    matches!(action, Action::Release { .. })
}

#[test]
fn a_switchover_ends_in_a_fenced_release_that_names_the_target() {
    let mut node = pair().ready_to_hand_over();
    assert!(node.instance.is_writable());
    assert_eq!(node.lock.record().unwrap().status, Status::Active);
    let release = node.comes_to(is_release);
    assert!(!node.instance.is_writable());
    node.answers(&release);
    let record = node.lock.record().unwrap();
    assert_eq!(record.status, Status::Fenced);
    assert_eq!(record.handover_to.as_deref(), Some(OTHER));
    assert_eq!(record.reason, "switchover to b:3301 by ann");
    assert_eq!(node.lock.holder(), None);
    assert_eq!(node.outcome().0, SwitchoverState::Running);
    // It does not run for what it has just given up, unless nobody takes it.
    node.settles();
    assert!(!node.state.holds_lock());
    assert!(matches!(node.plan().reason, Reason::HoldingBack { .. }));
    node.passes(node.state.settings.election_window);
    node.settles();
    assert!(node.instance.is_writable(), "{:?}", node.plan().reason);
}

#[test]
fn nothing_is_fenced_before_the_target_is_ready() {
    let mut node = pair();
    node.is_ordered(order(Some("b:3301")));
    node.runs_until_announced();
    for _ in 0..20 {
        node.passes(20.ms());
        assert!(!does!(
            node.round(),
            Action::Guard(GuardCommand::Fence { .. })
        ));
    }
    node.target_gets_ready(None);
    node.comes_to(is_fence);
}

#[test]
fn a_ballot_of_an_earlier_try_does_not_count() {
    let mut node = pair();
    node.target_gets_ready(None);
    node.is_ordered(order(None));
    node.runs_until_announced();
    for _ in 0..8 {
        node.passes(20.ms());
        assert!(!does!(
            node.round(),
            Action::Guard(GuardCommand::Fence { .. })
        ));
    }
}

#[test]
fn a_target_whose_agent_does_not_answer_costs_no_read_only_moment() {
    let mut node = pair();
    node.is_ordered(order(None));
    node.runs_until_announced();
    let begun = node.now;
    while node.now.since(begun) < 12.secs() {
        node.passes(50.ms());
        assert!(!does!(
            node.round(),
            Action::Guard(GuardCommand::Fence { .. })
        ));
    }
    assert_eq!(
        node.outcome(),
        (
            SwitchoverState::Undone,
            "the agent of b:3301 does not answer".to_owned()
        )
    );
    node.settles();
    assert_eq!(node.lock.record().unwrap().handover_to, None);
}

#[test]
fn a_target_that_says_it_cannot_be_master_is_believed() {
    let mut node = pair();
    node.is_ordered(order(None));
    node.runs_until_announced();
    node.target_gets_ready(Some("its status is 'orphan'"));
    node.lives_on(1.secs());
    let (state, why) = node.outcome();
    assert_eq!(state, SwitchoverState::Undone);
    assert!(why.contains("orphan"), "{why}");
    assert!(node.instance.is_writable());
}

#[test]
fn the_target_is_waited_for_until_it_has_the_last_rows() {
    let mut node = pair().ready_to_hand_over();
    node.instance.vclock = vclock(15);
    let fence = node.comes_to(is_fence);
    node.answers(&fence);
    for _ in 0..20 {
        node.passes(2.ms());
        assert!(!does!(node.round(), Action::Release { .. }));
    }
    node.instance.replication = vec![peer(OTHER, 15)];
    node.comes_to(is_release);
}

#[test]
fn a_target_that_does_not_catch_up_leaves_the_same_master_in_the_same_term() {
    let mut node = pair().ready_to_hand_over();
    node.instance.vclock = vclock(15);
    let fence = node.comes_to(is_fence);
    node.answers(&fence);
    let fenced = node.now;
    while !node.instance.is_writable() {
        assert!(node.now.since(fenced) < 3.secs(), "{:?}", node.plan());
        node.passes(2.ms());
        assert!(!does!(node.round(), Action::Release { .. }));
    }
    assert!(node.now.since(fenced) >= 1_990.ms());
    node.settles();
    let (state, why) = node.outcome();
    assert_eq!(state, SwitchoverState::Undone);
    assert_eq!(why, "b:3301 still lacked 5 rows after 2000 ms");
    let record = node.lock.record().unwrap();
    assert_eq!((record.term.get(), record.status), (7, Status::Active));
    assert_eq!(record.handover_to, None);
    assert!(node.state.is_serving());
}

#[test]
fn a_slow_target_does_not_cost_the_lock() {
    let mut node = pair();
    node.is_ordered(Switchover {
        catch_up_ms: 60_000,
        ..order(None)
    });
    node.runs_until_announced();
    node.target_gets_ready(None);
    node.instance.vclock = vclock(15);
    let fence = node.comes_to(is_fence);
    node.answers(&fence);
    let mut refreshed = node.lock.record().unwrap().refresh;
    for _ in 0..4 {
        node.lives_on(3.secs());
        let record = node.lock.record().unwrap();
        assert!(record.refresh > refreshed, "nobody is to take it over");
        // Whoever sees it must wait for the whole lease: this is no `fenced`, and no free way for the target either.
        assert_eq!(record.status, Status::Active);
        refreshed = record.refresh;
    }
}

#[test]
fn a_release_for_another_reason_names_nobody() {
    let mut node = pair().ready_to_hand_over();
    node.is_killed();
    node.settles();
    let record = node.lock.record().unwrap();
    assert_eq!(record.status, Status::Fenced);
    assert_eq!(record.handover_to, None);
}

#[test]
fn a_release_that_was_lost_is_not_followed_by_a_promotion_under_the_old_reading() {
    let mut node = pair().ready_to_hand_over();
    let release = node.comes_to(is_release);
    node.loses(&release);
    node.passes(3.secs());
    // The time for catching up is over: the same master, but only behind a new refresh, which kills the release.
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    let Action::Guard(GuardCommand::Promote { reading, .. }) = promote else {
        unreachable!()
    };
    assert!(
        reading.reply_at > node.state.hold.accepted_at + Duration::ZERO || {
            let accepted = node.state.hold.accepted_at;
            node.now.since(accepted) < 1.secs()
        }
    );
    let _ = node.carries_out(&release);
    assert!(node.lock.holder().is_some(), "the late release failed");
}

#[test]
fn the_unfit_are_refused_with_a_reason() {
    type Change = fn(&mut Node);
    let cases: [(Option<&str>, Change, &str); 10] = [
        (Some("nobody"), |_| {}, "no member is called nobody"),
        (Some(OWN), |_| {}, "is the master already"),
        (
            Some(OTHER),
            |node| node.lock.members.get_mut(OTHER).unwrap().priority = -1,
            "its priority is -1",
        ),
        (
            Some(OTHER),
            |node| "critical".clone_into(&mut node.lock.members.get_mut(OTHER).unwrap().health),
            "b:3301 is critical",
        ),
        (
            Some(OTHER),
            |node| {
                let other = node.lock.members.get_mut(OTHER).unwrap();
                other.cut_off = Some("it has stopped".to_owned());
            },
            "the master's rows do not arrive at b:3301: it has stopped",
        ),
        (
            Some(OTHER),
            |node| node.instance.replication[0].downstream_status = Some("stopped".to_owned()),
            "does not replicate from the master",
        ),
        (
            Some(OTHER),
            |node| node.instance.replication[0].downstream_vclock = None,
            "does not replicate from the master",
        ),
        (
            Some(OTHER),
            |node| {
                node.state.settings.max_lag_rows = 4;
                node.instance.replication = vec![peer(OTHER, 5)];
            },
            "lags 5 rows behind",
        ),
        (
            Some(OTHER),
            |node| node.lock.pause = Some(Pause::default()),
            "PAUSED",
        ),
        (
            None,
            |node| node.instance.replication.clear(),
            "no member is fit: b:3301 does not replicate",
        ),
    ];
    for (target, change, words) in cases {
        let mut node = pair();
        change(&mut node);
        node.passes(1.secs());
        node.settles();
        node.is_ordered(order(target));
        node.settles();
        let (state, why) = node.outcome();
        assert_eq!(state, SwitchoverState::Refused, "{target:?}");
        assert!(why.contains(words), "{why} / {words}");
        assert!(node.instance.is_writable());
        assert_eq!(node.lock.record().unwrap().handover_to, None);
    }
}

#[test]
fn the_best_follower_is_chosen() {
    let mut node = pair();
    for (instance, name, confirmed, priority) in
        [("c", "c:1", 8, 9), ("d", "d:1", 9, 1), ("e", "e:1", 9, 2)]
    {
        node.instance.replication.push(peer(instance, confirmed));
        let member = Member {
            priority,
            ..member(instance, name)
        };
        node.lock.members.insert(instance.to_owned(), member);
    }
    node.instance.replication[0] = peer(OTHER, 7);
    node.passes(1.secs());
    node.settles();
    node.is_ordered(order(None));
    node.settles();
    assert_eq!(
        node.lock.record().unwrap().handover_to.as_deref(),
        Some("e")
    );
}

#[test]
fn an_order_is_judged_by_a_board_that_has_it() {
    let mut node = pair();
    // Nobody has seen the pause yet.
    node.lock.pause = Some(Pause::default());
    node.is_ordered(order(None));
    assert!(does!(node.plan(), Action::ReadBoard));
    assert!(!does!(node.plan(), Action::WriteSwitchover { .. }));
}

#[test]
fn an_order_that_was_changed_meanwhile_is_looked_at_again() {
    let mut node = pair();
    node.is_ordered(order(None));
    let begin = node.comes_to(|action| matches!(action, Action::WriteSwitchover { .. }));
    node.lock.order(Switchover {
        id: "two".to_owned(),
        ..order(Some("nobody"))
    });
    node.answers(&begin);
    node.lives_on(4.secs());
    assert_eq!(node.outcome().0, SwitchoverState::Refused);
    assert!(node.instance.is_writable());
}

#[test]
fn an_order_is_noticed_in_a_consul_that_counts_from_the_beginning() {
    let mut node = pair();
    let before = Switchover {
        id: "before".to_owned(),
        state: SwitchoverState::Done,
        at_ms: 1_000,
        ..order(None)
    };
    node.hears(Event::SwitchoverSeen {
        index: 1_000_000,
        switchover: before.clone(),
    });
    node.is_ordered(Switchover {
        at_ms: 2_000,
        ..order(None)
    });
    let noticed = node.state.orders.switchover.clone().unwrap();
    assert_eq!((noticed.0, noticed.1.id.as_str()), (node.lock.index, "one"));
    // What was overtaken is older, and no news.
    node.hears(Event::SwitchoverSeen {
        index: 1,
        switchover: before,
    });
    assert_eq!(node.state.orders.switchover, Some(noticed));
    node.runs_until_announced();
}

#[test]
fn a_pause_that_comes_in_between_undoes_it() {
    let mut node = pair().ready_to_hand_over();
    node.instance.vclock = vclock(15);
    let fence = node.comes_to(is_fence);
    node.answers(&fence);
    node.lock.pause = Some(Pause::default());
    node.lives_on(4.secs());
    assert_eq!(node.outcome().0, SwitchoverState::Undone);
    assert!(node.instance.is_writable());
}

#[test]
fn an_agent_that_restarts_in_the_middle_undoes_it() {
    let mut node = pair().ready_to_hand_over();
    node.instance.vclock = vclock(15);
    let fence = node.comes_to(is_fence);
    node.answers(&fence);
    assert!(!node.instance.is_writable());
    node.state = crate::state::State::new(settings());
    node.attaches();
    node.watch_shows_lock();
    let begun = node.now;
    while !node.instance.is_writable() {
        assert!(node.now.since(begun) < 1.secs(), "{:?}", node.plan());
        node.passes(10.ms());
        node.round();
    }
    node.lives_on(3.secs());
    assert_eq!(node.outcome().0, SwitchoverState::Undone);
    assert_eq!(node.lock.record().unwrap().term.get(), 7);
    assert_eq!(node.lock.record().unwrap().handover_to, None);
}

/// This instance gains the lock after `predecessor`, which had an order in this state.
fn heir(handover_to: Option<&str>, state: SwitchoverState) -> Node {
    let mut before = record().says(Status::Fenced);
    before.handover_to = handover_to.map(str::to_owned);
    let mut node = node().finding(|lock| {
        lock.order(Switchover {
            state,
            ..order(None)
        });
        lock.put_record(None, &before);
    });
    node.attaches();
    node.watch_shows_lock();
    node.settles();
    node.lives_on(3.secs());
    node.serving()
}

#[test]
fn whoever_was_named_says_that_it_is_done() {
    let node = heir(Some(OWN), SwitchoverState::Running);
    assert_eq!(node.outcome(), (SwitchoverState::Done, String::new()));
}

#[test]
fn whoever_came_instead_says_so() {
    let node = heir(Some("third"), SwitchoverState::Running);
    let (state, why) = node.outcome();
    assert_eq!(state, SwitchoverState::Done);
    assert!(why.contains("third did not take the lock"), "{why}");
}

/// Between two refreshes it has come back, and the master replicates from it again.
#[test]
fn an_order_is_judged_by_what_the_instance_says_after_it_came() {
    let mut node = pair();
    let upstream = node.instance.replication[0].upstream.take();
    node.lives_on(1.secs());
    node.instance.replication[0].upstream = upstream;
    node.is_ordered(order(Some(OTHER)));
    node.settles();
    let (state, why) = node.outcome();
    assert_eq!(state, SwitchoverState::Running, "{why}");
}

/// It would have what is written alone; a third member that replicates from it, or will, is enough.
#[test]
fn a_member_from_whom_nobody_would_replicate_is_refused() {
    let third = |follows: bool, keeps: bool| {
        let mut it = member("third", "c:3301");
        let status = if follows { "follow" } else { "stopped" };
        it.upstreams.insert(OTHER.to_owned(), status.to_owned());
        let replication = if keeps { "keep" } else { "follow" };
        let setting = ("REPLICATION".to_owned(), replication.to_owned());
        it.shared.extend([setting]);
        it
    };
    let cases = [
        (None, SwitchoverState::Refused),
        (Some(third(false, true)), SwitchoverState::Refused),
        (Some(third(true, true)), SwitchoverState::Running),
        (Some(third(false, false)), SwitchoverState::Running),
    ];
    for (third, expected) in cases {
        let mut node = pair();
        node.instance.replication[0].upstream = None;
        if let Some(third) = third {
            node.instance.replication.push(peer("third", 10));
            node.lock.members.insert("third".to_owned(), third);
        }
        node.lives_on(1.secs());
        node.is_ordered(order(Some(OTHER)));
        node.settles();
        let (state, why) = node.outcome();
        assert_eq!(state, expected, "{why}");
        let said = why.starts_with("nobody replicates from b:3301");
        assert_eq!(said, expected == SwitchoverState::Refused, "{why}");
    }
    // Its key is there yet, and it does not live.
    let mut node = pair();
    node.instance.replication[0].upstream = None;
    let dead = third(true, true);
    node.lock.members.insert("third".to_owned(), dead);
    node.lives_on(1.secs());
    node.is_ordered(order(Some(OTHER)));
    node.settles();
    assert_eq!(node.outcome().0, SwitchoverState::Refused);
    // The master's own agent will see to it.
    let mut node = pair().with(|settings| settings.follow = true);
    node.instance.replication[0].upstream = None;
    node.lives_on(1.secs());
    node.is_ordered(order(Some(OTHER)));
    node.settles();
    assert_eq!(node.outcome().0, SwitchoverState::Running);
}

#[test]
fn an_order_from_before_another_change_of_hands_is_refused() {
    for state in [SwitchoverState::Requested, SwitchoverState::Running] {
        let node = heir(None, state);
        let (state, why) = node.outcome();
        assert_eq!(state, SwitchoverState::Refused);
        assert!(why.contains("the master changed"), "{why}");
    }
}

#[test]
fn an_order_from_after_the_change_of_hands_is_carried_out() {
    let mut node = pair();
    assert!(node.state.hold.gained.is_some());
    node.is_ordered(order(None));
    node.runs_until_announced();
}

#[test]
fn an_ended_order_is_left_alone() {
    for state in [
        SwitchoverState::Done,
        SwitchoverState::Refused,
        SwitchoverState::Undone,
        SwitchoverState::None,
    ] {
        let mut node = pair();
        node.is_ordered(Switchover {
            state,
            ..order(None)
        });
        node.lives_on(4.secs());
        assert_eq!(node.outcome().0, state);
    }
}
