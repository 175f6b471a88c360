//! What the master's own key says of a pause, and when: to whoever finds no record it is all that tells.

use super::super::fixtures::*;
use super::{is_stand, paused, says_paused};
use crate::event::Event;
use crate::plan::{Action, GuardCommand};

fn tells_that_it_stands_down(action: &Action) -> bool {
    matches!(action, Action::WriteMember { member } if member.stands_down)
}

/// Else an agent that comes when the record was deleted would take it for a master with a lease.
#[test]
fn its_member_key_says_so_before_the_guard_stands_down() {
    let mut node = master();
    node.is_paused_by_ann();
    for _ in 0..40 {
        let plan = node.round_losing(|action| matches!(action, Action::WriteMember { .. }));
        assert!(!plan.actions.iter().any(is_stand), "{plan:?}");
        node.passes(100.ms());
    }
    assert!(says_paused(&node) && !node.instance.guard.stood_down);
    node.lives_on(2.secs());
    assert!(node.instance.guard.stood_down, "{:?}", node.plan());
    let member = node.lock.members.get(OWN).expect("its key");
    assert!(member.stands_down);
}

/// Who found no record and looked at the members' keys before this one said so may take the lock.
#[test]
fn a_record_that_is_gone_when_the_member_key_says_so_keeps_the_guard_up() {
    let mut node = master();
    node.is_paused_by_ann();
    let telling = node.comes_to(tells_that_it_stands_down);
    assert!(says_paused(&node));
    node.lock.delete_key();
    node.answers(&telling);
    assert!(node.lock.members[OWN].stands_down);
    for _ in 0..100 {
        let plan = node.round_losing(|action| matches!(action, Action::Acquire { .. }));
        assert!(!plan.actions.iter().any(is_stand), "{plan:?}");
        node.passes(20.ms());
    }
}

#[test]
fn a_pause_that_begins_again_waits_for_a_member_key_that_says_so_again() {
    for reply_is_lost in [false, true] {
        let mut node = paused();
        node.is_resumed();
        let taken_back = node.comes_to(
            |action| matches!(action, Action::WriteMember { member } if !member.stands_down),
        );
        assert!(!node.instance.guard.stood_down);
        if reply_is_lost {
            node.loses_reply(&taken_back);
        }
        node.is_paused_by_ann();
        for _ in 0..100 {
            for action in node.round().actions {
                assert!(
                    reply_is_lost || !is_stand(&action),
                    "the key may change yet"
                );
            }
            let says_so = node.lock.members[OWN].stands_down;
            assert!(says_so || !node.instance.guard.stood_down);
            node.passes(100.ms());
        }
        if !reply_is_lost {
            node.answers(&taken_back);
            node.lives_on(5.secs());
        }
        assert!(node.lock.members[OWN].stands_down && node.instance.guard.stood_down);
    }
}

/// Its wish is what it last knew to stand there, and not what stands there.
#[test]
fn a_member_key_whose_write_may_have_arrived_is_written_over() {
    let mut node = master();
    node.lives_on(5.secs());
    node.is_paused_by_ann();
    let telling = node.comes_to(tells_that_it_stands_down);
    node.loses_reply(&telling);
    node.is_resumed();
    while node.state.orders.pause.is_some() {
        for action in node.turn().actions {
            if tells_that_it_stands_down(&action) {
                node.loses_reply(&action);
            } else {
                node.answers(&action);
            }
        }
        node.passes(100.ms());
    }
    assert!(node.lock.members[OWN].stands_down);
    node.lives_on(5.secs());
    assert!(!node.instance.guard.stood_down);
    assert!(!node.lock.members[OWN].stands_down);
}

#[test]
fn an_agent_that_was_superseded_in_a_pause_says_nothing_of_the_guard() {
    let mut node = master();
    node.is_paused_by_ann();
    let _ = node.comes_to(is_stand);
    node.hears(Event::Superseded {
        by: "another".to_owned(),
    });
    let plan = node.turn();
    assert!(
        matches!(plan.actions.as_slice(), [Action::Exit { .. }]),
        "{plan:?}"
    );
}

#[test]
fn a_member_key_that_another_agent_of_the_instance_wrote_over_says_so_again() {
    let mut node = paused();
    node.lock.members.get_mut(OWN).expect("its key").stands_down = false;
    node.lives_on(5.secs());
    assert!(node.lock.members[OWN].stands_down);
}

#[test]
fn a_member_key_that_was_written_over_in_time_keeps_the_guard_up() {
    let mut node = master();
    node.is_paused_by_ann();
    let telling = node.comes_to(tells_that_it_stands_down);
    node.answers(&telling);
    node.lock.members.get_mut(OWN).expect("its key").stands_down = false;
    let stand = node.comes_to(is_stand);
    assert!(matches!(
        stand,
        Action::Guard(GuardCommand::StandDown { down: true })
    ));
    assert!(node.lock.members[OWN].stands_down);
}

/// Its role is a replica's then, and nothing else tells a newcomer.
#[test]
fn its_member_key_says_so_until_the_guard_is_up_with_the_lock_or_without() {
    let mut node = paused();
    let says_so = |node: &Node| node.lock.members[OWN].stands_down;
    assert!(says_so(&node));
    node.lock.pause = None;
    node.lock.delete_key();
    node.watch_shows_lock();
    for _ in 0..200 {
        node.round_losing(|action| {
            matches!(
                action,
                Action::Acquire { .. } | Action::Guard(GuardCommand::StandDown { .. })
            )
        });
        node.passes(20.ms());
        assert!(says_so(&node) && node.instance.guard.stood_down);
    }
    node.lives_on(30.secs());
    assert!(!says_so(&node) && !node.instance.guard.stood_down);
}
