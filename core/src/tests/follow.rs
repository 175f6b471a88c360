//! `REPLICATION=follow` with a password that may be one of yesterday.

use super::fixtures::*;
use super::toys;
use crate::plan::{Action, GuardCommand};

fn is_follow(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Follow { .. }))
}

/// A replica that its agent has just pointed at the other instance, whose upstream says so.
fn follower(status: &str, locked_out: bool) -> Node {
    let mut peer = toys::follower(OTHER);
    if let Some(upstream) = &mut peer.upstream {
        status.clone_into(&mut upstream.status);
        upstream.locked_out = locked_out;
    }
    pointed(replica().having(|instance| instance.replication = vec![peer]))
}

fn pointed(node: Node) -> Node {
    let mut node = node.with(|settings| settings.follow = true);
    let follow = node.runs_until(is_follow);
    assert!(matches!(
        follow,
        Action::Guard(GuardCommand::Follow { again: false, .. })
    ));
    node.answers(&follow);
    node
}

/// How often it is pointed at the same master again, before that counts as lost.
fn times_again(node: &mut Node) -> usize {
    let mut times = 0;
    let until = node.now + 8.secs();
    while node.now < until {
        for action in &node.turn().actions {
            if let Action::Guard(GuardCommand::Follow { uri, again }) = action {
                assert!(again, "{action:?}");
                assert_eq!(uri.as_deref(), Some("10.0.0.2:3301"));
                times += 1;
            }
            node.answers(action);
        }
        node.is_watched(100.ms());
    }
    times
}

#[test]
fn a_replica_that_is_locked_out_is_pointed_at_its_master_again_every_few_seconds() {
    assert_eq!(times_again(&mut follower("disconnected", true)), 2);
    assert_eq!(times_again(&mut follower("loading", true)), 2);
}

/// A login that is refused at the first connection shows nowhere.
#[test]
fn so_is_one_that_has_never_reached_its_master() {
    assert_eq!(times_again(&mut pointed(replica())), 2);
}

#[test]
fn one_that_follows_or_is_cut_off_is_left_alone() {
    assert_eq!(times_again(&mut follower("follow", false)), 0);
    assert_eq!(times_again(&mut follower("disconnected", false)), 0);
}
