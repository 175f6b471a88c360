//! A member that wrote rows as a master whose time was over: on 2.11 and later the others refuse them for good.

use super::fixtures::*;
use super::toys::follower;
use crate::ids::SessionId;
use crate::plan::Health;
use crate::problems;
use crate::record::{Record, Status};

const SPLIT_BRAIN: &str = "Split-Brain discovered: got a transaction from an old term";

/// How the instance's upstream to the other one is.
fn upstream(node: &mut Node, status: &str, message: Option<&str>) {
    let peer = &mut node.instance.replication[0];
    let upstream = peer.upstream.as_mut().expect("it has one");
    status.clone_into(&mut upstream.status);
    upstream.message = message.map(str::to_owned);
}

fn follows_other(node: Node) -> Node {
    node.having(|instance| instance.replication = vec![follower(OTHER)])
}

/// A replica of the other one, which says that of it.
fn refused(status: Status) -> Node {
    let record = Record {
        split_off: vec![OWN.to_owned()],
        ..record().says(status)
    };
    let holder = (status == Status::Active).then(|| SessionId::new("theirs"));
    node()
        .finding(|lock| {
            lock.put_record(holder, &record);
        })
        .attached()
        .seeing_lock()
}

#[test]
fn a_member_whose_rows_are_refused_is_critical_and_says_how_to_mend_it() {
    let mut node = refused(Status::Active);
    node.lives_on(2.secs());
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Critical);
    assert!(
        entry.output.contains("refuses its rows"),
        "{}",
        entry.output
    );
    assert!(entry.output.contains("joins anew"), "{}", entry.output);
}

#[test]
fn a_member_whose_rows_are_refused_never_runs() {
    let mut node = refused(Status::Fenced);
    node.lives_on(60.secs());
    let reason = node.turn().reason.to_string();
    assert!(reason.contains("Split-Brain"), "{reason}");
    assert!(!node.state.holds_lock());
}

#[test]
fn a_master_says_whose_rows_its_instance_refuses_until_it_follows_them_again() {
    let mut node = follows_other(node()).attached().seeing_lock();
    node.lives_on(3.secs());
    assert!(node.state.is_serving());
    assert!(node.lock.record().unwrap().split_off.is_empty());
    upstream(&mut node, "stopped", Some("Duplicate key exists"));
    node.lives_on(5.secs());
    assert!(node.lock.record().unwrap().split_off.is_empty());
    upstream(&mut node, "stopped", Some(SPLIT_BRAIN));
    node.lives_on(5.secs());
    assert_eq!(node.lock.record().unwrap().split_off, [OTHER]);
    upstream(&mut node, "disconnected", Some("Connection refused"));
    node.lives_on(5.secs());
    assert_eq!(node.lock.record().unwrap().split_off, [OTHER]);
    upstream(&mut node, "follow", None);
    node.lives_on(5.secs());
    assert!(node.lock.record().unwrap().split_off.is_empty());
}

#[test]
fn the_next_master_goes_on_saying_it_of_who_is_a_member_still() {
    let last = Record {
        instance: "instance-third".to_owned(),
        split_off: vec![OTHER.to_owned(), "instance-wiped".to_owned()],
        ..record().says(Status::Fenced)
    };
    let mut node = follows_other(node().finding(|lock| {
        lock.put_record(None, &last);
    }));
    upstream(&mut node, "connecting", None);
    let mut node = node.attached().seeing_lock();
    node.lives_on(3.secs());
    assert!(node.state.is_serving());
    assert_eq!(node.lock.record().unwrap().split_off, [OTHER]);
}

#[test]
fn all_members_say_it_as_a_problem() {
    let record = Record {
        split_off: vec![OTHER.to_owned()],
        ..record()
    };
    let found = problems::of([], Some(&record));
    assert!(
        found
            .iter()
            .any(|it| it.contains(OTHER) && it.contains("never becomes master")),
        "{found:?}"
    );
}
