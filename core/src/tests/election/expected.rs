//! Whose ballots are waited for, and for how long.

use super::super::fixtures::*;
use super::super::toys::member;
use super::{THIRD, WINDOW, after, ballot, candidate, is_acquire, last_word, vclock};
use crate::board::Ballot;
use crate::record::{LastWord, Record};
use crate::vclock::Vclock;

/// Who is silent may have them.
#[test]
fn a_ballot_that_does_not_come_is_waited_for_a_lease_by_who_lacks_rows_of_the_last_master() {
    let mut node = candidate();
    node.instance.vclock = vclock(9);
    node.attaches();
    let mut node = node.waiting_for_ballots();
    node.lives_on(LEASE - 1.secs());
    assert!(!node.holds());
    node.lives_on(2.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// Its process may be back already, which its agent has not seen yet (found by chaos).
#[test]
fn who_lacks_rows_waits_a_lease_for_one_whose_instance_is_not_there() {
    for (rows, vote, waits) in [(9, false, true), (9, true, false), (10, false, false)] {
        let mut node = candidate();
        node.lock.write_ballot(&Ballot {
            excluded: Some("its process is dead".to_owned()),
            vote: Some(vote),
            ..ballot(THIRD)
        });
        node.instance.vclock = vclock(rows);
        node.attaches();
        node.settles();
        node.lives_on(LEASE - 1.secs());
        assert_eq!(!node.holds(), waits, "{:?}", node.plan().reason);
        node.lives_on(2.secs());
        assert!(node.holds(), "{:?}", node.plan().reason);
    }
}

#[test]
fn who_does_not_run_says_whether_its_word_is_a_vote() {
    let dies: fn(&mut Node) = Node::is_killed;
    let silent: fn(&mut Node) = |node| {
        node.freezes();
        node.passes(3.secs());
    };
    let loads: fn(&mut Node) = |node| {
        node.instance.status = "loading".to_owned();
        node.attaches();
    };
    let never: fn(&mut Node) = |node| node.state.settings.priority = Some(-1);
    for (change, vote) in [
        (dies, false),
        (silent, false),
        (loads, false),
        (never, true),
    ] {
        let mut node = candidate();
        change(&mut node);
        node.settles();
        let own = node.wrote();
        assert!(own.excluded.is_some());
        assert_eq!(own.vote, Some(vote));
    }
}

/// Both lack rows and wait for whoever is silent, the better one from later on.
#[test]
fn a_better_one_that_lacks_rows_too_is_not_overtaken() {
    let mut node = candidate();
    node.instance.vclock = vclock(8);
    let four = Record {
        following: vec![OWN.to_owned(), THIRD.to_owned(), "silent".to_owned()],
        refresh: 42,
        ..last_word()
    };
    node.lock.put_record(None, &four);
    node.watch_shows_lock();
    node.attaches();
    let mut node = node.waiting_for_ballots();
    node.lives_on(2.secs());
    node.lock.write_ballot(&Ballot {
        vclock: vclock(9),
        index: node.lock.watch_index(),
        ..ballot(THIRD)
    });
    node.hears_ballots();
    node.lives_on(LEASE - 200.ms());
    assert!(!node.holds());
    node.lives_on(1.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn a_ballot_that_does_not_come_is_waited_for_one_window() {
    let mut node = candidate().waiting_for_ballots();
    node.passes(WINDOW - 20.ms());
    node.settles();
    assert!(!node.holds());
    node.passes(30.ms());
    node.settles();
    assert!(node.holds());
}

#[test]
fn where_nobody_else_followed_the_master_there_is_nothing_to_wait_for() {
    let alone = Record {
        following: vec![OWN.to_owned()],
        ..last_word()
    };
    let mut node = after(&alone);
    let acquire = node.runs_until(is_acquire);
    assert!(node.lock.ballots.is_empty());
    node.answers(&acquire);
    node.settles();
    node.serving();
}

/// A board with these members, all healthy.
fn boarded(mut node: Node, members: &[&str]) -> Node {
    for uuid in members {
        node.lock
            .members
            .insert((*uuid).to_owned(), member(uuid, uuid));
    }
    node
}

/// A member that comes back behind it may have more rows.
#[test]
fn a_member_that_the_last_word_does_not_name_is_waited_for_if_it_is_healthy_and_not_missed() {
    let alone = Record {
        following: vec![OWN.to_owned()],
        ..last_word()
    };
    let waits = |change: &dyn Fn(&mut Node)| {
        let mut node = boarded(after(&alone), &[OTHER, THIRD]);
        change(&mut node);
        for _ in 0..3 {
            node.settles();
        }
        !node.holds()
    };
    assert!(waits(&|_| {}));
    // As in a star, where replicas follow the master alone.
    assert!(waits(&|node| node.instance.replication[1].upstream = None));
    assert!(!waits(&|node| {
        let upstream = node.instance.replication[1].upstream.as_mut();
        upstream.expect("one").status = "disconnected".to_owned();
    }));
    // The record may be from before it joined.
    let unknown = Record {
        members: vec![OWN.to_owned(), OTHER.to_owned()],
        ..alone.clone()
    };
    for (rows_of_cluster, waited_for) in [(1, false), (2, true)] {
        let is_waited_for = waits(&|node| {
            node.instance.replication.truncate(rows_of_cluster);
            node.lock.put_record(None, &unknown);
            node.watch_shows_lock();
        });
        assert_eq!(is_waited_for, waited_for);
    }
    assert!(!waits(&|node| {
        let third = node.lock.members.get_mut(THIRD).expect("its key");
        third.health = "critical".to_owned();
    }));
}

#[test]
fn who_gave_the_lock_up_for_one_that_does_not_come_is_waited_for() {
    for (target, waits) in [(None, false), (Some(THIRD.to_owned()), true)] {
        let last = Record {
            following: vec![OWN.to_owned()],
            handover_to: target,
            ..last_word()
        };
        let mut node = boarded(after(&last), &[OTHER]);
        node.settles();
        node.passes(WINDOW);
        for _ in 0..3 {
            node.settles();
        }
        assert_eq!(!node.holds(), waits, "{:?}", node.plan().reason);
    }
}

#[test]
fn who_did_not_follow_the_master_waits_for_all_that_are_healthy() {
    let others = Record {
        following: vec![THIRD.to_owned()],
        ..last_word()
    };
    let node = after(&others).waiting_for_ballots();
    assert!(!node.holds());
}

#[test]
fn who_is_waited_for_behind_a_switchover_says_if_it_does_not_run() {
    for (target, says) in [(None, false), (Some(THIRD.to_owned()), true)] {
        let last = Record {
            instance: OWN.to_owned(),
            handover_to: target,
            ..last_word()
        };
        let mut node = after(&last);
        node.state.settings.priority = Some(-1);
        node.settles();
        let ballot = node.lock.ballots.get(OWN);
        assert_eq!(ballot.is_some_and(|it| it.excluded.is_some()), says);
    }
}

/// Else rows that it alone has would come after those of one whose agent has been there all the time.
#[test]
fn where_the_last_word_names_nobody_rows_alone_decide() {
    let handed_on = LastWord {
        instance: OTHER.to_owned(),
        vclock: vclock(3),
    };
    let third = vec![THIRD.to_owned()];
    let handed_on = Some(handed_on);
    for (following, base, refused, expected) in [
        (vec![], vclock(3), false, true),
        (third.clone(), vclock(3), false, false),
        (third.clone(), Vclock::new(), true, true),
        // It may have been promoted, and nobody knows who followed it.
        (vec![], Vclock::new(), false, false),
        (third, Vclock::new(), false, false),
    ] {
        let last = Record {
            following,
            base,
            refused,
            last_master: handed_on.clone(),
            ..last_word()
        };
        let mut node = boarded(after(&last), &[THIRD]);
        node.instance.replication.clear();
        node.state.instance.heard.clear();
        node.attaches();
        let own = node.waiting_for_ballots().wrote();
        assert_eq!(own.following, expected, "{last:?}");
    }
}
