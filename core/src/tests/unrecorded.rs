//! R3 where no record says who was master: a lease of waiting, unless every known member answers that it is read-only.

use std::collections::{BTreeMap, BTreeSet};

use super::fixtures::*;
use crate::addresses::Whereabouts;
use crate::board::Board;
use crate::event::Event;
use crate::observed::Peer;
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::{Record, Status};
use crate::state::State;
use crate::term::Term;
use crate::timing::Reading;
use crate::unguarded::Unguarded;

fn peer(uuid: &str) -> Peer {
    Peer {
        id: 0,
        uuid: uuid.to_owned(),
        upstream: None,
        downstream_status: None,
        downstream_vclock: None,
    }
}

/// An instance that knows itself and one other, and finds neither a lock nor a record.
fn first_of_two() -> Node {
    node()
        .finding(|lock| lock.delete_key())
        .having(|it| it.replication = vec![peer(OWN), peer(OTHER)])
        .attached()
        .seeing_lock()
}

type Question = (BTreeMap<String, Whereabouts>, Reading);

fn is_question(action: &Action) -> bool {
    matches!(
        action,
        Action::AskPromises {
            for_all: Some(_),
            ..
        }
    )
}

/// The question to everybody, which is not answered yet.
fn asks(node: &mut Node) -> Question {
    let asked = node.runs_until(is_question);
    let Action::AskPromises {
        members, reading, ..
    } = asked
    else {
        panic!("{asked:?}");
    };
    (members, reading)
}

fn answered(node: &mut Node, (members, reading): &Question, silent: Option<&str>) {
    let answer = |uuid: &String| match silent {
        Some(it) if it == uuid => Err("no answer".to_owned()),
        Some(_) | None => Ok(()),
    };
    let answers = members.keys().map(|uuid| (uuid.clone(), answer(uuid)));
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading: *reading,
        answers: answers.collect(),
    });
}

fn is_promoted_after_a_lease(node: &mut Node) {
    let began = node.now;
    while !node.instance.is_writable() {
        node.round();
        node.passes(250.ms());
        assert!(node.now.since(began) < LEASE_AND_MARGIN * 2);
    }
    assert!(node.now.since(began) > LEASE_AND_MARGIN - 1.secs());
}

fn is_promotion(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Promote { .. }))
}

#[test]
fn nobody_waits_where_every_member_answers_that_it_is_read_only() {
    let mut node = first_of_two();
    let question = asks(&mut node);
    assert!(node.state.holds_lock(), "asked before the lock was held");
    let began = node.now;
    answered(&mut node, &question, None);
    let Action::Guard(GuardCommand::Promote { before, .. }) = node.runs_until(is_promotion) else {
        panic!("it is promoted");
    };
    assert!(node.now.since(began) < 10.ms());
    // What this guard may have forgotten to have promised, it promised to somebody who has just answered.
    assert_eq!(before.guard_age, 0.ms());
}

/// The members of the board are those whose agents have a key, whoever the instance knows.
#[test]
fn asked_are_whom_the_instance_knows_and_whose_agent_has_a_key() {
    let mut node = first_of_two();
    let (members, _) = asks(&mut node);
    let asked: Vec<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(asked, [OTHER, "somebody"]);
}

#[test]
fn where_one_does_not_answer_a_lease_is_waited_for_and_everybody_asked_again() {
    let mut node = first_of_two();
    for silent in [OTHER, "somebody"] {
        let question = asks(&mut node);
        answered(&mut node, &question, Some(silent));
        let plan = node.plan();
        assert!(
            matches!(plan.reason, Reason::WaitingForPredecessor { .. }),
            "{plan:?}"
        );
        assert!(!plan.actions.iter().any(is_question), "at once: {plan:?}");
        node.passes(300.ms());
    }
    is_promoted_after_a_lease(&mut node);
}

/// Until now it was master without tarsec. No lease ends there, however long one waits; nor does a restart forget it.
#[test]
fn nobody_is_promoted_beside_a_writable_member_without_a_guard() {
    let mut node = first_of_two();
    node.lock.unguarded.writable.insert(OTHER.to_owned());
    let waits = |node: &mut Node| {
        for _ in 0..50 {
            node.round();
            assert!(!node.instance.is_writable());
            node.passes(250.ms());
        }
        let reason = node.plan().reason;
        let said = reason.to_string();
        assert!(said.contains("is writable and has no agent"), "{said}");
        let problems = node.state.problems();
        assert!(problems.iter().any(|it| said.ends_with(it)), "{problems:?}");
    };
    waits(&mut node);
    // It is not heard for a while: that is no word of it.
    let silent = std::mem::take(&mut node.lock.unguarded);
    node.lock.unguarded.silent = silent.writable;
    waits(&mut node);
    node.lock.unguarded = Unguarded::default();
    node.lock.unguarded.writable.insert(OTHER.to_owned());
    node.state = State::new(node.state.settings.clone());
    let mut node = node.attached().seeing_lock();
    waits(&mut node);
    // It has a guard now, whose last commits may land yet.
    node.lock.unguarded = Unguarded::default();
    is_promoted_after_a_lease(&mut node);
}

/// A replica after a holder that was not promoted, whose record says this of members without a guard.
fn after_one_that_said(unguarded: Option<&[&str]>, status: Status) -> Node {
    let mut node = replica().having(|it| it.replication = vec![peer(OWN), peer(OTHER)]);
    let mut waited = record().says(status);
    assert_eq!(waited.last_promoted(), None);
    waited.unguarded = unguarded.map(|heard| heard.iter().copied().map(str::to_owned).collect());
    node.lock.put_record(None, &waited);
    node.watch_shows_lock();
    node
}

fn stays_read_only(node: &mut Node) {
    for _ in 0..80 {
        node.lives_on(250.ms());
        node.round();
        assert!(!node.instance.is_writable());
    }
    assert!(node.state.holds_lock(), "{:?}", node.plan());
}

fn is_release(action: &Action) -> bool {
    matches!(action, Action::Release { .. })
}

fn released_record(released: &Action) -> &Record {
    let Action::Release { record, .. } = released else {
        panic!("{released:?}");
    };
    record
}

fn released_saying(node: &mut Node) -> Option<BTreeSet<String>> {
    let released = node.runs_until(is_release);
    released_record(&released).unguarded.clone()
}

/// A holder that was lost before anybody had answered, and one that gave the lock up.
#[test]
fn the_next_holder_asks_as_well() {
    for status in [Status::Promoting, Status::Fenced] {
        let mut node = after_one_that_said(Some(&[]), status);
        node.lock.unguarded.writable.insert(OTHER.to_owned());
        stays_read_only(&mut node);
        let said = node.lock.record().expect("a record").unguarded;
        assert_eq!(said, Some([OTHER.to_owned()].into()));
        // It has a guard now.
        node.lock.unguarded = Unguarded::default();
        is_promoted_after_a_lease(&mut node);
        node.lives_on(5.secs());
        assert_eq!(node.lock.record().expect("a record").unguarded, None);
    }
}

#[test]
fn whom_the_holder_before_heard_stays_writable_until_it_says_otherwise() {
    let mut node = after_one_that_said(Some(&[OTHER]), Status::Fenced);
    node.lock.unguarded.silent.insert(OTHER.to_owned());
    stays_read_only(&mut node);
    // An operator stops the agent: whoever is gone for good is forgotten.
    node.is_asked_to_stop();
    assert_eq!(released_saying(&mut node), Some(BTreeSet::new()));
}

/// A stop is no word about a member that is heard.
#[test]
fn an_agent_that_stops_still_names_whom_it_hears() {
    let mut node = after_one_that_said(Some(&[OTHER]), Status::Fenced);
    node.lock.unguarded.writable.insert(OTHER.to_owned());
    stays_read_only(&mut node);
    node.is_asked_to_stop();
    let released = node.runs_until(is_release);
    let record = released_record(&released);
    assert_eq!(record.unguarded, Some([OTHER.to_owned()].into()));
    // Its last commits may land for a lease after it has said otherwise.
    assert_eq!(record.status, Status::Promoting);
}

/// It has asked nobody, so it has not heard that the member is gone.
#[test]
fn an_agent_that_stops_before_anybody_answered_names_whom_the_holder_before_named() {
    let mut node = after_one_that_said(Some(&[OTHER]), Status::Fenced);
    node.takes_lock();
    node.is_asked_to_stop();
    let said = released_saying(&mut node);
    assert_eq!(said, Some([OTHER.to_owned()].into()));
}

/// Killed and started again beside the lock that it holds; one answer that does not come is no word.
#[test]
fn an_agent_that_adopts_its_lock_knows_whom_it_had_named() {
    let mut node = after_one_that_said(Some(&[OTHER]), Status::Fenced);
    node.lock.unguarded.silent.insert(OTHER.to_owned());
    stays_read_only(&mut node);
    node.state = State::new(node.state.settings.clone());
    let mut node = node.attached().seeing_lock();
    stays_read_only(&mut node);
}

/// It may be writable, and has a lease to say so, as under the first holder.
#[test]
fn the_next_holder_gives_a_silent_member_a_lease() {
    let mut node = after_one_that_said(Some(&[]), Status::Fenced);
    node.lock.unguarded.silent.insert(OTHER.to_owned());
    node.takes_lock();
    is_promoted_after_a_lease(&mut node);
}

/// It has an agent by now: this one.
#[test]
fn a_holder_whose_own_instance_was_named_does_not_wait_for_itself() {
    let mut node = after_one_that_said(Some(&[OWN]), Status::Fenced);
    node.takes_lock();
    assert_eq!(node.state.hold.unguarded, None);
    node.lives_on(3.secs());
    // Nor does whoever comes next wait for it.
    let said = node.lock.record().expect("a record").unguarded;
    assert_eq!(said, Some(BTreeSet::new()));
    node.lives_on(LEASE_AND_MARGIN + 5.secs());
    assert!(node.instance.is_writable());
    let hold = &node.state.hold;
    assert_eq!((&hold.unguarded, hold.unguarded_until), (&None, None));
}

/// Its commits of until then may land for a lease.
#[test]
fn a_lease_is_waited_for_from_the_moment_in_which_a_member_is_writable_no_more() {
    let mut node = first_of_two();
    let (_, reading) = asks(&mut node);
    let unguarded = Unguarded {
        writable: [OTHER.to_owned()].into(),
        ..Unguarded::default()
    };
    node.hears(Event::PromisesAnswered {
        unguarded,
        reading,
        answers: BTreeMap::new(),
    });
    node.passes(8.secs());
    let question = asks(&mut node);
    answered(&mut node, &question, Some(OTHER));
    is_promoted_after_a_lease(&mut node);
}

/// The lock may be somebody else's by now, who would have to wait for what is promised to us.
#[test]
fn nobody_is_asked_while_the_lock_is_not_known_to_be_ours() {
    let mut node = after_one_that_said(Some(&[OTHER]), Status::Fenced);
    node.lock.unguarded.silent.insert(OTHER.to_owned());
    stays_read_only(&mut node);
    node.passes(4.secs());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.loses(&refresh);
    node.passes(1.secs());
    let plan = node.turn();
    assert!(plan.actions.contains(&Action::ReadLock), "{plan:?}");
    assert!(!plan.actions.iter().any(is_question), "{plan:?}");
}

/// Everybody had answered the holder before that it is read-only; its guard refused for another reason.
#[test]
fn nobody_asks_again_where_everybody_has_answered() {
    let mut node = after_one_that_said(None, Status::Fenced);
    node.lock.unguarded.writable.insert(OTHER.to_owned());
    for _ in 0..80 {
        let plan = node.round();
        assert!(!plan.actions.iter().any(is_question), "{plan:?}");
        node.passes(250.ms());
    }
    assert!(node.instance.is_writable());
}

#[test]
fn a_record_tells_whether_everybody_has_answered() {
    let mut node = first_of_two();
    let question = asks(&mut node);
    let said = node.lock.record().expect("a record").unguarded;
    assert_eq!(said, Some(BTreeSet::new()));
    answered(&mut node, &question, None);
    node.is_asked_to_stop();
    assert_eq!(released_saying(&mut node), None);
}

#[test]
fn a_record_says_so_as_long_as_one_has_not_answered() {
    let mut node = first_of_two();
    let question = asks(&mut node);
    answered(&mut node, &question, Some(OTHER));
    node.passes(4.secs());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    let Action::Refresh { attempt, .. } = &refresh else {
        panic!("{refresh:?}");
    };
    assert_eq!(attempt.record.unguarded, Some(BTreeSet::new()));
}

/// An instance that is not registered may not know the others.
#[test]
fn an_instance_that_does_not_know_itself_waits() {
    let mut node = first_of_two().having(|it| it.replication = vec![peer(OTHER)]);
    node.answers(&Action::Guard(GuardCommand::Probe));
    for _ in 0..20 {
        let plan = node.round();
        assert!(!plan.actions.iter().any(is_question), "{plan:?}");
        node.passes(100.ms());
    }
    assert!(!node.instance.is_writable());
}

/// A record that was there and is gone was taken away by a hand, whoever it named.
#[test]
fn whoever_has_seen_a_record_waits() {
    let mut node = node()
        .having(|it| it.replication = vec![peer(OWN), peer(OTHER)])
        .finding(|lock| {
            lock.put_record(None, &record());
        })
        .attached()
        .seeing_lock()
        .finding(|lock| lock.delete_key());
    node.watch_shows_lock();
    for _ in 0..40 {
        let plan = node.round();
        assert!(!plan.actions.iter().any(is_question), "{plan:?}");
        node.passes(250.ms());
    }
    assert!(!node.instance.is_writable());
}

#[test]
fn an_answer_counts_for_the_hold_that_it_was_asked_under() {
    let mut node = first_of_two();
    let question = asks(&mut node);
    // Somebody else had the lock in between.
    let session = node.own_session();
    node.lock.put_record(Some(session), &record().term(9));
    node.watch_shows_lock();
    node.lock.delete_key();
    node.watch_shows_lock();
    answered(&mut node, &question, None);
    for _ in 0..20 {
        node.round();
        node.passes(100.ms());
    }
    assert!(!node.instance.is_writable());
}

/// Our own guard's promise binds it whatever others answer.
#[test]
fn a_promise_of_our_own_guard_is_waited_for_all_the_same() {
    let mut node = first_of_two();
    let question = asks(&mut node);
    let now = node.now;
    let term = node
        .state
        .hold
        .record
        .as_ref()
        .map_or(Term::NONE, |record| record.term);
    let promised = node
        .instance
        .promises("instance-third", term, 3.secs(), now);
    assert_eq!(promised, Ok(()));
    node.answers(&Action::Guard(GuardCommand::Probe));
    answered(&mut node, &question, None);
    let plan = node.plan();
    assert!(
        matches!(plan.reason, Reason::WaitingForPromise { .. }),
        "{plan:?}"
    );
}

/// A member whose key was not read may be one that nobody was asked about.
#[test]
fn promises_of_all_that_are_known_are_no_promises_of_all_where_members_were_not_read() {
    for misses_members in [false, true] {
        let mut node = first_of_two();
        let question = asks(&mut node);
        let board = Board {
            misses_members,
            ..node.lock.board()
        };
        node.hears(Event::BoardSeen {
            asked_at: node.now,
            result: Ok(Box::new(board)),
        });
        answered(&mut node, &question, None);
        let waits = node.state.hold.predecessor_over_at.is_some();
        assert_eq!(waits, misses_members);
    }
}
