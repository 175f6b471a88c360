//! vshard: who is told what, and when. Nothing here is about safety.

use std::collections::BTreeMap;

use super::fixtures::{
    LEASE, Node, OTHER, OWN, Span, does, fault, master, node, part, record, replica, waiting_holder,
};
use crate::board::{Switchover, VERSION};
use crate::event::Event;
use crate::plan::{Action, GuardCommand};
use crate::record::Status;
use crate::term::Term;
use crate::vshard::{Central, Look, Master, Named, Report, VshardAction, VshardEvent, Wanted};

/// The replica set of the fixtures' instance.
const RS: &str = "replicaset";

fn entry(replicaset: &str, instance: &str, term: u32) -> Master {
    Master {
        v: VERSION,
        term: Term::from(term),
        instance: instance.to_owned(),
        replicaset: replicaset.to_owned(),
        name: instance.to_owned(),
        priority: 0,
        instance_name: None,
        replicaset_name: None,
    }
}

fn storage() -> Look {
    Look {
        storage: true,
        ..Look::default()
    }
}

impl Node {
    fn with_vshard(mut self, look: Look) -> Self {
        self.instance.vshard = Some(look.clone());
        if let Some(probe) = &mut self.state.instance.probe {
            probe.vshard = Some(look);
        }
        self
    }

    /// The watch shows these; all but ours are of other replica sets.
    fn knowing(mut self, masters: &[Master]) -> Self {
        self.sees_masters(masters);
        self
    }

    fn sees_masters(&mut self, masters: &[Master]) {
        let masters = masters.iter();
        let masters = masters.map(|master| (master.replicaset.clone(), (9, master.clone())));
        self.hears(Event::Vshard(VshardEvent::MastersSeen {
            masters: masters.collect(),
        }));
    }

    fn applies(&self) -> Option<Wanted> {
        part!(self.plan(), Action::Vshard(VshardAction::Apply { wanted, .. }) => wanted.clone())
    }

    fn writes_master(&self) -> Option<Master> {
        part!(self.plan(), Action::Vshard(VshardAction::WriteMaster { master, .. }) => master.clone())
    }

    /// Begins what it is to apply, and hears what came of it.
    fn is_told(&mut self, report: Report) {
        let plan = self.turn();
        let sequence =
            part!(plan, Action::Vshard(VshardAction::Apply { sequence, .. }) => *sequence);
        let look = Look {
            last: Some(Report {
                sequence: sequence.expect("something to apply"),
                ..report
            }),
            ..self.instance.vshard.clone().unwrap()
        };
        self.instance.vshard = Some(look.clone());
        self.hears(Event::Vshard(VshardEvent::Applied {
            sequence: sequence.unwrap(),
            result: Ok((false, Box::new(Some(look)))),
        }));
    }
}

fn named(wanted: &Wanted) -> BTreeMap<&str, &str> {
    let masters = wanted.masters.iter();
    masters
        .map(|(set, Named { instance, .. })| (set.as_str(), instance.as_str()))
        .collect()
}

#[test]
fn an_instance_without_vshard_is_told_nothing() {
    let node = master().knowing(&[entry(RS, OTHER, 3)]);
    assert!(!does!(node.plan(), Action::Vshard(_)), "{:?}", node.plan());
}

#[test]
fn a_master_writes_itself_down_once_in_its_term_and_not_before_it_has_read() {
    let node = master().with_vshard(storage());
    assert_eq!(node.writes_master(), None);
    let mut node = node.knowing(&[entry(RS, OTHER, 6)]);
    let own = node.writes_master().unwrap();
    assert_eq!((own.instance.as_str(), own.term.get()), (OWN, 7));
    node.turn();
    assert_eq!(node.writes_master(), None, "it is being written");
    node.hears(Event::Vshard(VshardEvent::MasterWritten {
        result: Ok(Some(12)),
    }));
    assert_eq!(node.writes_master(), None, "it is written");
}

#[test]
fn a_master_whose_write_failed_or_was_overtaken_tries_again() {
    for result in [Err(fault()), Ok(None)] {
        let mut node = master().with_vshard(storage()).knowing(&[]);
        node.turn();
        node.hears(Event::Vshard(VshardEvent::MasterWritten { result }));
        assert_eq!(node.writes_master(), None);
        node.passes(1.secs());
        assert!(node.writes_master().is_some());
    }
}

#[test]
fn a_master_is_named_while_it_is_being_promoted_and_not_before() {
    let mut node = node().with_vshard(storage()).attached().seeing_lock();
    node.sees_masters(&[entry(RS, OTHER, 6)]);
    node.runs_until(|action| matches!(action, Action::Acquire { .. }));
    assert_eq!(node.writes_master(), None);
    let mut node = super::fixtures::node()
        .with_vshard(storage())
        .attached()
        .seeing_lock();
    node.sees_masters(&[entry(RS, OTHER, 6)]);
    node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Promote { .. })));
    assert!(node.state.vshard.writing.is_some(), "in the same moment");
    assert!(
        waiting_holder()
            .with_vshard(storage())
            .knowing(&[])
            .writes_master()
            .is_none()
    );
}

#[test]
fn a_higher_term_is_not_written_over() {
    let node = master()
        .with_vshard(storage())
        .knowing(&[entry(RS, OTHER, 8)]);
    assert_eq!(node.writes_master(), None);
}

#[test]
fn a_replica_writes_nothing_and_follows_every_lock() {
    let masters = [entry(RS, OTHER, 6), entry("second", "b2", 3)];
    let node = replica().with_vshard(storage()).knowing(&masters);
    assert_eq!(node.writes_master(), None);
    let wanted = node.applies().unwrap();
    assert_eq!(
        named(&wanted),
        BTreeMap::from([(RS, OTHER), ("second", "b2")])
    );
}

#[test]
fn promotion_comes_first_and_the_flag_second() {
    let masters = [entry(RS, OTHER, 6)];
    let mut node = node().with_vshard(storage()).attached().seeing_lock();
    node.sees_masters(&masters);
    let told_before = std::cell::Cell::new(false);
    node.runs_until(|action| {
        if let Action::Vshard(VshardAction::Apply { wanted, .. }) = action {
            told_before.set(told_before.get() || named(wanted).get(RS) == Some(&OWN));
        }
        matches!(action, Action::Guard(GuardCommand::Promote { .. }))
    });
    assert!(!told_before.get());
    assert_eq!(
        node.applies(),
        None,
        "nothing between the lock and the promotion"
    );
    let node = master().with_vshard(storage()).knowing(&masters);
    assert_eq!(named(&node.applies().unwrap()), BTreeMap::from([(RS, OWN)]));
}

#[test]
fn the_fence_comes_first_and_the_flag_second() {
    let flagged = Look {
        flagged: true,
        ..storage()
    };
    let mut node = replica()
        .with_vshard(flagged)
        .knowing(&[entry(RS, OTHER, 7)]);
    assert!(node.applies().is_some());
    // Somebody made it writable.
    node.instance.ro = false;
    node.instance.read_only = false;
    let probe = node.instance.probe(node.now);
    node.state.instance.probe = Some(probe);
    assert_eq!(node.applies(), None);
}

#[test]
fn a_fenced_master_keeps_its_flag_until_somebody_else_is_master() {
    let mut node = replica()
        .with_vshard(storage())
        .knowing(&[entry(RS, OWN, 5)]);
    assert_eq!(named(&node.applies().unwrap()), BTreeMap::new());
    node.sees_masters(&[entry(RS, OTHER, 6)]);
    assert_eq!(
        named(&node.applies().unwrap()),
        BTreeMap::from([(RS, OTHER)])
    );
}

#[test]
fn nothing_is_applied_on_the_way_to_a_release() {
    let mut node = master().with_vshard(storage()).knowing(&[]);
    node.is_told(Report::default());
    node.is_asked_to_stop();
    node.sees_masters(&[entry("second", "b2", 3)]);
    node.runs_until(|action| matches!(action, Action::Release { .. }));
    assert_eq!(node.applies(), None);
}

#[test]
fn what_was_told_is_not_told_again_unless_somebody_else_configured_it_since() {
    let mut node = replica()
        .with_vshard(storage())
        .knowing(&[entry(RS, OTHER, 6)]);
    node.is_told(Report::default());
    assert_eq!(node.applies(), None);
    node.sees_masters(&[entry(RS, OTHER, 7)]);
    assert_eq!(node.applies(), None, "the same master in another term");
    let node = node.with_vshard(Look {
        foreign: true,
        ..storage()
    });
    assert_eq!(node.applies(), None, "never without a pause");
    assert!(node.later(20.ms()).applies().is_some());
}

/// Garbage, or another version: it is written over by whoever serves, and names nobody meanwhile.
#[test]
fn a_masters_key_that_cannot_be_read_names_nobody_and_is_written_over() {
    let nobody = Master::nobody("second");
    let node = replica().with_vshard(storage()).knowing(&[nobody]);
    let wanted = node.applies().expect("it is told for the first time");
    assert_eq!(wanted.masters, BTreeMap::new());
    let node = master()
        .with_vshard(storage())
        .knowing(&[Master::nobody(RS)]);
    let written = part!(
        node.plan(),
        Action::Vshard(VshardAction::WriteMaster { index, .. }) => *index
    );
    assert_eq!(written, Some(9));
}

#[test]
fn a_configuration_under_way_is_waited_for_a_moment_and_a_failure_longer() {
    for (code, pause) in [(Some(37), 20.ms()), (Some(38), 20.ms()), (None, 1.secs())] {
        let mut node = replica()
            .with_vshard(storage())
            .knowing(&[entry(RS, OTHER, 6)]);
        node.is_told(Report {
            failed: Some("no".to_owned()),
            code,
            ..Report::default()
        });
        assert_eq!(node.applies(), None, "{code:?}");
        assert!(node.state.vshard.problem(None).is_some());
        node.passes(pause);
        assert!(node.applies().is_some(), "{code:?}");
        node.is_told(Report::default());
        assert_eq!(node.state.vshard.problem(None), None);
    }
}

#[test]
fn a_master_that_a_router_could_not_reach_is_named_to_it_again() {
    let mut node = replica()
        .with_vshard(storage())
        .knowing(&[entry(RS, OTHER, 6)]);
    node.is_told(Report {
        left_out: vec![RS.to_owned()],
        ..Report::default()
    });
    assert_eq!(node.applies(), None);
    node.passes(500.ms());
    assert!(node.applies().is_some());
}

#[test]
fn a_restarted_instance_is_told_again() {
    let mut node = replica()
        .with_vshard(storage())
        .knowing(&[entry(RS, OTHER, 6)]);
    node.is_told(Report::default());
    node.is_killed();
    node.instance.pid += 1;
    node.instance.alive = true;
    node.attaches();
    assert!(node.applies().is_some());
}

/// A replica whose configuration prefers it to the master, after so many seconds.
fn preferred(delay_s: f64) -> Node {
    let look = Look {
        config: Some(Central {
            weight: Some(50.0),
            delay_s: Some(delay_s),
            ..Central::default()
        }),
        ..storage()
    };
    let mut node = replica().with_vshard(look).knowing(&[entry(RS, OTHER, 6)]);
    node.instance.replication = vec![super::toys::follower(OTHER)];
    let probe = node.instance.probe(node.now);
    node.state.instance.probe = Some(probe);
    node.hears(Event::SwitchoverSeen {
        index: 4,
        switchover: Switchover::nothing(),
    });
    node
}

fn asks(node: &Node) -> bool {
    let target =
        part!(node.plan(), Action::WriteSwitchover { switchover, .. } => switchover.target.clone());
    target.flatten().as_deref() == Some(OWN)
}

#[test]
fn master_weight_asks_for_a_switchover_after_its_delay() {
    let mut node = preferred(4.0);
    assert_eq!(node.state.priority(), 50);
    assert!(!asks(&node));
    node.passes(3.secs());
    assert!(!asks(&node));
    node.passes(1.secs());
    assert!(asks(&node));
    // A refusal is not asked about again at once.
    node.turn();
    node.hears(Event::SwitchoverWritten {
        result: Ok(Some(5)),
    });
    node.hears(Event::SwitchoverSeen {
        index: 6,
        switchover: Switchover::nothing(),
    });
    assert!(!asks(&node));
}

/// Its agent has not taken the configuration over yet, or has not written what follows from it.
#[test]
fn master_weight_compares_the_weights_of_one_configuration() {
    for (weight, priority, expected) in [
        (50.0, 0, false),
        (49.0, 0, true),
        (49.0, 50, true),
        (50.0, -1, true),
    ] {
        let mut node = preferred(0.0);
        node.sees_masters(&[Master {
            priority,
            ..entry(RS, OTHER, 6)
        }]);
        let mut probe = node.instance.probe(node.now);
        if let Some(config) = probe.vshard.as_mut().and_then(|look| look.config.as_mut()) {
            config.weights.insert(OTHER.to_owned(), weight);
        }
        node.state.instance.probe = Some(probe);
        assert_eq!(asks(&node), expected, "{weight} {priority}");
    }
}

#[test]
fn master_weight_asks_for_nothing_of_a_master_that_is_preferred_or_not_there() {
    let mut node = preferred(0.0);
    assert!(asks(&node));
    node.sees_masters(&[Master {
        priority: 50,
        ..entry(RS, OTHER, 6)
    }]);
    assert!(!asks(&node));
    let mut node = preferred(0.0);
    node.lock.put_record(None, &record().says(Status::Fenced));
    node.watch_shows_lock();
    assert!(!asks(&node));
    let node = preferred(0.0).with(|settings| settings.priority = Some(-1));
    assert!(!asks(&node));
    assert!(LEASE > 1.secs());
}
