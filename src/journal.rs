//! What goes into the log: INFO when something changed, DEBUG for every changed field.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use tracing::{Level, debug, enabled, error, info, warn};

use crate::decide::board::{Ballot, Switchover, SwitchoverState};
use crate::decide::event::{Event, GuardCommandKind, KillResult, LockStepKind};
use crate::decide::observed::Probe;
use crate::decide::plan::{Action, GuardCommand, Reason};
use crate::decide::record::Status;
use crate::decide::sight::{ConsulFault, LockSight};
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
    if !is_news(said, event) {
        return;
    }
    match outcome(event) {
        Some(Outcome {
            what,
            of,
            fault: Some(fault),
            ..
        }) => warn!(of, why = fault.why, "could not {what}"),
        Some(Outcome { fault: None, .. }) | None => say(event),
    }
}

/// What came of a request to Consul that is made again and again.
struct Outcome<'a> {
    topic: Topic,
    what: &'static str,
    /// Which one, where there are several.
    of: Option<String>,
    fault: Option<&'a ConsulFault>,
}

fn outcome(event: &Event) -> Option<Outcome<'_>> {
    use Event as E;
    Some(match event {
        E::SessionCreated { result } => of(result, Topic::Session, "create a session"),
        E::SessionRenewed { session, result } => Outcome {
            of: Some(session.to_string()),
            ..of(result, Topic::Session, "renew the session")
        },
        E::LockRead {
            by_watch: true,
            result,
            ..
        } => of(result, Topic::WatchLock, "read the lock"),
        E::LockRead { result, .. } => of(result, Topic::ReadLock, "read the lock"),
        E::CatalogEnded { result } => of(result, Topic::Catalog, "tell the catalog"),
        E::MemberEnded { result } => of(result, Topic::Member, "write the member key"),
        E::BoardRead { result } => of(result, Topic::Board, "read the board"),
        E::BoardSeen { result, .. } => of(result, Topic::Board, "read the board"),
        E::BallotWritten { result, .. } => of(result, Topic::Ballot, "write the ballot"),
        E::BallotsRead { result } => of(result, Topic::Ballot, "read the ballots"),
        E::SwitchoverWritten { result } => {
            let what = "write what became of the switchover";
            of(result, Topic::Orders, what)
        }
        E::HistoryRead { result } => of(result, Topic::History, "read the history"),
        E::HistoryWritten { term, result } => Outcome {
            of: Some(format!("term {term}")),
            ..of(result, Topic::History, "write the history")
        },
        E::Attached { .. }
        | E::Unreachable { .. }
        | E::FellSilent
        | E::SpokeAgain
        | E::Died { .. }
        | E::Unsuitable { .. }
        | E::Superseded { .. }
        | E::GuardAnswered { .. }
        | E::GuardFailed { .. }
        | E::KillEnded { .. }
        | E::SessionDestroyed
        | E::LockStepEnded { .. }
        | E::SwitchoverSeen { .. }
        | E::PromisesAnswered { .. }
        | E::Vshard(_)
        | E::NeighboursSeen(_)
        | E::MembersSeen(_)
        | E::StopRequested { .. }
        | E::Woke
        | E::Overslept { .. } => return None,
    })
}

fn of<'a, T>(result: &'a Result<T, ConsulFault>, topic: Topic, what: &'static str) -> Outcome<'a> {
    let fault = result.as_ref().err();
    Outcome {
        topic,
        what,
        of: None,
        fault,
    }
}

/// Whether this is not just another failure of the same kind, for the same reason.
fn is_news(said: &mut Said, event: &Event) -> bool {
    if let Some(Outcome { topic, fault, .. }) = outcome(event) {
        if let Some(fault) = fault {
            return said.is_news(topic, &fault.why);
        }
        said.forget(&[topic]);
    }
    if let Event::Vshard(event) = event {
        vshard::is_news(said, event)
    } else if let Event::GuardFailed { why, .. } = event {
        said.is_news(Topic::Guard, why)
    } else if let Event::GuardAnswered {
        command, refused, ..
    } = event
    {
        if *command == GuardCommandKind::Follow {
            return said.is_news(Topic::Follow, refused.as_deref().unwrap_or_default());
        }
        said.forget(&[Topic::Guard]);
        true
    } else if let Event::LockRead {
        result: Ok(sight), ..
    } = event
    {
        said.forget(&[Topic::ReadLock, Topic::WatchLock]);
        is_free_lock_news(said, sight)
    } else if let Event::LockStepEnded { result, .. } = event {
        if let Err(fault) = result {
            return said.is_news(Topic::LockStep, &fault.why);
        }
        said.forget(&[Topic::LockStep, Topic::Acquiring, Topic::Promises]);
        true
    } else if let Event::PromisesAnswered { answers, .. } = event {
        said.is_news(Topic::Promises, &refusals(answers))
    } else {
        true
    }
}

fn is_free_lock_news(said: &mut Said, sight: &LockSight) -> bool {
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

fn say(event: &Event) {
    match event {
        Event::Attached { probe, process } => attached(probe, process.as_ref().err()),
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
        Event::SessionRenewed {
            session,
            result: Ok(false),
        } => warn!(%session, "session lost"),
        Event::LockRead {
            result: Ok(sight), ..
        } => lock_read(sight),
        Event::LockStepEnded { step, result } => lock_step_ended(*step, result),
        Event::CatalogEnded { result: Ok(false) } => {
            warn!("Consul does not know the service any more")
        }
        Event::Vshard(event) => vshard::say(event),
        Event::PromisesAnswered { answers, .. } => promises_answered(answers),
        Event::Overslept { .. } => warn!("this agent did not run for a while"),
        // Routine, or a failure that was said.
        Event::SessionCreated { .. }
        | Event::SessionRenewed { .. }
        | Event::SessionDestroyed
        | Event::LockRead { .. }
        | Event::CatalogEnded { .. }
        | Event::MemberEnded { .. }
        | Event::BoardRead { .. }
        | Event::BoardSeen { .. }
        | Event::BallotWritten { .. }
        | Event::BallotsRead { .. }
        | Event::SwitchoverSeen { .. }
        | Event::SwitchoverWritten { .. }
        | Event::HistoryRead { .. }
        | Event::HistoryWritten { .. }
        | Event::NeighboursSeen(_)
        | Event::MembersSeen(_)
        | Event::StopRequested { .. }
        | Event::Woke => {}
    }
}

fn attached(probe: &Probe, process: Option<&String>) {
    info!(
        uuid = probe.uuid,
        replicaset = probe.replicaset_uuid,
        ro = probe.ro,
        term = probe.guard.term.get(),
        leased = probe.guard.leased,
        "instance attached"
    );
    if let Some(why) = process {
        warn!(
            why,
            "the instance's process cannot be seen or killed from here: should it hang, its lease is waited out"
        );
    }
}

fn lock_read(sight: &LockSight) {
    let key = sight.key.as_ref();
    if key.is_none_or(|key| key.session.is_none()) {
        let record = key.and_then(|key| key.record.as_ref().ok());
        let fenced = record.is_some_and(|record| record.status == Status::Fenced);
        info!(fenced, index = sight.index, "lock seen free");
    }
}

fn promises_answered(answers: &BTreeMap<String, Result<(), String>>) {
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

fn lock_step_ended(step: LockStepKind, result: &Result<Result<u64, String>, ConsulFault>) {
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

/// All that candidates are compared by.
fn say_ballot(ballot: &Ballot) {
    info!(
        term = ballot.term.get(),
        index = ballot.index,
        vclock = ?ballot.vclock,
        vote = ballot.vote,
        following = ballot.following,
        unfollowed = ballot.unfollowed,
        priority = ballot.priority,
        idle_ms = ballot.idle_ms,
        same_configuration = ballot.same_configuration,
        excluded = ballot.excluded,
        "ballot"
    );
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
        Action::WriteBallot { ballot } => say_ballot(ballot),
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
