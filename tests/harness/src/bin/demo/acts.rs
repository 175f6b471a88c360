//! The acts, each with what happened and how long each stage took.

use std::time::{Duration, Instant};

use tarsec_harness::{Handover, Moment, Result, Verdict, World, eventually};

use super::screen::{Screen, Step};
use super::stage::{LEASE, SOON, Stage, wrong};

/// How long the supervisor of act three takes to start the agent again.
const SUPERVISOR: Duration = Duration::from_secs(1);

/// Plays them all.
pub(crate) async fn play(screen: &Screen, world: &World) -> Result<()> {
    screen.title(
        "tarsec",
        "one writable instance per replica set, whatever dies",
    );
    let (stage, first) = open(screen, world).await?;
    let second = kill_master(screen, &stage, first).await?;
    let third = freeze_master(screen, &stage, second).await?;
    kill_agent(screen, &stage, third).await?;
    close(screen, stage).await
}

async fn open(screen: &Screen, world: &World) -> Result<(Stage, usize)> {
    screen.heading("The stage");
    let since = Instant::now();
    let consul = world.consul().await?;
    screen.good(&format!("Consul, after {}", took(since)));
    let since = Instant::now();
    let set = world.replica_set(3).await?;
    let names: Vec<&str> = set.iter().map(|instance| instance.name()).collect();
    screen.good(&format!(
        "three Tarantool instances, {}, all read-only, after {}",
        names.join(" "),
        took(since)
    ));
    let since = Moment::now();
    let stage = Stage::set(world, &consul, set).await?;
    screen.good(&format!(
        "three agents, one beside each, lease {} s",
        LEASE.as_secs()
    ));
    screen.good("writers that try to write to every instance, all the time");
    screen.blank();
    screen.say("There is no record of a master before, so every member is asked first whether it is read-only.");
    let master = stage.set.wait_for_master(SOON).await?;
    stage.rest(master).await?;
    let first_write = stage.first_write(master, since)?;
    screen.table(&stage.rows().await);
    screen.good(&format!(
        "{} is master, {:.1} s after the agents were started.",
        stage.name(master),
        first_write.ms_since(since) / 1000.0
    ));
    Ok((stage, master))
}

fn took(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

async fn kill_master(screen: &Screen, stage: &Stage, old: usize) -> Result<usize> {
    let name = stage.name(old);
    screen.heading("Act 1: the master's process is killed");
    stage.writers.wait_for_writes(50, SOON).await?;
    let pid = stage.set[old].process().pid().unwrap_or_default();
    let since = Moment::now();
    stage.set[old].kill().await?;
    let new = stage.successor(old).await?;
    let handover = handover(stage, old, new, since).await?;
    let mut steps = vec![step(
        since,
        format!("kill -9 {pid}: {name}, the master, is gone"),
    )];
    steps.extend(handover_steps(stage, old, new, &handover)?);
    tell(screen, stage, &steps, new).await?;
    bring_back(screen, stage, old, new).await?;
    Ok(new)
}

async fn freeze_master(screen: &Screen, stage: &Stage, old: usize) -> Result<usize> {
    let name = stage.name(old);
    screen.heading("Act 2: the master's process is frozen");
    screen.say(
        "It neither answers nor ends, and on waking it might acknowledge writes that are queued \
         by then. So its agent waits for the end of its lease, kills it, and only then gives up \
         the lock.",
    );
    stage.writers.wait_for_writes(50, SOON).await?;
    let pid = stage.set[old].process().pid().unwrap_or_default();
    let since = Moment::now();
    stage.set[old].freeze().await?;
    let (silent, _) = stage
        .logged(old, since, "the instance does not answer", |_| true)
        .await?;
    let (killing, _) = stage
        .logged(old, since, "killing the hung instance", |_| true)
        .await?;
    let (killed, _) = stage
        .logged(old, since, "hung instance killed", |_| true)
        .await?;
    let new = stage.successor(old).await?;
    let handover = handover(stage, old, new, since).await?;
    let mut steps = vec![
        step(
            since,
            format!("kill -STOP {pid}: {name}, the master, hangs"),
        ),
        step(silent, format!("the agent of {name} gets no answer")),
        step(
            killing,
            format!("the lease of {name} is over: a last ping, for it may have woken"),
        ),
        step(killed, format!("no answer: its agent has killed {name}")),
    ];
    steps.extend(handover_steps(stage, old, new, &handover)?);
    steps.sort_by_key(|step| step.at);
    tell(screen, stage, &steps, new).await?;
    bring_back(screen, stage, old, new).await?;
    Ok(new)
}

async fn kill_agent(screen: &Screen, stage: &Stage, master: usize) -> Result<()> {
    let name = stage.name(master);
    screen.heading("Act 3: the master's agent is killed and comes back");
    screen.say(
        "Session, term and lease stand in the guard inside the instance, so the next agent carries \
         on where this one ended.",
    );
    stage.writers.wait_for_writes(50, SOON).await?;
    let accepted = stage.writers.accepted();
    let pid = stage.agents[master].process().pid().unwrap_or_default();
    let since = Moment::now();
    stage.agents[master].kill().await?;
    // A supervisor's pause, not a wait for anything.
    tokio::time::sleep(SUPERVISOR).await;
    let again = Moment::now();
    stage.agents[master].start()?;
    let (attached, line) = stage
        .logged(master, again, "instance attached", |_| true)
        .await?;
    if line.field("leased").as_bool() != Some(true) {
        return Err(wrong("why the new agent found no lease in the guard"));
    }
    let term = line.field("term").as_u64().unwrap_or_default();
    let (serving, _) = stage
        .logged(master, again, "reason changed", |line| {
            let to = line.field("to").as_str();
            to.is_some_and(|to| to.starts_with("master: writable, the lease"))
        })
        .await?;
    outlive(stage, master, since).await?;
    let steps = [
        step(since, format!("kill -9 {pid}: the agent of {name} is gone")),
        step(again, "a supervisor starts it again".to_owned()),
        step(
            attached,
            format!("it finds session, term {term} and lease in the guard"),
        ),
        step(
            serving,
            "it holds the lock and refreshes the lease".to_owned(),
        ),
    ];
    tell(screen, stage, &steps, master).await?;
    let now = stage.writers.accepted();
    if (0..now.len()).any(|index| index != master && now[index] > accepted[index]) {
        return Err(wrong("why another instance accepted writes in act 3"));
    }
    screen.good(&format!(
        "{name} never stopped being master, at term {term}."
    ));
    Ok(())
}

/// Waits until the instance is writable beyond any lease that was granted before the agent was killed.
async fn outlive(stage: &Stage, master: usize, since: Moment) -> Result<()> {
    eventually(SOON, "the old agent's last lease to be over", async || {
        let elapsed_ms = Moment::now().ms_since(since);
        if elapsed_ms > LEASE.as_secs_f64() * 1000.0 {
            Ok(())
        } else {
            Err(format!("{elapsed_ms:.0} ms have passed"))
        }
    })
    .await?;
    stage.writers.wait_for_writes(50, SOON).await?;
    stage.expect_master(master).await
}

fn step(at: Moment, words: String) -> Step {
    Step { at, words }
}

async fn handover(stage: &Stage, old: usize, new: usize, since: Moment) -> Result<Handover> {
    let handover = eventually(SOON, "the agents to have logged it all", async || {
        Handover::after_crash(&stage.agents, old, since)
    })
    .await?;
    if handover.winner == new {
        Ok(handover)
    } else {
        let (winner, new) = (stage.name(handover.winner), stage.name(new));
        Err(wrong(format!(
            "why {new} accepted a write while {winner} holds the lock"
        )))
    }
}

/// The stages from a death to the first write at the next master, in the order in which they were logged.
fn handover_steps(stage: &Stage, old: usize, new: usize, stages: &Handover) -> Result<Vec<Step>> {
    let (old, winner) = (stage.name(old), stage.name(new));
    let first_write = stage.first_write(new, stages.death_seen)?;
    let mut steps = vec![
        step(
            stages.death_seen,
            format!("the agent of {old} has proof of its death"),
        ),
        step(
            stages.released,
            format!("it has given the lock up, saying that {old} is over"),
        ),
        step(
            stages.woken,
            format!("the agent of {winner} sees that the lock is free"),
        ),
        step(
            stages.elected,
            format!("it knows that it is the turn of {winner}"),
        ),
        step(
            stages.acquired,
            format!("the agent of {winner} holds the lock"),
        ),
        step(stages.promoted, format!("{winner} is writable")),
        step(first_write, format!("{winner} has accepted a write")),
    ];
    steps.sort_by_key(|step| step.at);
    Ok(steps)
}

async fn tell(screen: &Screen, stage: &Stage, steps: &[Step], master: usize) -> Result<()> {
    screen.timeline(steps);
    stage.writers.wait_for_writes(20, SOON).await?;
    stage.expect_master(master).await?;
    screen.table(&stage.rows().await);
    let since = steps.first().map_or_else(Moment::now, |step| step.at);
    let gap = stage.longest_gap(since)?.duration().as_secs_f64() * 1000.0;
    screen.good(&format!(
        "{} is master and nobody else is writable. The longest time without an accepted write: \
         {gap:.0} ms.",
        stage.name(master)
    ));
    Ok(())
}

async fn bring_back(screen: &Screen, stage: &Stage, dead: usize, master: usize) -> Result<()> {
    eventually(SOON, "the dead process to be gone", async || {
        let gone = !stage.set[dead].process().is_running();
        gone.then_some(()).ok_or("it is there")
    })
    .await?;
    let since = Instant::now();
    stage.set[dead].start().await?;
    stage.rest(master).await?;
    stage.expect_master(master).await?;
    screen.good(&format!(
        "{} is started again and follows {} as a replica, after {:.1} s.",
        stage.name(dead),
        stage.name(master),
        since.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn close(screen: &Screen, stage: Stage) -> Result<()> {
    screen.heading("The oracle's verdict");
    let history = stage.writers.stop().await?;
    let verdict = history.judge();
    tell_shares(screen, &verdict);
    if !verdict.is_safe() || verdict.accepted() == 0 {
        return Err(wrong(format!(
            "how there could be more than one master:\n{verdict}"
        )));
    }
    screen.good(&format!(
        "{} writes were accepted, never by two masters at a time.",
        verdict.accepted()
    ));
    for index in 0..stage.set.len() {
        stage.set.wait_for_all_writes(index, &history, SOON).await?;
    }
    screen.good("Every instance has every one of them.");
    Ok(())
}

fn tell_shares(screen: &Screen, verdict: &Verdict) {
    for share in &verdict.shares {
        let name = verdict
            .instances
            .get(share.tenure.instance)
            .map_or("?", String::as_str);
        screen.say(&format!(
            "term {}: {name} accepted {} writes, from {:.1} s to {:.1} s",
            share.tenure.term,
            share.writes,
            share.first_answered.as_secs_f64(),
            share.last_answered.as_secs_f64()
        ));
    }
    if let Some(gap) = &verdict.longest_gap {
        screen.say(&format!(
            "the longest time without an accepted write: {:.2} s",
            gap.duration().as_secs_f64()
        ));
    }
}
