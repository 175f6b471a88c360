//! Who does not run for a lock that is up for grabs, and says why; and that nothing changes hands during a pause.

use super::election::{THIRD, after, candidate, last_word, vclock};
use super::fixtures::*;
use crate::board::Pause;
use crate::event::Event;
use crate::plan::{Action, GuardCommand, Plan, Reason};
use crate::record::{Record, Status};
use crate::settings::Elector;
use crate::vclock::Vclock;

fn declines(node: &mut Node, words: &str) -> Plan {
    node.settles();
    let plan = node.plan();
    let Reason::NotACandidate { why } = &plan.reason else {
        panic!("{:?}", plan.reason)
    };
    assert!(why.contains(words), "{why}");
    assert_eq!(node.wrote().excluded.as_ref(), Some(why));
    assert!(!node.holds() && plan.actions.is_empty());
    plan
}

#[test]
fn who_lacks_too_many_rows_says_so_once_and_runs_when_it_has_caught_up() {
    let mut node = candidate().with(|settings| settings.max_lag_rows = 3);
    node.instance.vclock = vclock(6);
    node.attaches();
    declines(
        &mut node,
        "it lacks 4 rows that the last master had, MAX_LAG_ROWS is 3",
    );
    let written = node.lock.index;
    node.lives_on(30.secs());
    assert_eq!(node.lock.index, written, "one ballot is enough");
    node.instance.vclock = vclock(7);
    node.lives_on(3.secs());
    assert_eq!(node.wrote().excluded, None);
    node.lives_on(LEASE);
    assert!(node.holds());
}

#[test]
fn who_had_not_heard_the_master_for_too_long_does_not_run() {
    let mut node = candidate().with(|settings| settings.max_idle = 5.secs());
    node.instance.replication.clear();
    node.attaches();
    declines(
        &mut node,
        "it has never heard the last master, MAX_IDLE is 5s",
    );
}

/// Where replicas follow the master alone nobody has.
#[test]
fn one_that_was_refused_need_not_have_been_heard() {
    let never = Record {
        base: Vclock::new(),
        refused: true,
        ..last_word()
    };
    let mut node = after(&never).with(|settings| settings.max_idle = 5.secs());
    node.instance.replication.clear();
    node.attaches();
    node.lives_on(1.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn a_negative_priority_does_not_run_and_says_so() {
    let mut node = candidate().with(|settings| settings.priority = Some(-1));
    declines(&mut node, "PRIORITY is -1");
}

#[test]
fn a_moment_of_silence_is_no_reason_to_give_others_the_lead() {
    let mut node = candidate();
    node.hears(Event::FellSilent);
    node.settles();
    assert!(matches!(node.plan().reason, Reason::NotACandidate { .. }));
    assert!(node.lock.ballots.is_empty());
    node.hears(Event::SpokeAgain);
    let node = node.waiting_for_ballots();
    assert_eq!(node.wrote().excluded, None);
}

#[test]
fn an_instance_that_answers_late_answers() {
    let mut node = candidate();
    node.hears(Event::FellSilent);
    node.state
        .begin(&Action::Guard(GuardCommand::Probe), node.now);
    node.passes(30.ms());
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert_eq!(node.waiting_for_ballots().wrote().excluded, None);
}

#[test]
fn an_instance_that_died_is_not_waited_for() {
    let mut node = candidate();
    node.is_killed();
    node.settles();
    assert!(
        node.wrote()
            .excluded
            .is_some_and(|why| why.contains("dead"))
    );
}

#[test]
fn who_is_not_named_by_a_master_that_may_go_on_without_consul_does_not_succeed_it_by_time() {
    let members = vec![OTHER.to_owned(), THIRD.to_owned()];
    let active = Record {
        status: Status::Active,
        failsafe: true,
        members,
        ..last_word()
    };
    let mut node = after(&active).later(LEASE_AND_MARGIN);
    declines(&mut node, "does not name it");
    let fenced = Record {
        refresh: 41,
        failsafe: true,
        members: vec![OTHER.to_owned()],
        ..last_word()
    };
    node.lock.put_record(None, &fenced);
    node.watch_shows_lock();
    node.lives_on(1.secs());
    assert!(node.holds(), "{:?}", node.plan().reason);
}

#[test]
fn nothing_changes_hands_during_a_pause_and_the_board_is_looked_at_each_second() {
    for elector in [Elector::Smart, Elector::First] {
        let mut node = candidate().with(|settings| settings.elector = elector);
        node.lock.pause = Some(Pause {
            by: "ann".to_owned(),
            ..Pause::default()
        });
        node.settles();
        assert_eq!(
            node.plan().reason,
            Reason::Paused {
                by: "ann".to_owned()
            }
        );
        let mut reads = 0;
        for _ in 0..100 {
            node.passes(100.ms());
            reads += u32::from(does!(node.plan(), Action::ReadBoard));
            node.settles();
        }
        assert!((9..=10).contains(&reads), "{reads}");
        assert!(!node.holds());
        node.lock.pause = None;
        node.lives_on(2.secs());
        assert!(node.holds());
    }
}

#[test]
fn a_board_that_cannot_be_read_is_not_an_empty_one() {
    let mut node = candidate();
    for _ in 0..40 {
        let plan = node.round_losing(|action| matches!(action, Action::ReadBoard));
        assert!(!does!(plan, Action::Acquire { .. }));
        node.passes(50.ms());
    }
}

#[test]
fn no_time_bounds_a_guard_that_stands_down() {
    let paused = Record {
        status: Status::Active,
        paused: true,
        ..last_word()
    };
    let mut node = after(&paused);
    node.lives_on(60.secs());
    assert!(matches!(node.plan().reason, Reason::Paused { .. }));
    assert!(!node.holds());
    let own = paused.of(OWN);
    node.lock.put_record(None, &own);
    node.watch_shows_lock();
    node.lives_on(LEASE_AND_MARGIN + 1.secs());
    assert!(
        node.holds(),
        "it is no rival of itself: {:?}",
        node.plan().reason
    );
}

/// What a successor acknowledged may be here alone; and whoever is named is to come at once.
#[test]
fn who_has_just_given_the_lock_up_does_not_hold_back_once_another_has_had_it() {
    for target in [None, Some(OWN.to_owned())] {
        let mut node = replica();
        node.state.hold.hold_back_until = Some(node.now + 5.secs());
        let mut last_word = record().refreshed(41).says(Status::Fenced);
        last_word.handover_to = target;
        node.lock.put_record(None, &last_word);
        node.watch_shows_lock();
        node.settles();
        assert!(node.instance.is_writable(), "{:?}", node.plan().reason);
    }
}

#[test]
fn nobody_holds_back_from_its_own_term() {
    let own = Record {
        instance: OWN.to_owned(),
        ..record()
    };
    let mut node = node()
        .having(|instance| instance.guard.term = own.term)
        .finding(|lock| {
            lock.put_record(None, &own);
        })
        .attached()
        .seeing_lock();
    node.state.hold.hold_back_until = Some(node.now + 5.secs());
    node.settles();
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
}
