//! Faults, done and undone.

use std::time::Duration;

use tarsec_harness::{Agent, Error, Fault, Instance, Machine, Process, Proxy, Result};

use super::schedule::{Harm, Kind, MEMBERS, Strike};
use super::settle::wrong;
use super::stage::{Stage, chain, letter};

/// How long one more refresh takes at a lease of three seconds, and some.
const A_REFRESH: Duration = Duration::from_secs(1);
/// Long enough for an agent to find its instance silent.
const APART: Duration = Duration::from_millis(400);
/// How long an operator waits for a command.
const COMMAND: Duration = Duration::from_secs(10);

/// How a fault ends.
enum Undo<'a> {
    Nothing,
    Release(Vec<&'a Process>),
    Thaw(Vec<&'a Process>),
    Restore(Vec<Proxy>),
    Resume(usize),
}

/// Does what is to be done, waits for as long as it lasts, and undoes it.
pub(crate) async fn carry_out(stage: &Stage<'_>, strike: &Strike) {
    let begun = tokio::time::Instant::now();
    let label = strike.label();
    match begin(stage, strike).await {
        Ok((undo, what)) => {
            let lasts = strike.lasts.as_secs_f64();
            stage
                .journal
                .say(&format!("{label}: {what}, for {lasts:.1} s"));
            stage.journal.happened(label.clone());
            tokio::time::sleep_until(begun + strike.lasts).await;
            let ended = end(stage, undo, strike.large).await;
            if let Err(error) = ended {
                stage
                    .journal
                    .violation(format!("{label} was not undone: {}", chain(&error)));
            } else {
                stage.journal.say(&format!("    over: {label}: {what}"));
            }
        }
        Err(error) => {
            stage
                .journal
                .say(&format!("{label}: in vain: {}", chain(&error)));
            stage.journal.in_vain(label);
            tokio::time::sleep_until(begun + strike.lasts).await;
        }
    }
}

async fn begin<'a>(stage: &'a Stage<'_>, strike: &'a Strike) -> Result<(Undo<'a>, String)> {
    let side = &stage.sides[strike.set];
    let member = stage.member(strike).await;
    let (instance, agent) = (&side.set[member], &side.agents[member]);
    match strike.kind {
        Kind::KillInstance => kill(stage, vec![instance.process()]),
        Kind::KillAgent => kill(stage, vec![agent.process()]),
        // The agent first: it must not see the instance die.
        Kind::KillMachine => kill(stage, vec![agent.process(), instance.process()]),
        Kind::FreezeInstance => freeze(stage, instance.process()).await,
        Kind::FreezeAgent => freeze(stage, agent.process()).await,
        Kind::FreezeMachine => freeze_machine(stage, strike, instance, agent).await,
        Kind::AgentToConsul => {
            let links = agent.consul_link().into_iter().cloned().collect();
            harm(strike, links, agent.process().name().to_owned()).await
        }
        Kind::AgentToInstance => {
            let own = agent.instance_link().into_iter();
            let others = agent.announced_link().filter(|_| strike.large);
            let links = own.chain(others).cloned().collect();
            harm(strike, links, agent.process().name().to_owned()).await
        }
        Kind::InstanceToInstance => harm_replication(stage, strike, member).await,
        Kind::KillConsul => {
            let server = consul_server(stage, strike).await?;
            kill(stage, vec![stage.consul.servers()[server].process()])
        }
        Kind::FreezeConsul => {
            let server = consul_server(stage, strike).await?;
            freeze(stage, stage.consul.servers()[server].process()).await
        }
        Kind::DestroySession => destroy_session(stage, strike).await,
        Kind::DeleteLock => {
            let (server, _) = stage.server().await?;
            let key = stage.world.board(&stage.consul, &side.set).key("leader");
            let api = stage.consul.servers()[server].api();
            side.lock_touched.set(true);
            api.kv_delete(&key).await?;
            Ok((Undo::Nothing, format!("set {}", letter(strike.set))))
        }
        Kind::OverwriteLock => overwrite_lock(stage, strike).await,
        Kind::WritableByHand => writable_by_hand(stage, strike, member).await,
        Kind::Switchover => switch_over(stage, strike, member).await,
        Kind::Pause => pause(stage, strike).await,
    }
}

/// `apart`: what stood still as one goes on one after the other.
async fn end(stage: &Stage<'_>, undo: Undo<'_>, apart: bool) -> Result<()> {
    match undo {
        Undo::Nothing => {}
        // The supervisor does the rest.
        Undo::Release(processes) => processes.iter().for_each(|one| stage.release(one)),
        Undo::Thaw(processes) => {
            for (at, process) in processes.into_iter().enumerate() {
                if at > 0 && apart {
                    tokio::time::sleep(APART).await;
                }
                // It may have been killed for its silence.
                process.thaw().ok();
                stage.stalls.ends(process.name());
            }
        }
        Undo::Restore(links) => {
            for link in links {
                link.restore().await?;
            }
        }
        Undo::Resume(set) => stage.resume(set).await?,
    }
    Ok(())
}

fn kill<'a>(stage: &Stage<'_>, processes: Vec<&'a Process>) -> Result<(Undo<'a>, String)> {
    let running: Vec<_> = processes
        .into_iter()
        .filter(|one| one.is_running())
        .collect();
    let names = names(&running);
    if running.is_empty() {
        return Err(Error::NotRunning {
            name: "the target".to_owned(),
        });
    }
    for process in &running {
        stage.hold(process);
        // It may end by itself in this very moment, which is as good.
        process.kill_no_wait().ok();
    }
    Ok((Undo::Release(running), names))
}

async fn freeze<'a>(stage: &Stage<'_>, process: &'a Process) -> Result<(Undo<'a>, String)> {
    stage.stalls.begins(process.name());
    process.freeze().await.inspect_err(|_| {
        process.thaw().ok();
        stage.stalls.ends(process.name());
    })?;
    Ok((Undo::Thaw(vec![process]), process.name().to_owned()))
}

async fn freeze_machine<'a>(
    stage: &Stage<'_>,
    strike: &Strike,
    instance: &'a Instance,
    agent: &'a Agent,
) -> Result<(Undo<'a>, String)> {
    // The instance wakes first, which is the harder case for writes that are late. That the agent does is the harder case
    // for the instance, which it might take for hung, above all where it fell silent before the agent stood still.
    let mut both = vec![instance.process(), agent.process()];
    both.iter().for_each(|one| stage.stalls.begins(one.name()));
    if strike.large {
        both.reverse();
        instance.process().freeze().await.ok();
        tokio::time::sleep(APART).await;
    }
    let frozen = Machine::of(instance, agent).freeze().await;
    frozen.inspect_err(|_| {
        both.iter().for_each(|process| {
            process.thaw().ok();
            stage.stalls.ends(process.name());
        });
    })?;
    let names = names(&both);
    Ok((Undo::Thaw(both), names))
}

async fn harm(strike: &Strike, links: Vec<Proxy>, whose: String) -> Result<(Undo<'_>, String)> {
    let fault = match strike.harm {
        Harm::Cut => Fault::Cut,
        Harm::BlackHole => Fault::BlackHole,
        Harm::Delay(each_way) => Fault::Delay {
            to_target: each_way,
            to_client: each_way,
        },
    };
    for link in &links {
        link.set(fault).await?;
    }
    let by = match strike.harm {
        Harm::Cut | Harm::BlackHole => String::new(),
        Harm::Delay(each_way) => format!(" by {each_way:?} each way"),
    };
    let what = format!("{whose}, {} links{by}", links.len());
    Ok((Undo::Restore(links), what))
}

async fn harm_replication<'a>(
    stage: &Stage<'_>,
    strike: &'a Strike,
    member: usize,
) -> Result<(Undo<'a>, String)> {
    let set = &stage.sides[strike.set].set;
    let others = (0..MEMBERS).filter(|other| *other != member);
    if strike.large {
        let both = others.flat_map(|other| [(member, other), (other, member)]);
        let links = both.filter_map(|(follower, source)| set.link(follower, source));
        return harm(
            strike,
            links.cloned().collect(),
            set[member].name().to_owned(),
        )
        .await;
    }
    let follower = (member + 1) % MEMBERS;
    let links = set.link(follower, member).into_iter().cloned().collect();
    let what = format!("{} to {}", set[member].name(), set[follower].name());
    harm(strike, links, what).await
}

async fn consul_server(stage: &Stage<'_>, strike: &Strike) -> Result<usize> {
    let (_, leader) = stage.server().await?;
    let leader = leader.ok_or(Error::NotRunning {
        name: "a Consul leader".to_owned(),
    })?;
    let servers = stage.consul.servers().len();
    Ok(if strike.large {
        leader
    } else {
        (leader + 1) % servers
    })
}

async fn destroy_session<'a>(stage: &Stage<'_>, strike: &Strike) -> Result<(Undo<'a>, String)> {
    let (server, _) = stage.server().await?;
    let api = stage.consul.servers()[server].api();
    let set = &stage.sides[strike.set].set;
    let lock = api
        .kv(&stage.world.board(&stage.consul, set).key("leader"))
        .await?;
    let session = lock
        .and_then(|entry| entry.session)
        .ok_or(Error::NotRunning {
            name: "a session that holds the lock".to_owned(),
        })?;
    api.destroy_session(&session).await?;
    Ok((Undo::Nothing, format!("set {}", letter(strike.set))))
}

async fn overwrite_lock<'a>(stage: &Stage<'_>, strike: &Strike) -> Result<(Undo<'a>, String)> {
    let (server, _) = stage.server().await?;
    let api = stage.consul.servers()[server].api();
    let set = &stage.sides[strike.set].set;
    let key = stage.world.board(&stage.consul, set).key("leader");
    let (value, words) = if strike.large {
        let old = api.kv(&key).await?;
        let old = old.ok_or(Error::NotRunning {
            name: "a lock key".to_owned(),
        })?;
        tokio::time::sleep(A_REFRESH).await;
        (old.value, "an old copy of its record")
    } else {
        ("not a record".to_owned(), "garbage")
    };
    stage.sides[strike.set].lock_touched.set(true);
    api.kv_put(&key, value).await?;
    Ok((
        Undo::Nothing,
        format!("set {} with {words}", letter(strike.set)),
    ))
}

/// Where no guard is yet, nothing keeps an instance from staying writable: see docs/LIMITS.md.
const BY_HAND: &str = "
if rawget(_G, 'tarsec_guard') == nil then error('no guard is installed yet') end
box.cfg{read_only = false}
";

async fn writable_by_hand<'a>(
    stage: &Stage<'_>,
    strike: &Strike,
    member: usize,
) -> Result<(Undo<'a>, String)> {
    let instance = &stage.sides[strike.set].set[strike_target(strike, member)];
    instance.eval(BY_HAND, &[]).await?;
    Ok((Undo::Nothing, instance.name().to_owned()))
}

async fn switch_over<'a>(
    stage: &Stage<'_>,
    strike: &Strike,
    member: usize,
) -> Result<(Undo<'a>, String)> {
    let side = &stage.sides[strike.set];
    let target = &side.agents[strike_target(strike, member)];
    let mut args = vec!["switchover", "--replicaset", side.set.uuid()];
    // Operators know it as its agent announces it.
    let announced = target.announced_link().filter(|_| strike.large);
    if let Some(link) = announced {
        args.extend(["--to", link.addr()]);
    }
    let (done, words) = stage.order(&args, COMMAND).await?;
    let words = format!("set {}: {words}", letter(strike.set));
    if done {
        Ok((Undo::Nothing, words))
    } else {
        Err(wrong(words))
    }
}

async fn pause<'a>(stage: &Stage<'_>, strike: &Strike) -> Result<(Undo<'a>, String)> {
    let args = ["pause", "--replicaset", stage.sides[strike.set].set.uuid()];
    let paused = stage.order(&args, COMMAND).await;
    let words = paused.map_or_else(|error| chain(&error), |(_, words)| words);
    // An order may stand though the command did not see it obeyed. Where no server can say, there may be one.
    if matches!(stage.is_pause_ordered(strike.set).await, Ok(false)) {
        return Err(wrong(words));
    }
    let set = letter(strike.set);
    Ok((Undo::Resume(strike.set), format!("set {set}: {words}")))
}

/// Another than the master, where the master was drawn.
fn strike_target(strike: &Strike, member: usize) -> usize {
    match strike.target {
        super::schedule::Target::Member(_) => member,
        super::schedule::Target::Master => (member + 1) % MEMBERS,
    }
}

fn names(processes: &[&Process]) -> String {
    let names: Vec<_> = processes.iter().map(|process| process.name()).collect();
    names.join(" and ")
}
