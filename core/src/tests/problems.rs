//! What is not as it should be in a replica set is said by all of its agents.

use std::collections::BTreeMap;

use super::fixtures::*;
use super::toys;
use crate::board::{Board, Member};
use crate::event::Event;
use crate::names::labels;
use crate::observed::GuardClock;
use crate::plan::{Action, Health};
use crate::problems::of;
use crate::record::Record;

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
    members[2].uri = "b:1".to_owned();
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

/// All replicate from all, and what their agents say of it.
fn mesh() -> [Member; 3] {
    let mut members = three();
    for own in &mut members {
        sets(own, "REPLICATION", "keep");
        for other in [OWN, OTHER, THIRD] {
            if other != own.instance {
                own.upstreams.insert(other.to_owned(), "follow".to_owned());
            }
        }
    }
    members
}

#[test]
fn a_member_that_nobody_follows_is_a_problem_before_it_is_master() {
    let mut members = mesh();
    assert_eq!(of(&members, Some(&followed())), [""; 0]);
    members[2].unfollowed = true;
    // The others say that they follow it: somebody's word is old.
    assert_eq!(of(&members, Some(&followed())), [""; 0]);
    members[0].upstreams.remove(THIRD);
    assert_eq!(of(&members, Some(&followed())), [""; 0]);
    members[1]
        .upstreams
        .insert(THIRD.to_owned(), "stopped".to_owned());
    let found = of(&members, Some(&followed()));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("nobody replicates from c:1: were it master"));
}

#[test]
fn where_it_is_not_known_or_meant_so_nobody_is_said_to_be_unfollowed() {
    let unfollowed = || {
        let mut members = mesh();
        members[2].unfollowed = true;
        for own in &mut members {
            own.upstreams.remove(THIRD);
        }
        members
    };
    let cases: [fn(&mut [Member; 3]); 4] = [
        |members| members[2].priority = -1,
        |members| members[2].unfollowed = false,
        // Whoever becomes master is followed then.
        |members| sets(&mut members[1], "REPLICATION", "follow"),
        // An older agent's key does not say.
        |members| drop(members[1].shared.remove("REPLICATION")),
    ];
    assert_eq!(of(&unfollowed(), Some(&followed())).len(), 1);
    for spoils in cases {
        let mut members = unfollowed();
        spoils(&mut members);
        let found = of(&members, Some(&followed()));
        let said = found.iter().any(|it| it.contains("nobody"));
        assert!(!said, "{found:?}");
    }
    // Of the others nothing is left but keys.
    let alone = Record {
        instance: "gone".to_owned(),
        following: vec![THIRD.to_owned()],
        ..followed()
    };
    assert_eq!(of(&unfollowed(), Some(&alone)), [""; 0]);
}

#[test]
fn a_master_that_nobody_follows_is_a_problem() {
    let mut members = mesh();
    members[0].unfollowed = true;
    let record = Record {
        following: Vec::new(),
        ..followed()
    };
    assert_eq!(
        of(&members, Some(&record)),
        ["nobody replicates from the master, a:1: what is written exists once"]
    );
}

#[test]
fn an_agent_says_that_nobody_follows_once_that_has_lasted_and_others_have_joined() {
    let mut node = replica();
    node.lives_on(20.secs());
    let says = |node: &Node| node.state.catalog.member.as_ref().unwrap().unfollowed;
    assert!(!says(&node), "there is nobody else");
    let mut node = replica().having(|instance| {
        instance.replication = vec![toys::follower(OTHER)];
    });
    node.lives_on(1.secs());
    node.instance.replication[0].downstream_status = Some("stopped".to_owned());
    let session = node.lock.holder().cloned();
    for second in 1..=16 {
        node.lock
            .put_record(session.clone(), &record().refreshed(100 + second));
        node.watch_shows_lock();
        node.lives_on(1.secs());
        assert!(second == 16 || second == 15 || !says(&node), "{second}");
    }
    assert!(says(&node));
    node.instance.replication[0].downstream_status = Some("follow".to_owned());
    node.lives_on(1.secs());
    assert!(!says(&node));
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

fn board_of(node: &Node, members: &[Member]) -> Event {
    let members = members.iter();
    let members = members.map(|member| (member.instance.clone(), member.clone()));
    Event::BoardSeen {
        asked_at: node.now,
        result: Ok(Box::new(Board {
            members: members.collect(),
            ..Board::default()
        })),
    }
}

const DIFFERS: &str = "MASTER_LEASE differs: 10s at a:1; 5s at b:1";

/// A master whose follower has another lease, and says so in its key.
fn differing() -> Node {
    let mut node = master();
    node.state.hold.record.as_mut().unwrap().following = vec![OTHER.to_owned()];
    let mut members = [member(OWN, "a:1"), member(OTHER, "b:1")];
    members[1].lease_ms = 5_000;
    node.hears(board_of(&node, &members));
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
fn a_guard_whose_leases_stand_still_in_a_suspension_is_a_problem() {
    let mut node = master();
    assert_eq!(node.state.problems(), [""; 0]);
    node.instance.guard.clock = GuardClock::Monotonic;
    node.lives_on(2.secs());
    let problems = node.state.problems().join("; ");
    assert!(
        problems.contains("cannot read CLOCK_BOOTTIME"),
        "{problems}"
    );
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
