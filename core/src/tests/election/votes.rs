//! R7: nobody becomes master before every synchronous row that may have been acknowledged is known to be there.

use super::super::fixtures::*;
use super::super::toys::{follower, member};
use super::{THIRD, WINDOW, after, ballot, candidate, last_word, vclock};
use crate::board::Ballot;
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::{LastWord, Quorum, Record, Status};
use crate::settings::{Elector, SyncLoss};
use crate::term::Term;
use crate::vclock::Vclock;

fn quorum(size: u64, members: &[&str]) -> Option<Quorum> {
    Some(Quorum {
        size,
        members: members.iter().map(|it| (*it).to_owned()).collect(),
    })
}

/// Of three, of which two must have a row. Only this instance followed the last master at its last word.
fn synchronous() -> Record {
    Record {
        following: vec![OWN.to_owned()],
        quorum: quorum(2, &[OWN, OTHER, THIRD]),
        ..last_word()
    }
}

fn voter(rows: u64) -> Ballot {
    Ballot {
        vclock: vclock(rows),
        excluded: Some("its PRIORITY is -1".to_owned()),
        ..ballot(THIRD)
    }
}

/// A candidate with ten rows that sees that ballot.
fn seeing(last: &Record, theirs: &Ballot) -> Node {
    let mut node = after(last);
    node.instance.vclock = vclock(10);
    node.attaches();
    let theirs = Ballot {
        index: node.lock.watch_index(),
        ..theirs.clone()
    };
    node.lock.write_ballot(&theirs);
    node.settles();
    node
}

#[test]
fn without_the_votes_of_all_but_a_quorum_and_one_nobody_becomes_master() {
    let mut node = after(&synchronous());
    node.lives_on(100.secs());
    assert!(!node.holds());
    let reason = node.plan().reason;
    assert!(
        matches!(&reason, Reason::WaitingForRows { .. }),
        "{reason:?}"
    );
    let words = "2 members must say what they have, 1 did; missing: ";
    assert!(reason.to_string().contains(words), "{reason}");
    assert!(reason.to_string().contains(THIRD), "{reason}");
    node.lock.write_ballot(&voter(10));
    node.hears_ballots();
    node.settles();
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// Else each member would say something else every few seconds, in its log, its key and the catalog.
#[test]
fn what_is_waited_for_is_said_also_while_the_board_is_read_anew() {
    let mut node = after(&synchronous());
    node.lives_on(2.secs());
    let before = node.plan().reason;
    assert!(
        matches!(before, Reason::WaitingForRows { .. }),
        "{before:?}"
    );
    node.passes(30.secs());
    node.answers(&Action::Guard(GuardCommand::Probe));
    let plan = node.turn();
    assert!(does!(plan, Action::ReadBoard), "{plan:?}");
    assert_eq!(plan.reason, before);
}

#[test]
fn with_them_nobody_waits() {
    assert!(seeing(&synchronous(), &voter(10)).holds());
}

#[test]
fn whether_an_old_agent_voted_shows_only_where_it_runs() {
    let word = Ballot {
        vote: None,
        ..voter(10)
    };
    assert!(!seeing(&synchronous(), &word).holds());
    let runs = Ballot {
        excluded: None,
        priority: -5,
        ..word
    };
    assert!(seeing(&synchronous(), &runs).holds());
}

#[test]
fn whose_vote_counts_says_the_last_master() {
    let stranger = Record {
        quorum: quorum(2, &[OWN, OTHER, "fourth"]),
        ..synchronous()
    };
    assert!(!seeing(&stranger, &voter(10)).holds());
}

#[test]
fn how_many_are_needed_follows_from_the_quorum() {
    let five = [OWN, OTHER, THIRD, "fourth", "fifth"];
    for (size, members, needed) in [
        (2, &five[..3], Some(2)),
        (3, &five[..3], Some(1)),
        (3, &five[..], Some(3)),
        (2, &five[..], Some(4)),
        (9, &five[..], Some(1)),
        (1, &five[..], None),
        (0, &five[..], None),
    ] {
        let quorum = quorum(size, members).expect("one");
        assert_eq!(quorum.votes_needed(), needed, "{size} of {members:?}");
    }
}

#[test]
fn rows_that_a_voter_has_are_waited_for() {
    for follows in [true, false] {
        let mut node = seeing(&synchronous(), &voter(11));
        if !follows {
            let upstream = node.instance.replication[1].upstream.as_mut();
            upstream.expect("one").status = "stopped".to_owned();
        }
        node.lives_on(100.secs());
        assert!(!node.holds());
        let reason = node.plan().reason;
        let words = reason.to_string();
        assert!(
            words.contains("name of instance-third has rows that are not here"),
            "{words}"
        );
        assert_eq!(
            words.contains("does not replicate from it"),
            !follows,
            "{words}"
        );
        node.instance.vclock = vclock(11);
        node.lives_on(2.secs());
        assert!(node.holds(), "{:?}", node.plan().reason);
    }
}

#[test]
fn where_only_the_master_is_followed_a_candidate_follows_the_voter_that_has_the_rows() {
    let mut node = after(&synchronous()).with(|settings| settings.follow = true);
    node.instance.vclock = vclock(10);
    node.instance.replication[1].upstream = None;
    let mut third = member(THIRD, THIRD);
    third.uri = "10.0.0.3:3301".to_owned();
    node.lock.members.insert(THIRD.to_owned(), third);
    node.lock.write_ballot(&voter(11));
    node.attaches();
    let follow =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Follow { .. })));
    let Action::Guard(GuardCommand::Follow { uri, .. }) = follow else {
        unreachable!("it was looked for");
    };
    assert_eq!(uri.as_deref(), Some("10.0.0.3:3301"));
}

/// They come in moments.
#[test]
fn rows_that_come_are_looked_for_at_once() {
    let mut node = seeing(&synchronous(), &voter(11));
    node.instance.vclock = vclock(11);
    node.passes(10.ms());
    node.settles();
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// What an earlier master alone has, and the last one never had, was acknowledged by nobody that counts.
#[test]
fn only_rows_of_the_last_master_count() {
    let more = Ballot {
        vclock: Vclock::from([("1".to_owned(), 10), ("7".to_owned(), 99)]),
        ..voter(0)
    };
    let mut node = after(&synchronous());
    node.instance.replication[0].id = 1;
    node.attaches();
    node.lock.write_ballot(&more);
    node.instance.vclock = vclock(10);
    node.lives_on(2.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn where_loss_is_accepted_it_is_said_what_may_be_lost() {
    let accepting = |change: &dyn Fn(&mut Node)| {
        let mut node = after(&synchronous());
        node.state.settings.sync_loss = SyncLoss::Accept;
        node.instance.vclock = vclock(10);
        change(&mut node);
        node.attaches();
        node
    };
    let mut node = accepting(&|_| {});
    node.settles();
    node.passes(WINDOW - 50.ms());
    node.settles();
    assert!(!node.holds(), "a vote may still come");
    node.lives_on(1.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
    let reason = node.lock.record().expect("a record").reason;
    assert!(
        reason.contains("synchronous rows may be lost: 2 members must say what they have, 1 did"),
        "{reason}"
    );
    // A voter has more.
    let mut node = accepting(&|node| node.lock.write_ballot(&voter(11)));
    node.lives_on(LEASE - 1.secs());
    assert!(!node.holds());
    node.lives_on(2.secs());
    let reason = node.lock.record().expect("a record").reason;
    assert!(
        node.holds() && reason.contains("name of instance-third has rows that are not here"),
        "{reason}"
    );
}

/// Without such rows, or where the master alone may have had them, votes tell nothing. Nor did an old agent say which it is.
#[test]
fn where_votes_tell_nothing_nobody_waits_for_them() {
    for quorum in [
        None,
        quorum(0, &[OWN, OTHER, THIRD]),
        quorum(1, &[OWN, OTHER, THIRD]),
    ] {
        let last = Record {
            quorum,
            ..synchronous()
        };
        let mut node = after(&last);
        node.settles();
        assert!(node.holds(), "{:?}", node.plan().reason);
    }
}

#[test]
fn whoever_is_first_needs_the_votes_too_unless_loss_is_accepted() {
    for (sync_loss, holds) in [(SyncLoss::Refuse, false), (SyncLoss::Accept, true)] {
        let mut node = after(&synchronous()).with(|settings| {
            settings.elector = Elector::First;
            settings.sync_loss = sync_loss;
        });
        node.lives_on(20.secs());
        assert_eq!(node.holds(), holds, "{:?}", node.plan().reason);
    }
}

/// It has what it acknowledged, and had what was acknowledged before.
#[test]
fn the_last_master_itself_needs_no_votes() {
    let own = synchronous().of(OWN);
    let mut node = after(&own);
    node.instance.vclock = vclock(10);
    node.attaches();
    node.settles();
    assert!(node.holds(), "{:?}", node.plan().reason);
    // Its disk is another one.
    let mut node = after(&own);
    node.instance.vclock = vclock(9);
    node.attaches();
    node.lives_on(20.secs());
    assert!(!node.holds());
    // A holder that may not have been promoted is none.
    let last = Record {
        base: Vclock::new(),
        last_master: Some(LastWord {
            instance: OTHER.to_owned(),
            vclock: vclock(10),
        }),
        ..own
    };
    let mut node = after(&last);
    node.lives_on(20.secs());
    assert!(!node.holds());
}

#[test]
fn a_member_that_does_not_run_votes_once_no_promise_binds_it() {
    let last = Record {
        failsafe: true,
        members: [OWN, OTHER, THIRD].map(str::to_owned).into(),
        ..synchronous()
    };
    let active = Record {
        base: vclock(3),
        ..last.says(Status::Active)
    };
    let mut node = after(&active);
    node.state.settings.priority = Some(-1);
    node.instance.guard.promise = None;
    let until = node.instance.clock(node.now + LEASE * 3);
    node.instance.promise = Some((OTHER.to_owned(), Term::from(6), until));
    node.attaches();
    node.lives_on(LEASE * 2);
    let own = node.lock.ballots.get(OWN).expect("its word");
    assert_eq!(own.vote, Some(false));
    node.lives_on(LEASE * 2);
    assert_eq!(node.wrote().vote, Some(true));
}

/// It was written while the master still acknowledged (found by a review).
#[test]
fn a_word_for_a_switchover_is_no_vote_after_a_take_over() {
    let ready = Ballot {
        vote: Some(false),
        excluded: None,
        ..voter(10)
    };
    let mut node = seeing(&synchronous(), &ready);
    node.lives_on(20.secs());
    assert!(!node.holds());
    // Its own of before is none either: it is written anew.
    let mut node = after(&synchronous());
    let election = crate::election::Election {
        index: node.lock.watch_index(),
        term: Term::from(7),
        own: Some(Ballot {
            instance: OWN.to_owned(),
            ..ready
        }),
        ..Default::default()
    };
    node.state.election = Some(election);
    node.settles();
    assert_eq!(node.wrote().vote, Some(true));
}

/// Whoever removed it has to see it again.
#[test]
fn a_vote_that_disappears_is_cast_again_and_one_that_was_cast_stays_true() {
    let mut node = after(&synchronous());
    node.instance.vclock = vclock(10);
    node.attaches();
    node.lives_on(1.secs());
    assert_eq!(node.wrote().vote, Some(true));
    node.lock.ballots.clear();
    node.hears_ballots();
    node.lives_on(1.secs());
    assert_eq!(node.wrote().vote, Some(true));
    node.is_killed();
    node.hears_ballots();
    node.lives_on(1.secs());
    let word = node.wrote();
    assert!(word.excluded.is_some() && word.vote == Some(true));
    assert_eq!(word.vclock, vclock(10));
}

/// A word of the instance from before that end may be older than the master's last acknowledgement.
#[test]
fn a_vote_is_a_word_from_after_the_end_of_the_promise() {
    let last = Record {
        failsafe: true,
        members: [OWN, OTHER, THIRD].map(str::to_owned).into(),
        ..synchronous()
    };
    let mut node = after(&last.says(Status::Active));
    let until = node.instance.clock(node.now + LEASE * 2);
    node.instance.promise = Some((OTHER.to_owned(), Term::from(6), until));
    node.attaches();
    node.lives_on(LEASE * 2 - 250.ms());
    node.instance.vclock = vclock(12);
    node.lives_on(1.secs());
    assert_eq!(node.wrote().vote, Some(true));
    assert_eq!(node.wrote().vclock, vclock(12));
}

/// Nobody else may be there to be the second.
#[test]
fn whoever_has_just_given_the_lock_up_votes_meanwhile() {
    let own = Record {
        instance: OWN.to_owned(),
        ..synchronous()
    };
    let mut node = after(&own);
    node.instance.vclock = vclock(10);
    node.attaches();
    node.state.hold.hold_back_until = Some(node.now + 2.secs());
    node.settles();
    let ballot = node.wrote();
    assert!(ballot.vote == Some(true) && ballot.excluded.is_some());
    node.lives_on(3.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn the_record_says_what_its_master_s_clients_rely_on() {
    let mut node = node()
        .having(|instance| {
            instance.replication = vec![follower(OTHER)];
            instance.quorum = Some(2);
        })
        .finding(|lock| {
            lock.put_record(None, &synchronous());
        })
        .with(|settings| settings.sync_loss = SyncLoss::Accept)
        .attached()
        .seeing_lock();
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    // Of the last master, until it is promoted itself.
    assert_eq!(
        node.lock.record().expect("a record").quorum,
        synchronous().quorum
    );
    node.answers(&promote);
    let node = node.settled().serving();
    let own = node.lock.record().expect("a record").quorum;
    assert_eq!(own, quorum(2, &[OTHER]));
}

/// Who may have them has said so, perhaps, and could not be heard.
#[test]
fn who_lacks_rows_and_cannot_write_its_ballot_waits_a_lease() {
    let mut node = candidate();
    node.instance.vclock = vclock(9);
    node.attaches();
    let until = node.now + (LEASE - 500.ms());
    let is_ballot = |action: &Action| matches!(action, Action::WriteBallot { .. });
    while node.now < until {
        node.passes(250.ms());
        node.round_losing(is_ballot);
        assert!(!node.holds());
    }
    for _ in 0..8 {
        node.passes(250.ms());
        node.round_losing(is_ballot);
    }
    assert!(node.holds(), "{:?}", node.plan().reason);
}
