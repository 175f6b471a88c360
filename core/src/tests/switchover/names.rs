//! Members that announce one address are told apart in what the master's agent says of a switchover.

use super::*;

const THIRD: &str = "instance-third";
/// How the two are called.
const TWINS: [&str; 2] = ["b:3301 (instance-o)", "b:3301 (instance-t)"];

/// A master with two replicas of one name.
fn twins() -> Node {
    let mut node = pair();
    node.instance.replication.push(peer(THIRD, 10));
    let third = member(THIRD, "b:3301");
    node.lock.members.insert(THIRD.to_owned(), third);
    node.lives_on(1.secs());
    node
}

#[test]
fn a_name_that_two_members_have_is_refused_with_both() {
    let mut node = twins();
    node.is_ordered(order(Some("b:3301")));
    node.settles();
    let why = format!(
        "more than one member is called b:3301: {}",
        TWINS.join(", ")
    );
    assert_eq!(node.outcome(), (SwitchoverState::Refused, why));
}

#[test]
fn the_unfit_are_told_apart() {
    let mut node = twins();
    for twin in [OTHER, THIRD] {
        node.lock.members.get_mut(twin).unwrap().priority = -1;
    }
    node.is_ordered(order(None));
    node.settles();
    let (state, why) = node.outcome();
    assert_eq!(state, SwitchoverState::Refused);
    for twin in TWINS {
        assert!(
            why.contains(&format!("{twin} never becomes master")),
            "{why}"
        );
    }
}

#[test]
fn a_target_is_told_apart_until_it_is_given_up() {
    let mut node = twins();
    node.is_ordered(order(Some(THIRD)));
    node.settles();
    let handing_over = format!("handing over to {}", TWINS[1]);
    assert_eq!(node.outcome(), (SwitchoverState::Running, handing_over));
    node.lives_on(node.state.settings.timing.lease() + 1.secs());
    let why = format!("the agent of {} does not answer", TWINS[1]);
    assert_eq!(node.outcome(), (SwitchoverState::Undone, why));
}
