//! One flat match: action → adapter call → event. Nothing is decided here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::config::{Config, ReplicationMode};
use crate::consul::{Consul, ConsulError, LockOutcome, LockStep, LockView, Renewal};
use crate::decide::board::{HISTORY_LINES, HistoryLine, Member, Switchover};
use crate::decide::event::{Event, GuardCommandKind, LockStepKind};
use crate::decide::ids::SessionId;
use crate::decide::plan::{Action, Ending, GuardCommand, Role};
use crate::decide::record::Record;
use crate::decide::sight::{ConsulFault, KeySight, LockSight};
use crate::decide::vshard::{VshardAction, VshardEvent};
use crate::errors::with_causes;
use crate::execute_board::BoardReader;
use crate::execute_catalog::{OwnService, deregister, service_ref, tell};
use crate::keys::{ReplicaSetKeys, json_bytes};
use crate::neighbours::LOOKS_APART;
use crate::tarantool::link::{Command, Instance};
use crate::tarantool::peers::Peers;
use crate::tarantool::uri::Unfit;
use crate::tarantool::vshard::Order;
use crate::watch_vshard::{ConfigText, note_refusal};

/// How long a replica that may be locked out waits for a password that has changed; at most so much later it is pointed
/// at another master.
const REREADING: Duration = Duration::from_millis(500);

/// What actions are carried out with.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) config: Arc<Config>,
    pub(crate) consul: Consul,
    pub(crate) instance: Instance,
    pub(crate) peers: Peers,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) clock: Clock,
    pub(crate) keys: Option<ReplicaSetKeys>,
    pub(crate) board: BoardReader,
    pub(crate) config_text: ConfigText,
    pub(crate) service: OwnService,
    /// The `ModifyIndex` of the member's key.
    pub(crate) member_index: KnownIndex,
    /// Consul answers again: long watches begin anew, for theirs may have been swallowed.
    pub(crate) consul_back: Arc<Notify>,
}

/// The `ModifyIndex` of a key that nobody writes but the agents of one instance, while nothing is under way or in doubt.
/// Each write rests on it, so one that was given up comes to nothing once a later one is accepted.
#[derive(Clone, Default)]
pub(crate) struct KnownIndex(Arc<Mutex<Option<u64>>>);

impl KnownIndex {
    fn take(&self) -> Option<u64> {
        self.0.lock().ok()?.take()
    }

    fn put(&self, index: u64) {
        if let Ok(mut known) = self.0.lock() {
            *known = Some(index);
        }
    }
}

impl Executor {
    /// Starts an action; its end comes as an event. `Some` ends the agent instead.
    pub(crate) fn start(&self, action: Action) -> Option<Ending> {
        if let Action::Exit { how } = action {
            return Some(how);
        }
        let executor = self.clone();
        tokio::spawn(async move {
            if let Some(event) = executor.carry_out(action).await {
                // The receiver is gone only when the agent ends.
                let _ = executor.events.send(event).await;
            }
        });
        None
    }

    async fn carry_out(&self, action: Action) -> Option<Event> {
        let event = match action {
            Action::Guard(command) => self.tell_guard(command).await,
            Action::Kill => self.instance.kill().await,
            Action::CreateSession => self.create_session().await,
            Action::RenewSession { session } => self.renew_session(session).await,
            Action::DestroySession { session } => self.destroy_session(&session).await,
            Action::ReadLock => self.read_lock().await?,
            Action::ReadBoard => Event::BoardRead {
                result: self.read_board().await,
            },
            Action::WriteBallot { ballot } => Event::BallotWritten {
                index: ballot.index,
                result: self.write_ballot(&ballot).await,
            },
            Action::ReadBallots { after, wait } => Event::BallotsRead {
                result: self.read_ballots(after, wait).await,
            },
            Action::WriteSwitchover {
                index, switchover, ..
            } => Event::SwitchoverWritten {
                result: self.write_switchover(index, &switchover).await,
            },
            Action::ReadHistory => Event::HistoryRead {
                result: self.read_history().await,
            },
            Action::WriteHistory { line, .. } => Event::HistoryWritten {
                term: line.term,
                result: self.write_history(&line).await,
            },
            Action::AskPromises {
                term,
                instance,
                lasting,
                members,
                reading,
                for_all,
            } => {
                let peers = &self.peers;
                let answers = peers.ask(term, &instance, lasting, members, for_all).await;
                Event::PromisesAnswered {
                    reading,
                    answers: answers.promises,
                    unguarded: answers.unguarded,
                }
            }
            action @ (Action::Acquire { .. }
            | Action::Refresh { .. }
            | Action::TakeOver { .. }
            | Action::Release { .. }) => self.lock_step(action).await?,
            Action::Tell { entry, register } => Event::CatalogEnded {
                result: tell(&self.config, &self.consul, &self.service, entry, register).await,
            },
            Action::Deregister => Event::CatalogEnded {
                result: deregister(&self.consul, &self.service).await,
            },
            Action::WriteMember { member } => Event::MemberEnded {
                result: self.write_member(&member).await,
            },
            Action::Vshard(action) => self.vshard(action).await,
            Action::Exit { .. } => return None,
        };
        if let Event::GuardAnswered { probe, .. } = &event {
            note_refusal(&self.config.vshard, probe.vshard.as_ref());
        }
        Some(event)
    }

    async fn tell_guard(&self, command: GuardCommand) -> Event {
        let command = match command {
            GuardCommand::Probe => Command::Probe,
            GuardCommand::Remember { session } => Command::Remember(session.to_string()),
            GuardCommand::Promote {
                term,
                deadline,
                before,
                reading,
            } => Command::Promote(term, deadline, before, reading.t0),
            GuardCommand::Grant { term, deadline, .. } => Command::Grant(term, deadline),
            GuardCommand::Fence { why } => Command::Fence(why),
            GuardCommand::Observe { term } => Command::Observe(term),
            GuardCommand::StandDown { down } => Command::StandDown(down),
            GuardCommand::Follow { uri, again } => match self.follow(uri, again).await {
                Ok(command) => command,
                Err(why) => {
                    let command = GuardCommandKind::Follow;
                    return Event::GuardFailed { command, why };
                }
            },
        };
        self.instance.command(command).await
    }

    /// The settings were checked at start; a password that has changed since may not fit into a URI.
    /// `again`: the login in use may be refused.
    async fn follow(&self, uri: Option<String>, again: bool) -> Result<Command, String> {
        let name = uri.unwrap_or_default();
        let tarantool = &self.config.tarantool;
        if again {
            let mut changes = tarantool.password.changes();
            tarantool.password.refused();
            // A password that is read later is for the next time.
            let _ = timeout(REREADING, changes.changed()).await;
        }
        let uri = match &tarantool.user {
            Some(user) if !name.is_empty() => {
                let password = tarantool.password.get();
                if let Some(found) = Unfit::first_in(&password) {
                    return Err(format!(
                        "the password of {user} has {found}, which no URI of Tarantool carries; allowed are {}",
                        Unfit::ALLOWED
                    ));
                }
                format!("{user}:{password}@{name}")
            }
            Some(_) | None => name.clone(),
        };
        Ok(Command::Follow { uri, name, again })
    }

    async fn read_lock(&self) -> Option<Event> {
        let keys = self.keys.as_ref()?;
        let asked_at = self.clock.now();
        let result = self.consul.read_lock(&keys.lock()).await;
        Some(lock_read(asked_at, false, result))
    }

    async fn create_session(&self) -> Event {
        let name = &self.config.consul.session_name;
        let ttl = self.config.timing.session_ttl();
        let created = self.consul.create_session(name, ttl).await;
        Event::SessionCreated {
            result: created.map_err(ConsulFault::from),
        }
    }

    async fn renew_session(&self, session: SessionId) -> Event {
        let result = match self.consul.renew_session(&session).await {
            Ok(Renewal::Renewed) => Ok(true),
            Ok(Renewal::Gone) => Ok(false),
            Err(error) => Err(error.into()),
        };
        Event::SessionRenewed { session, result }
    }

    async fn destroy_session(&self, session: &SessionId) -> Event {
        if let Err(error) = self.consul.destroy_session(session).await {
            tracing::debug!(%session, error = with_causes(&error), "session not removed, it expires by itself");
        }
        Event::SessionDestroyed
    }

    async fn lock_step(&self, action: Action) -> Option<Event> {
        let keys = self.keys.as_ref()?;
        let (kind, step) = lock_step_of(action)?;
        match kind {
            LockStepKind::Refresh => self.look_beside(),
            LockStepKind::Acquire | LockStepKind::TakeOver | LockStepKind::Release => {}
        }
        let result = match self.consul.transact(&keys.lock(), &step).await {
            Ok(LockOutcome::Done { modify_index }) => Ok(Ok(modify_index)),
            Ok(LockOutcome::Refused { why }) => Ok(Err(why)),
            Err(error) => Err(error.into()),
        };
        Some(Event::LockStepEnded { step: kind, result })
    }

    async fn write_member(&self, member: &Member) -> Result<(), ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let roles = [Role::Master, Role::Replica];
        let member = Member {
            service: Some(service_ref(
                &self.config,
                Some(&member.replicaset),
                &member.instance,
                &roles,
            )),
            ..member.clone()
        };
        let key = keys.member(&member.instance);
        let bytes = json_bytes(&member);
        let index = match self.member_index.take() {
            Some(index) => index,
            None => {
                let found = self.consul.read_key(&key).await;
                let found = found.map_err(ConsulFault::from)?;
                found.key.map_or(0, |found| found.modify_index)
            }
        };
        let written = self.consul.put_key_if(&key, index, &bytes).await;
        match written.map_err(ConsulFault::from)? {
            Some(index) => {
                self.member_index.put(index);
                Ok(())
            }
            None => Err(ConsulFault {
                why: format!("somebody else has written {key} meanwhile"),
                denied: false,
            }),
        }
    }

    async fn vshard(&self, action: VshardAction) -> Event {
        match action {
            VshardAction::Apply { sequence, wanted } => {
                let text = self.config_text.get();
                let order = Order {
                    sequence,
                    wanted: &wanted,
                    config: text.as_deref(),
                    login: self.config.vshard.login.as_ref(),
                    is_router: false,
                    follows: self.config.replication == ReplicationMode::Follow,
                };
                self.instance.apply_vshard(&order).await
            }
            VshardAction::WriteMaster { index, master } => {
                let key = self.config.keys().master(&master.replicaset);
                let bytes = json_bytes(&master);
                let written = self.consul.put_key_if(&key, index, &bytes).await;
                Event::Vshard(VshardEvent::MasterWritten {
                    result: written.map_err(ConsulFault::from),
                })
            }
        }
    }

    async fn put(&self, key: &str, value: &impl serde::Serialize) -> Result<(), ConsulFault> {
        self.consul
            .put_key(key, &json_bytes(value))
            .await
            .map_err(ConsulFault::from)
    }

    /// Looks from time to time at where the members are by their own agents' words, so that an agent can say in time that
    /// it will not log in there. Whoever holds the lock reads the same with each refresh.
    pub(crate) async fn watch_members(self) {
        while !self.events.is_closed() {
            // A failed read is no news.
            if let Ok(board) = self.read_board().await {
                let seen = Event::MembersSeen(board.announced());
                // The receiver is gone only when the agent ends.
                let _ = self.events.send(seen).await;
            }
            sleep(self.config.member_interval * LOOKS_APART).await;
        }
    }

    async fn write_switchover(
        &self,
        index: u64,
        switchover: &Switchover,
    ) -> Result<Option<u64>, ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        let bytes = json_bytes(switchover);
        self.consul
            .put_key_if(&keys.switchover(), index, &bytes)
            .await
            .map_err(ConsulFault::from)
    }

    /// A line whose reply was lost stands there already, and may say by now what its ex-master brought back.
    async fn has_line(
        &self,
        keys: &ReplicaSetKeys,
        line: &HistoryLine,
    ) -> Result<bool, ConsulFault> {
        let bytes = json_bytes(line);
        let key = keys.term(line.term);
        let created = self.consul.put_key_if(&key, 0, &bytes).await;
        if created.map_err(ConsulFault::from)?.is_some() {
            return Ok(true);
        }
        let lines = self.read_history().await?;
        Ok(lines.iter().any(|found| {
            (found.term, &found.to, &found.vclock) == (line.term, &line.to, &line.vclock)
        }))
    }

    async fn write_history(&self, line: &HistoryLine) -> Result<(), ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let grows = line.returned.is_some() || !line.interruptions.is_empty();
        if grows || !self.has_line(keys, line).await? {
            self.put(&keys.term(line.term), line).await?;
        }
        let Some(old) = line.term.before(HISTORY_LINES) else {
            return Ok(());
        };
        self.consul
            .delete_key(&keys.term(old))
            .await
            .map_err(ConsulFault::from)
    }
}

/// A look at the lock key, in the core's words.
pub(crate) fn lock_read(
    asked_at: crate::decide::timing::Tick,
    by_watch: bool,
    result: Result<LockView, ConsulError>,
) -> Event {
    let result = match result {
        Ok(view) => Ok(LockSight {
            index: view.index,
            key: view.key.map(|key| KeySight {
                modify_index: key.modify_index,
                session: key.session,
                record: Record::parse(&key.value),
            }),
        }),
        Err(error) => Err(error.into()),
    };
    Event::LockRead {
        asked_at,
        by_watch,
        result,
    }
}

/// The transaction of an action on the lock; `None`: it is another action.
fn lock_step_of(action: Action) -> Option<(LockStepKind, LockStep)> {
    if let Action::Acquire {
        session,
        index,
        attempt,
    } = action
    {
        let value = attempt.record.to_bytes();
        let step = match index {
            Some(index) => LockStep::Acquire {
                index,
                session,
                value,
            },
            None => LockStep::Create { session, value },
        };
        Some((LockStepKind::Acquire, step))
    } else if let Action::Refresh {
        session,
        index,
        attempt,
    } = action
    {
        let step = LockStep::Refresh {
            index,
            session,
            value: attempt.record.to_bytes(),
        };
        Some((LockStepKind::Refresh, step))
    } else if let Action::TakeOver {
        session,
        holder,
        index,
        attempt,
    } = action
    {
        let step = LockStep::TakeOver {
            index,
            holder,
            session,
            value: attempt.record.to_bytes(),
        };
        Some((LockStepKind::TakeOver, step))
    } else if let Action::Release {
        session,
        index,
        record,
    } = action
    {
        let step = LockStep::Release {
            index,
            session,
            value: record.to_bytes(),
        };
        Some((LockStepKind::Release, step))
    } else {
        None
    }
}
