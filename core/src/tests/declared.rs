//! What Tarantool 3's declarative configuration says, and what follows from it.

use super::election::candidate;
use super::fixtures::*;
use crate::declared::Declared;
use crate::event::Event;
use crate::plan::{Action, GuardCommand, Reason};

fn supervised() -> Declared {
    Declared {
        failover: "supervised".to_owned(),
        replicaset: Some("a".to_owned()),
        ..Declared::default()
    }
}

#[test]
fn learners_and_priorities_of_the_configuration_count_where_priority_is_not_set() {
    let learner = Declared {
        learner: true,
        priority: Some(9),
        ..supervised()
    };
    let last = Declared {
        priority: Some(-3),
        ..supervised()
    };
    let first = Declared {
        priority: Some(9),
        ..supervised()
    };
    for (declared, own, priority, why) in [
        (&learner, None, -1, "among failover.replicasets.a.learners"),
        (
            &last,
            None,
            -3,
            "its priority in failover.replicasets.a.priority is -3",
        ),
        (&first, None, 9, ""),
        (&learner, Some(2), 2, ""),
        (&last, Some(0), 0, ""),
        (&first, Some(-1), -1, "PRIORITY is -1"),
        (&supervised(), None, 0, ""),
    ] {
        let mut node = candidate().with(|settings| settings.priority = own);
        node.instance.declared = Some(declared.clone());
        node.attaches();
        assert_eq!(node.state.priority(), priority, "{declared:?} {own:?}");
        node.settles();
        let plan = node.plan();
        if let Reason::NotACandidate { why: said } = &plan.reason {
            assert!(!why.is_empty() && said.contains(why), "{said}");
        } else {
            assert!(why.is_empty(), "{}", plan.reason);
        }
    }
}

#[test]
fn an_instance_is_called_by_its_own_name() {
    let mut node = master();
    assert_eq!(node.lock.record().unwrap().name, "10.0.0.1:3301");
    node.instance.name = Some("storage-a-001".to_owned());
    node.lives_on(5.secs());
    let record = node.lock.record().unwrap();
    assert_eq!(record.name, "storage-a-001");
    assert_eq!(record.uri, "10.0.0.1:3301");
}

/// The configuration makes it read-only, the guard fences it behind that, tells the agent, and connections end.
#[test]
fn an_isolated_master_is_given_up_in_good_order_and_never_killed() {
    let mut node = master();
    node.instance.declared = Some(Declared {
        isolated: true,
        ..supervised()
    });
    node.instance.ro = true;
    node.instance.read_only = true;
    node.instance.guard.leased = false;
    node.instance.guard.landed = true;
    node.passes(3.secs());
    let mut released = false;
    for _ in 0..20 {
        let plan = node.turn();
        assert!(
            !does!(
                plan,
                Action::Kill | Action::Guard(GuardCommand::Promote { .. })
            ),
            "{plan:?}"
        );
        released |= does!(plan, Action::Release { .. });
        for action in &plan.actions {
            node.answers(action);
        }
    }
    assert!(released);
    node.hears(Event::Unreachable {
        why: "connection refused".to_owned(),
    });
    for _ in 0..40 {
        node.passes(1.secs());
        let plan = node.turn();
        assert!(
            !does!(plan, Action::Kill | Action::Acquire { .. }),
            "{plan:?}"
        );
        for action in &plan.actions {
            node.answers(action);
        }
    }
    let words = node.state.instance.link.to_string();
    assert!(words.contains("isolated: true"), "{words}");
}
