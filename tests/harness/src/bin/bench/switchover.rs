//! Switchovers under a writer that never pauses.

use std::time::Duration;

use tarsec_harness::{Moment, Result, Switch, eventually};

use super::cluster::{Cluster, SOON, judge, phase, wrong};
use super::report;

/// One write a millisecond, and as many attempts at whoever is read-only: the gap is seen to a millisecond or two.
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

/// All switchovers.
pub(crate) struct Switchovers {
    pub(crate) runs: Vec<Run>,
    /// Writes that were accepted, over all runs.
    pub(crate) accepted: usize,
    /// Writes that failed with another error than that the instance is read-only.
    pub(crate) failed: usize,
}

/// Moves the master away again and again, each time to the best of the others.
pub(crate) async fn run(cluster: &Cluster<'_>, runs: u32) -> Result<Switchovers> {
    let mut switchovers = Switchovers {
        runs: Vec::new(),
        accepted: 0,
        failed: 0,
    };
    for number in 0..runs {
        let run = switch_over(cluster, number, &mut switchovers).await?;
        report::progress("switchover", number + 1, runs, run.first_write);
        switchovers.runs.push(run);
    }
    Ok(switchovers)
}

async fn switch_over(cluster: &Cluster<'_>, number: u32, all: &mut Switchovers) -> Result<Run> {
    let old = cluster.rest().await?;
    let writers = cluster.writers(WRITES_PER_SECOND, PROBE).await?;
    tokio::time::sleep(phase(number, PHASES)).await;
    let board = cluster.board();
    let ordered = Moment::now();
    let id = board.request_switchover(None, CATCH_UP).await?;
    let heir = cluster.wait_for_heir(&writers, old).await;
    let order = board.wait_for_switchover(&id, SOON).await?;
    if order["state"] != "done" {
        return Err(wrong(format!("why a switchover ended so: {order}")));
    }
    let heir = heir?;
    let began = writers.began_at();
    let history = writers.stop().await?;
    let verdict = judge(&history)?;
    all.accepted += verdict.accepted();
    all.failed += verdict.failed;
    cluster
        .set
        .wait_for_all_writes(heir, &history, SOON)
        .await?;
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
