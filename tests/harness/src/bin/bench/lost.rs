//! Machines that are lost with all that stands on them: instance and agent.

use std::time::Duration;

use tarsec_harness::{ConsulApi, Error, Moment, Result, TakeOver, eventually};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cluster::{Cluster, SOON, WRITE_PROBE, first_accepted, judge, phase, wrong};
use super::report;

const WRITES_PER_SECOND: u32 = 200;
/// Below the client's own deadline.
const WATCH_SECONDS: u32 = 3;

/// One loss: milliseconds from the kill to the end of each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// When the lock was up for grabs: its last refresh seen before the kill, plus lease and margin.
    pub(crate) up_for_grabs: f64,
    pub(crate) elected: f64,
    pub(crate) acquired: f64,
    pub(crate) promoted: f64,
    pub(crate) first_write: f64,
}

/// All losses at one lease.
pub(crate) struct Losses {
    pub(crate) lease: Duration,
    pub(crate) runs: Vec<Run>,
    /// Writes that were accepted, over all runs.
    pub(crate) accepted: usize,
}

/// Kills the master's instance and agent together, again and again; the agents have this lease.
pub(crate) async fn run(cluster: &Cluster<'_>, lease: Duration, runs: u32) -> Result<Losses> {
    let mut losses = Losses {
        lease,
        runs: Vec::new(),
        accepted: 0,
    };
    let what = format!("lost machine, lease {} s,", lease.as_secs());
    for number in 0..runs {
        let (run, accepted) = lose(cluster, lease, number).await?;
        report::progress(&what, number + 1, runs, run.first_write);
        losses.runs.push(run);
        losses.accepted += accepted;
    }
    Ok(losses)
}

async fn lose(cluster: &Cluster<'_>, lease: Duration, number: u32) -> Result<(Run, usize)> {
    let old = cluster.set.wait_for_master(SOON).await?;
    let word = LastWord::of(cluster).await?;
    let writers = cluster.writers(WRITES_PER_SECOND, WRITE_PROBE).await?;
    tokio::time::sleep(phase(number, lease / 4)).await;
    let killed = Moment::now();
    cluster.machine(old).kill_no_wait()?;
    // A refresh may have been on its way.
    cluster.machine(old).wait_gone().await?;
    let last_word = word.last(cluster).await?;
    cluster.wait_for_heir(&writers, old).await?;
    let began = writers.began_at();
    let history = writers.stop().await?;
    let verdict = judge(&history)?;
    let stages = eventually(SOON, "the agents to have logged it all", async || {
        TakeOver::after_loss(&cluster.agents, old, killed)
    })
    .await?;
    let first_write = first_accepted(&history, began, stages.winner, killed)?;
    let ms = |moment: Moment| moment.ms_since(killed);
    let run = Run {
        up_for_grabs: ms(last_word + lease + margin(lease)),
        elected: ms(stages.elected),
        acquired: ms(stages.acquired),
        promoted: ms(stages.promoted),
        first_write: ms(first_write),
    };
    cluster.machine(old).start().await?;
    cluster.rest().await?;
    Ok((run, verdict.accepted()))
}

/// What a successor waits beyond the lease: 2 % of it and 250 ms.
fn margin(lease: Duration) -> Duration {
    lease / 50 + Duration::from_millis(250)
}

/// Watches when the holder last refreshed its record, as a candidate does.
struct LastWord {
    seen: watch::Receiver<(u64, Moment)>,
    task: JoinHandle<Result<()>>,
}

impl LastWord {
    /// Returns once it has seen a refresh that came while it watched.
    async fn of(cluster: &Cluster<'_>) -> Result<Self> {
        let api = cluster.consul.api()?.clone();
        let key = cluster.board().key("leader");
        let (tell, mut seen) = watch::channel((0, Moment::now()));
        let task = tokio::spawn(watch_key(api, key, tell));
        for _ in 0..2 {
            let changed = tokio::time::timeout(SOON, seen.changed()).await;
            changed
                .map_err(|_| wrong("why the record is not refreshed"))?
                .map_err(|_| wrong("why the record cannot be watched"))?;
        }
        Ok(Self { seen, task })
    }

    /// When the last write of a holder that is gone was seen.
    async fn last(mut self, cluster: &Cluster<'_>) -> Result<Moment> {
        let index = cluster
            .board()
            .lock()
            .await?
            .map_or(0, |key| key.modify_index);
        let seen = tokio::time::timeout(SOON, self.seen.wait_for(|(seen, _)| *seen >= index)).await;
        self.task.abort();
        let seen = seen.map_err(|_| wrong("when the record was refreshed last"))?;
        let (_, at) = *seen.map_err(|_| wrong("why the record cannot be watched"))?;
        Ok(at)
    }
}

async fn watch_key(
    api: ConsulApi,
    key: String,
    tell: watch::Sender<(u64, Moment)>,
) -> Result<(), Error> {
    loop {
        let (index, _) = *tell.borrow();
        let path = format!("/v1/kv/{key}?consistent&index={index}&wait={WATCH_SECONDS}s");
        let answer = api.get(&path).await?;
        let now = answer[0]["ModifyIndex"].as_u64().unwrap_or(0);
        if now > index {
            tell.send_replace((now, Moment::now()));
        }
    }
}
