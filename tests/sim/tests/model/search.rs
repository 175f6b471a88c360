//! The search: every world that the moves lead to, and what must hold, and what must happen, in them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};
use tarsec_sim::mutants::{Mutant, switch_to};

use crate::moves::Move;
use crate::world::{Bounds, World, seen};

/// What the model is searched with.
const THREADS: usize = 2;
/// Exactly that many worlds are there.
const STATES_OF_TWO: usize = 30_545;
const STATES_WITH_PROMISES: usize = 30_505;
const STATES_OF_THREE: usize = 34_315;
const STATES_WITH_VOTES: usize = 201_531;
const ROW_LOST: &str = "no acknowledged row is lost (R7)";
/// Mutants that this small a world shows, and what they break.
const CAUGHT: &[(Mutant, &str)] = &[
    (Mutant::VotesNotCounted, ROW_LOST),
    (Mutant::VotersRowsIgnored, ROW_LOST),
    (Mutant::LeaseTwiceAsLong, "at most one writable"),
    (Mutant::OutlivedAtHalf, "at most one writable"),
    (Mutant::FreeWithoutWait, "at most one writable"),
    (Mutant::LiveHolderTakenOver, "at most one writable"),
    (Mutant::HungNeverKilled, "a hung instance does not go on"),
];

impl Model for Bounds {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(*self)]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        moves.extend(world.moves());
    }

    fn next_state(&self, world: &World, what: Move) -> Option<World> {
        Some(world.after(what))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always();
        properties.push(Property::sometimes(
            "another becomes master",
            |_, world: &World| world.seen & seen::OTHER_MASTER != 0,
        ));
        if self.rows > 0 {
            properties.push(Property::sometimes(
                "a master has a row that one before it acknowledged",
                |_, world: &World| world.seen & seen::ROW_KEPT != 0,
            ));
            return properties;
        }
        properties.extend([
            Property::sometimes("the lock changes hands by a release", |_, world: &World| {
                world.seen & seen::BY_RELEASE != 0
            }),
            Property::sometimes(
                "a free lock is taken after a wait (R3)",
                |_, world: &World| world.seen & seen::AFTER_A_WAIT != 0,
            ),
            Property::sometimes("a held lock is taken over (R4)", |_, world: &World| {
                world.seen & seen::TAKEN_OVER != 0
            }),
            Property::sometimes("a guard fences at its deadline", |_, world: &World| {
                world.seen & seen::DEADLINE != 0
            }),
            Property::sometimes(
                "a master is promoted again in its term",
                |_, world: &World| world.seen & seen::SAME_TERM != 0,
            ),
            Property::sometimes("a step is refused", |_, world: &World| {
                world.seen & seen::STEP_REFUSED != 0
            }),
            Property::sometimes("a hung instance is killed (R5)", |_, world: &World| {
                world.seen & seen::KILLED != 0
            }),
        ]);
        if self.failsafe {
            properties.push(Property::sometimes(
                "a master serves on promises (R6)",
                |_, world: &World| world.seen & seen::ON_PROMISES != 0,
            ));
        }
        properties
    }
}

/// What must hold in every world.
fn always() -> Vec<Property<Bounds>> {
    vec![
        Property::always("at most one writable", |_, world: &World| {
            let all = 0..world.nodes.len();
            all.filter(|n| world.is_writable(*n) || world.is_leased(*n))
                .count()
                <= 1
        }),
        Property::always("writable only under a lease", |_, world: &World| {
            let all = 0..world.nodes.len();
            all.filter(|n| world.is_writable(*n))
                .all(|n| world.is_leased(n))
        }),
        Property::always("a record's term never goes back", |_, world: &World| {
            world.seen & seen::TERM_WENT_BACK == 0
        }),
        Property::always("no promotion below a served term", |_, world: &World| {
            world.seen & seen::PROMOTED_BELOW == 0
        }),
        Property::always(
            "released as fenced only when read-only",
            |_, world: &World| world.seen & seen::FENCED_TOO_EARLY == 0,
        ),
        Property::always("a hung instance does not go on", |_, world: &World| {
            world.seen & seen::HUNG_WENT_ON == 0
        }),
        Property::always(ROW_LOST, |_, world: &World| {
            world.seen & seen::ROW_LOST == 0
        }),
    ]
}

/// The mutants' switch is the whole process's: one search at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Searches to the end, and says how large it was.
#[allow(clippy::print_stdout, reason = "`make model` shows it")]
#[allow(
    clippy::disallowed_methods,
    reason = "how long it took, for whoever reads"
)]
fn search(bounds: Bounds, states: usize) {
    let _alone = alone();
    let began = Instant::now();
    let checker = bounds.checker().threads(THREADS).spawn_bfs().join();
    println!(
        "{} agents, {} quarters of a lease, {} fault, failsafe {}: {} states, {} moves, the longest way {}, {:.1} s",
        bounds.agents,
        bounds.ticks,
        bounds.faults,
        bounds.failsafe,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
    checker.assert_properties();
    assert!(checker.is_done(), "the search went to its end");
    assert_eq!(
        checker.unique_state_count(),
        states,
        "a core that decides otherwise has other states: look, then count anew"
    );
}

#[test]
fn two_agents_and_any_one_fault() {
    search(
        Bounds {
            agents: 2,
            ticks: 8,
            faults: 1,
            served: true,
            failsafe: false,
            rows: 0,
        },
        STATES_OF_TWO,
    );
}

#[test]
fn two_agents_that_promise_and_any_one_fault() {
    search(
        Bounds {
            agents: 2,
            ticks: 8,
            faults: 1,
            served: true,
            failsafe: true,
            rows: 0,
        },
        STATES_WITH_PROMISES,
    );
}

#[test]
fn three_agents_and_any_one_fault() {
    search(
        Bounds {
            agents: 3,
            ticks: 6,
            faults: 1,
            served: true,
            failsafe: false,
            rows: 0,
        },
        STATES_OF_THREE,
    );
}

/// A row that a quorum has, ballots, and any two faults of agents and instances.
const VOTING: Bounds = Bounds {
    agents: 3,
    ticks: 2,
    faults: 2,
    served: true,
    failsafe: false,
    rows: 1,
};

#[test]
fn three_agents_that_vote_and_any_two_faults() {
    search(VOTING, STATES_WITH_VOTES);
}

/// Switches the mutant off, whatever happens.
struct Switch;

impl Drop for Switch {
    fn drop(&mut self) {
        switch_to(None);
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "`make model` shows it")]
fn a_broken_core_is_noticed() {
    let _alone = alone();
    for (mutant, property) in CAUGHT {
        let _switch = Switch;
        switch_to(Some(*mutant));
        let mutant = mutant.name();
        let two = Bounds {
            agents: 2,
            ticks: 8,
            faults: 1,
            served: true,
            failsafe: false,
            rows: 0,
        };
        let bounds = if *property == ROW_LOST { VOTING } else { two };
        let checker = bounds
            .checker()
            .threads(THREADS)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let found = checker.discoveries();
        let path = found.get(property).map(|path| path.clone().into_actions());
        println!("\"{mutant}\" breaks \"{property}\": {path:?}");
        assert!(
            path.is_some(),
            "\"{mutant}\" goes unnoticed: {:?}",
            found.keys()
        );
    }
}
