//! Another database under the name by which clients look for this one is a problem; another shard is none.

use super::fixtures::*;
use crate::event::Event;
use crate::neighbours::{Neighbour, Neighbours};
use crate::plan::{Action, Health};
use crate::router::{RouterEvent, RouterSettings, RouterState};
use crate::timing::Tick;
use crate::vshard::Look;

fn neighbour(cluster: Option<&str>, replicaset: Option<&str>) -> Neighbour {
    Neighbour {
        instance: Some("instance-far".to_owned()),
        place: "10.9.9.9:3301".to_owned(),
        cluster: cluster.map(str::to_owned),
        replicaset: replicaset.map(str::to_owned),
    }
}

fn found(found: &[Neighbour]) -> Neighbours {
    Neighbours {
        name: "tarantool-master".to_owned(),
        cluster: "shop".to_owned(),
        found: found.to_vec(),
    }
}

fn own() -> String {
    let node = master();
    node.state.live_probe().unwrap().replicaset_uuid.clone()
}

/// What a master says when these are found under its name.
fn said(with_vshard: bool, neighbours: &[Neighbour]) -> Vec<String> {
    let mut node = master();
    if with_vshard {
        let probe = node.state.instance.probe.as_mut();
        probe.unwrap().vshard = Some(Look::default());
    }
    node.hears(Event::NeighboursSeen(found(neighbours)));
    node.state.problems()
}

#[test]
fn ones_own_replica_set_is_no_news() {
    let own = own();
    let peers = [
        neighbour(Some("shop"), Some(&own)),
        neighbour(None, Some(&own)),
    ];
    assert_eq!(said(false, &peers), [""; 0]);
    assert_eq!(said(false, &[]), [""; 0]);
}

#[test]
fn another_clusters_or_replica_sets_master_is_a_problem_that_names_it() {
    for with_vshard in [false, true] {
        let far = neighbour(Some("bank"), Some("set-2"));
        let problems = said(with_vshard, &[far.clone(), far]);
        let words = "clients that look for the master as tarantool-master also find 10.9.9.9:3301, of cluster bank, \
                     replica set set-2 (and 1 more): put {cluster} or {replicaset} into";
        assert!(problems[0].starts_with(words), "{problems:?}");
    }
    for same in [Some("shop"), None] {
        let problems = said(false, &[neighbour(same, Some("set-2"))]);
        assert!(problems[0].contains("replica set set-2"), "{problems:?}");
    }
}

/// The masters of a vshard cluster are found under one name by design.
#[test]
fn another_shard_of_the_same_cluster_is_no_problem() {
    for same in [Some("shop"), None] {
        assert_eq!(said(true, &[neighbour(same, Some("set-2"))]), [""; 0]);
    }
}

#[test]
fn an_instance_that_no_agent_registered_is_a_problem() {
    let stranger = Neighbour {
        instance: None,
        ..neighbour(None, None)
    };
    let problems = said(true, &[stranger]);
    assert!(
        problems[0].contains("10.9.9.9:3301, which no agent registered"),
        "{problems:?}"
    );
}

#[test]
fn one_replica_set_under_two_cluster_names_has_two_locks_and_is_told_so() {
    let problems = said(true, &[neighbour(Some("bank"), Some(&own()))]);
    assert!(problems[0].contains("two may be writable"), "{problems:?}");
}

#[test]
fn it_is_said_in_the_check_which_goes_on_passing_and_in_the_members_key() {
    let mut node = master();
    let far = neighbour(Some("bank"), None);
    node.hears(Event::NeighboursSeen(found(&[far])));
    let plan = node.plan();
    let entry = part!(plan, Action::Tell { entry, .. } => entry.clone()).expect("a word");
    assert_eq!(entry.health, Health::Passing);
    assert!(entry.output.contains("of cluster bank"), "{}", entry.output);
    let member = part!(plan, Action::WriteMember { member } => member.clone()).expect("a key");
    assert_eq!(member.problems, node.state.problems());
}

/// `CONSUL_LOCK_KEY` is the same for two replica sets: only one of them ever has a master.
#[test]
fn a_lock_that_another_replica_set_uses_is_a_problem_and_its_problems_are_not_ours() {
    let mut node = replica();
    let mut record = node.state.seen_record().unwrap().clone();
    record.refresh += 1;
    record.replicaset = "set-2".to_owned();
    record.problems = vec!["its own".to_owned()];
    let session = node.lock.holder().cloned();
    node.lock.put_record(session, &record);
    node.watch_shows_lock();
    let problems = node.state.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("CONSUL_LOCK_KEY is the same for both"),
        "{problems:?}"
    );
}

#[test]
fn a_router_says_it_of_routers_of_other_clusters_alone() {
    let mut router = RouterState::new(RouterSettings {
        announce: "router:3301".to_owned(),
        interval: 1.secs(),
    });
    let mut hears = |cluster| {
        let seen = found(&[neighbour(Some(cluster), None)]);
        router.apply(RouterEvent::NeighboursSeen(seen), Tick::default());
        router.problem()
    };
    assert_eq!(hears("shop"), None);
    let problem = hears("bank").expect("a problem");
    assert!(
        problem.starts_with("clients that look for the router"),
        "{problem}"
    );
}
