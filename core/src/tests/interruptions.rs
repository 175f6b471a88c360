//! A master that is read-only for a while within its term.

use super::fixtures::*;
use crate::ending::Known;
use crate::event::Event;
use crate::interruption::{INTERRUPTIONS, Interruption};
use crate::plan::{Action, GuardCommand};

/// A master that has been at work for a while, with its line in Consul.
fn at_work() -> Node {
    let mut node = master();
    node.lives_on(3.secs());
    assert!(told(&node).is_empty());
    node
}

fn told(node: &Node) -> Vec<Interruption> {
    let line = node.lock.history.get(&7).expect("a line");
    line.interruptions.clone()
}

/// Its guard fences it, and it is promoted again in the same term.
fn is_fenced_for_a_moment(node: &mut Node) {
    node.instance.is_fenced_by_guard("a story");
    node.lives_on(2.secs());
    assert!(node.state.is_serving());
    assert_eq!(node.lock.record().unwrap().term.get(), 7);
}

#[test]
fn a_fence_within_the_term_is_added_to_its_line_and_said_by_the_guard() {
    let mut node = at_work();
    let before = node.lock.history[&7].clone();
    is_fenced_for_a_moment(&mut node);
    let told = told(&node);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].why.as_str(), told[0].outage.known),
        ("a story", Known::Exact)
    );
    let after = node.lock.history[&7].clone();
    assert_eq!((after.at_ms, after.outage), (before.at_ms, before.outage));
    assert!(node.state.hold.interruptions.is_empty());
}

#[test]
fn its_guard_says_for_how_long_it_was_read_only_however_late_that_is_heard() {
    let mut node = at_work();
    node.instance.is_fenced_by_guard("a story");
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    let mut answer = node.carries_out(&promote).expect("it is promoted");
    if let Event::GuardAnswered { probe, .. } = &mut answer {
        probe.guard.fenced_ago_ns = Some(340_000_000);
        probe.guard.writable_ago_ns = Some(310_000_000);
    }
    node.passes(300.ms());
    node.hears(answer);
    node.lives_on(2.secs());
    let outage = told(&node)[0].outage;
    assert_eq!(
        (outage.at_least_ms, outage.at_most_ms),
        (Some(30), Some(30))
    );
}

#[test]
fn what_an_ex_master_wrote_there_meanwhile_stays() {
    let mut node = at_work();
    let line = node.lock.history.get_mut(&7).expect("a line");
    line.returned = Some(crate::board::Returned {
        at: 1,
        at_ms: 1_500,
        rows: 3,
        known: None,
    });
    is_fenced_for_a_moment(&mut node);
    assert_eq!(told(&node).len(), 1);
    assert!(node.lock.history[&7].returned.is_some());
}

#[test]
fn somebodys_hand_is_bounded_by_the_words_around_it() {
    let mut node = at_work();
    node.instance.ro = true;
    node.instance.read_only = true;
    node.lives_on(2.secs());
    assert!(node.state.is_serving());
    let told = told(&node);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].why.contains("somebody"), "{told:?}");
    assert!(
        told[0].outage.at_least_ms < told[0].outage.at_most_ms,
        "{told:?}"
    );
}

#[test]
fn only_the_newest_are_kept_and_the_line_stays_short() {
    let mut node = at_work();
    for _ in 0..INTERRUPTIONS + 3 {
        is_fenced_for_a_moment(&mut node);
    }
    let told = told(&node);
    assert_eq!(told.len(), INTERRUPTIONS);
    assert!(told.is_sorted_by_key(|it| it.at_ms));
}

#[test]
fn a_first_promotion_and_an_adopted_term_are_no_interruptions() {
    let mut node = at_work();
    node.lives_on(10.secs());
    node.state = crate::state::State::new(settings());
    node.attaches();
    node.watch_shows_lock();
    node.lives_on(5.secs());
    assert!(node.state.is_serving());
    assert!(told(&node).is_empty());
}
