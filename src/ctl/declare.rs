//! `tarsec resume --master-is-down`: an operator's word that a paused master does not run. While it is paused nothing
//! bounds for how long it may be writable, so no agent can know; this is the one way on when its agent is gone, too.

use std::time::Duration;

use super::context::{Context, operator};
use super::outcome::{Ended, Outcome};
use super::view::{LockSight, SetState, SetView};
use crate::cli::{ResumeArgs, Scope};
use crate::clock;
use crate::consul::{LockOutcome, LockStep};
use crate::decide::ending::{End, How};
use crate::decide::record::{Record, Status};

/// For the election and the promotion, beside a lease.
const SUCCESSION: Duration = Duration::from_secs(15);

pub(super) async fn run(context: &mut Context<'_>, args: &ResumeArgs) -> Result<Outcome, Ended> {
    let name = match args.reach.scope() {
        Scope::ReplicaSet(name) => name,
        Scope::Cluster => None,
    };
    let view = context.look().await?;
    let uuid = view.choose(name)?.replicaset.clone();
    let view = context
        .reader
        .wait_for_signs(view, |set| set == uuid)
        .await?;
    let set = view.choose(Some(&uuid))?;
    let record = check(set)?;
    let master = &record.name;
    context.terminal.ask(
        &format!(
            "You declare that {master} does not run, neither its process nor anything that may start it writable. \
             Another instance becomes master. Should {master} run after all, both accept writes, and some of them \
             will be lost."
        ),
        args.yes,
    )?;
    declare(context, &set.lock, record).await?;
    context
        .terminal
        .say(&format!("declared that {master} does not run"))?;
    if set.own_pause {
        let keys = context.config.keys().replicaset(&uuid);
        context.consul.delete_key(&keys.pause()).await?;
    }
    if view.pause.is_some() {
        let why = "the whole cluster is paused, nobody takes over before tarsec resume --cluster";
        return Err(Ended::new(Outcome::NoMaster, why));
    }
    if args.no_wait {
        return Ok(Outcome::Done);
    }
    wait_for_successor(context, &uuid, record).await
}

/// No operator's word is needed where an agent or time can tell.
fn check(set: &SetView) -> Result<&Record, Ended> {
    let refused = |why: String| Err(Ended::new(Outcome::Refused, why));
    let Some(record) = &set.lock.record else {
        return refused("the lock key holds no record that could be declared over".to_owned());
    };
    let name = &record.name;
    if record.status == Status::Fenced {
        return refused(format!("{name} has said itself that it is over"));
    }
    // Candidates believe either, the record or its writer's own key.
    let mut members = set.members.iter();
    let stands_down = members.any(|it| it.instance == record.instance && it.stands_down);
    if !record.paused && !stands_down {
        return refused(format!(
            "{name} is not paused: another takes over by itself once its lease is over"
        ));
    }
    let seen = set.lease.and_then(|lease| lease.refreshed_ms_ago);
    if seen.is_some() {
        return refused(format!(
            "the agent of {name} has just refreshed the lock, so it runs and knows better: tarsec resume"
        ));
    }
    Ok(record)
}

/// Ends the hold in the record's own words, if nobody has touched the lock since it was looked at.
async fn declare(context: &Context<'_>, lock: &LockSight, record: &Record) -> Result<(), Ended> {
    let id = clock::random_id()
        .map_err(|error| Ended::new(Outcome::Failed, format!("no randomness: {error}")))?;
    let over = over(record, &id, &operator());
    let step = LockStep::Declare {
        index: lock.index,
        holder: lock.session.clone(),
        value: over.to_bytes(),
    };
    match context.consul.transact(&lock.key, &step).await {
        Ok(LockOutcome::Done { .. }) => Ok(()),
        Ok(LockOutcome::Refused { why }) => {
            let why = format!("the lock has changed in this moment, look again ({why})");
            Err(Ended::new(Outcome::Refused, why))
        }
        Err(error) if error.is_denied() => Err(error.into()),
        // The reply is lost, it may be done.
        Err(error) => {
            let found = context.consul.read_lock(&lock.key).await.ok();
            let key = found.and_then(|view| view.key);
            let now = key.and_then(|key| Record::parse(&key.value).ok());
            if now.is_some_and(|now| now.agent == id) {
                Ok(())
            } else {
                Err(error.into())
            }
        }
    }
}

/// The record as its holder would have written it at its end; the vclock stays, rows at risk are counted from it.
fn over(record: &Record, id: &str, by: &str) -> Record {
    Record {
        agent: id.to_owned(),
        status: Status::Fenced,
        refresh: record.refresh.saturating_add(1),
        reason: format!("{by} declared that it does not run"),
        paused: false,
        refused: false,
        last_master: None,
        // Nobody knows since when it does not run.
        end: Some(End {
            how: How::ByHand,
            by: Some(by.to_owned()),
            ..End::default()
        }),
        handover_to: None,
        problems: Vec::new(),
        ..record.clone()
    }
}

async fn wait_for_successor(
    context: &mut Context<'_>,
    uuid: &str,
    old: &Record,
) -> Result<Outcome, Ended> {
    let deadline = old.lease() + SUCCESSION;
    let successor = context
        .reader
        .wait_until(deadline, |view| {
            let set = view.set(uuid)?;
            let is_new = set.state == SetState::Master && set.term > Some(old.term);
            is_new.then(|| (set.holder_name().to_owned(), set.term.unwrap_or_default()))
        })
        .await?;
    match successor {
        Some((name, term)) => {
            context
                .terminal
                .say(&format!("done: {name} is master, term {term}"))?;
            Ok(Outcome::Done)
        }
        None => {
            let why = "nobody has become master yet, see tarsec status";
            Err(Ended::new(Outcome::NotInTime, why))
        }
    }
}

#[cfg(test)]
mod tests;
