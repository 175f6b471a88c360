//! A holder whose guard does not promote it: it keeps the lock, and gives it up for a member that has its rows.

use super::super::fixtures::*;
use super::super::toys::follower;
use super::{THIRD, after, ballot, last_word, vclock};
use crate::board::{Ballot, Pause};
use crate::event::{Event, GuardCommandKind};
use crate::plan::{Action, GuardCommand, Reason};
use crate::record::{Cause, LastWord, Quorum, Record, Status};
use crate::settings::{Elector, SyncLoss};
use crate::term::Term;
use crate::vclock::Vclock;

fn is_promote(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Promote { .. }))
}

/// It holds the lock after the other instance, which had ten rows like itself.
fn holder(quorum: u64) -> Node {
    let others = [OTHER, THIRD];
    let mut node = node()
        .having(|instance| {
            instance.replication = others.map(follower).into();
            instance.vclock = vclock(10);
            instance.quorum = Some(quorum);
        })
        .finding(|lock| {
            let last = Record {
                quorum: Some(Quorum {
                    size: quorum,
                    members: [OWN, OTHER, THIRD].map(str::to_owned).into(),
                }),
                ..last_word()
            };
            lock.put_record(None, &last);
        })
        .with(|settings| settings.sync_loss = SyncLoss::Accept)
        .attached()
        .seeing_lock();
    node.comes_to(is_promote);
    node.hears_no();
    node.state.settings.sync_loss = SyncLoss::Refuse;
    node
}

fn answer(rows: u64) -> Ballot {
    Ballot {
        term: Term::from(8),
        vclock: vclock(rows),
        ..ballot(THIRD)
    }
}

/// What a holder that was not promoted wrote last.
fn refused_word() -> Record {
    Record {
        instance: THIRD.to_owned(),
        term: Term::from(7),
        following: vec![],
        base: Vclock::new(),
        vclock: vclock(11),
        refused: true,
        ..last_word()
    }
}

impl Node {
    fn hears_no(&mut self) {
        self.hears(Event::GuardAnswered {
            command: GuardCommandKind::Promote,
            probe: Box::new(self.instance.probe(self.now)),
            refused: Some("could not take the synchronous queue".to_owned()),
        });
    }

    /// Its guard goes on saying no.
    fn is_refused_for(&mut self, leases: u32) {
        let until = self.now + LEASE * leases;
        while self.now < until && self.holds() {
            self.passes(250.ms());
            for action in self.turn().actions {
                if is_promote(&action) {
                    self.hears_no();
                } else {
                    self.answers(&action);
                }
            }
        }
    }
}

#[test]
fn a_holder_that_is_not_promoted_keeps_the_lock_and_offers_it() {
    let mut node = holder(2);
    // A member is there, and it lacks rows.
    node.lock.write_ballot(&answer(9));
    node.is_refused_for(6);
    assert!(node.holds());
    let record = node.lock.record().expect("a record");
    assert!(record.offered && record.status == Status::Promoting);
    assert!(matches!(node.plan().reason, Reason::NotPromoted));
    // Until it is promoted after all.
    node.passes(250.ms());
    let node = node.settled().serving();
    assert!(node.state.hold.refused_since.is_none());
}

#[test]
fn a_member_that_has_its_rows_gets_the_lock() {
    let mut node = holder(2);
    node.lock.write_ballot(&answer(10));
    node.is_refused_for(2);
    assert!(!node.holds());
    let record = node.lock.record().expect("a record");
    assert_eq!(record.handover_to.as_deref(), Some(THIRD));
    assert!(record.refused && record.status == Status::Fenced);
    let quorum = record.quorum.expect("the last master's");
    assert_eq!(quorum.size, 2);
}

/// Whatever it had at its last word, it had for a reason.
#[test]
fn rows_of_an_earlier_master_count_as_far_as_it_has_them() {
    for (rows, gets) in [(0, true), (1, false)] {
        let mut node = holder(2);
        node.instance.vclock.insert("77".to_owned(), rows);
        node.lock.write_ballot(&answer(10));
        node.is_refused_for(2);
        assert_eq!(!node.holds(), gets);
    }
}

/// Agents of before do not answer, and may do better.
#[test]
fn a_holder_that_nobody_answers_gives_the_lock_up_as_before() {
    let mut node = holder(2);
    node.is_refused_for(2);
    assert!(node.holds());
    node.is_refused_for(3);
    assert!(!node.holds());
    assert_eq!(node.lock.record().expect("a record").handover_to, None);
}

/// Else two of them would give it to each other for ever, and a third would never get it.
#[test]
fn a_member_that_was_not_tried_yet_goes_before_a_better_one_that_was() {
    let better = Ballot {
        instance: OTHER.to_owned(),
        priority: 9,
        ..answer(10)
    };
    for (tried, heir) in [(false, OTHER), (true, THIRD)] {
        let mut node = holder(2);
        if tried {
            let record = node.state.hold.record.as_mut().expect("its own");
            record.tried.insert(OTHER.to_owned());
        }
        node.lock.write_ballot(&answer(10));
        node.lock.write_ballot(&better);
        node.is_refused_for(2);
        let record = node.lock.record().expect("a record");
        assert_eq!(record.handover_to.as_deref(), Some(heir));
        assert!(record.tried.contains(OWN));
    }
}

#[test]
fn once_all_were_tried_they_take_turns_anew() {
    let mut node = holder(2);
    let record = node.state.hold.record.as_mut().expect("its own");
    record.tried = [OTHER.to_owned(), THIRD.to_owned()].into();
    node.lock.write_ballot(&answer(10));
    node.is_refused_for(2);
    let record = node.lock.record().expect("a record");
    assert_eq!(record.handover_to.as_deref(), Some(THIRD));
    assert_eq!(record.tried, [OWN.to_owned()].into());
}

#[test]
fn in_an_operators_pause_the_lock_is_offered_to_nobody() {
    let mut node = holder(2);
    node.lock.pause = Some(Pause::default());
    node.lock.write_ballot(&answer(10));
    node.is_refused_for(6);
    assert!(node.holds());
    node.lock.pause = None;
    node.is_refused_for(2);
    assert!(!node.holds());
}

/// Its guard's refusal is of now; an agent before this one may have had it promoted.
#[test]
fn a_holder_that_may_have_been_promoted_does_not_say_that_it_was_not() {
    let adopted: fn(&mut Node) = |node| node.state.hold.gained = None;
    let served: fn(&mut Node) = |node| {
        node.instance.guard.term = Term::from(7);
        node.instance.guard.base = Some(vclock(10));
    };
    let never: fn(&mut Node) = |_| {};
    for (change, refused) in [(adopted, false), (served, false), (never, true)] {
        let mut node = holder(2);
        change(&mut node);
        node.lock.write_ballot(&answer(10));
        node.is_refused_for(2);
        let record = node.lock.record().expect("a record");
        assert!(!node.holds());
        assert_eq!(record.refused, refused);
    }
}

#[test]
fn a_member_that_lacks_its_rows_gets_the_lock_only_where_loss_is_accepted() {
    for (quorum, accepts, gets) in [
        (2, false, false),
        (2, true, true),
        // No votes would tell anything.
        (1, false, true),
        (0, false, true),
    ] {
        let mut node = holder(quorum);
        if accepts {
            node.state.settings.sync_loss = SyncLoss::Accept;
        }
        node.lock.write_ballot(&answer(9));
        node.is_refused_for(1);
        assert!(node.holds(), "it has had no more than its time");
        node.is_refused_for(3);
        assert_eq!(!node.holds(), gets, "{:?}", node.plan().reason);
    }
}

#[test]
fn a_member_that_does_not_run_or_answers_nothing_gets_nothing() {
    for nothing in [
        Ballot {
            excluded: Some("its PRIORITY is -1".to_owned()),
            ..answer(10)
        },
        Ballot {
            term: Term::from(7),
            ..answer(10)
        },
        Ballot {
            instance: OWN.to_owned(),
            ..answer(10)
        },
    ] {
        let mut node = holder(0);
        node.lock.write_ballot(&nothing);
        node.is_refused_for(2);
        assert!(node.holds());
    }
}

#[test]
fn a_member_answers_an_offer_with_a_word_of_its_instance_from_after_it() {
    let offer = Record {
        instance: THIRD.to_owned(),
        status: Status::Promoting,
        offered: true,
        ..record()
    };
    for (offered, priority, answers, runs) in [
        (true, 0, true, true),
        (true, -1, true, false),
        (false, 0, false, false),
    ] {
        let mut node = replica();
        node.state.settings.priority = Some(priority);
        node.state.settings.elector = Elector::Smart;
        node.instance.vclock = vclock(12);
        let offer = Record {
            offered,
            ..offer.clone()
        };
        let theirs = crate::ids::SessionId::new("theirs");
        node.lock.put_record(Some(theirs), &offer);
        node.watch_shows_lock();
        node.settles();
        let own = node.lock.ballots.get(OWN);
        assert_eq!(own.is_some(), answers);
        if let Some(own) = own {
            assert_eq!(own.excluded.is_none(), runs);
            assert!(own.term.get() == 7 && own.vote == Some(false), "{own:?}");
            assert!(!runs || own.vclock == vclock(12), "{own:?}");
        }
    }
}

/// It is no switchover: nobody wished it.
#[test]
fn the_heir_takes_the_lock_at_once_and_says_that_it_was_given_up() {
    let last = Record {
        handover_to: Some(OWN.to_owned()),
        tried: [THIRD.to_owned()].into(),
        ..refused_word()
    };
    let mut node = after(&last);
    node.settles();
    assert!(node.holds(), "{:?}", node.plan().reason);
    assert_eq!(node.lock.record().expect("a record").cause, Cause::Released);
}

#[test]
fn a_holder_that_stops_or_was_promoted_does_not_say_that_it_was_refused() {
    let mut node = holder(2);
    node.is_asked_to_stop();
    node.is_refused_for(1);
    assert!(!node.holds() && !node.lock.record().expect("a record").refused);
    let mut node = node_lost();
    node.is_killed();
    node.settles();
    let last = node.lock.record().expect("a record");
    assert!(node.lock.holder().is_none() && !last.refused);
}

/// The reply to its promotion was lost.
fn node_lost() -> Node {
    let mut node = node().attached().seeing_lock();
    let promote = node.comes_to(is_promote);
    node.loses_reply(&promote);
    assert!(node.state.hold.refused_since.is_some());
    node.answers(&Action::Guard(GuardCommand::Probe));
    node.serving()
}

#[test]
fn the_last_master_s_word_is_handed_on() {
    let handed_on = refused_word().last_promoted();
    assert_eq!(handed_on, None);
    let before = LastWord {
        instance: OTHER.to_owned(),
        vclock: vclock(12),
    };
    let unpromoted = Record {
        last_master: Some(before.clone()),
        ..refused_word()
    };
    let gained = |last: &Record, highest_term: u32| {
        let mut node = after(last);
        node.state.highest_term = Term::from(highest_term);
        node.state.settings.elector = Elector::First;
        let acquire = node.comes_to(|action| matches!(action, Action::Acquire { .. }));
        node.answers(&acquire);
        node.lock.record().expect("a record").last_master
    };
    let promoted = last_word();
    assert_eq!(gained(&promoted, 6), promoted.last_promoted());
    assert_eq!(gained(&unpromoted, 7), Some(before));
    // It was brought back from a backup.
    assert_eq!(gained(&promoted, 9), None);
    // Who was promoted has nothing to hand on, and who may have been neither.
    let promoted = Record {
        base: vclock(11),
        ..unpromoted.clone()
    };
    let silent = Record {
        refused: false,
        ..unpromoted.clone()
    };
    for record in [promoted, silent] {
        assert_eq!(record.rows_missing(&vclock(11)), 0);
    }
    // Its rows are missed like those of the record's writer.
    assert_eq!(unpromoted.rows_missing(&vclock(11)), 1);
    assert_eq!(unpromoted.rows_missing(&vclock(12)), 0);
    assert_eq!(refused_word().rows_missing(&vclock(10)), 1);
}
