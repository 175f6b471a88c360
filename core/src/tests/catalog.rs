//! The catalog tells the truth: never a fenced or dead master as a passing master.

use super::fixtures::*;
use crate::event::{Event, GuardCommandKind};
use crate::plan::{Action, GuardCommand, Health, Role};
use crate::record::Status;
use crate::term::Term;

fn is_tell(action: &Action) -> bool {
    matches!(action, Action::Tell { .. })
}

#[test]
fn a_serving_master_is_a_passing_master() {
    let entry = master().catalog();
    assert_eq!(
        (entry.registered.role, entry.health),
        (Role::Master, Health::Passing)
    );
    assert_eq!(entry.registered.term.get(), 7);
}

#[test]
fn a_replica_is_a_passing_replica_and_says_whose() {
    let entry = replica().catalog();
    assert_eq!(
        (entry.registered.role, entry.health),
        (Role::Replica, Health::Passing)
    );
    assert!(entry.output.contains("10.0.0.2:3301"), "{}", entry.output);
}

#[test]
fn a_holder_that_is_not_writable_yet_is_no_master() {
    let node = waiting_holder().later(250.ms());
    assert_eq!(node.catalog().registered.role, Role::Replica);
}

/// Each word is a write of its own to Consul, at the moment when every other one counts.
#[test]
fn while_the_lock_changes_hands_nobody_is_told_what_can_wait() {
    let telling =
        |action: &Action| matches!(action, Action::Tell { .. } | Action::WriteMember { .. });
    let mut node = replica();
    let fenced = record().says(Status::Fenced);
    node.lock.put_record(None, &fenced);
    node.watch_shows_lock();
    for _ in 0..64 {
        let plan = node.round();
        let serving = node.instance.is_writable();
        assert!(serving || !plan.actions.iter().any(telling), "{plan:?}");
        if serving && plan.actions.iter().any(telling) {
            return;
        }
    }
    panic!("it is never told");
}

#[test]
fn a_change_of_hands_that_lasts_is_told_all_the_same() {
    let mut node = replica().with(|settings| settings.priority = Some(-1));
    let fenced = record().says(Status::Fenced);
    node.lock.put_record(None, &fenced);
    node.watch_shows_lock();
    node.settles();
    node.passes(250.ms());
    let entry = part!(node.plan(), Action::Tell { entry, .. } => entry.clone()).expect("a word");
    assert!(entry.output.contains("PRIORITY"), "{}", entry.output);
}

#[test]
fn a_dead_master_is_critical_and_no_master_in_the_same_plan_that_releases_the_lock() {
    let mut node = master();
    node.is_killed();
    let plan = node.plan();
    let entry = part!(plan, Action::Tell { entry, .. } => entry.clone()).expect("a word");
    assert_eq!(
        (entry.registered.role, entry.health),
        (Role::Replica, Health::Critical)
    );
    assert!(does!(plan, Action::Release { .. }));
}

#[test]
fn a_fenced_master_is_no_master_in_the_plan_after_the_fence() {
    let mut node = master();
    node.is_asked_to_stop();
    let fence =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Fence { .. })));
    node.answers(&fence);
    let entry = part!(node.plan(), Action::Tell { entry, .. } => entry.clone()).expect("a word");
    assert_eq!(entry.registered.role, Role::Replica);
}

#[test]
fn a_master_whose_guard_fenced_is_no_master() {
    let mut node = master().later(LEASE);
    assert!(!node.instance.is_writable());
    node.answers(&Action::Guard(GuardCommand::Probe));
    assert_eq!(node.catalog().registered.role, Role::Replica);
}

#[test]
fn a_master_that_lost_the_lock_is_no_master() {
    let mut node = master();
    let session = node.own_session();
    node.lock.end_session(&session);
    node.watch_shows_lock();
    assert_eq!(node.catalog().registered.role, Role::Replica);
}

#[test]
fn a_silent_or_unreachable_instance_is_critical() {
    let mut node = replica();
    node.freezes();
    node.passes(1.secs());
    assert_eq!(
        node.catalog().health,
        Health::Passing,
        "a moment is no illness"
    );
    node.passes(1.secs());
    assert_eq!(node.catalog().health, Health::Critical);
    let mut node = replica();
    node.is_cut_off();
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Critical);
    assert!(entry.output.contains("timed out"), "{}", entry.output);
}

#[test]
fn an_instance_that_is_not_running_is_critical() {
    let mut node = replica().having(|instance| instance.status = "orphan".to_owned());
    node.attaches();
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Critical);
    assert!(entry.output.contains("orphan"));
}

#[test]
fn a_master_that_could_not_be_killed_says_so() {
    let mut node = master();
    let Event::Attached { probe, .. } = node.instance.attached(node.now) else {
        unreachable!()
    };
    let process = Err("it runs in another PID namespace".to_owned());
    node.hears(Event::Attached { probe, process });
    assert!(node.catalog().output.contains("another PID namespace"));
}

#[test]
fn a_masters_word_runs_out_before_its_lease_does() {
    for lease in [2, 5, 10, 30, 60] {
        let mut node = master();
        node.state.settings.timing = timing(lease.secs());
        node.hears(Event::Woke);
        let ttl = node.catalog().registered.ttl;
        // A word may be given when a quarter of the lease has passed since the last refresh.
        assert!(
            ttl + lease.secs() / 4 < lease.secs(),
            "{ttl:?} of {lease} s"
        );
    }
}

#[test]
fn words_are_repeated_in_time_without_a_new_registration() {
    let mut node = master();
    node.lives_on(LEASE * 7 / 30 - 250.ms());
    let told_at = node.state.catalog.told_at;
    let ttl = node.catalog().registered.ttl;
    node.now = told_at + ttl / 3;
    let tell = part!(node.plan(), Action::Tell { register, .. } => *register);
    assert_eq!(tell, Some(false));
}

#[test]
fn a_change_of_role_registers_anew() {
    let mut node = master();
    node.is_killed();
    let tell = part!(node.plan(), Action::Tell { register, .. } => *register);
    assert_eq!(tell, Some(true));
}

#[test]
fn a_service_that_consul_forgot_is_registered_again() {
    let mut node = replica();
    node.passes(10.secs());
    let tell = node.runs_until(is_tell);
    assert!(matches!(
        tell,
        Action::Tell {
            register: false,
            ..
        }
    ));
    node.hears(Event::CatalogEnded { result: Ok(false) });
    let again = part!(node.turn(), Action::Tell { register, .. } => *register);
    assert_eq!(again, Some(true));
}

#[test]
fn a_word_that_did_not_arrive_is_said_again_after_a_pause() {
    let mut node = node().attached();
    let tell = node.runs_until(is_tell);
    node.loses(&tell);
    assert!(!does!(node.turn(), Action::Tell { .. }));
    node.passes(1.secs());
    assert!(does!(node.turn(), Action::Tell { .. }));
}

#[test]
fn the_member_key_is_written_when_something_about_the_member_changed() {
    let mut node = replica();
    assert!(!does!(node.plan(), Action::WriteMember { .. }));
    let mut higher = record();
    higher.term = Term::from(8);
    node.lock
        .put_record(Some(crate::ids::SessionId::new("theirs")), &higher);
    node.watch_shows_lock();
    let write = node.runs_until(|action| matches!(action, Action::WriteMember { .. }));
    node.loses(&write);
    assert!(!does!(node.turn(), Action::WriteMember { .. }));
    node.passes(1.secs());
    assert!(does!(node.turn(), Action::WriteMember { .. }));
}

#[test]
fn before_the_instance_has_said_who_it_is_the_catalog_hears_nothing() {
    assert!(!does!(node().seeing_lock().plan(), Action::Tell { .. }));
}

/// Its own key may be the last that tells of the term of a record that was deleted.
#[test]
fn a_new_agent_writes_its_member_key_only_after_it_knows_the_terms() {
    let mut node = node().finding(|lock| {
        lock.delete_key();
        lock.members_term = Term::from(11);
    });
    node.attaches();
    assert!(!does!(node.plan(), Action::WriteMember { .. }));
    node.watch_shows_lock();
    let plan = node.plan();
    assert!(does!(plan, Action::ReadBoard), "{plan:?}");
    assert!(!does!(plan, Action::WriteMember { .. }), "{plan:?}");
    let write = node.comes_to(|action| matches!(action, Action::WriteMember { .. }));
    let Action::WriteMember { member } = write else {
        unreachable!()
    };
    assert_eq!(member.term.get(), 12, "its own, one above");
}

/// A Consul agent that hung carries out late what was given up: the role of then would stand there for good.
#[test]
fn after_a_lost_registration_the_service_is_registered_until_none_can_come_behind() {
    let mut node = replica();
    let ttl = node.catalog().registered.ttl;
    node.passes(ttl / 3);
    let registers = |node: &Node| part!(node.plan(), Action::Tell { register, .. } => *register);
    assert_eq!(registers(&node), Some(false));
    let plan = node.turn();
    for action in &plan.actions {
        if is_tell(action) {
            node.loses_reply(action);
        } else {
            node.answers(action);
        }
    }
    let lost_at = node.now;
    let mut last = false;
    while node.now.since(lost_at) < ttl * 3 {
        if let Some(register) = registers(&node) {
            last = register;
            assert!(register || node.now.since(lost_at) > 30.secs());
        }
        node.round();
        node.is_watched(100.ms());
    }
    assert!(!last, "in the end a word is enough again");
}

/// Nothing else says why a replica receives nothing after a switchover.
#[test]
fn an_instance_that_is_not_pointed_at_the_master_says_so_until_it_is() {
    let mut node = replica().with(|settings| settings.follow = true);
    let follow =
        node.runs_until(|action| matches!(action, Action::Guard(GuardCommand::Follow { .. })));
    node.hears(Event::GuardFailed {
        command: GuardCommandKind::Follow,
        why: "Incorrect value for option 'replication'".to_owned(),
    });
    let tell = node.runs_until(is_tell);
    let Action::Tell { entry, .. } = tell else {
        panic!("{tell:?}");
    };
    let said = "COULD NOT BE POINTED AT THE MASTER: Incorrect value";
    assert!(entry.output.contains(said), "{}", entry.output);
    assert_eq!(entry.health, Health::Warning);

    node.state.begin(&follow, node.now);
    node.answers(&follow);
    let entry = node.catalog();
    assert_eq!(entry.health, Health::Passing, "{}", entry.output);
    assert!(!entry.output.contains("POINTED"), "{}", entry.output);
}
