//! The oracle complains when it must, and only then.

use std::time::Duration;

use tarsec_harness::{
    Accepted, History, Outcome, ReplicaSetOptions, Tenure, Violation, World, Write,
};

const SOON: Duration = Duration::from_secs(5);

/// A history in milliseconds: each write takes one inside the instance and one on each way.
fn history(writes: &[(usize, u64, u64)]) -> History {
    let write = |(seq, (instance, term, sent)): (usize, &(usize, u64, u64))| {
        accepted(seq, *instance, *term, [*sent, sent + 1, sent + 2, sent + 3])
    };
    History {
        instances: ["a0", "a1", "a2"].map(str::to_owned).to_vec(),
        writers: ["w0", "w1", "w2"].map(str::to_owned).to_vec(),
        writes: writes.iter().enumerate().map(write).collect(),
        length: Duration::from_secs(1),
    }
}

fn accepted(seq: usize, instance: usize, term: u64, times_ms: [u64; 4]) -> Write {
    let [sent, began, ended, answered] = times_ms.map(Duration::from_millis);
    let outcome = Outcome::Accepted(Accepted {
        term,
        began,
        ended,
        lease_left_ns: None,
    });
    Write {
        instance,
        seq: seq as u64,
        sent,
        answered: Some(answered),
        outcome,
    }
}

fn tenure(instance: usize, term: u64) -> Tenure {
    Tenure { instance, term }
}

#[test]
fn a_handover_is_safe_and_measured() {
    let verdict = history(&[
        (0, 1, 10),
        (0, 1, 20),
        (1, 2, 100),
        (1, 2, 110),
        (0, 3, 150),
    ])
    .judge();
    verdict.assert_safe();
    assert_eq!(verdict.accepted(), 5);
    let lengths: Vec<u128> = verdict
        .changes
        .iter()
        .map(|gap| gap.duration().as_millis())
        .collect();
    assert_eq!(lengths, [80, 40]);
    let longest = verdict.longest_gap.expect("there are gaps");
    assert_eq!(
        (longest.before, longest.after),
        (tenure(0, 1), tenure(1, 2))
    );
}

#[test]
fn a_write_sent_before_the_successor_and_answered_after_it_is_safe() {
    let mut history = history(&[(1, 2, 100)]);
    history.writes.push(accepted(9, 0, 1, [90, 95, 99, 200]));
    let verdict = history.judge();
    verdict.assert_safe();
    assert_eq!(verdict.committed_late.writes, 0);
}

#[test]
fn a_write_committed_after_the_successors_first_is_reported_as_late() {
    let mut history = history(&[(1, 2, 100)]);
    history.writes.push(accepted(9, 0, 1, [90, 95, 150, 200]));
    let verdict = history.judge();
    verdict.assert_safe();
    assert_eq!(verdict.committed_late.writes, 1);
    assert_eq!(verdict.committed_late.worst, Duration::from_millis(49));
}

#[test]
fn a_write_sent_after_the_successors_acknowledgement_is_stale() {
    let verdict = history(&[(0, 1, 10), (1, 2, 100), (0, 1, 120)]).judge();
    assert!(verdict.violations.contains(&Violation::Stale {
        low: tenure(0, 1),
        high: tenure(1, 2),
        writes: 1,
        worst: Duration::from_millis(17),
    }));
    assert!(verdict.to_string().contains("UNSAFE"), "{verdict}");
}

#[test]
fn a_write_queued_before_the_freeze_and_run_after_the_successors_is_an_overlap() {
    // Sent long before the successor came, so the writers' own order shows nothing.
    let mut history = history(&[(0, 1, 10), (1, 2, 100)]);
    history.writes.push(accepted(9, 0, 1, [20, 300, 301, 302]));
    let violations = history.judge().violations;
    let [
        Violation::Overlap {
            low,
            high,
            writes: 1,
            ..
        },
    ] = violations.as_slice()
    else {
        panic!("{violations:?}")
    };
    assert_eq!((*low, *high), (tenure(0, 1), tenure(1, 2)));
}

#[test]
fn two_instances_at_one_term_are_a_violation_however_far_apart() {
    let verdict = history(&[(0, 1, 10), (2, 1, 900)]).judge();
    assert_eq!(
        verdict.violations,
        [Violation::SharedTerm {
            term: 1,
            instances: (0, 2)
        }]
    );
}

#[test]
fn a_write_without_a_guard_counts_as_the_lowest_term() {
    let verdict = history(&[(0, 1, 10), (1, 0, 50)]).judge();
    assert!(!verdict.is_safe(), "{verdict}");
}

#[test]
fn a_write_past_the_lease_is_counted() {
    let mut history = history(&[(0, 1, 10)]);
    history.writes[0].outcome = Outcome::Accepted(Accepted {
        term: 1,
        began: Duration::from_millis(11),
        ended: Duration::from_millis(12),
        lease_left_ns: Some(-2_000_000),
    });
    let verdict = history.judge();
    let late = verdict.past_deadline;
    assert_eq!((late.writes, late.worst), (1, Duration::from_millis(2)));
    let begun = verdict.begun_past;
    assert_eq!((begun.writes, begun.worst), (1, Duration::from_millis(1)));
}

#[test]
#[should_panic(expected = "nothing was tested")]
fn a_history_without_accepted_writes_proves_nothing() {
    history(&[]).judge().assert_safe();
}

#[tokio::test]
async fn an_honest_handover_by_hand_is_safe() {
    World::builder()
        .story("handover", async |world| {
            let set = world.replica_set(2).await?;
            let writers = set.writers().start();
            set[0].pretend_term(1).await?;
            set[0].set_writable(true).await?;
            writers.wait_for_writes(50, SOON).await?;
            set[0].set_writable(false).await?;
            set[1].pretend_term(2).await?;
            set[1].set_writable(true).await?;
            writers.wait_for_writes(50, SOON).await?;
            // A restarted instance is read-only again, and the writers find it.
            set[0].restart().await?;
            set[1].set_writable(false).await?;
            set[0].pretend_term(3).await?;
            set[0].set_writable(true).await?;
            writers.wait_for_writes(50, SOON).await?;
            let history = writers.stop().await?;
            let verdict = history.judge();
            verdict.assert_safe();
            assert_eq!(verdict.changes.len(), 2, "{verdict}");
            assert_eq!(
                set.wait_for_all_writes(1, &history, SOON).await?,
                verdict.accepted()
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn two_masters_made_by_hand_are_found_out() {
    World::builder()
        .story("two-masters", async |world| {
            let set = world.replica_set(2).await?;
            let writers = set.writers().start();
            for (index, term) in [(0, 1), (1, 2)] {
                set[index].pretend_term(term).await?;
                set[index].set_writable(true).await?;
                writers.wait_for_writes(50, SOON).await?;
            }
            let verdict = writers.verdict().await?;
            let stale =
                |violation: &Violation| matches!(violation, Violation::Stale { writes: 10.., .. });
            let overlap = |violation: &Violation| {
                matches!(violation, Violation::Overlap { writes: 10.., .. })
            };
            assert!(verdict.violations.iter().any(stale), "{verdict}");
            assert!(verdict.violations.iter().any(overlap), "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_that_slept_through_a_change_of_hands_is_found_out() {
    World::builder()
        .story("sleeper", async |world| {
            let set = world.replica_set(2).await?;
            set[0].pretend_term(1).await?;
            set[0].set_writable(true).await?;
            let writers = set.writers().start();
            writers.wait_for_writes(50, SOON).await?;
            set[0].freeze().await?;
            set[1].pretend_term(2).await?;
            set[1].set_writable(true).await?;
            writers.wait_for_writes(50, SOON).await?;
            // No writer sends anything any more: all writes that it accepts now were queued before.
            let stopping = tokio::spawn(writers.stop());
            tokio::time::sleep(Duration::from_millis(50)).await;
            set[0].thaw()?;
            let verdict = stopping.await.expect("the writers do not panic")?.judge();
            let overlap =
                |violation: &Violation| matches!(violation, Violation::Overlap { writes: 5.., .. });
            assert!(verdict.violations.iter().any(overlap), "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_loaded_instance_takes_thousands_of_writes_a_second() {
    World::builder()
        .story("load", async |world| {
            let set = world
                .replica_set_with(ReplicaSetOptions::of(1).writable_init())
                .await?;
            let writers = set.writers().rate(5_000).window(1_000).start();
            writers.wait_for_writes(5_000, SOON).await?;
            set[0].fill(16).await?;
            let verdict = writers.verdict().await?;
            verdict.assert_safe();
            assert_eq!(verdict.failed, 0, "{verdict}");
            Ok(())
        })
        .await;
}

/// What `journal_write` says of the lease while `between` runs with the write on its way to the disk; seconds.
async fn lease_left_after(world: &World, between: &str) -> f64 {
    let set = world
        .replica_set_with(ReplicaSetOptions::of(1).writable_init())
        .await
        .expect("it starts");
    let lua = "local between = ...
        local fiber = require('fiber')
        lease = {term = 1, deadline = host_now() + 5000000000ULL}
        tarsec_guard = {
            term = function() return lease.term end,
            deadline = function() return lease.deadline end,
        }
        local left
        local write = fiber.create(function() left = select(4, journal_write('hand', 0)) end)
        write:set_joinable(true)
        assert(left == nil, 'the write did not yield')
        loadstring(between)()
        write:join()
        return left / 1e9";
    let values = set[0].eval(lua, &[between.into()]).await;
    let values = values.expect("the write is accepted");
    values[0].as_f64().expect("a number")
}

#[tokio::test]
async fn a_write_in_flight_is_measured_against_the_lease_that_covered_it() {
    World::builder()
        .story("in-flight", async |world| {
            let fenced = lease_left_after(world, "lease.deadline = 0ULL").await;
            assert!((4.0..=5.0).contains(&fenced), "{fenced} s");
            let longer = "lease.deadline = lease.deadline + 5000000000ULL";
            let lengthened = lease_left_after(world, longer).await;
            assert!((9.0..=10.0).contains(&lengthened), "{lengthened} s");
            let other = "lease = {term = 2, deadline = lease.deadline + 5000000000ULL}";
            let in_vain = lease_left_after(world, other).await;
            assert!((4.0..=5.0).contains(&in_vain), "{in_vain} s");
            Ok(())
        })
        .await;
}
