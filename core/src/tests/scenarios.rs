//! Whole stories. The world itself asserts, after everything that happens, that at most one instance is writable.

use std::time::Duration;

use proptest::prelude::*;

use super::fixtures::{LEASE, LEASE_AND_MARGIN, Span, trying};
use super::world::{Broken, FAIR, Weather, World, world, world_with};
use crate::plan::Reason;
use crate::record::{Cause, Status};
use crate::settings::Elector;

/// A replica set with a master, and who that is.
fn reigned(size: usize) -> (World, usize) {
    let mut world = world(size, 42);
    let (master, _) = world.plays_until_master(None);
    world.plays(5.secs());
    assert_eq!(world.master(), Some(master));
    (world, master)
}

#[test]
fn a_cold_start_waits_one_lease_and_has_one_master() {
    let mut world = world(3, 7);
    let (_, took) = world.plays_until_master(None);
    assert!(
        took >= LEASE_AND_MARGIN && took < LEASE_AND_MARGIN + 1.secs(),
        "{took:?}"
    );
    world.plays(60.secs());
    assert_eq!(world.reigns.len(), 1, "{:?}", world.reigns);
    assert_eq!(
        world.lock.record().expect("a record").status,
        Status::Active
    );
}

#[test]
fn a_master_that_dies_is_succeeded_in_tens_of_milliseconds() {
    let (mut world, master) = reigned(2);
    world.kills_instance(master);
    let (_, took) = world.plays_until_master(Some(master));
    assert!(took < 100.ms(), "{took:?}");
    let record = world.lock.record().expect("a record");
    assert_eq!(
        (record.term.get(), record.reason.as_str()),
        (2, "the master before gave the lock up")
    );
    world.plays(30.secs());
    assert_eq!(world.reigns.len(), 2, "the dead one came back as a replica");
}

#[test]
fn a_master_that_hangs_is_killed_and_succeeded_when_its_lease_is_over() {
    let (mut world, master) = reigned(2);
    world.breaks(master, Broken::Frozen, 60.secs());
    let (_, took) = world.plays_until_master(Some(master));
    assert!(took > LEASE * 7 / 10 && took < LEASE + 200.ms(), "{took:?}");
    assert_ne!(world.places[master].instance.pid, 99);
    world.plays(60.secs());
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn a_lost_machine_is_succeeded_when_its_lease_is_over_whatever_its_session_does() {
    let (mut world, master) = reigned(3);
    world.loses_machine(master);
    let (_, took) = world.plays_until_master(Some(master));
    assert!(
        took > LEASE * 7 / 10 && took < LEASE_AND_MARGIN + 50.ms(),
        "{took:?}"
    );
    assert_eq!(
        world.lock.record().expect("a record").cause,
        Cause::TakenOver
    );
}

#[test]
fn a_master_cut_off_from_consul_is_read_only_before_another_is_writable() {
    let (mut world, master) = reigned(2);
    world.breaks(master, Broken::Consul, 90.secs());
    let (_, took) = world.plays_until_master(Some(master));
    assert!(
        took > LEASE * 7 / 10 && took < LEASE_AND_MARGIN + 50.ms(),
        "{took:?}"
    );
    world.plays(120.secs());
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn an_agent_that_restarts_within_the_lease_changes_nothing() {
    let (mut world, master) = reigned(2);
    world.kills_agent(master);
    for _ in 0..300 {
        world.plays(100.ms());
        assert_eq!(world.master(), Some(master));
    }
    assert_eq!(world.lock.record().expect("a record").term.get(), 1);
}

#[test]
fn an_agent_that_stays_away_leaves_its_instance_read_only() {
    let (mut world, master) = reigned(2);
    world.places[master].agent_restarts = None;
    world.kills_agent(master);
    world.plays(LEASE + 100.ms());
    assert!(!world.places[master].instance.is_writable());
    world.plays_until_master(Some(master));
}

#[test]
fn a_lost_session_within_the_lease_changes_nothing() {
    let (mut world, master) = reigned(3);
    world.ends_session_of_holder();
    for _ in 0..300 {
        world.plays(100.ms());
        assert_eq!(world.master(), Some(master));
    }
    assert_eq!(world.lock.record().expect("a record").term.get(), 1);
}

#[test]
fn a_short_outage_of_consul_changes_nothing() {
    let (mut world, master) = reigned(2);
    for at in 0..2 {
        world.breaks(at, Broken::Consul, 5.secs());
    }
    world.plays(60.secs());
    assert_eq!((world.master(), world.reigns.len()), (Some(master), 1));
}

#[test]
fn after_a_long_outage_of_consul_the_holder_goes_on() {
    let (mut world, master) = reigned(2);
    for at in 0..2 {
        world.breaks(at, Broken::Consul, 18.secs());
    }
    world.plays(17.secs());
    assert_eq!(world.master(), None);
    let (again, _) = world.plays_until_master(None);
    assert_eq!(again, master);
}

#[test]
fn a_master_that_is_stopped_hands_over_in_tens_of_milliseconds() {
    let (mut world, master) = reigned(2);
    world.asks_to_stop(master);
    let (_, took) = world.plays_until_master(Some(master));
    assert!(took < 100.ms(), "{took:?}");
    assert!(world.places[master].state.is_none(), "its agent has ended");
}

#[test]
fn a_lone_instance_is_its_own_successor() {
    let (mut world, master) = reigned(1);
    world.kills_instance(master);
    world.plays(10.secs());
    assert_eq!(world.master(), Some(master));
    assert_eq!(world.lock.record().expect("a record").term.get(), 2);
}

#[test]
fn a_deleted_key_costs_no_more_than_a_wait() {
    let (mut world, _) = reigned(2);
    world.lock.delete_key();
    world.plays(60.secs());
    assert!(world.master().is_some());
    assert!(world.lock.record().is_some());
}

#[test]
fn a_broken_link_to_a_master_ends_its_reign_in_time() {
    let (mut world, master) = reigned(2);
    world.breaks(master, Broken::Link, 30.secs());
    world.plays_until_master(Some(master));
    world.plays(60.secs());
    assert_eq!(world.reigns.len(), 2);
}

#[test]
fn a_link_that_is_whole_again_before_its_end_was_noticed_is_used() {
    let (mut world, master) = reigned(2);
    let other = 1 - master;
    world.breaks(other, Broken::Link, 1.ms());
    world.breaks(master, Broken::Frozen, 1.ms());
    world.plays(1.secs());
    world.asks_to_stop(master);
    let (_, took) = world.plays_until_master(Some(master));
    assert!(took < 200.ms(), "{took:?}");
}

/// What may go wrong, at any time, for any time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    KillInstance,
    KillAgent,
    Stop,
    EndSession,
    DeleteKey,
    Overwrite,
    Break(Broken, u64),
}

pub(super) fn any_fault() -> impl Strategy<Value = Fault> {
    let broken = prop_oneof![
        Just(Broken::Frozen),
        Just(Broken::Consul),
        Just(Broken::Link),
        Just(Broken::Peers)
    ];
    prop_oneof![
        2 => Just(Fault::KillInstance),
        2 => Just(Fault::KillAgent),
        1 => Just(Fault::Stop),
        2 => Just(Fault::EndSession),
        1 => Just(Fault::DeleteKey),
        1 => Just(Fault::Overwrite),
        6 => (broken, 1..25_000_u64).prop_map(|(what, ms)| Fault::Break(what, ms)),
    ]
}

pub(super) fn any_weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        Just(FAIR),
        (2..40_u64, 100..6_000_u64, 3..40_u64).prop_map(|(slow_one_in, slow_ms, lost_one_in)| {
            Weather {
                slow_one_in,
                slow: Duration::from_millis(slow_ms),
                lost_one_in,
            }
        }),
    ]
}

pub(super) fn strike(world: &mut World, at: usize, fault: Fault) {
    match fault {
        Fault::KillInstance => world.kills_instance(at),
        Fault::KillAgent => world.kills_agent(at),
        Fault::Stop => world.asks_to_stop(at),
        Fault::EndSession => world.ends_session_of_holder(),
        Fault::DeleteKey => world.lock.delete_key(),
        Fault::Overwrite => {
            let session = world.lock.holder().cloned();
            world.lock.put(session, "overwritten by hand");
        }
        Fault::Break(what, ms) => world.breaks(at, what, ms.ms()),
    }
}

proptest! {
    #![proptest_config(trying(64))]

    #[test]
    fn whatever_goes_wrong_there_is_one_master_at_most_and_one_in_the_end(
        seed in any::<u64>(),
        size in 2..4_usize,
        weather in any_weather(),
        faults in proptest::collection::vec((0..12_000_u64, 0..3_usize, any_fault()), 0..12),
        smart in any::<bool>(),
    ) {
        let elector = if smart { Elector::Smart } else { Elector::First };
        let mut world = world_with(size, seed, |settings| settings.elector = elector);
        world.all_follow_each_other();
        world.plays(14.secs());
        world.weather = weather;
        for (after_ms, at, fault) in faults {
            world.plays(after_ms.ms());
            let at = if after_ms % 2 == 0 { world.master().unwrap_or(at % size) } else { at % size };
            strike(&mut world, at, fault);
        }
        world.weather = FAIR;
        world.plays(100.secs());
        let stopped = world.places.iter().filter(|place| place.state.is_none()).count();
        prop_assert!(stopped == size || world.master().is_some(), "{:?}", reasons(&world));
    }
}

pub(super) fn reasons(world: &World) -> Vec<Option<&Reason>> {
    let plans = world.places.iter().map(|place| place.plan.as_ref());
    plans.map(|plan| plan.map(|plan| &plan.reason)).collect()
}
