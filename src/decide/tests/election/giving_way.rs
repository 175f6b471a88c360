//! Who was not promoted lets others try, and none of those that have fewer rows.

use super::super::fixtures::*;
use super::super::toys::{follower, member};
use super::{THIRD, WINDOW, after, ballot, candidate, last_word, vclock};
use crate::decide::board::Ballot;
use crate::decide::event::{Event, GuardCommandKind};
use crate::decide::hold::GivesWay;
use crate::decide::plan::{Action, GuardCommand};
use crate::decide::record::{LastWord, Record, Vclock};
use crate::decide::state::Elector;

/// A ballot of one that has a row more than `candidate`.
fn gives_way(ms: u64) -> Ballot {
    Ballot {
        vclock: vclock(11),
        excluded: Some("its guard would not promote it".to_owned()),
        gives_way_ms: ms,
        ..ballot(THIRD)
    }
}

fn seeing(ballot: &Ballot) -> Node {
    let mut node = candidate();
    node.lock.write_ballot(ballot);
    node.settles();
    node
}

/// Of the third, which the second did not follow up to its last word.
fn refused_word() -> Record {
    Record {
        instance: THIRD.to_owned(),
        term: 7,
        following: vec![],
        base: Vclock::new(),
        vclock: vclock(11),
        refused: true,
        ..last_word()
    }
}

fn is_promote(action: &Action) -> bool {
    matches!(action, Action::Guard(GuardCommand::Promote { .. }))
}

/// It held the lock, its guard did not promote it, and it gave the lock up.
fn refused() -> Node {
    let others = [OTHER, THIRD];
    let mut node = node()
        .having(|instance| instance.replication = others.map(follower).into())
        .with(|settings| settings.elector = Elector::Smart)
        .attached()
        .seeing_lock();
    node.comes_to(is_promote);
    node.is_refused();
    node
}

impl Node {
    /// Its guard says no to the promotion under way and to all that follow, until it gives the lock up.
    fn is_refused(&mut self) {
        self.hears_no();
        while self.holds() {
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

    fn hears_no(&mut self) {
        self.hears(Event::GuardAnswered {
            command: GuardCommandKind::Promote,
            probe: Box::new(self.instance.probe(self.now)),
            refused: Some("could not take the synchronous queue".to_owned()),
        });
    }

    fn misses_third(&mut self) {
        let upstream = self.instance.replication[1].upstream.as_mut();
        upstream.expect("one").status = "disconnected".to_owned();
        self.answers(&Action::Guard(GuardCommand::Probe));
    }

    /// The third had the lock, was refused once more, and gives way once more.
    fn third_is_refused_again(&mut self, term: u64) {
        self.lock.put_record(
            None,
            &Record {
                term,
                ..refused_word()
            },
        );
        self.lock.write_ballot(&Ballot {
            term: term + 1,
            index: self.lock.watch_index(),
            ..gives_way(3_600_000)
        });
        self.watch_shows_lock();
        self.hears_ballots();
        self.settles();
    }
}

#[test]
fn who_lacks_rows_that_one_has_that_merely_gives_way_waits_for_its_turn() {
    let mut node = seeing(&gives_way(5000));
    node.lives_on(6.secs());
    assert!(!node.holds());
    node.lives_on(1.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn who_has_every_row_of_one_that_gives_way_goes_at_once() {
    let as_far = Ballot {
        vclock: vclock(10),
        ..gives_way(5000)
    };
    assert!(seeing(&as_far).holds());
    // It catches up meanwhile.
    let mut node = seeing(&gives_way(60_000));
    assert!(!node.holds());
    node.instance.vclock = vclock(11);
    node.lives_on(1.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// An earlier master may have more of its own than what it lacks.
#[test]
fn every_component_counts() {
    let of_two = Ballot {
        vclock: Vclock::from([("1".to_owned(), 5), ("2".to_owned(), 1)]),
        ..gives_way(5000)
    };
    assert!(!seeing(&of_two).holds());
}

#[test]
fn once_it_runs_it_goes_first_and_has_a_window() {
    let mut node = seeing(&gives_way(60_000));
    let runs = Ballot {
        vclock: vclock(11),
        ..ballot(THIRD)
    };
    node.lock.write_ballot(&runs);
    node.hears_ballots();
    node.passes(WINDOW - 50.ms());
    node.settles();
    assert!(!node.holds());
    node.passes(100.ms());
    node.settles();
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn among_those_that_waited_the_best_goes_first() {
    let fourth = Ballot {
        vclock: vclock(10),
        priority: 1,
        ..ballot("fourth")
    };
    let mut node = candidate();
    node.lock.write_ballot(&gives_way(5000));
    node.lock.write_ballot(&fourth);
    node.settles();
    node.passes(7.secs() + WINDOW - 50.ms());
    node.settles();
    assert!(!node.holds());
    node.passes(100.ms());
    node.settles();
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// Else it would wait for ever where the third is never promoted and nothing comes from it.
#[test]
fn where_no_rows_come_from_it_one_turn_is_enough() {
    for (misses, had_turn, turn) in [
        (true, false, LEASE_AND_MARGIN * 2),
        (true, true, LEASE),
        (false, true, LEASE_AND_MARGIN * 2),
    ] {
        let mut node = seeing(&gives_way(3_600_000));
        if had_turn {
            node.third_is_refused_again(7);
        } else {
            node = candidate();
            node.third_is_refused_again(7);
        }
        if misses {
            node.misses_third();
        }
        node.lives_on(turn);
        assert!(!node.holds());
        node.lives_on(3.secs());
        assert!(node.holds(), "{:?}", node.plan().reason);
    }
}

/// It was of no help, or things have changed since.
#[test]
fn a_turn_counts_for_who_ran_meanwhile_and_until_another_was_promoted() {
    let declines = |node: &mut Node| {
        node.state.settings.priority = Some(-1);
        node.hears_ballots();
        node.settles();
        node.state.settings.priority = Some(0);
    };
    let another_is_master = |node: &mut Node| {
        node.settles();
        node.lock.put_record(None, &last_word().term(7));
        node.watch_shows_lock();
        node.hears_ballots();
        node.settles();
    };
    let nothing = |node: &mut Node| {
        node.settles();
    };
    let changes: [fn(&mut Node); 3] = [declines, another_is_master, nothing];
    for (change, had_turn) in changes.into_iter().zip([false, false, true]) {
        let mut node = candidate();
        node.lock.write_ballot(&gives_way(3_600_000));
        change(&mut node);
        node.third_is_refused_again(8);
        node.misses_third();
        node.lives_on(LEASE + 3.secs());
        assert_eq!(node.holds(), had_turn, "{:?}", node.plan().reason);
    }
}

/// What comes from it need not be its rows.
#[test]
fn whose_rows_never_arrive_is_not_waited_for_for_ever() {
    let mut node = seeing(&gives_way(3_600_000));
    for term in 7..16 {
        assert!(!node.holds());
        node.third_is_refused_again(term);
    }
    node.lives_on(LEASE + 3.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// What a better one waits for it need not know.
#[test]
fn who_is_behind_one_that_waits_longer_waits_as_long() {
    let mut node = seeing(&gives_way(3_600_000));
    node.third_is_refused_again(7);
    node.misses_third();
    node.lock.write_ballot(&Ballot {
        term: 8,
        index: node.lock.watch_index(),
        priority: 1,
        ..ballot("fourth")
    });
    node.hears_ballots();
    node.lives_on(LEASE_AND_MARGIN * 2);
    assert!(!node.holds());
    node.lives_on(3.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

/// Its agent says at once whether it runs, and it may have what nobody else has.
#[test]
fn who_gave_the_lock_up_since_it_was_not_promoted_is_waited_for() {
    let missed = |node: &mut Node| node.instance.replication[0] = missing(OTHER);
    let critical = |node: &mut Node| {
        let other = node.lock.members.get_mut(OTHER);
        other.expect("its key").health = "critical".to_owned();
    };
    let changes: [fn(&mut Node); 3] = [|_| {}, missed, critical];
    for change in changes {
        for refused in [false, true] {
            let last = Record {
                following: vec![OWN.to_owned()],
                refused,
                ..last_word()
            };
            let mut node = after(&last);
            let members = &mut node.lock.members;
            members.insert(OTHER.to_owned(), member(OTHER, OTHER));
            change(&mut node);
            for _ in 0..3 {
                node.settles();
            }
            assert_eq!(!node.holds(), refused, "{:?}", node.plan().reason);
        }
    }
}

fn missing(uuid: &str) -> crate::decide::observed::Peer {
    let mut peer = follower(uuid);
    peer.upstream.as_mut().expect("one").status = "disconnected".to_owned();
    peer
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

#[test]
fn who_was_not_promoted_says_so_in_its_last_word_and_its_ballot() {
    let mut node = refused();
    node.settles();
    let last = node.lock.record().expect("a record");
    assert!(last.refused && last.following == [OTHER, THIRD]);
    let own = node.wrote();
    assert!(own.excluded.is_some());
    let ms = u128::from(own.gives_way_ms);
    assert!(ms <= (LEASE * 2).as_millis() && ms > LEASE.as_millis());
}

#[test]
fn a_promotion_whose_reply_was_lost_was_not_refused() {
    let mut node = node().attached().seeing_lock();
    let promote = node.comes_to(is_promote);
    node.loses_reply(&promote);
    assert!(node.state.hold.refused_since.is_some());
    node.state.hold.gives_way = Some(GivesWay {
        until: node.now + LEASE,
        refused_with: None,
    });
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert_eq!(node.state.hold.gives_way, None);
    let mut node = node.serving();
    node.is_killed();
    node.settles();
    let last = node.lock.record().expect("a record");
    assert!(node.lock.holder().is_none() && !last.refused);
}

#[test]
fn nobody_is_made_to_wait_for_one_that_may_not_run_for_another_reason() {
    let mut node = refused();
    node.settles();
    node.state.settings.priority = Some(-1);
    node.lives_on(1.secs());
    assert_eq!(node.wrote().gives_way_ms, 0);
    node.state.settings.priority = Some(0);
    node.lives_on(1.secs());
    assert!(node.wrote().gives_way_ms > 0);
}

#[test]
fn who_gives_way_runs_again_once_somebody_replicates_from_it_who_did_not() {
    for joins in [false, true] {
        let mut node = refused();
        if joins {
            node.instance.replication.push(follower("fourth"));
        }
        node.lives_on(LEASE);
        assert_eq!(node.wrote().excluded.is_none(), joins);
        assert_eq!(node.instance.is_writable(), joins);
    }
}

#[test]
fn who_followed_before_is_nobody_new() {
    let mut node = refused();
    let third = node.instance.replication.pop();
    node.instance.replication.push(follower("fourth"));
    node.comes_to(is_promote);
    node.is_refused();
    node.hears_ballots();
    node.instance.replication.extend(third);
    node.lives_on(LEASE);
    assert!(node.wrote().excluded.is_some());
}

#[test]
fn one_that_stops_or_did_not_answer_is_not_waited_for() {
    let stops: fn(&mut Node, &Action) = |node, _| node.is_asked_to_stop();
    let silent: fn(&mut Node, &Action) = |node, promote| {
        node.loses(promote);
        node.is_killed();
    };
    let dies: fn(&mut Node, &Action) = |node, _| node.is_killed();
    for (ends, refused) in [(stops, false), (silent, false), (dies, true)] {
        let mut node = node().attached().seeing_lock();
        let promote = node.comes_to(is_promote);
        node.hears_no();
        ends(&mut node, &promote);
        while node.lock.holder().is_some() {
            node.passes(250.ms());
            node.round_losing(is_promote);
        }
        assert_eq!(node.lock.record().expect("a record").refused, refused);
    }
}

/// Its agent is back in a moment.
#[test]
fn a_connection_that_was_lost_is_no_reason_yet_not_to_be_waited_for() {
    let mut node = refused();
    node.settles();
    node.is_cut_off();
    node.lives_on(1500.ms());
    assert!(node.wrote().gives_way_ms > 0);
    node.lives_on(1.secs());
    assert_eq!(node.wrote().gives_way_ms, 0);
}

/// Whose turn it is has no time to lose.
#[test]
fn who_may_run_again_writes_its_ballot_beside_its_look_at_the_board() {
    let mut node = refused();
    node.settles();
    node.state.hold.gives_way = None;
    node.state.hold.hold_back_until = None;
    node.passes(10.secs());
    let plan = node.turn();
    assert!(does!(plan, Action::ReadBoard), "{plan:?}");
    node.answers(&Action::Guard(GuardCommand::Probe));
    let plan = node.turn();
    assert!(does!(plan, Action::WriteBallot { .. }), "{plan:?}");
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
    let gained = |last: &Record, highest_term: u64| {
        let mut node = after(last);
        node.state.highest_term = highest_term;
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

/// Who replicated from it at the time nobody knows.
#[test]
fn where_the_instance_was_not_heard_lately_nobody_counts_as_new() {
    let mut node = refused();
    let gives_way = node.state.hold.gives_way.as_mut().expect("it");
    gives_way.refused_with = None;
    node.lives_on(LEASE);
    assert!(node.wrote().excluded.is_some());
}
