//! Who goes first when the lock is up for grabs, who does not run at all, and that nobody waits in vain.

use crate::slots::Place;
use crate::term::Term;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::fixtures::*;
use super::toys::follower;
use super::world::world_with;
use crate::board::{Ballot, Pause, VERSION};
use crate::event::Event;
use crate::ids::SessionId;
use crate::observed::Peer;
use crate::plan::{Action, GuardCommand, Reason};
use crate::ranking::{LastMaster, compare};
use crate::record::{Cause, Record, Status};
use crate::settings::Elector;
use crate::vclock::Vclock;

mod expected;
mod offer;
mod ranking;
mod votes;

pub(super) const THIRD: &str = "instance-third";
const WINDOW: std::time::Duration = std::time::Duration::from_millis(250);

pub(super) fn vclock(rows: u64) -> Vclock {
    Vclock::from([("1".to_owned(), rows)])
}

/// A ballot for the lock after the fenced record of `candidate`, as good as that one's own.
pub(super) fn ballot(instance: &str) -> Ballot {
    Ballot {
        v: VERSION,
        instance: instance.to_owned(),
        name: format!("name of {instance}"),
        term: Term::from(7),
        index: 1,
        vclock: vclock(10),
        following: true,
        priority: 0,
        idle_ms: 0,
        same_configuration: true,
        unfollowed: false,
        excluded: None,
        vote: Some(true),
    }
}

/// The other instance, fenced in term 6 with ten rows; this one and a third followed it.
pub(super) fn last_word() -> Record {
    Record {
        base: vclock(3),
        following: vec![OWN.to_owned(), THIRD.to_owned()],
        vclock: vclock(10),
        ..record().says(Status::Fenced)
    }
}

/// Attached after `record`, with the elector that waits for ballots.
pub(super) fn after(record: &Record) -> Node {
    let mut node = node()
        .with(|settings| settings.elector = Elector::Smart)
        .having(|instance| instance.replication = vec![follower(OTHER), follower(THIRD)]);
    node.lock = super::toys::ToyLock::default();
    node.lock.put_record(None, record);
    node.attached().seeing_lock()
}

pub(super) fn candidate() -> Node {
    after(&last_word())
}

fn is_acquire(action: &Action) -> bool {
    matches!(action, Action::Acquire { .. })
}

impl Node {
    /// Our own ballot is written, and the ballots are waited for.
    pub(super) fn waiting_for_ballots(mut self) -> Self {
        for _ in 0..3 {
            self.settles();
        }
        assert!(
            self.state.pending.is_busy(Place::Ballot),
            "{:?}",
            self.plan().reason
        );
        self
    }

    /// The ballots as they stand are reported to it.
    fn hears_ballots(&mut self) {
        if let Some(event) = self.lock.ballots_after(0, true) {
            self.hears(event);
        }
    }

    pub(super) fn wrote(&self) -> Ballot {
        self.lock.ballots.get(OWN).cloned().expect("our ballot")
    }

    pub(super) fn holds(&self) -> bool {
        self.state.holds_lock()
    }
}

#[test]
fn the_best_acquires_as_soon_as_every_expected_ballot_is_there() {
    let mut node = candidate().waiting_for_ballots();
    assert!(!node.holds());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForBallots { .. }
    ));
    let behind = Ballot {
        vclock: vclock(9),
        ..ballot(THIRD)
    };
    node.lock.write_ballot(&behind);
    node.hears_ballots();
    let began = node.now;
    node.settles();
    assert!(node.holds() && node.now.since(began) < 10.ms());
    assert_eq!(node.lock.record().expect("a record").cause, Cause::Released);
}

#[test]
fn who_is_not_the_best_holds_back_one_window_and_then_tries() {
    let mut node = candidate().waiting_for_ballots();
    let ahead = Ballot {
        vclock: vclock(11),
        ..ballot(THIRD)
    };
    node.lock.write_ballot(&ahead);
    node.hears_ballots();
    node.settles();
    let Reason::HoldingBack { first, until } = node.plan().reason else {
        panic!("{:?}", node.plan().reason)
    };
    assert_eq!(first, ahead.name);
    assert!(!node.holds() && until.since(node.now) > WINDOW / 2);
    node.passes(until.since(node.now));
    node.settles();
    assert!(node.holds());
}

/// Its way to the lock takes calls, too.
#[test]
fn a_better_one_that_comes_late_has_its_whole_window() {
    let mut node = candidate().waiting_for_ballots();
    node.passes(WINDOW - 10.ms());
    let ahead = Ballot {
        vclock: vclock(11),
        ..ballot(THIRD)
    };
    node.lock.write_ballot(&ahead);
    node.hears_ballots();
    node.settles();
    node.passes(WINDOW - 10.ms());
    node.settles();
    assert!(!node.holds());
    node.passes(20.ms());
    node.settles();
    assert!(node.holds());
}

#[test]
fn who_says_that_it_does_not_run_is_neither_waited_for_nor_let_first() {
    let mut node = candidate();
    let no = Ballot {
        vclock: vclock(99),
        excluded: Some("PRIORITY is -1".to_owned()),
        ..ballot(THIRD)
    };
    node.lock.write_ballot(&no);
    let began = node.now;
    node.settles();
    assert!(node.holds() && node.now.since(began) < 20.ms());
}

#[test]
fn who_did_not_run_and_may_run_again_waits_for_its_ballot_like_anybody() {
    let mut node = candidate().with(|settings| settings.priority = Some(-1));
    node.lives_on(5.secs());
    assert!(node.wrote().excluded.is_some());
    node.state.settings.priority = Some(0);
    let began = node.now;
    while node.now.since(began) < WINDOW {
        let plan = node.turn();
        assert!(!plan.actions.iter().any(is_acquire), "{plan:?}");
        for action in &plan.actions {
            // The ballot is under way all the time.
            if !matches!(action, Action::WriteBallot { .. }) {
                node.answers(action);
            }
        }
        node.passes(10.ms());
    }
    node.lives_on(2.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn a_ballot_of_another_election_does_not_count() {
    for other in [
        Ballot {
            term: Term::from(6),
            vclock: vclock(99),
            ..ballot(THIRD)
        },
        Ballot {
            index: 9,
            vclock: vclock(99),
            ..ballot(THIRD)
        },
    ] {
        let mut node = candidate();
        node.lock.write_ballot(&other);
        let mut node = node.waiting_for_ballots();
        assert!(matches!(
            node.plan().reason,
            Reason::WaitingForBallots { .. }
        ));
        node.passes(WINDOW);
        node.settles();
        assert!(node.holds());
    }
}

#[test]
fn a_ballot_says_what_the_instance_had_after_the_lock_came_up_for_grabs() {
    let mut node = candidate();
    node.instance.vclock = vclock(12);
    let node = node.waiting_for_ballots();
    let own = node.wrote();
    assert_eq!((own.vclock, own.following), (vclock(12), true));
    assert!(own.idle_ms < 200, "{}", own.idle_ms);
    assert_eq!((own.term.get(), own.index), (7, 1));
}

#[test]
fn who_had_stopped_following_long_before_the_masters_last_word_says_so() {
    let active = Record {
        status: Status::Active,
        following: vec![THIRD.to_owned()],
        ..last_word()
    };
    let mut node = after(&active);
    node.settles();
    let upstream = node.instance.replication[0].upstream.as_mut().expect("one");
    upstream.status = "disconnected".to_owned();
    for second in 1..8_u64 {
        node.instance.replication[0]
            .upstream
            .as_mut()
            .expect("one")
            .idle_s = Some(f64::from(u32::try_from(second).expect("small")));
        node.passes(1.secs());
        node.answers(&Action::Guard(GuardCommand::Probe));
    }
    node.lock.put_record(
        None,
        &Record {
            refresh: 41,
            ..active.clone()
        },
    );
    node.watch_shows_lock();
    node.lock.put_record(
        None,
        &Record {
            refresh: 42,
            status: Status::Fenced,
            ..active
        },
    );
    node.watch_shows_lock();
    let own = node.waiting_for_ballots().wrote();
    assert!(!own.following);
    assert!((6_900..7_300).contains(&own.idle_ms), "{}", own.idle_ms);
}

#[test]
fn an_agent_that_was_not_there_takes_the_masters_word_for_who_followed_it() {
    let mut node = candidate();
    node.instance.replication.clear();
    node.state.instance.heard.clear();
    node.attaches();
    assert!(node.waiting_for_ballots().wrote().following);
    let others = Record {
        following: vec![THIRD.to_owned()],
        ..last_word()
    };
    let mut node = after(&others);
    node.instance.replication.clear();
    node.state.instance.heard.clear();
    node.attaches();
    assert!(!node.waiting_for_ballots().wrote().following);
}

#[test]
fn whom_the_master_gave_the_lock_up_for_asks_nobody() {
    let mine = Record {
        handover_to: Some(OWN.to_owned()),
        ..last_word()
    };
    let mut node = after(&mine);
    let acquire = node.runs_until(is_acquire);
    assert!(node.lock.ballots.is_empty() && node.state.board.is_none());
    node.answers(&acquire);
    assert_eq!(
        node.lock.record().expect("a record").cause,
        Cause::Switchover
    );
}

#[test]
fn all_others_hold_back_for_whom_the_master_gave_the_lock_up_for() {
    let theirs = Record {
        handover_to: Some(THIRD.to_owned()),
        ..last_word()
    };
    let mut node = after(&theirs);
    node.settles();
    node.passes(WINDOW - 20.ms());
    node.settles();
    assert!(matches!(node.plan().reason, Reason::HoldingBack { .. }));
    node.passes(30.ms());
    let mut node = node.waiting_for_ballots();
    assert!(!node.holds());
    node.passes(WINDOW);
    node.settles();
    assert!(node.holds(), "it did not come");
}

#[test]
fn where_no_ballot_can_be_written_the_lock_alone_decides() {
    let mut node = candidate();
    for _ in 0..40 {
        node.round_losing(|action| matches!(action, Action::WriteBallot { .. }));
        node.passes(25.ms());
    }
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn its_own_running_term_is_taken_again_without_ballots_or_board() {
    let mut node = master().with(|settings| settings.elector = Elector::Smart);
    let session = node.own_session();
    node.lock.pause = Some(Pause::default());
    node.lock.end_session(&session);
    node.watch_shows_lock();
    for _ in 0..20 {
        let plan = node.round();
        assert!(!does!(plan, Action::ReadBoard | Action::WriteBallot { .. }));
    }
    assert!(node.serving().lock.ballots.is_empty());
}

#[test]
fn a_record_names_who_follows_and_why_it_changed_hands() {
    let node = master();
    let first = node.lock.record().expect("a record");
    assert_eq!(first.cause, Cause::Released);
    let mut node = master().having(|instance| {
        instance.replication = vec![follower(OTHER), follower(THIRD)];
        instance.replication[1].downstream_status = Some("stopped".to_owned());
    });
    node.lives_on(5.secs());
    let record = node.lock.record().expect("a record");
    assert_eq!(record.following, [OTHER]);
    assert_eq!((record.cause, record.since), (Cause::Released, first.since));
}

#[test]
fn words_about_ballots_of_an_election_that_is_over_change_nothing() {
    let mut node = candidate().waiting_for_ballots();
    node.lock
        .put_record(Some(SessionId::new("theirs")), &record().term(7));
    node.watch_shows_lock();
    node.hears_ballots();
    node.hears(Event::BallotWritten {
        index: 1,
        result: Ok((1, BTreeMap::new())),
    });
    node.settles();
    assert!(matches!(node.plan().reason, Reason::FollowingMaster { .. }));
}

/// Three members, whoever sees what first: who has most rows is master next, however the one before went.
#[test]
fn the_freshest_wins_whatever_is_seen_first() {
    for seed in 0..40 {
        let mut world = world_with(3, seed * 7 + 1, |settings| {
            settings.elector = Elector::Smart
        });
        world.all_follow_each_other();
        let (master, _) = world.plays_until_master(None);
        world.plays(5.secs());
        let fresh = (master + 1 + usize::try_from(seed).expect("small") % 2) % 3;
        for at in 0..3 {
            let rows = [1_000, 500][usize::from(at != fresh)];
            world.places[at].instance.vclock = vclock(rows);
        }
        world.places[master].instance.vclock = vclock(1_010);
        if seed % 2 == 0 {
            world.kills_instance(master);
            let (heir, took) = world.plays_until_master(Some(master));
            assert_eq!(heir, fresh, "seed {seed}");
            assert!(took < 100.ms(), "{took:?}");
        } else {
            world.loses_machine(master);
            let (heir, _) = world.plays_until_master(Some(master));
            assert_eq!(heir, fresh, "seed {seed}");
        }
    }
}
