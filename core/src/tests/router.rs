//! A router's agent.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fixtures::{Span, fault, part};
use crate::board::VERSION;
use crate::plan::{Ending, Health, Role};
use crate::router::{
    Identity, RouterAction, RouterEvent, RouterPlan, RouterSettings, RouterState, decide,
};
use crate::term::Term;
use crate::timing::Tick;
use crate::vshard::{Look, Master, Report, Routes, VshardAction, VshardEvent};

struct Agent {
    state: RouterState,
    now: Tick,
}

fn routes(unreachable: &[&str]) -> Look {
    let unreachable = unreachable.iter().map(|set| (*set).to_owned()).collect();
    let masters = [("first", "a1"), ("second", "b1")];
    let masters = masters.map(|(set, master)| (set.to_owned(), master.to_owned()));
    Look {
        routers: vec![Routes {
            name: "_static_router".to_owned(),
            masters: BTreeMap::from(masters),
            unreachable,
            ..Routes::default()
        }],
        ..Look::default()
    }
}

/// A moment in 2023.
const WALL_MS: u64 = 1_700_000_000_123;

fn agent() -> Agent {
    Agent {
        state: RouterState::new(RouterSettings {
            announce: "router:3301".to_owned(),
            interval: 1.secs(),
        }),
        now: Tick::at(100.secs()),
    }
}

impl Agent {
    fn attached(mut self, look: Look) -> Self {
        let identity = Identity {
            uuid: "router".to_owned(),
            version: "2.6.0".to_owned(),
        };
        self.hears(RouterEvent::Attached {
            identity,
            look: Box::new(Some(look)),
        });
        self
    }

    fn hears(&mut self, event: RouterEvent) {
        self.state.reads_wall_clock(WALL_MS);
        self.state.apply(event, self.now);
    }

    fn sees(&mut self, master: &str, term: u32) {
        let master = Master {
            v: VERSION,
            term: Term::from(term),
            instance: master.to_owned(),
            replicaset: "first".to_owned(),
            name: master.to_owned(),
            priority: 0,
            instance_name: None,
            replicaset_name: None,
        };
        let masters = BTreeMap::from([("first".to_owned(), (9, master))]);
        let event = VshardEvent::MastersSeen { masters };
        self.hears(RouterEvent::Vshard(event));
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn plan(&self) -> RouterPlan {
        decide(&self.state, self.now)
    }

    /// Begins everything; the sequence of what it tells the router.
    fn turn(&mut self) -> Option<u64> {
        let plan = self.plan();
        let mut sequence = None;
        for action in &plan.actions {
            self.state.begin(action, self.now);
            if let RouterAction::Apply(VshardAction::Apply { sequence: own, .. }) = action {
                sequence = Some(*own);
            }
        }
        sequence
    }

    fn told(&self) -> Option<String> {
        let wanted = part!(self.plan(), RouterAction::Apply(VshardAction::Apply { wanted, .. }) => wanted.clone());
        Some(wanted?.masters.get("first")?.instance.clone())
    }

    fn health(&self) -> Option<(Health, String)> {
        let entry = part!(self.plan(), RouterAction::Tell { entry, .. } => entry.clone())?;
        assert_eq!(entry.registered.role, Role::Router);
        Some((entry.health, entry.output))
    }

    fn exits(&self) -> Option<Ending> {
        part!(self.plan(), RouterAction::Exit { how } => *how)
    }
}

#[test]
fn a_router_is_told_of_each_new_master_once() {
    let mut agent = agent().attached(routes(&[]));
    assert_eq!(agent.told(), None, "the masters are not known yet");
    agent.sees("a2", 2);
    assert_eq!(agent.told().as_deref(), Some("a2"));
    let sequence = agent.turn().unwrap();
    assert_eq!(agent.told(), None, "it is being told");
    let look = Look {
        last: Some(Report {
            sequence,
            ..Report::default()
        }),
        ..routes(&[])
    };
    agent.hears(RouterEvent::Vshard(VshardEvent::Applied {
        sequence,
        result: Ok((false, Box::new(Some(look)))),
    }));
    assert_eq!(agent.told(), None, "it has been told");
    agent.sees("a3", 3);
    assert_eq!(agent.told().as_deref(), Some("a3"));
}

#[test]
fn a_router_that_hangs_is_critical_until_it_answers_again() {
    let mut agent = agent().attached(routes(&[]));
    let (passing, _) = agent.health().expect("an entry");
    assert_eq!(passing, Health::Passing);
    let result = Err("no answer in 2s".to_owned());
    agent.hears(RouterEvent::Looked { result });
    let (critical, words) = agent.health().expect("an entry");
    assert_eq!(critical, Health::Critical);
    assert_eq!(words, "the router does not answer: no answer in 2s");
    let result = Ok(Box::new(Some(routes(&[]))));
    agent.hears(RouterEvent::Looked { result });
    assert_eq!(agent.health().map(|(health, _)| health), Some(passing));
}

#[test]
fn a_router_that_cannot_be_told_is_told_again_and_the_catalog_says_why() {
    let mut agent = agent().attached(routes(&[]));
    agent.sees("a2", 2);
    let sequence = agent.turn().unwrap();
    agent.hears(RouterEvent::Told { result: Ok(true) });
    agent.hears(RouterEvent::Vshard(VshardEvent::Applied {
        sequence,
        result: Err("no answer".to_owned()),
    }));
    assert_eq!(agent.told(), None);
    let (health, words) = agent.health().unwrap();
    assert_eq!(health, Health::Warning);
    assert!(words.contains("no answer"), "{words}");
    agent.passes(1.secs());
    assert_eq!(agent.told().as_deref(), Some("a2"));
}

#[test]
fn the_catalog_shows_which_masters_it_cannot_reach() {
    for (look, health, words) in [
        (routes(&[]), Health::Passing, "every replica set"),
        (routes(&["second"]), Health::Warning, "second"),
        (
            routes(&["first", "second"]),
            Health::Critical,
            "first, second",
        ),
        (Look::default(), Health::Critical, "no vshard router"),
    ] {
        let (found, output) = agent().attached(look).health().unwrap();
        assert_eq!(found, health, "{output}");
        assert!(output.contains(words), "{output}");
    }
    let mut lost = agent().attached(routes(&[]));
    let why = "refused".to_owned();
    lost.hears(RouterEvent::Lost { why });
    let (health, output) = lost.health().unwrap();
    assert_eq!(health, Health::Critical);
    assert!(output.contains("refused"), "{output}");
}

#[test]
fn nothing_is_said_before_anybody_is_known_and_nothing_repeated_without_need() {
    assert_eq!(agent().health(), None);
    let mut agent = agent().attached(routes(&[]));
    agent.turn();
    agent.hears(RouterEvent::Told { result: Ok(true) });
    assert_eq!(agent.health(), None);
    agent.passes(7.secs());
    assert!(agent.health().is_some(), "before its word runs out");
    agent.turn();
    // Consul has forgotten it.
    agent.hears(RouterEvent::Told { result: Ok(false) });
    assert!(agent.health().is_some());
    agent.turn();
    agent.hears(RouterEvent::Told {
        result: Err(fault()),
    });
    assert_eq!(agent.health(), None, "not at once");
    agent.passes(1.secs());
    assert!(agent.health().is_some());
}

#[test]
fn it_leaves_the_catalog_before_it_ends_and_does_not_wait_for_ever() {
    let mut agent = agent().attached(routes(&[]));
    agent.turn();
    agent.hears(RouterEvent::Told { result: Ok(true) });
    agent.hears(RouterEvent::StopRequested);
    assert_eq!(agent.plan().actions, [RouterAction::Deregister]);
    agent.turn();
    assert_eq!(agent.exits(), None);
    agent.passes(2.secs());
    assert_eq!(agent.exits(), Some(Ending::Stopped));
    agent.passes(Duration::ZERO);
    agent.hears(RouterEvent::Told { result: Ok(true) });
    assert_eq!(agent.exits(), Some(Ending::Stopped));
}

#[test]
fn a_storage_is_no_router() {
    let look = Look {
        storage: true,
        ..routes(&[])
    };
    assert_eq!(agent().attached(look).exits(), Some(Ending::Unsuitable));
}
