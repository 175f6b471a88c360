//! R6: without Consul a master goes on for as long as every member promises, and no longer; and whoever has promised
//! is not promoted.

mod elections;
mod successors;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::fixtures::*;
use super::scenarios::{any_fault, any_weather, reasons, strike};
use super::world::{Broken, FAIR, World, failsafe_world};
use crate::addresses::Whereabouts;
use crate::board::Board;
use crate::event::Event;
use crate::plan::{Action, Before, GuardCommand, Plan, Reason};
use crate::record::{Record, Status};
use crate::term::Term;
use crate::timing::{InstanceTime, Reading};

const THIRD: &str = "instance-third";
const NEW: &str = "instance-new";

/// Attached to an instance of three, with `FAILSAFE=on`; the lock is free and fenced.
fn candidate() -> Node {
    node()
        .with(|settings| settings.failsafe = true)
        .having(|instance| {
            instance.replication = vec![
                peer_at(OWN, None),
                peer_at(OTHER, Some("replicator@10.0.0.2:3301")),
                peer_at(THIRD, Some("10.0.0.3:3301")),
            ];
        })
        .attached()
        .seeing_lock()
}

/// Its master in term 7.
fn safe_master() -> Node {
    candidate().settled().serving()
}

/// Who is asked, and the reading that the lease is to rest on.
fn question(plan: &Plan) -> Option<(BTreeMap<String, Whereabouts>, Reading)> {
    part!(plan, Action::AskPromises { members, reading, .. } => (members.clone(), *reading))
}

type Answers = BTreeMap<String, Result<(), String>>;

/// Nobody answers but the guard and, for promises, whoever `member` answers for.
fn without_consul(node: &mut Node, plan: &Plan, member: impl Fn(&str) -> Result<(), String>) {
    for action in &plan.actions {
        if action.guard_command_kind().is_some() {
            node.answers(action);
        } else if let Action::AskPromises {
            members, reading, ..
        } = action
        {
            let answers = members.keys().map(|uuid| (uuid.clone(), member(uuid)));
            node.hears(Event::PromisesAnswered {
                unguarded: Default::default(),
                reading: *reading,
                answers: answers.collect(),
            });
        } else {
            node.loses(action);
        }
    }
}

/// That long without Consul; returns how often the members were asked.
fn goes_without(
    node: &mut Node,
    time: Duration,
    member: impl Fn(&str) -> Result<(), String>,
) -> usize {
    let until = node.now + time;
    let mut asked = 0;
    while node.now < until {
        node.passes(50.ms());
        let plan = node.turn();
        asked += usize::from(question(&plan).is_some());
        without_consul(node, &plan, &member);
    }
    asked
}

fn promised(_: &str) -> Result<(), String> {
    Ok(())
}

fn refused(_: &str) -> Result<(), String> {
    Err("it is writable itself".to_owned())
}

/// Until the members are asked; the question is under way.
fn asks(node: &mut Node) -> (BTreeMap<String, Whereabouts>, Reading) {
    for _ in 0..400 {
        node.passes(50.ms());
        let plan = node.turn();
        if let Some(found) = question(&plan) {
            return found;
        }
        without_consul(node, &plan, promised);
    }
    panic!("nobody is asked: {:?}", node.plan());
}

fn all_promise(members: &BTreeMap<String, Whereabouts>) -> Answers {
    members.keys().map(|uuid| (uuid.clone(), Ok(()))).collect()
}

#[test]
fn a_master_without_consul_asks_every_member_on_a_fresh_reading() {
    let mut node = safe_master();
    let lease_from = node.state.hold.reading.expect("a reading").reply_at;
    let (members, reading) = asks(&mut node);
    let expected = [(OTHER, "10.0.0.2:3301"), (THIRD, "10.0.0.3:3301")];
    let expected = expected.map(|(uuid, address)| (uuid.to_owned(), address.to_owned()));
    assert_eq!(
        members,
        BTreeMap::from(expected.map(|(uuid, address)| (uuid, Ok(address))))
    );
    assert!(node.now.since(reading.reply_at) <= LEASE / 40);
    assert!(node.now.since(lease_from) <= LEASE / 2);
}

#[test]
fn it_goes_on_for_as_long_as_every_member_promises() {
    let mut node = safe_master();
    let asked = goes_without(&mut node, 60.secs(), promised);
    assert!((20..=26).contains(&asked), "asked {asked} times");
    assert!(node.instance.is_writable());
    assert!(matches!(
        node.plan().reason,
        Reason::ServingOnPromises { until } if until > node.now
    ));
}

#[test]
fn the_lease_counts_from_the_clock_read_before_the_members_were_asked() {
    let mut node = safe_master();
    let (members, reading) = asks(&mut node);
    node.passes(700.ms());
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading,
        answers: all_promise(&members),
    });
    let grant =
        part!(node.turn(), Action::Guard(GuardCommand::Grant { deadline, .. }) => *deadline);
    assert_eq!(grant, Some(reading.t0 + LEASE));
    let lease = node.state.instance.lease.expect("a lease");
    assert_eq!(lease.over_at, reading.reply_at + LEASE_AND_MARGIN);
}

#[test]
fn a_promise_outlasts_the_lease_that_it_carries() {
    let mut node = safe_master();
    for _ in 0..400 {
        node.passes(50.ms());
        let plan = node.turn();
        if let Some(lasting) = part!(plan, Action::AskPromises { lasting, .. } => *lasting) {
            assert_eq!(lasting, LEASE_AND_MARGIN);
            return;
        }
        without_consul(&mut node, &plan, promised);
    }
    panic!("nobody is asked");
}

#[test]
fn all_must_promise_not_most() {
    let mut node = safe_master();
    let asked = goes_without(&mut node, LEASE + 100.ms(), |uuid| {
        if uuid == THIRD { refused(uuid) } else { Ok(()) }
    });
    assert!(asked > 3, "it asks again and again: {asked}");
    assert!(!node.instance.is_writable());
}

#[test]
fn it_says_who_did_not_promise_and_why() {
    let mut node = safe_master();
    goes_without(&mut node, 5.secs(), refused);
    let words = node.plan().reason.to_string();
    assert!(
        words.contains("instance-third: it is writable itself"),
        "{words}"
    );
}

#[test]
fn no_answer_is_no_promise() {
    let mut node = safe_master();
    let (_, reading) = asks(&mut node);
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading,
        answers: BTreeMap::from([(OTHER.to_owned(), Ok(()))]),
    });
    assert!(!does!(
        node.turn(),
        Action::Guard(GuardCommand::Grant { .. })
    ));
    assert!(
        node.plan()
            .reason
            .to_string()
            .contains("instance-third: no answer")
    );
}

#[test]
fn a_refresh_that_hangs_makes_it_ask_with_half_of_the_lease_left() {
    let mut node = safe_master().later(2500.ms());
    let lease_from = node.state.hold.reading.expect("a reading").reply_at;
    node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    while node.now.since(lease_from) < LEASE / 2 + 200.ms() {
        let plan = node.turn();
        if question(&plan).is_some() {
            assert!(node.now.since(lease_from) >= LEASE / 2);
            return;
        }
        for action in plan
            .actions
            .iter()
            .filter(|a| a.guard_command_kind().is_some())
        {
            node.answers(action);
        }
        node.passes(20.ms());
    }
    panic!("nobody is asked: {:?}", node.plan());
}

#[test]
fn promises_that_come_after_consul_has_answered_do_not_count() {
    let mut node = safe_master();
    let (members, reading) = asks(&mut node);
    node.watch_shows_lock();
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading,
        answers: all_promise(&members),
    });
    assert_eq!(node.state.hold.promised, None);
    assert!(!does!(
        node.turn(),
        Action::Guard(GuardCommand::Grant { .. })
    ));
}

#[test]
fn promises_for_another_reading_do_not_count() {
    let mut node = safe_master();
    let (members, reading) = asks(&mut node);
    let later = Reading {
        t0: InstanceTime {
            monotonic_ns: reading.t0.monotonic_ns + 1,
        },
        ..reading
    };
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading: later,
        answers: all_promise(&members),
    });
    assert_eq!(node.state.hold.promised, None);
}

#[test]
fn promises_asked_for_another_term_do_not_count() {
    let mut node = safe_master();
    let (members, reading) = asks(&mut node);
    node.state.hold.record.as_mut().expect("a record").term = Term::from(8);
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading,
        answers: all_promise(&members),
    });
    assert_eq!(node.state.hold.promised, None);
}

#[test]
fn promises_for_a_process_that_is_gone_do_not_count() {
    let mut node = safe_master();
    let (members, reading) = asks(&mut node);
    node.instance.restart(node.now);
    node.attaches();
    node.hears(Event::PromisesAnswered {
        unguarded: Default::default(),
        reading,
        answers: all_promise(&members),
    });
    assert_eq!(node.state.hold.promised, None);
}

#[test]
fn promises_alone_never_make_an_instance_writable_again() {
    let mut node = safe_master();
    goes_without(&mut node, LEASE + 100.ms(), refused);
    assert!(!node.instance.is_writable());
    let asked = goes_without(&mut node, 30.secs(), promised);
    assert_eq!(asked, 0);
    assert!(!node.instance.is_writable());
}

/// The older agent may still run, hear nothing of its instance, and release over its own record: `fenced`.
#[test]
fn nobody_is_asked_on_the_strength_of_a_record_of_the_agent_before() {
    let mut node = safe_master();
    let settings = crate::settings::Settings {
        agent: "second".to_owned(),
        ..node.state.settings.clone()
    };
    node.state = crate::state::State::new(settings);
    let mut node = node.attached().seeing_lock();
    assert!(node.state.holds_lock() && node.state.is_serving());
    assert_eq!(goes_without(&mut node, LEASE * 2, promised), 0);
    assert!(!node.instance.is_writable());
}

#[test]
fn nobody_is_asked_while_consul_answers() {
    let mut node = safe_master();
    for _ in 0..120 {
        node.passes(250.ms());
        for _ in 0..8 {
            assert_eq!(question(&node.round()), None);
        }
    }
}

#[test]
fn a_refused_refresh_is_no_reason_to_ask() {
    let mut node = safe_master().later(2500.ms());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    let session = node.own_session();
    node.lock.end_session(&session);
    node.answers(&refresh);
    assert_eq!(node.state.hold.unwritten, None);
    for _ in 0..20 {
        let plan = node.turn();
        assert_eq!(question(&plan), None);
        for action in plan
            .actions
            .iter()
            .filter(|a| a.guard_command_kind().is_some())
        {
            node.answers(action);
        }
        node.passes(100.ms());
    }
}

#[test]
fn nobody_is_asked_with_failsafe_off_or_on_a_record_that_says_off() {
    let mut off = master();
    assert_eq!(goes_without(&mut off, 9.secs(), promised), 0);
    let mut adopted = safe_master();
    adopted
        .state
        .hold
        .record
        .as_mut()
        .expect("a record")
        .failsafe = false;
    assert_eq!(goes_without(&mut adopted, 9.secs(), promised), 0);
}

#[test]
fn whoever_a_lost_write_names_is_asked_too() {
    let mut node = safe_master();
    node.instance.replication.push(peer_at(NEW, None));
    node.passes(2500.ms());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.loses(&refresh);
    // Expelled again, and the next write does not name it; but the first may still arrive.
    node.instance.replication.pop();
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.passes(200.ms());
    node.answers(&Action::ReadLock);
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.loses(&refresh);
    let named = |sent: &crate::hold::Sent| sent.attempt.record.members.clone();
    let named = node.state.hold.attempted.as_ref().map(named);
    assert!(!named.unwrap().contains(&NEW.to_owned()));
    let (members, _) = asks(&mut node);
    assert!(members.contains_key(NEW), "{members:?}");
}

#[test]
fn whoever_joins_while_consul_is_away_is_asked_too() {
    let mut node = safe_master();
    goes_without(&mut node, 8.secs(), promised);
    node.instance.replication.push(peer_at(NEW, None));
    goes_without(&mut node, 1.secs(), promised);
    let (members, _) = asks(&mut node);
    assert!(members[NEW].is_err());
}

#[test]
fn a_lone_instance_has_nobody_to_ask_and_goes_on() {
    let mut node = node()
        .with(|settings| settings.failsafe = true)
        .having(|instance| instance.replication = vec![peer_at(OWN, None)])
        .attached()
        .seeing_lock()
        .settled()
        .serving();
    goes_without(&mut node, 60.secs(), refused);
    assert!(node.instance.is_writable());
}

#[test]
fn a_record_that_does_not_even_name_its_writer_says_nothing_of_the_members() {
    let mut node = safe_master();
    let record = node.state.hold.record.as_mut().expect("a record");
    record.members.clear();
    assert_eq!(goes_without(&mut node, 9.secs(), promised), 0);
}

#[test]
fn it_goes_on_though_its_session_was_lost_before_consul_went_away() {
    let mut node = safe_master();
    node.lock.end_session(&node.own_session());
    node.watch_shows_lock();
    assert!(!node.state.holds_lock());
    goes_without(&mut node, 30.secs(), promised);
    assert!(node.instance.is_writable());
    assert!(matches!(
        node.plan().reason,
        Reason::ServingOnPromises { .. }
    ));
}

#[test]
fn back_with_consul_it_takes_its_own_lock_again_and_nothing_changes_hands() {
    let mut node = safe_master();
    goes_without(&mut node, 30.secs(), promised);
    node.lock.end_session(&node.own_session());
    for _ in 0..40 {
        node.passes(50.ms());
        node.settles();
        assert!(node.instance.is_writable());
    }
    node.watch_shows_lock();
    node.settles();
    let node = node.serving();
    assert_eq!(node.lock.record().expect("a record").term.get(), 7);
    assert_eq!(node.plan().reason, Reason::Serving);
    assert_eq!(node.state.hold.unwritten, None);
}

#[test]
fn members_are_reached_where_they_are_followed_else_where_their_agents_say() {
    let mut node = safe_master();
    let mut board = Board::default();
    for (uuid, uri) in [
        (OTHER, "10.0.0.99:3301"),
        (THIRD, "10.0.0.33:3301"),
        (NEW, ":3301"),
    ] {
        let member = serde_json::from_value(serde_json::json!({
            "v": 1, "instance": uuid, "replicaset": "", "name": "", "uri": uri, "role": "replica",
            "term": 1, "lease_ms": 0,
        }));
        board.members.insert(uuid.to_owned(), member.unwrap());
    }
    node.hears(Event::BoardSeen {
        asked_at: node.now,
        result: Ok(Box::new(board)),
    });
    // It is followed no more, as under REPLICATION=follow.
    node.instance.replication[2].upstream = None;
    node.instance.replication.push(peer_at(NEW, None));
    goes_without(&mut node, 1.secs(), promised);
    let (members, _) = asks(&mut node);
    let found = |uuid: &str| members[uuid].as_ref().map(String::as_str);
    assert_eq!(found(OTHER), Ok("10.0.0.2:3301"));
    assert_eq!(found(THIRD), Ok("10.0.0.33:3301"));
    assert!(found(NEW).unwrap_err().contains("not known"));
}

// The other side: who has promised.

fn cut_off_from_consul(world: &mut World, places: impl IntoIterator<Item = usize>, time: Duration) {
    for at in places {
        world.breaks(at, Broken::Consul, time);
    }
}
