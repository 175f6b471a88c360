//! What is not as it should be in a replica set is said by all of its agents.

use std::collections::BTreeMap;

use super::fixtures::*;
use super::toys;
use crate::decide::board::{Board, Member};
use crate::decide::event::Event;
use crate::decide::plan::{Action, Health};
use crate::decide::problems::{labels, of};
use crate::decide::record::Record;

const THIRD: &str = "instance-third";

fn member(instance: &str, name: &str) -> Member {
    let shared = [("FAILSAFE", "on"), ("GUARD", "lease")];
    let shared = shared.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Member {
        shared: BTreeMap::from(shared),
        ..toys::member(instance, name)
    }
}

fn three() -> [Member; 3] {
    [
        member(OWN, "a:1"),
        member(OTHER, "b:1"),
        member(THIRD, "c:1"),
    ]
}

/// `OWN` is master, the others follow.
fn followed() -> Record {
    Record {
        following: vec![OTHER.to_owned(), THIRD.to_owned()],
        ..record().of(OWN)
    }
}

fn sets(member: &mut Member, setting: &str, value: &str) {
    member.shared.insert(setting.to_owned(), value.to_owned());
}

#[test]
fn a_replica_set_of_one_mind_has_no_problem() {
    assert_eq!(of(&three(), Some(&followed())), [""; 0]);
    assert_eq!(of(&three(), None), [""; 0]);
    assert_eq!(of(&[], None), [""; 0]);
}

#[test]
fn different_leases_and_settings_are_named_with_their_values_and_members() {
    let mut members = three();
    members[2].lease_ms = 2_500;
    sets(&mut members[1], "FAILSAFE", "off");
    assert_eq!(
        of(&members, Some(&followed())),
        [
            "FAILSAFE differs: off at b:1; on at a:1, c:1",
            "MASTER_LEASE differs: 10s at a:1, b:1; 2500ms at c:1",
        ]
    );
}

#[test]
fn keys_of_older_agents_say_nothing_of_what_they_do_not_know() {
    let mut members = three();
    members[1].shared.clear();
    members[2].lease_ms = 0;
    assert_eq!(of(&members, Some(&followed())), [""; 0]);
}

#[test]
fn members_that_announce_one_address_are_told_apart() {
    let mut members = three();
    members[2].name = "b:1".to_owned();
    members[2].lease_ms = 5_000;
    let found = of(&members, Some(&followed()));
    let twins =
        "2 members announce the same address, b:1 (instances instance-other, instance-third)";
    assert!(found[0].starts_with(twins), "{found:?}");
    let lease = "MASTER_LEASE differs: 10s at a:1, b:1 (instance-o); 5s at b:1 (instance-t)";
    assert_eq!(found[1], lease);
}

/// An instance that was set up anew has another UUID, and the key of the one before stays.
#[test]
fn the_key_of_an_instance_that_is_gone_is_no_problem() {
    let mut members = three();
    members[2].name = "b:1".to_owned();
    members[2].lease_ms = 5_000;
    let record = Record {
        following: vec![OTHER.to_owned()],
        ..followed()
    };
    assert_eq!(of(&members, Some(&record)), [""; 0]);
}

#[test]
fn what_members_found_by_themselves_is_said_once_and_bounded() {
    let mut members = three();
    members[0].problems = vec!["it rains".to_owned(); 100];
    members[1].problems = vec!["it rains".to_owned(), "x".repeat(10_000)];
    let found = of(&members, Some(&followed()));
    assert_eq!(found[0], "it rains");
    assert_eq!((found.len(), found[1].chars().count()), (2, 400));
    members[0].problems = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(of(&members, Some(&followed())).len(), 8);
}

#[test]
fn a_name_that_is_shared_is_told_apart_by_as_much_of_the_uuid_as_it_takes() {
    let found = labels([
        ("a", "5f6a3c1e-0000-4000-8000-000000000001"),
        ("a", "5f6a3c1e-0000-4000-9000-000000000001"),
        ("a", "77777777-0000-4000-8000-000000000001"),
        ("b", "88888888-0000-4000-8000-000000000001"),
    ]);
    let labels: Vec<&str> = found.values().map(String::as_str).collect();
    assert_eq!(
        labels,
        [
            "a (5f6a3c1e-0000-4000-8)",
            "a (5f6a3c1e-0000-4000-9)",
            "a (77777777)",
            "b"
        ]
    );
}

fn board_of(members: &[Member]) -> Event {
    let members = members.iter();
    let members = members.map(|member| (member.instance.clone(), member.clone()));
    Event::BoardSeen {
        board: Box::new(Board {
            members: members.collect(),
            ..Board::default()
        }),
    }
}

const DIFFERS: &str = "MASTER_LEASE differs: 10s at a:1; 5s at b:1";

/// A master whose follower has another lease, and says so in its key.
fn differing() -> Node {
    let mut node = master();
    node.state.hold.record.as_mut().unwrap().following = vec![OTHER.to_owned()];
    let mut members = [member(OWN, "a:1"), member(OTHER, "b:1")];
    members[1].lease_ms = 5_000;
    node.hears(board_of(&members));
    node
}

#[test]
fn the_master_says_it_in_its_check_which_goes_on_passing_and_in_its_record() {
    let node = differing();
    let entry = part!(node.plan(), Action::Tell { entry, .. } => entry.clone()).expect("a word");
    assert_eq!(entry.health, Health::Passing);
    assert!(
        entry.output.ends_with(&format!("; problem: {DIFFERS}")),
        "{}",
        entry.output
    );
    let mut node = differing();
    node.passes(LEASE / 4);
    node.instance.guard_wakes(node.now);
    let refresh = node.comes_to(|action| matches!(action, Action::Refresh { .. }));
    let Action::Refresh { attempt, .. } = refresh else {
        panic!("{refresh:?}");
    };
    assert_eq!(attempt.record.problems, [DIFFERS]);
}

#[test]
fn a_replica_says_it_after_its_master() {
    let mut node = replica();
    assert_eq!(node.state.problems(), [""; 0]);
    let mut record = node.state.seen_record().unwrap().clone();
    record.refresh += 1;
    record.problems = vec![DIFFERS.to_owned()];
    let session = node.lock.holder().cloned();
    node.lock.put_record(session, &record);
    node.watch_shows_lock();
    let entry = part!(node.plan(), Action::Tell { entry, .. } => entry.clone()).expect("a word");
    assert_eq!(entry.health, Health::Passing);
    assert!(
        entry.output.ends_with(&format!("; problem: {DIFFERS}")),
        "{}",
        entry.output
    );
}
