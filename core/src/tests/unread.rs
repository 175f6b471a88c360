//! What stands beside the lock and cannot be read: unknown, never absent, and never in the way of a master that is known.

use super::election::{THIRD, after, candidate, last_word};
use super::fixtures::*;
use crate::board::{Board, Pause};
use crate::event::Event;
use crate::plan::{Action, Reason};
use crate::record::{Record, Status};

fn is_board(action: &Action) -> bool {
    matches!(action, Action::ReadBoard)
}

fn is_ballots(action: &Action) -> bool {
    matches!(action, Action::ReadBallots { .. })
}

#[test]
fn a_candidate_says_why_it_cannot_read_the_board_or_the_ballots() {
    // As the toys say it of a request that is lost.
    let why = "no answer".to_owned();
    let unread = Reason::WaitingForConsul { why };
    for is_lost in [is_board, is_ballots] {
        let mut node = candidate();

        let mut said = false;
        for _ in 0..8 {
            said |= node.round_losing(is_lost).reason == unread;
            assert!(!node.holds());
            node.passes(10.ms());
        }
        assert!(said, "{:?}", node.plan().reason);
        node.lives_on(LEASE_AND_MARGIN);
        assert!(node.holds(), "{:?}", node.plan().reason);
    }
}

/// After this record, by an agent that has just come, where more members' keys stand than are read.
fn flooded(record: &Record) -> Node {
    let mut node = after(record);
    node.lock.misses_members = true;
    node
}

#[test]
fn members_that_are_not_read_keep_nobody_from_succeeding_a_master_that_is_known() {
    let active = last_word().says(Status::Active);
    for record in [last_word(), active] {
        let mut node = flooded(&record);
        node.lives_on(LEASE_AND_MARGIN * 2);
        assert!(node.instance.is_writable(), "{:?}", node.plan().reason);
    }
}

#[test]
fn members_that_are_not_read_may_stand_down_where_no_record_says_who_was_promoted() {
    for record in [Some(last_word().says(Status::Promoting)), None] {
        let mut node = flooded(record.as_ref().unwrap_or(&last_word()));
        if record.is_none() {
            node.lock.delete_key();
            node.watch_shows_lock();
        }
        node.lives_on(LEASE_AND_MARGIN * 3);
        let reason = node.plan().reason.to_string();
        assert!(!node.holds() && reason.contains("not read"), "{reason}");
        node.lock.misses_members = false;
        node.lives_on(LEASE_AND_MARGIN * 3);
        assert!(node.instance.is_writable(), "{:?}", node.plan().reason);
    }
}

#[test]
fn a_member_that_is_not_read_may_have_the_longest_lease() {
    let board = Board {
        misses_members: true,
        ..Board::default()
    };
    let (_, lease) = board.terms(|_| true);
    assert_eq!(lease.as_millis(), u128::from(Record::MAX_LEASE_MS));
    assert_eq!(Board::default().terms(|_| true).1, 0.ms());
}

#[test]
fn a_board_that_was_asked_for_earlier_is_no_news() {
    let mut node = master();
    node.passes(1.secs());
    let earlier = node.now;
    node.passes(1.secs());
    let seen = |asked_at, pause: Option<Pause>| Event::BoardSeen {
        asked_at,
        result: Ok(Box::new(Board {
            pause,
            ..Board::default()
        })),
    };
    node.hears(seen(node.now, Some(Pause::default())));
    node.hears(seen(earlier, None));
    assert!(node.state.orders.pause.is_some());
    node.hears(seen(node.now, None));
    assert!(node.state.orders.pause.is_none());
}

#[test]
fn a_master_that_cannot_read_its_orders_goes_on_and_says_so() {
    let mut node = master();
    let failed = |node: &Node| Event::BoardSeen {
        asked_at: node.now,
        result: Err(fault()),
    };
    for _ in 0..2 {
        node.hears(failed(&node));
    }
    assert_eq!(node.state.problems(), [""; 0]);
    node.hears(failed(&node));
    let words = format!("members and orders are not seen: {}", fault().why);
    assert_eq!(node.state.problems(), [words]);
    assert_eq!(node.plan().reason, Reason::Serving);
    node.lives_on(LEASE_AND_MARGIN);
    assert!(node.state.is_serving());
    assert_eq!(node.state.problems(), [""; 0]);
}

#[test]
fn keys_are_read_of_all_instances_that_anybody_mentions_the_surest_first() {
    let mut record = last_word().says(Status::Active);
    record.members = (0..64).map(|at| format!("recorded-{at}")).collect();
    let node = after(&record);
    let known = node.state.known_members();
    let own = [OWN, OTHER, THIRD].map(str::to_owned);
    assert_eq!(known[..3], own);
    assert!(known.contains(&"recorded-0".to_owned()));
    assert_eq!(known.len(), 64);
    assert!(!node.state.rests_on_all_members());
}

#[test]
fn all_members_keys_count_where_no_record_says_who_was_promoted() {
    let promoting = after(&last_word().says(Status::Promoting));
    assert!(promoting.state.rests_on_all_members());
    let mut node = after(&last_word());
    assert!(!node.state.rests_on_all_members());
    node.state.highest_term = last_word().term.next();
    assert!(node.state.rests_on_all_members());
    node.lock.delete_key();
    node.watch_shows_lock();
    assert!(node.state.rests_on_all_members());
}
