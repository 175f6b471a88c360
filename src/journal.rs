//! What goes into the log: INFO when something changed, DEBUG for every changed field.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use tracing::{Level, debug, enabled, error, info, warn};

use crate::decide::board::{Switchover, SwitchoverState};
use crate::decide::event::{Event, GuardCommandKind, KillResult, LockStepKind};
use crate::decide::plan::{Action, GuardCommand, Reason};
use crate::decide::record::Status;
use crate::decide::state::State;

pub(crate) mod feed;
pub(crate) mod past;
pub(crate) mod problems;
pub(crate) mod silence;
#[cfg(test)]
mod tests;
pub(crate) mod vshard;

/// What was said last about actions that are tried again and again, so that it is said once.
#[derive(Debug, Default)]
pub(crate) struct Said {
    last: HashMap<Topic, String>,
    /// The problems of the replica set.
    problems: BTreeSet<String>,
    /// The instance's silence, while it lasts.
    silence: Option<silence::Silence>,
}

/// Something that can fail, or look the same, many times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Guard,
    Session,
    ReadLock,
    WatchLock,
    FreeLock,
    LockStep,
    Acquiring,
    Catalog,
    Member,
    Board,
    Ballot,
    Orders,
    History,
    HistoryLine,
    Interruption,
    Promises,
    Vshard,
    Masters,
    Feed,
    Follow,
}

impl Said {
    /// Whether these are other words than the last ones, which they replace.
    fn is_news(&mut self, topic: Topic, words: &str) -> bool {
        let known = self.last.get(&topic).is_some_and(|last| last == words);
        if !known {
            self.last.insert(topic, words.to_owned());
        }
        !known
    }

    /// These went well: the next failure is news.
    fn forget(&mut self, topics: &[Topic]) {
        self.last.retain(|topic, _| !topics.contains(topic));
    }
}

/// Says what happened, where it is more than routine.
pub(crate) fn event(said: &mut Said, event: &Event) {
    if is_news(said, event) {
        say(event);
    }
}

/// Whether this is not just another failure of the same kind, for the same reason.
fn is_news(said: &mut Said, event: &Event) -> bool {
    match event {
        Event::GuardFailed { why, .. } => said.is_news(Topic::Guard, why),
        Event::GuardAnswered {
            command: GuardCommandKind::Follow,
            refused,
            ..
        } => said.is_news(Topic::Follow, refused.as_deref().unwrap_or_default()),
        Event::GuardAnswered { .. } => {
            said.forget(&[Topic::Guard]);
            true
        }
        Event::SessionCreated { result: Err(fault) }
        | Event::SessionRenewed {
            result: Err(fault), ..
        } => said.is_news(Topic::Session, &fault.why),
        Event::SessionCreated { result: Ok(_) } | Event::SessionRenewed { result: Ok(_), .. } => {
            said.forget(&[Topic::Session]);
            true
        }
        Event::LockRead {
            by_watch,
            result: Err(fault),
            ..
        } => {
            let topic = if *by_watch {
                Topic::WatchLock
            } else {
                Topic::ReadLock
            };
            said.is_news(topic, &fault.why)
        }
        Event::LockRead {
            result: Ok(sight), ..
        } => {
            said.forget(&[Topic::ReadLock, Topic::WatchLock]);
            match &sight.key {
                Some(key) if key.session.is_some() => {
                    said.forget(&[Topic::FreeLock]);
                    true
                }
                // Without a key the index is that of the whole store, which says nothing.
                Some(_) => said.is_news(Topic::FreeLock, &sight.index.to_string()),
                None => said.is_news(Topic::FreeLock, "missing"),
            }
        }
        Event::LockStepEnded {
            result: Err(fault), ..
        } => said.is_news(Topic::LockStep, &fault.why),
        Event::LockStepEnded { result: Ok(_), .. } => {
            said.forget(&[Topic::LockStep, Topic::Acquiring, Topic::Promises]);
            true
        }
        Event::CatalogEnded { result: Err(fault) } => said.is_news(Topic::Catalog, &fault.why),
        Event::CatalogEnded { result: Ok(_) } => {
            said.forget(&[Topic::Catalog]);
            true
        }
        Event::MemberEnded { result: Err(fault) } => said.is_news(Topic::Member, &fault.why),
        Event::MemberEnded { result: Ok(()) } => {
            said.forget(&[Topic::Member]);
            true
        }
        Event::BoardRead { result: Err(fault) }
        | Event::BoardSeen {
            result: Err(fault), ..
        } => said.is_news(Topic::Board, &fault.why),
        Event::BallotWritten {
            result: Err(fault), ..
        }
        | Event::BallotsRead { result: Err(fault) } => said.is_news(Topic::Ballot, &fault.why),
        Event::SwitchoverWritten { result: Err(fault) } => said.is_news(Topic::Orders, &fault.why),
        Event::HistoryRead { result: Err(fault) }
        | Event::HistoryWritten {
            result: Err(fault), ..
        } => said.is_news(Topic::History, &fault.why),
        Event::BoardRead { result: Ok(_) } | Event::BoardSeen { result: Ok(_), .. } => {
            said.forget(&[Topic::Board]);
            true
        }
        Event::BallotWritten { result: Ok(_), .. } | Event::BallotsRead { result: Ok(_) } => {
            said.forget(&[Topic::Ballot]);
            true
        }
        Event::SwitchoverWritten { result: Ok(_) } => {
            said.forget(&[Topic::Orders]);
            true
        }
        Event::HistoryRead { result: Ok(_) } | Event::HistoryWritten { result: Ok(()), .. } => {
            said.forget(&[Topic::History]);
            true
        }
        Event::Vshard(event) => vshard::is_news(said, event),
        Event::PromisesAnswered { answers, .. } => {
            said.is_news(Topic::Promises, &refusals(answers))
        }
        Event::Attached { .. }
        | Event::Unreachable { .. }
        | Event::FellSilent
        | Event::SpokeAgain
        | Event::Died { .. }
        | Event::Unsuitable { .. }
        | Event::Superseded { .. }
        | Event::KillEnded { .. }
        | Event::SessionDestroyed
        | Event::SwitchoverSeen { .. }
        | Event::NeighboursSeen(_)
        | Event::MembersSeen(_)
        | Event::StopRequested { .. }
        | Event::Woke
        | Event::Overslept { .. } => true,
    }
}

fn say(event: &Event) {
    match event {
        Event::Attached { probe, process } => {
            info!(
                uuid = probe.uuid,
                replicaset = probe.replicaset_uuid,
                ro = probe.ro,
                term = probe.guard.term.get(),
                leased = probe.guard.leased,
                "instance attached"
            );
            if let Err(why) = process {
                warn!(
                    why,
                    "the instance's process cannot be seen or killed from here: should it hang, its lease is waited out"
                );
            }
        }
        Event::Unreachable { why } => warn!(why, "instance unreachable"),
        // Only a silence that lasts is news: `silence`.
        Event::FellSilent => debug!("instance fell silent"),
        Event::SpokeAgain => debug!("instance speaks again"),
        Event::Died { proof } => warn!(proof, "instance died"),
        Event::Unsuitable { why } => error!(why, "instance unsuitable"),
        Event::Superseded { by } => error!(by, "superseded"),
        Event::GuardAnswered {
            command,
            probe,
            refused,
        } => guard_answered(*command, probe.ro, refused.as_deref()),
        Event::GuardFailed {
            command: GuardCommandKind::Follow,
            why,
        } => warn!(why, "instance not pointed at the master"),
        Event::GuardFailed { command, why } => warn!(?command, why, "the guard did not answer"),
        Event::KillEnded { result } => match result {
            KillResult::Killed => warn!("hung instance killed"),
            KillResult::Spared(_) => {
                info!("instance not killed: its guard says that it is read-only")
            }
            KillResult::Failed(why) => error!(why, "hung instance not killed"),
        },
        Event::SessionCreated {
            result: Ok(session),
        } => info!(%session, "session created"),
        Event::SessionCreated { result: Err(fault) } => {
            warn!(why = fault.why, "could not create a session")
        }
        Event::SessionRenewed {
            session,
            result: Ok(false),
        } => warn!(%session, "session lost"),
        Event::SessionRenewed {
            session,
            result: Err(fault),
        } => {
            warn!(%session, why = fault.why, "could not renew the session");
        }
        Event::LockRead {
            result: Ok(sight), ..
        } => {
            let key = sight.key.as_ref();
            let free = key.is_none_or(|key| key.session.is_none());
            let status = key
                .and_then(|key| key.record.as_ref().ok())
                .map(|record| record.status);
            if free {
                info!(
                    fenced = status == Some(Status::Fenced),
                    index = sight.index,
                    "lock seen free"
                );
            }
        }
        Event::LockRead {
            result: Err(fault), ..
        } => warn!(why = fault.why, "could not read the lock"),
        Event::LockStepEnded { step, result } => lock_step_ended(*step, result),
        Event::CatalogEnded { result: Ok(false) } => {
            warn!("Consul does not know the service any more")
        }
        Event::CatalogEnded { result: Err(fault) } => {
            warn!(why = fault.why, "could not tell the catalog")
        }
        Event::MemberEnded { result: Err(fault) } => {
            warn!(why = fault.why, "could not write the member key")
        }
        Event::BoardRead { result: Err(fault) }
        | Event::BoardSeen {
            result: Err(fault), ..
        } => {
            warn!(why = fault.why, "could not read the board")
        }
        Event::BallotWritten {
            result: Err(fault), ..
        } => warn!(why = fault.why, "could not write the ballot"),
        Event::BallotsRead { result: Err(fault) } => {
            warn!(why = fault.why, "could not read the ballots")
        }
        Event::SwitchoverWritten { result: Err(fault) } => {
            warn!(
                why = fault.why,
                "could not write what became of the switchover"
            )
        }
        Event::HistoryRead { result: Err(fault) } => {
            warn!(why = fault.why, "could not read the history")
        }
        Event::HistoryWritten {
            term,
            result: Err(fault),
        } => warn!(
            term = term.get(),
            why = fault.why,
            "could not write the history"
        ),
        Event::Vshard(event) => vshard::say(event),
        Event::PromisesAnswered { answers, .. } => {
            let refusals = refusals(answers);
            if refusals.is_empty() {
                info!(
                    members = answers.len(),
                    "every member promised another lease"
                );
            } else {
                warn!(refusals, "not every member promised another lease");
            }
        }
        Event::SessionRenewed {
            result: Ok(true), ..
        }
        | Event::SessionDestroyed
        | Event::CatalogEnded { result: Ok(true) }
        | Event::MemberEnded { result: Ok(()) }
        | Event::BoardRead { result: Ok(_) }
        | Event::BoardSeen { result: Ok(_), .. }
        | Event::BallotWritten { result: Ok(_), .. }
        | Event::BallotsRead { result: Ok(_) }
        | Event::SwitchoverSeen { .. }
        | Event::SwitchoverWritten { result: Ok(_) }
        | Event::HistoryRead { result: Ok(_) }
        | Event::HistoryWritten { result: Ok(()), .. }
        | Event::NeighboursSeen(_)
        | Event::MembersSeen(_)
        | Event::StopRequested { .. }
        | Event::Woke => {}
        Event::Overslept { .. } => warn!("this agent did not run for a while"),
    }
}

/// The members that did not promise, and why.
fn refusals(answers: &BTreeMap<String, Result<(), String>>) -> String {
    answers
        .iter()
        .filter_map(|(member, answer)| Some(format!("{member}: {}", answer.as_ref().err()?)))
        .collect::<Vec<_>>()
        .join("; ")
}

fn guard_answered(command: GuardCommandKind, ro: bool, refused: Option<&str>) {
    if let Some(why) = refused {
        warn!(?command, why, "the guard refused");
        return;
    }
    match command {
        GuardCommandKind::Promote => info!(ro, "promoted"),
        GuardCommandKind::Fence => info!(ro, "fenced"),
        GuardCommandKind::Follow => info!("replication re-pointed"),
        GuardCommandKind::Probe
        | GuardCommandKind::Remember
        | GuardCommandKind::Grant
        | GuardCommandKind::Observe
        | GuardCommandKind::StandDown => {}
    }
}

fn lock_step_ended(
    step: LockStepKind,
    result: &Result<Result<u64, String>, crate::decide::event::ConsulFault>,
) {
    match (step, result) {
        (LockStepKind::Acquire, Ok(Ok(index))) => info!(index, "lock acquired"),
        (LockStepKind::TakeOver, Ok(Ok(index))) => info!(index, "lock taken over"),
        (LockStepKind::Release, Ok(Ok(index))) => info!(index, "lock released"),
        (LockStepKind::Refresh, Ok(Ok(index))) => debug!(index, "lock refreshed"),
        (LockStepKind::Acquire | LockStepKind::TakeOver, Ok(Err(why))) => {
            info!(why, "lock not acquired")
        }
        (LockStepKind::Release | LockStepKind::Refresh, Ok(Err(why))) => {
            warn!(?step, why, "lock step refused")
        }
        (_, Err(fault)) if fault.denied => warn!(?step, why = fault.why, "lock step denied"),
        (_, Err(fault)) => warn!(?step, why = fault.why, "lock step's outcome unknown"),
    }
}

/// Says why the plan is another one than before. The words before were said when they were new.
pub(crate) fn reason(from: Option<&Reason>, to: &Reason) {
    let to_words = to.to_string();
    if from.is_none_or(|from| from.to_string() != to_words) {
        info!(to = to_words, "reason changed");
    }
}

/// Says what is being done, where it is more than routine.
pub(crate) fn action(said: &mut Said, action: &Action) {
    match action {
        Action::Guard(GuardCommand::Promote { term, .. }) => info!(term = term.get(), "promoting"),
        Action::Guard(GuardCommand::Fence { why }) => info!(why, "fencing"),
        Action::Kill => warn!("killing the hung instance"),
        Action::Acquire { attempt, .. } => {
            let term = attempt.record.term;
            if said.is_news(Topic::Acquiring, &term.to_string()) {
                info!(term = term.get(), "acquiring the lock");
            }
        }
        Action::TakeOver {
            attempt, holder, ..
        } => {
            let term = attempt.record.term;
            if said.is_news(Topic::Acquiring, &term.to_string()) {
                warn!(term = term.get(), %holder, "taking the lock over from a holder that has not been heard of");
            }
        }
        Action::Release { record, .. } => {
            info!(term = record.term.get(), status = ?record.status, "releasing the lock")
        }
        Action::Guard(GuardCommand::Follow { uri, again: false }) => {
            said.forget(&[Topic::Follow]);
            info!(uri, "re-pointing replication");
        }
        Action::Guard(GuardCommand::Follow { uri, again: true }) => {
            debug!(uri, "re-pointing replication again")
        }
        Action::Tell { entry, .. } => {
            debug!(role = ?entry.registered.role, health = ?entry.health, output = entry.output, "telling the catalog");
        }
        Action::WriteBallot { ballot } => {
            info!(
                term = ballot.term.get(),
                excluded = ballot.excluded,
                "ballot"
            );
        }
        Action::WriteSwitchover { switchover, .. } => self::switchover(switchover),
        Action::Guard(GuardCommand::StandDown { down: true }) => {
            warn!(
                "PAUSED: the guard stands down, nothing fences the instance until the pause ends"
            );
        }
        Action::Guard(GuardCommand::StandDown { down: false }) => {
            info!("the pause is over: the guard stands up")
        }
        Action::WriteHistory { line, over } => past::history(said, line, *over),
        Action::Guard(GuardCommand::Probe | GuardCommand::Remember { .. })
        | Action::Guard(GuardCommand::Grant { .. } | GuardCommand::Observe { .. })
        | Action::CreateSession
        | Action::RenewSession { .. }
        | Action::DestroySession { .. }
        | Action::ReadLock
        | Action::ReadBoard
        | Action::ReadBallots { .. }
        | Action::ReadHistory
        | Action::AskPromises { .. }
        | Action::Refresh { .. }
        | Action::Deregister
        | Action::WriteMember { .. }
        | Action::Vshard(_)
        | Action::Exit { .. } => {}
    }
}

/// An order that came to nothing is the operator's to look at.
fn switchover(switchover: &Switchover) {
    let (state, why) = (switchover.state, &switchover.why);
    match state {
        SwitchoverState::Refused | SwitchoverState::Undone => warn!(?state, why, "switchover"),
        SwitchoverState::Requested
        | SwitchoverState::Running
        | SwitchoverState::Done
        | SwitchoverState::None => info!(?state, why, "switchover"),
    }
}

/// The state before a change, if the log wants every field that changes.
pub(crate) fn snapshot(state: &State) -> Option<Value> {
    enabled!(Level::DEBUG).then(|| describe(state))
}

/// Logs every field that is not what it was.
pub(crate) fn changes(before: Option<Value>, state: &State) {
    let Some(before) = before else { return };
    let after = describe(state);
    let mut changed = Vec::new();
    compare("", &before, &after, &mut changed);
    for (field, old, new) in changed {
        debug!(field, old = %old, new = %new, "changed");
    }
}

/// The whole state as people and machines read it.
pub(crate) fn describe(state: &State) -> Value {
    json!({
        "instance": state.instance,
        "probe": state.instance.probe,
        "lock": state.lock,
        "session": state.session,
        "hold": state.hold,
        "highest_term": state.highest_term,
        "election": state.election,
        "board": state.board.as_ref().map(|(board, at)| json!({"read_at": at, "board": board})),
        "orders": state.orders,
        "history": state.past,
        "catalog": state.catalog,
        "pending": state.pending,
        "stopping": state.stopping.map(|(signal, since)| json!({"signal": signal, "since": since})),
        "superseded_by": state.superseded,
        "consul_fault": state.consul_fault,
        "unread": state.unread,
        "denied": state.denied,
    })
}

fn compare(path: &str, old: &Value, new: &Value, changed: &mut Vec<(String, Value, Value)>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => compare_maps(path, old, new, changed),
        (old, new) if old != new => changed.push((path.to_owned(), old.clone(), new.clone())),
        _ => {}
    }
}

fn compare_maps(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    changed: &mut Vec<(String, Value, Value)>,
) {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(gone) {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let missing = Value::Null;
        compare(
            &path,
            old.get(key).unwrap_or(&missing),
            new.get(key).unwrap_or(&missing),
            changed,
        );
    }
}
