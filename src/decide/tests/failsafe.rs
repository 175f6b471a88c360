//! R6: without Consul a master goes on for as long as every member promises, and no longer; and whoever has promised
//! is not promoted.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::fixtures::*;
use super::scenarios::{any_fault, any_weather, reasons, strike};
use super::toys::guard_command;
use super::world::{Broken, FAIR, World, failsafe_world};
use crate::decide::board::Board;
use crate::decide::event::Event;
use crate::decide::observed::{Peer, Upstream};
use crate::decide::plan::{Action, Before, Plan, Reason};
use crate::decide::record::{Record, Status};
use crate::decide::state::Reading;
use crate::decide::timing::InstanceTime;

const THIRD: &str = "instance-third";
const NEW: &str = "instance-new";

fn peer(uuid: &str, address: Option<&str>) -> Peer {
    Peer {
        id: 0,
        uuid: uuid.to_owned(),
        upstream: address.map(|address| Upstream {
            status: "follow".to_owned(),
            peer: Some(address.to_owned()),
            lag_s: None,
            idle_s: None,
            message: None,
        }),
        downstream_status: None,
        downstream_vclock: None,
    }
}

/// Attached to an instance of three, with `FAILSAFE=on`; the lock is free and fenced.
fn candidate() -> Node {
    node()
        .with(|settings| settings.failsafe = true)
        .having(|instance| {
            instance.replication = vec![
                peer(OWN, None),
                peer(OTHER, Some("replicator@10.0.0.2:3301")),
                peer(THIRD, Some("10.0.0.3:3301")),
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
fn question(plan: &Plan) -> Option<(BTreeMap<String, String>, Reading)> {
    part!(plan, Action::AskPromises { members, reading, .. } => (members.clone(), *reading))
}

type Answers = BTreeMap<String, Result<(), String>>;

/// Nobody answers but the guard and, for promises, whoever `member` answers for.
fn without_consul(node: &mut Node, plan: &Plan, member: impl Fn(&str) -> Result<(), String>) {
    for action in &plan.actions {
        if guard_command(action).is_some() {
            node.answers(action);
        } else if let Action::AskPromises {
            members, reading, ..
        } = action
        {
            let answers = members.keys().map(|uuid| (uuid.clone(), member(uuid)));
            node.hears(Event::PromisesAnswered {
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
fn asks(node: &mut Node) -> (BTreeMap<String, String>, Reading) {
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

fn all_promise(members: &BTreeMap<String, String>) -> Answers {
    members.keys().map(|uuid| (uuid.clone(), Ok(()))).collect()
}

#[test]
fn a_master_without_consul_asks_every_member_on_a_fresh_reading() {
    let mut node = safe_master();
    let lease_from = node.state.hold.reading.expect("a reading").reply_at;
    let (members, reading) = asks(&mut node);
    let expected = [(OTHER, "10.0.0.2:3301"), (THIRD, "10.0.0.3:3301")];
    let expected = expected.map(|(uuid, address)| (uuid.to_owned(), address.to_owned()));
    assert_eq!(members, BTreeMap::from(expected));
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
    node.answers(&Action::Probe);
    node.hears(Event::PromisesAnswered {
        reading,
        answers: all_promise(&members),
    });
    let grant = part!(node.turn(), Action::Grant { deadline, .. } => *deadline);
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
        reading,
        answers: BTreeMap::from([(OTHER.to_owned(), Ok(()))]),
    });
    assert!(!does!(node.turn(), Action::Grant { .. }));
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
        for action in plan.actions.iter().filter(|a| guard_command(a).is_some()) {
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
        reading,
        answers: all_promise(&members),
    });
    assert_eq!(node.state.hold.promised, None);
    assert!(!does!(node.turn(), Action::Grant { .. }));
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
        reading: later,
        answers: all_promise(&members),
    });
    assert_eq!(node.state.hold.promised, None);
}

#[test]
fn promises_asked_for_another_term_do_not_count() {
    let mut node = safe_master();
    let (members, reading) = asks(&mut node);
    node.state.hold.record.as_mut().expect("a record").term = 8;
    node.hears(Event::PromisesAnswered {
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
        for action in plan.actions.iter().filter(|a| guard_command(a).is_some()) {
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
    node.instance.replication.push(peer(NEW, None));
    node.passes(2500.ms());
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.loses(&refresh);
    // Expelled again, and the next write does not name it; but the first may still arrive.
    node.instance.replication.pop();
    node.answers(&Action::Probe);
    node.passes(200.ms());
    node.answers(&Action::ReadLock);
    let refresh = node.runs_until(|action| matches!(action, Action::Refresh { .. }));
    node.loses(&refresh);
    let named = |attempt: &crate::decide::state::Attempt| attempt.record.members.clone();
    let named = node.state.hold.attempted.as_ref().map(named);
    assert!(!named.unwrap().contains(&NEW.to_owned()));
    let (members, _) = asks(&mut node);
    assert!(members.contains_key(NEW), "{members:?}");
}

#[test]
fn whoever_joins_while_consul_is_away_is_asked_too() {
    let mut node = safe_master();
    goes_without(&mut node, 8.secs(), promised);
    node.instance.replication.push(peer(NEW, None));
    goes_without(&mut node, 1.secs(), promised);
    let (members, _) = asks(&mut node);
    assert_eq!(members.get(NEW).map(String::as_str), Some(""));
}

#[test]
fn a_lone_instance_has_nobody_to_ask_and_goes_on() {
    let mut node = node()
        .with(|settings| settings.failsafe = true)
        .having(|instance| instance.replication = vec![peer(OWN, None)])
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
    assert_eq!(node.lock.record().expect("a record").term, 7);
    assert_eq!(node.plan().reason, Reason::Serving);
    assert_eq!(node.state.hold.unwritten, None);
}

#[test]
fn members_are_reached_where_they_are_followed_else_where_their_agents_say() {
    let mut node = safe_master();
    let mut board = Board::default();
    for (uuid, uri) in [
        (OTHER, "10.9.9.9:3301"),
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
        board: Box::new(board),
    });
    // It is followed no more, as under REPLICATION=follow.
    node.instance.replication[2].upstream = None;
    node.instance.replication.push(peer(NEW, None));
    goes_without(&mut node, 1.secs(), promised);
    let (members, _) = asks(&mut node);
    let found = |uuid: &str| members[uuid].clone();
    assert_eq!(
        [found(OTHER), found(THIRD), found(NEW)],
        ["10.0.0.2:3301", "10.0.0.33:3301", ""]
    );
}

// The other side: who has promised.

/// Seen long ago, so that R3's wait is over; the record is what is tested.
fn facing(record: &Record) -> Node {
    let mut node = candidate();
    node.lock.put_record(None, record);
    node.watch_shows_lock();
    node.lives_on(LEASE_AND_MARGIN - 500.ms());
    node
}

fn failsafe_record() -> Record {
    Record {
        failsafe: true,
        members: [OWN, OTHER, THIRD].map(str::to_owned).to_vec(),
        ..record()
    }
}

#[test]
fn whoever_has_promised_does_not_run_until_the_promise_is_over() {
    let mut node = facing(&failsafe_record());
    node.instance
        .promises(OTHER, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.lives_on(8.secs());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPromise { until } if until > node.now
    ));
    assert_eq!(node.lock.holder(), None);
    node.lives_on(4.secs());
    assert_eq!(node.serving().instance.guard.term, 7);
}

#[test]
fn a_fenced_record_makes_promises_to_its_writer_void() {
    let mut node = facing(&failsafe_record());
    node.instance
        .promises(OTHER, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.lives_on(1.secs());
    assert!(!node.instance.is_writable());
    let fenced = failsafe_record().says(Status::Fenced).refreshed(41);
    node.lock.put_record(None, &fenced);
    node.watch_shows_lock();
    let started_at = node.now;
    node.settles();
    let node = node.serving();
    assert!(node.now.since(started_at) < 10.ms());
}

#[test]
fn the_guard_is_told_which_terms_are_fenced_and_how_old_it_must_be() {
    let records = [
        (failsafe_record().says(Status::Fenced), 6, Duration::ZERO),
        (failsafe_record(), 0, LEASE_AND_MARGIN),
        (record(), 0, Duration::ZERO),
    ];
    for (record, fenced_term, guard_age) in records {
        let mut node = candidate();
        node.lock.put_record(None, &record);
        node.watch_shows_lock();
        node.passes(LEASE_AND_MARGIN);
        let promote = node.runs_until(|action| matches!(action, Action::Promote { .. }));
        let Action::Promote { before, .. } = promote else {
            unreachable!()
        };
        let expected = Before {
            fenced_term,
            guard_age,
        };
        assert_eq!(before, expected, "{record:?}");
    }
}

#[test]
fn a_fenced_record_of_an_earlier_term_does_not() {
    let mut node = candidate();
    node.lock
        .put_record(None, &failsafe_record().says(Status::Fenced));
    node.instance
        .promises(THIRD, 7, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.attaches();
    node.watch_shows_lock();
    node.lives_on(9.secs());
    assert!(!node.instance.is_writable());
}

#[test]
fn a_promise_given_between_lock_and_promotion_is_waited_out_without_giving_up() {
    let mut node = facing(&failsafe_record());
    let promote = node.comes_to(|action| matches!(action, Action::Promote { .. }));
    node.instance
        .promises(THIRD, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.answers(&promote);
    assert!(!node.instance.is_writable());
    assert_eq!(node.state.hold.refused_since, None);
    node.lives_on(9.secs());
    assert!(node.state.holds_lock() && !node.instance.is_writable());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPromise { .. }
    ));
    node.lives_on(3.secs());
    assert_eq!(node.serving().instance.guard.term, 7);
}

#[test]
fn a_holder_that_was_not_promoted_never_says_fenced_for_the_one_before_it() {
    let mut node = facing(&failsafe_record());
    let promote = node.comes_to(|action| matches!(action, Action::Promote { .. }));
    node.instance
        .promises(THIRD, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.answers(&promote);
    node.is_killed();
    node.settles();
    let record = node.lock.record().expect("a record");
    assert_eq!(node.lock.holder(), None);
    assert_eq!((record.term, record.status), (7, Status::Promoting));
    assert!(record.failsafe);
}

#[test]
fn a_holder_with_failsafe_off_passes_on_that_promises_may_run() {
    let long = failsafe_record().lease_of(30.secs());
    let mut node = candidate();
    node.state.settings.failsafe = false;
    node.lock.put_record(None, &long);
    node.watch_shows_lock();
    node.lives_on(30.secs());
    let acquire = node.comes_to(|action| matches!(action, Action::Acquire { .. }));
    let Action::Acquire { attempt, .. } = &acquire else {
        unreachable!()
    };
    assert!(attempt.record.failsafe);
    assert_eq!(attempt.record.lease(), 30.secs());
    node.answers(&acquire);
    node.settles();
    let record = node.serving().lock.record().expect("a record");
    assert!(!record.failsafe && record.lease() < 30.secs());
}

#[test]
fn an_instance_that_may_have_forgotten_a_promise_waits_until_none_can_run() {
    let mut node = facing(&failsafe_record());
    node.instance.restart(node.now);
    node.attaches();
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPromise { .. }
    ));
    assert!(!node.instance.is_writable() && !node.state.holds_lock());
    node.lives_on(1.secs());
    assert_eq!(node.serving().instance.guard.term, 7);
}

#[test]
fn its_youth_is_no_matter_after_a_fenced_record_or_one_with_failsafe_off() {
    for record in [failsafe_record().says(Status::Fenced), record()] {
        let mut node = candidate();
        node.lock.put_record(None, &record);
        node.watch_shows_lock();
        node.passes(LEASE_AND_MARGIN);
        node.instance.restart(node.now);
        node.attaches();
        node.settles();
        assert_eq!(node.serving().instance.guard.term, 7);
    }
}

#[test]
fn a_master_restarted_under_its_own_lock_is_promoted_again_at_once() {
    let mut node = safe_master();
    node.instance.restart(node.now);
    node.attaches();
    node.settles();
    let node = node.serving();
    assert_eq!(node.instance.guard.term, 7);
}

// The core among others of its kind.

/// A replica set of three whose master may go on without Consul.
fn reigned() -> (World, usize) {
    let mut world = failsafe_world(3, 42);
    let (master, _) = world.plays_until_master(None);
    world.plays(5.secs());
    assert_eq!(world.master(), Some(master));
    (world, master)
}

fn stays_master(world: &mut World, master: usize, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        world.plays(50.ms());
        assert_eq!(world.master(), Some(master), "{:?}", reasons(world));
    }
}

fn cut_off_from_consul(world: &mut World, places: impl IntoIterator<Item = usize>, time: Duration) {
    for at in places {
        world.breaks(at, Broken::Consul, time);
    }
}

#[test]
fn consul_gone_for_a_minute_goes_unnoticed_with_all_members_up() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, 0..3, 60.secs());
    stays_master(&mut world, master, 90.secs());
    assert_eq!(world.lock.record().expect("a record").term, 1);
}

#[test]
fn with_a_member_down_the_master_is_read_only_after_its_lease() {
    let (mut world, master) = reigned();
    world.loses_machine((master + 1) % 3);
    cut_off_from_consul(&mut world, 0..3, 40.secs());
    world.plays(LEASE + 100.ms());
    assert_eq!(world.master(), None);
    world.plays(20.secs());
    assert_eq!(world.master(), None);
    assert_eq!(world.plays_until_master(None).0, master);
}

#[test]
fn a_master_alone_cut_off_from_consul_stays_master_and_nobody_takes_its_lock() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, [master], 60.secs());
    stays_master(&mut world, master, 55.secs());
    let waits = reasons(&world)
        .into_iter()
        .flatten()
        .filter(|reason| matches!(reason, Reason::WaitingForPromise { .. }))
        .count();
    assert_eq!(waits, 2, "{:?}", reasons(&world));
    stays_master(&mut world, master, 30.secs());
    assert_eq!(world.lock.record().expect("a record").term, 1);
}

#[test]
fn a_master_cut_off_from_consul_and_one_member_is_read_only_before_another_is_writable() {
    let (mut world, master) = reigned();
    world.breaks((master + 1) % 3, Broken::Peers, 90.secs());
    cut_off_from_consul(&mut world, [master], 90.secs());
    world.plays_until_master(Some(master));
    world.plays(120.secs());
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn a_master_lost_without_consul_has_no_heir_before_consul_is_back() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, 0..3, 40.secs());
    world.plays(20.secs());
    assert_eq!(world.master(), Some(master));
    world.loses_machine(master);
    world.plays(19.secs());
    assert_eq!(world.master(), None);
    world.plays_until_master(Some(master));
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn a_promise_does_not_delay_a_proven_death() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, 0..3, 20.secs());
    world.plays(20.secs() + 300.ms());
    world.kills_instance(master);
    let (_, took) = world.plays_until_master(Some(master));
    assert!(took < 1.secs(), "{took:?}");
}

/// It forgot, and the master that it promised is still writable when the record has stood for a lease and margin.
#[test]
fn a_member_restarted_while_it_had_promised_is_not_promoted_too_early() {
    let (mut world, master) = reigned();
    for at in 0..3 {
        world.places[at].instance_restarts = Some(100.ms());
    }
    cut_off_from_consul(&mut world, [master], 120.secs());
    world.plays(22.secs());
    assert_eq!(world.master(), Some(master));
    // From now on nobody can be asked any more, and the last promises carry one more lease.
    world.breaks(master, Broken::Peers, 100.secs());
    for at in (0..3).filter(|at| *at != master) {
        world.kills_instance(at);
    }
    world.plays_until_master(Some(master));
    world.plays(30.secs());
    assert_eq!(world.reigns.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(64), ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_with_failsafe_there_is_one_master_at_most_and_one_in_the_end(
        seed in any::<u64>(),
        size in 2..4_usize,
        weather in any_weather(),
        outages in proptest::collection::vec((0..60_000_u64, 1_000..40_000_u64), 0..3),
        faults in proptest::collection::vec((0..12_000_u64, 0..3_usize, any_fault()), 0..12),
    ) {
        let mut world = failsafe_world(size, seed);
        world.plays(14.secs());
        world.weather = weather;
        let mut outages: Vec<(u64, u64)> = outages;
        outages.sort_unstable();
        let mut elapsed_ms = 0;
        for (after_ms, at, fault) in faults {
            world.plays(after_ms.ms());
            elapsed_ms += after_ms;
            while let Some(outage_ms) = outages.first().filter(|(from_ms, _)| *from_ms <= elapsed_ms).map(|(_, ms)| *ms) {
                outages.remove(0);
                cut_off_from_consul(&mut world, 0..size, outage_ms.ms());
            }
            let at = if after_ms % 2 == 0 { world.master().unwrap_or(at % size) } else { at % size };
            strike(&mut world, at, fault);
        }
        world.weather = FAIR;
        world.plays(140.secs());
        let stopped = world.places.iter().filter(|place| place.state.is_none()).count();
        prop_assert!(stopped == size || world.master().is_some(), "{:?}", reasons(&world));
    }
}
