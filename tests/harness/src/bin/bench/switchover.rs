//! Switchovers under a writer that never pauses.

use std::time::Duration;

use tarsec_harness::{Moment, Result, Switch, Verdict, eventually};

use super::cluster::{Cluster, SOME_WRITES, SOON, judge, phase, wrong};
use super::report;

/// One write a millisecond, and as many attempts at instances that are read-only: the gap is seen to a millisecond or
/// two.
const WRITES_PER_SECOND: u32 = 1000;
const PROBE: Duration = Duration::from_millis(1);
/// Orders are spread over this time after the one before: the interval of the probes.
const PHASES: Duration = Duration::from_secs(1);
const CATCH_UP: Duration = Duration::from_secs(2);

/// One switchover: milliseconds from the last write that the old master accepted to the end of each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From the order to that last write.
    pub(crate) last_write: f64,
    pub(crate) fenced: f64,
    pub(crate) released: f64,
    pub(crate) woken: f64,
    pub(crate) acquired: f64,
    pub(crate) promoted: f64,
    pub(crate) first_write: f64,
}

/// A switchover that did not come about: the same master went on.
pub(crate) struct Undone {
    /// `refused` or `undone`, and why, as the agents put it.
    pub(crate) why: String,
    /// The longest gap between accepted writes meanwhile, in milliseconds.
    pub(crate) gap: f64,
}

pub(crate) struct Switchovers {
    pub(crate) runs: Vec<Run>,
    pub(crate) undone: Vec<Undone>,
    /// Writes that were accepted, over all orders.
    pub(crate) accepted: usize,
    /// Writes that failed with another error than that the instance is read-only.
    pub(crate) failed: usize,
}

/// Moves the master away again and again, each time to the best of the others.
pub(crate) async fn run(cluster: &Cluster<'_>, orders: u32) -> Result<Switchovers> {
    let mut switchovers = Switchovers {
        runs: Vec::new(),
        undone: Vec::new(),
        accepted: 0,
        failed: 0,
    };
    for number in 0..orders {
        let gap = switch_over(cluster, number, &mut switchovers).await?;
        report::progress("switchover", number + 1, orders, gap);
    }
    Ok(switchovers)
}

/// One order; the writer's gap in milliseconds.
async fn switch_over(cluster: &Cluster<'_>, number: u32, all: &mut Switchovers) -> Result<f64> {
    let old = cluster.rest().await?;
    let writers = cluster.writers(WRITES_PER_SECOND, PROBE).await?;
    tokio::time::sleep(phase(number, PHASES)).await;
    let board = cluster.board();
    let ordered = Moment::now();
    let id = board.request_switchover(None, CATCH_UP).await?;
    let order = board.wait_for_switchover(&id, SOON).await?;
    let is_done = order["state"] == "done";
    let master = if is_done {
        cluster.wait_for_heir(&writers, old).await?
    } else {
        cluster.set.wait_for_master(SOON).await?
    };
    writers.wait_for_writes(SOME_WRITES, SOON).await?;
    let began = writers.began_at();
    let history = writers.stop().await?;
    let verdict = judge(&history)?;
    all.accepted += verdict.accepted();
    all.failed += verdict.failed;
    cluster
        .set
        .wait_for_all_writes(master, &history, SOON)
        .await?;
    if is_done {
        let run = stages(cluster, old, ordered, began, &verdict).await?;
        all.runs.push(run);
        return Ok(run.first_write);
    }
    let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
    let gap = verdict.longest_gap.map(|gap| gap.duration());
    let gap = gap.unwrap_or_default().as_secs_f64() * 1000.0;
    all.undone.push(Undone {
        why: format!("{}: {}", text("state"), text("why")),
        gap,
    });
    Ok(gap)
}

/// What the agents logged of a switchover that was done, and the writers saw of it.
async fn stages(
    cluster: &Cluster<'_>,
    old: usize,
    ordered: Moment,
    began: Moment,
    verdict: &Verdict,
) -> Result<Run> {
    let [change] = verdict.changes.as_slice() else {
        return Err(wrong(format!("why hands changed so often:\n{verdict}")));
    };
    let stages = eventually(SOON, "the agents to have logged it all", async || {
        Switch::by_order(&cluster.agents, old, ordered)
    })
    .await?;
    let last_write = began + change.from;
    let ms = |moment: Moment| moment.ms_since(last_write);
    Ok(Run {
        last_write: last_write.ms_since(ordered),
        fenced: ms(stages.fenced),
        released: ms(stages.released),
        woken: ms(stages.woken),
        acquired: ms(stages.acquired),
        promoted: ms(stages.promoted),
        first_write: ms(began + change.to),
    })
}
