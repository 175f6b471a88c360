//! One flat match: action → adapter call → event. Nothing is decided here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{Config, ServiceNaming};
use crate::consul::{
    CheckStatus, CheckUpdate, Consul, ConsulError, LockOutcome, LockStep, LockView, Registration,
    Renewal,
};
use crate::decide::event::{ConsulFault, Event, KeySight, LockSight, LockStepKind, MemberTerms};
use crate::decide::plan::{Action, CatalogEntry, Ending, Health, Registered, Role};
use crate::decide::record::Record;
use crate::errors::chain;
use crate::tarantool::link::{Command, Instance};

/// Where this replica set's keys are.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The lock.
    pub(crate) lock: String,
    /// The prefix of the members' keys, with its slash.
    pub(crate) members: String,
}

impl Keys {
    /// The keys of the replica set with this UUID.
    #[must_use]
    pub(crate) fn of(config: &Config, replicaset: &str) -> Self {
        let base = format!(
            "{}/{}/{replicaset}",
            config.consul.kv_prefix, config.cluster
        );
        Self {
            lock: config
                .consul
                .lock_key
                .clone()
                .unwrap_or_else(|| format!("{base}/leader")),
            members: format!("{base}/members/"),
        }
    }
}

/// What actions are carried out with.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) config: Arc<Config>,
    pub(crate) consul: Consul,
    pub(crate) instance: Instance,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) clock: Clock,
    pub(crate) keys: Option<Keys>,
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
            Action::Probe => self.instance.command(Command::Probe).await,
            Action::Remember { session } => {
                self.instance
                    .command(Command::Remember(session.to_string()))
                    .await
            }
            Action::Promote { term, deadline, .. } => {
                self.instance
                    .command(Command::Promote(term, deadline))
                    .await
            }
            Action::Grant { term, deadline, .. } => {
                self.instance.command(Command::Grant(term, deadline)).await
            }
            Action::Fence { why } => self.instance.command(Command::Fence(why)).await,
            Action::Observe { term } => self.instance.command(Command::Observe(term)).await,
            Action::Follow { uri } => self.instance.command(self.follow(uri)).await,
            Action::Kill => self.instance.kill().await,
            Action::CreateSession => {
                let timing = &self.config.timing;
                let created = self
                    .consul
                    .create_session(&self.config.consul.session_name, timing.session_ttl())
                    .await;
                Event::SessionCreated {
                    result: created.map_err(|error| fault(&error)),
                }
            }
            Action::RenewSession { session } => {
                let result = match self.consul.renew_session(&session).await {
                    Ok(Renewal::Renewed) => Ok(true),
                    Ok(Renewal::Gone) => Ok(false),
                    Err(error) => Err(fault(&error)),
                };
                Event::SessionRenewed { session, result }
            }
            Action::DestroySession { session } => {
                if let Err(error) = self.consul.destroy_session(&session).await {
                    tracing::debug!(%session, error = chain(&error), "session not removed, it expires by itself");
                }
                Event::SessionDestroyed
            }
            Action::ReadLock => self.read_lock().await?,
            Action::ReadTerms => Event::TermsRead {
                result: self.read_terms().await,
            },
            Action::Acquire {
                session,
                index,
                attempt,
            } => {
                let value = attempt.record.to_bytes();
                let step = match index {
                    Some(index) => LockStep::Acquire {
                        index,
                        session,
                        value,
                    },
                    None => LockStep::Create { session, value },
                };
                self.lock_step(LockStepKind::Acquire, step).await?
            }
            Action::Refresh { session, attempt } => {
                let step = LockStep::Refresh {
                    session,
                    value: attempt.record.to_bytes(),
                };
                self.lock_step(LockStepKind::Refresh, step).await?
            }
            Action::Release {
                session,
                index,
                record,
            } => {
                let step = LockStep::Release {
                    index,
                    session,
                    value: record.to_bytes(),
                };
                self.lock_step(LockStepKind::Release, step).await?
            }
            Action::Tell { entry, register } => Event::CatalogEnded {
                result: self.tell(entry, register).await,
            },
            Action::Deregister => {
                let removed = self.consul.deregister(&self.service_id()).await;
                Event::CatalogEnded {
                    result: removed.map(|()| true).map_err(|error| fault(&error)),
                }
            }
            Action::WriteMember { member } => Event::MemberEnded {
                result: self.write_member(&member).await,
            },
            Action::Exit { .. } => return None,
        };
        Some(event)
    }

    fn follow(&self, uri: Option<String>) -> Command {
        let name = uri.unwrap_or_default();
        let tarantool = &self.config.tarantool;
        let uri = match &tarantool.user {
            Some(user) if !name.is_empty() => format!("{user}:{}@{name}", tarantool.password),
            Some(_) | None => name.clone(),
        };
        Command::Follow { uri, name }
    }

    async fn read_lock(&self) -> Option<Event> {
        let keys = self.keys.as_ref()?;
        let asked_at = self.clock.now();
        let result = self.consul.read_lock(&keys.lock).await;
        Some(lock_read(asked_at, false, result))
    }

    async fn lock_step(&self, kind: LockStepKind, step: LockStep) -> Option<Event> {
        let keys = self.keys.as_ref()?;
        let result = match self.consul.transact(&keys.lock, &step).await {
            Ok(LockOutcome::Done { modify_index }) => Ok(Ok(modify_index)),
            Ok(LockOutcome::Refused { why }) => Ok(Err(why)),
            Err(error) => Err(fault(&error)),
        };
        Some(Event::LockStepEnded { step: kind, result })
    }

    fn service_id(&self) -> String {
        let base = match &self.config.catalog.naming {
            ServiceNaming::Name(name) => name,
            ServiceNaming::Prefix(prefix) => prefix,
        };
        format!("{base}@{}", self.config.announce.id)
    }

    async fn tell(&self, entry: CatalogEntry, register: bool) -> Result<bool, ConsulFault> {
        let status = match entry.health {
            Health::Passing => CheckStatus::Passing,
            Health::Warning => CheckStatus::Warning,
            Health::Critical => CheckStatus::Critical,
        };
        if !register {
            let updated = self
                .consul
                .update_check(&self.service_id(), status, &entry.output)
                .await;
            return match updated {
                Ok(CheckUpdate::Updated) => Ok(true),
                Ok(CheckUpdate::NotRegistered) => Ok(false),
                Err(error) => Err(fault(&error)),
            };
        }
        let registration = self.registration(entry, status);
        self.consul
            .register(&registration)
            .await
            .map(|()| true)
            .map_err(|error| fault(&error))
    }

    fn registration(&self, entry: CatalogEntry, status: CheckStatus) -> Registration {
        let catalog = &self.config.catalog;
        let registered = entry.registered;
        let (suffix, tags) = match registered.role {
            Role::Master => ("master", &catalog.master_tags),
            Role::Replica => ("replica", &catalog.replica_tags),
        };
        let name = match &catalog.naming {
            ServiceNaming::Name(name) => name.clone(),
            ServiceNaming::Prefix(prefix) => format!("{prefix}-{suffix}"),
        };
        let meta = BTreeMap::from([
            ("instance_uuid".to_owned(), registered.instance),
            ("replicaset_uuid".to_owned(), registered.replicaset),
            ("term".to_owned(), registered.term.to_string()),
            ("tarantool_version".to_owned(), registered.version),
            (
                "tarsec_version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
        ]);
        Registration {
            id: self.service_id(),
            name,
            tags: tags.clone(),
            address: self.config.announce.host.clone(),
            port: self.config.announce.port,
            meta,
            ttl: registered.ttl,
            deregister_after: catalog.deregister_after,
            status,
            output: entry.output,
        }
    }

    async fn write_member(&self, member: &Registered) -> Result<(), ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let key = format!("{}{}", keys.members, member.instance);
        let value = json!({
            "v": Record::VERSION,
            "instance": member.instance,
            "replicaset": member.replicaset,
            "name": self.config.announce.id,
            "uri": self.config.announce.id,
            "role": member.role,
            "term": member.term,
            "lease_ms": u64::try_from(self.config.timing.lease().as_millis()).unwrap_or(0),
            "priority": self.config.priority,
            "tarantool_version": member.version,
            "tarsec_version": env!("CARGO_PKG_VERSION"),
        });
        self.consul
            .put_key(&key, value.to_string().as_bytes())
            .await
            .map_err(|error| fault(&error))
    }

    async fn read_terms(&self) -> Result<MemberTerms, ConsulFault> {
        let Some(keys) = &self.keys else {
            return Ok(MemberTerms::default());
        };
        let members = self
            .consul
            .read_prefix(&keys.members)
            .await
            .map_err(|error| fault(&error))?;
        let mut all = MemberTerms::default();
        for (_, value) in &members {
            // A key that is not a member's, or a member's of another version, says nothing.
            let member: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
            let number = |name: &str| member.get(name).and_then(serde_json::Value::as_u64);
            let term = number("term").filter(|term| *term < Record::MAX_TERM);
            let lease_ms = number("lease_ms").filter(|lease| *lease <= Record::MAX_LEASE_MS);
            all.term = all.term.max(term.unwrap_or(0));
            all.lease = all.lease.max(Duration::from_millis(lease_ms.unwrap_or(0)));
        }
        Ok(all)
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
        Err(error) => Err(fault(&error)),
    };
    Event::LockRead {
        asked_at,
        by_watch,
        result,
    }
}

fn fault(error: &ConsulError) -> ConsulFault {
    ConsulFault {
        why: chain(error),
        denied: error.is_denied(),
    }
}
