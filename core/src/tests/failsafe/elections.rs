//! Who has promised casts no ballot until its promise is over, and may have what nobody else has: it is waited for.

use super::*;
use crate::board::{Ballot, VERSION};
use crate::settings::Elector;
use crate::tests::toys::follower;
use crate::tests::world::world_with;
use crate::vclock::Vclock;

const WINDOW: Duration = Duration::from_millis(250);

fn vclock(rows: u64) -> Vclock {
    Vclock::from([("1".to_owned(), rows)])
}

/// The other instance's last word: it goes on without Consul where the members promise. This one and a third follow it.
fn last_word() -> Record {
    Record {
        failsafe: true,
        members: [OWN, OTHER, THIRD].map(str::to_owned).to_vec(),
        following: [OWN, THIRD].map(str::to_owned).to_vec(),
        vclock: vclock(10),
        ..record()
    }
}

/// Of a replica set of three, and has just seen `record` for the first time.
fn seeing(record: &Record) -> Node {
    let mut node = node()
        .with(|settings| {
            settings.failsafe = true;
            settings.elector = Elector::Smart;
        })
        .having(|instance| instance.replication = vec![follower(OTHER), follower(THIRD)])
        .attached();
    node.lock.put_record(None, record);
    node.watch_shows_lock();
    node
}

/// It has seen `record` stand for so long that the lease which rests on it is over, and casts its ballot.
fn standing_for_election(record: &Record) -> Node {
    let mut node = seeing(record);
    node.is_watched(LEASE_AND_MARGIN);
    for _ in 0..4 {
        node.settles();
    }
    assert!(node.lock.ballots.contains_key(OWN) && !node.state.holds_lock());
    node
}

/// Of the same election as `node`'s own.
fn ballot_of_third(node: &Node) -> Ballot {
    Ballot {
        v: VERSION,
        instance: THIRD.to_owned(),
        ..node.lock.ballots[OWN].clone()
    }
}

fn casts(node: &mut Node, ballot: &Ballot) {
    node.lock.write_ballot(ballot);
    let heard = node.lock.ballots_after(0, true).expect("the ballots");
    node.hears(heard);
    node.settles();
}

#[test]
fn who_may_have_promised_and_casts_no_ballot_is_waited_for_until_no_promise_can_run() {
    let mut node = standing_for_election(&last_word());
    node.lives_on(LEASE_AND_MARGIN - 1.secs());
    assert!(!node.state.holds_lock(), "{:?}", node.plan().reason);
    assert!(matches!(
        node.plan().reason,
        Reason::WaitingForBallots { .. }
    ));
    node.lives_on(2.secs());
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
}

#[test]
fn a_promise_of_its_own_tells_that_others_may_be_bound_for_longer() {
    let mut node = seeing(&last_word());
    node.lives_on(9.secs());
    node.instance
        .promises(OTHER, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    let bound_until = node.now + LEASE_AND_MARGIN;
    while node.now < bound_until + LEASE_AND_MARGIN {
        node.lives_on(1.secs());
        assert!(!node.state.holds_lock());
    }
    node.lives_on(2.secs());
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
}

#[test]
fn a_promise_that_is_given_behind_the_ballot_tells_the_same() {
    let mut node = standing_for_election(&last_word());
    node.instance
        .promises(OTHER, 6, LEASE_AND_MARGIN, node.now)
        .unwrap();
    let bound_until = node.now + LEASE_AND_MARGIN;
    while node.now + 1.secs() < bound_until + LEASE_AND_MARGIN {
        node.lives_on(1.secs());
        assert!(!node.state.holds_lock(), "{:?}", node.plan().reason);
    }
    node.lives_on(3.secs());
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
}

#[test]
fn nobody_is_waited_for_once_everybody_has_cast_a_ballot() {
    let mut node = standing_for_election(&last_word());
    let behind = Ballot {
        vclock: Vclock::default(),
        priority: -1,
        ..ballot_of_third(&node)
    };
    let began = node.now;
    casts(&mut node, &behind);
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
    assert!(node.now.since(began) < 20.ms());
}

#[test]
fn without_promises_a_missing_ballot_is_waited_for_one_window() {
    let mut node = standing_for_election(&Record {
        failsafe: false,
        ..last_word()
    });
    node.passes(WINDOW + 20.ms());
    node.settles();
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
}

/// It waits for a fourth whose promise may end later than we can think.
#[test]
fn a_better_one_that_still_waits_for_ballots_is_not_overtaken() {
    const FOURTH: &str = "instance-fourth";
    let mut record = last_word();
    record.members.push(FOURTH.to_owned());
    record.following.push(FOURTH.to_owned());
    let mut node = standing_for_election(&record);
    node.lives_on(LEASE_AND_MARGIN - 2.secs());
    let better = Ballot {
        vclock: vclock(11),
        ..ballot_of_third(&node)
    };
    casts(&mut node, &better);
    node.lives_on(LEASE_AND_MARGIN);
    assert!(!node.state.holds_lock());
    node.lives_on(1.secs());
    assert!(node.state.holds_lock(), "{:?}", node.plan().reason);
}

/// A replica set whose master has just lost Consul and one of its two followers, which has half of the rows.
fn cut_off(seed: u64) -> (World, usize, usize) {
    let mut world = world_with(3, seed * 7 + 1, |settings| {
        settings.elector = Elector::Smart;
        settings.failsafe = true;
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
    world.breaks(3 - master - fresh, Broken::Peers, 100.secs());
    cut_off_from_consul(&mut world, [master], 100.secs());
    (world, master, fresh)
}

#[test]
fn the_freshest_wins_though_its_promise_ends_last() {
    for seed in 0..20 {
        let (mut world, master, fresh) = cut_off(seed);
        world.plays(9.secs());
        world.loses_machine(master);
        let (heir, took) = world.plays_until_master(Some(master));
        assert_eq!(heir, fresh, "seed {seed}");
        assert!(took < LEASE_AND_MARGIN * 2, "{took:?}");
    }
}

#[test]
fn the_freshest_that_is_lost_too_is_not_waited_for_for_ever() {
    for seed in 0..5 {
        let (mut world, master, fresh) = cut_off(seed);
        world.plays(9.secs());
        world.loses_machine(master);
        world.loses_machine(fresh);
        let (_, took) = world.plays_until_master(Some(master));
        assert!(took < LEASE_AND_MARGIN * 2 + 1.secs(), "{took:?}");
    }
}
