//! Whoever has promised, and whoever was promised.

use super::*;
use crate::term::Term;

/// Seen long ago, so that R3's wait is over; the record is what is tested.
fn facing(record: &Record) -> Node {
    let mut node = candidate();
    node.lock.put_record(None, record);
    node.watch_shows_lock();
    node.lives_on(LEASE_AND_MARGIN - 500.ms());
    node
}

fn failsafe_record() -> Record {
    Record {
        failsafe: true,
        members: [OWN, OTHER, THIRD].map(str::to_owned).to_vec(),
        ..record()
    }
}

#[test]
fn whoever_has_promised_does_not_run_until_the_promise_is_over() {
    let mut node = facing(&failsafe_record());
    node.instance
        .promises(OTHER, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.lives_on(8.secs());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPromise { until } if until > node.now
    ));
    assert_eq!(node.lock.holder(), None);
    node.lives_on(4.secs());
    assert_eq!(node.serving().instance.guard.term.get(), 7);
}

#[test]
fn a_fenced_record_makes_promises_to_its_writer_void() {
    let mut node = facing(&failsafe_record());
    node.instance
        .promises(OTHER, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.lives_on(1.secs());
    assert!(!node.instance.is_writable());
    let fenced = failsafe_record().says(Status::Fenced).refreshed(41);
    node.lock.put_record(None, &fenced);
    node.watch_shows_lock();
    let started_at = node.now;
    node.settles();
    let node = node.serving();
    assert!(node.now.since(started_at) < 10.ms());
}

#[test]
fn the_guard_is_told_which_terms_are_fenced_and_how_old_it_must_be() {
    let records = [
        (failsafe_record().says(Status::Fenced), 6, Duration::ZERO),
        (failsafe_record(), 0, LEASE_AND_MARGIN),
        (record(), 0, Duration::ZERO),
    ];
    for (record, fenced_term, guard_age) in records {
        let mut node = candidate();
        node.lock.put_record(None, &record);
        node.watch_shows_lock();
        node.is_watched(LEASE_AND_MARGIN);
        let promote =
            node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
        let Action::Guard(GuardCommand::Promote { before, .. }) = promote else {
            unreachable!()
        };
        let expected = Before {
            fenced_term: Term::from(fenced_term),
            guard_age,
        };
        assert_eq!(before, expected, "{record:?}");
    }
}

#[test]
fn a_fenced_record_of_an_earlier_term_does_not() {
    let mut node = candidate();
    node.lock
        .put_record(None, &failsafe_record().says(Status::Fenced));
    node.instance
        .promises(THIRD, 7, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.attaches();
    node.watch_shows_lock();
    node.lives_on(9.secs());
    assert!(!node.instance.is_writable());
}

#[test]
fn a_promise_given_between_lock_and_promotion_is_waited_out_without_giving_up() {
    let mut node = facing(&failsafe_record());
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.instance
        .promises(THIRD, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.answers(&promote);
    assert!(!node.instance.is_writable());
    assert_eq!(node.state.hold.refused_since, None);
    node.lives_on(9.secs());
    assert!(node.state.holds_lock() && !node.instance.is_writable());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPromise { .. }
    ));
    node.lives_on(3.secs());
    assert_eq!(node.serving().instance.guard.term.get(), 7);
}

#[test]
fn a_holder_that_was_not_promoted_never_says_fenced_for_the_one_before_it() {
    let mut node = facing(&failsafe_record());
    let promote =
        node.comes_to(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    node.instance
        .promises(THIRD, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    node.answers(&promote);
    node.is_killed();
    node.settles();
    let record = node.lock.record().expect("a record");
    assert_eq!(node.lock.holder(), None);
    assert_eq!((record.term.get(), record.status), (7, Status::Promoting));
    assert!(record.failsafe);
}

#[test]
fn a_holder_with_failsafe_off_passes_on_that_promises_may_run() {
    let long = failsafe_record().lease_of(30.secs());
    let mut node = candidate();
    node.state.settings.failsafe = false;
    node.lock.put_record(None, &long);
    node.watch_shows_lock();
    node.lives_on(30.secs());
    let acquire = node.comes_to(|action| matches!(action, Action::Acquire { .. }));
    let Action::Acquire { attempt, .. } = &acquire else {
        unreachable!()
    };
    assert!(attempt.record.failsafe);
    assert_eq!(attempt.record.lease(), 30.secs());
    node.answers(&acquire);
    node.settles();
    let record = node.serving().lock.record().expect("a record");
    assert!(!record.failsafe && record.lease() < 30.secs());
}

#[test]
fn an_instance_that_may_have_forgotten_a_promise_waits_until_none_can_run() {
    let mut node = facing(&failsafe_record());
    node.instance.restart(node.now);
    node.attaches();
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForPromise { .. }
    ));
    assert!(!node.instance.is_writable() && !node.state.holds_lock());
    node.lives_on(1.secs());
    assert_eq!(node.serving().instance.guard.term.get(), 7);
}

#[test]
fn its_youth_is_no_matter_after_a_fenced_record_or_one_with_failsafe_off() {
    for record in [failsafe_record().says(Status::Fenced), record()] {
        let mut node = candidate();
        node.lock.put_record(None, &record);
        node.watch_shows_lock();
        node.is_watched(LEASE_AND_MARGIN);
        node.instance.restart(node.now);
        node.attaches();
        node.settles();
        assert_eq!(node.serving().instance.guard.term.get(), 7);
    }
}

#[test]
fn a_master_restarted_under_its_own_lock_is_promoted_again_at_once() {
    let mut node = safe_master();
    node.instance.restart(node.now);
    node.attaches();
    node.settles();
    let node = node.serving();
    assert_eq!(node.instance.guard.term.get(), 7);
}

// The core among others of its kind.

/// A replica set of three whose master may go on without Consul.
fn reigned() -> (World, usize) {
    let mut world = failsafe_world(3, 42);
    let (master, _) = world.plays_until_master(None);
    world.plays(5.secs());
    assert_eq!(world.master(), Some(master));
    (world, master)
}

fn stays_master(world: &mut World, master: usize, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        world.plays(50.ms());
        assert_eq!(world.master(), Some(master), "{:?}", reasons(world));
    }
}

#[test]
fn consul_gone_for_a_minute_goes_unnoticed_with_all_members_up() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, 0..3, 60.secs());
    stays_master(&mut world, master, 90.secs());
    assert_eq!(world.lock.record().expect("a record").term.get(), 1);
}

#[test]
fn with_a_member_down_the_master_is_read_only_after_its_lease() {
    let (mut world, master) = reigned();
    world.loses_machine((master + 1) % 3);
    cut_off_from_consul(&mut world, 0..3, 40.secs());
    world.plays(LEASE + 100.ms());
    assert_eq!(world.master(), None);
    world.plays(20.secs());
    assert_eq!(world.master(), None);
    assert_eq!(world.plays_until_master(None).0, master);
}

#[test]
fn a_master_alone_cut_off_from_consul_stays_master_and_nobody_takes_its_lock() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, [master], 60.secs());
    stays_master(&mut world, master, 55.secs());
    let waits = reasons(&world)
        .into_iter()
        .flatten()
        .filter(|reason| matches!(reason, Reason::WaitingForPromise { .. }))
        .count();
    assert_eq!(waits, 2, "{:?}", reasons(&world));
    stays_master(&mut world, master, 30.secs());
    assert_eq!(world.lock.record().expect("a record").term.get(), 1);
}

#[test]
fn a_master_cut_off_from_consul_and_one_member_is_read_only_before_another_is_writable() {
    let (mut world, master) = reigned();
    world.breaks((master + 1) % 3, Broken::Peers, 90.secs());
    cut_off_from_consul(&mut world, [master], 90.secs());
    world.plays_until_master(Some(master));
    world.plays(120.secs());
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn a_master_lost_without_consul_has_no_heir_before_consul_is_back() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, 0..3, 40.secs());
    world.plays(20.secs());
    assert_eq!(world.master(), Some(master));
    world.loses_machine(master);
    world.plays(19.secs());
    assert_eq!(world.master(), None);
    world.plays_until_master(Some(master));
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn a_promise_does_not_delay_a_proven_death() {
    let (mut world, master) = reigned();
    cut_off_from_consul(&mut world, 0..3, 20.secs());
    world.plays(20.secs() + 300.ms());
    world.kills_instance(master);
    let (_, took) = world.plays_until_master(Some(master));
    assert!(took < 1.secs(), "{took:?}");
}

/// It forgot, and the master that it promised is still writable when the record has stood for a lease and margin.
#[test]
fn a_member_restarted_while_it_had_promised_is_not_promoted_too_early() {
    let (mut world, master) = reigned();
    for at in 0..3 {
        world.places[at].instance_restarts = Some(100.ms());
    }
    cut_off_from_consul(&mut world, [master], 120.secs());
    world.plays(22.secs());
    assert_eq!(world.master(), Some(master));
    // From now on nobody can be asked any more, and the last promises carry one more lease.
    world.breaks(master, Broken::Peers, 100.secs());
    for at in (0..3).filter(|at| *at != master) {
        world.kills_instance(at);
    }
    world.plays_until_master(Some(master));
    world.plays(30.secs());
    assert_eq!(world.reigns.len(), 2);
}

proptest! {
    #![proptest_config(trying(64))]

    #[test]
    fn whatever_goes_wrong_with_failsafe_there_is_one_master_at_most_and_one_in_the_end(
        seed in any::<u64>(),
        size in 2..4_usize,
        weather in any_weather(),
        outages in proptest::collection::vec((0..60_000_u64, 1_000..40_000_u64), 0..3),
        faults in proptest::collection::vec((0..12_000_u64, 0..3_usize, any_fault()), 0..12),
    ) {
        let mut world = failsafe_world(size, seed);
        world.plays(14.secs());
        world.weather = weather;
        let mut outages: Vec<(u64, u64)> = outages;
        outages.sort_unstable();
        let mut elapsed_ms = 0;
        for (after_ms, at, fault) in faults {
            world.plays(after_ms.ms());
            elapsed_ms += after_ms;
            while let Some(outage_ms) = outages.first().filter(|(from_ms, _)| *from_ms <= elapsed_ms).map(|(_, ms)| *ms) {
                outages.remove(0);
                cut_off_from_consul(&mut world, 0..size, outage_ms.ms());
            }
            let at = if after_ms % 2 == 0 { world.master().unwrap_or(at % size) } else { at % size };
            strike(&mut world, at, fault);
        }
        world.weather = FAIR;
        world.plays(140.secs());
        let stopped = world.places.iter().filter(|place| place.state.is_none()).count();
        prop_assert!(stopped == size || world.master().is_some(), "{:?}", reasons(&world));
    }
}
