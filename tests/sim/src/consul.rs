//! Consul's store: sessions, lock keys, transactions, and what stands beside them. Everything here happens in one
//! order, in the leader; what becomes of requests and replies on their way is the network's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decide::board::{Ballot, Board, HistoryLine, Member, Pause, Switchover};
use crate::decide::event::LockStepKind;
use crate::decide::ids::SessionId;
use crate::decide::plan::Action;
use crate::decide::record::{Record, RecordError};
use crate::decide::sight::{KeySight, LockSight};
use crate::decide::term::Term;
use crate::time::Time;

/// The value of a lock key.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Record(Arc<Record>),
    /// What somebody wrote over it.
    Garbage,
    /// A record of another version of tarsec.
    OtherVersion,
}

/// A lock key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) modify_index: u64,
    pub(crate) session: Option<SessionId>,
    pub(crate) value: Value,
}

/// One operation of a transaction on a lock key, as `src/consul/lock.rs` sends them.
#[derive(Debug)]
pub(crate) enum Op<'a> {
    CheckNotExists,
    CheckIndex(u64),
    CheckSession(&'a SessionId),
    Lock(&'a SessionId, Value),
    Unlock(&'a SessionId, Value),
}

/// A session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    pub(crate) renewed_at: Time,
    /// Its server lets it live for that long after the last renewal: between one TTL and two.
    pub(crate) lives: Time,
}

/// What stands beside one lock key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    pub(crate) members: BTreeMap<String, Member>,
    /// When each was written.
    pub(crate) members_at: BTreeMap<String, Time>,
    pub(crate) ballots: BTreeMap<String, Ballot>,
    pub(crate) ballots_index: u64,
    pub(crate) switchover: Option<(u64, Switchover)>,
    pub(crate) pause: Option<Pause>,
    pub(crate) history: BTreeMap<Term, HistoryLine>,
}

/// The store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) index: u64,
    pub(crate) locks: Vec<Option<Key>>,
    pub(crate) beside: Vec<Beside>,
    pub(crate) cluster_pause: Option<Pause>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    made: u64,
}

impl Store {
    pub(crate) fn new(sets: usize) -> Self {
        Self {
            // No index is 0: that is what a watch asks with that wants an answer at once.
            index: 10,
            locks: vec![None; sets],
            beside: vec![Beside::default(); sets],
            cluster_pause: None,
            sessions: BTreeMap::new(),
            made: 0,
        }
    }

    /// Carries out all of it, or nothing and says why.
    pub(crate) fn transact(&mut self, set: usize, ops: &[Op<'_>]) -> Result<u64, String> {
        let index = self.index + 1;
        let mut key = self.locks[set].clone();
        for op in ops {
            self.operate(&mut key, op, index)?;
        }
        self.index = index;
        self.locks[set] = key;
        Ok(index)
    }

    /// Carries out a step at the lock, as `src/consul/lock.rs` sends it. `None`: it is none.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "all others are no steps at the lock"
    )]
    pub(crate) fn lock_step(
        &mut self,
        set: usize,
        action: &Action,
    ) -> Option<(LockStepKind, Result<u64, String>)> {
        let value = |record: &Record| Value::Record(Arc::new(record.clone()));
        Some(match action {
            Action::Acquire {
                session,
                index,
                attempt,
            } => {
                let check = index.map_or(Op::CheckNotExists, Op::CheckIndex);
                let lock = Op::Lock(session, value(&attempt.record));
                (LockStepKind::Acquire, self.transact(set, &[check, lock]))
            }
            Action::Refresh {
                session,
                index,
                attempt,
            } => {
                let ops = [
                    Op::CheckSession(session),
                    Op::CheckIndex(*index),
                    Op::Lock(session, value(&attempt.record)),
                ];
                (LockStepKind::Refresh, self.transact(set, &ops))
            }
            Action::TakeOver {
                session,
                holder,
                index,
                attempt,
            } => {
                let record = value(&attempt.record);
                let ops = [
                    Op::CheckIndex(*index),
                    Op::Unlock(holder, record.clone()),
                    Op::Lock(session, record),
                ];
                (LockStepKind::TakeOver, self.transact(set, &ops))
            }
            Action::Release {
                session,
                index,
                record,
            } => {
                let ops = [
                    Op::CheckSession(session),
                    Op::CheckIndex(*index),
                    Op::Unlock(session, value(record)),
                ];
                (LockStepKind::Release, self.transact(set, &ops))
            }
            _ => return None,
        })
    }

    fn operate(&self, key: &mut Option<Key>, op: &Op<'_>, index: u64) -> Result<(), String> {
        let holder = key.as_ref().and_then(|key| key.session.as_ref());
        let refusal = match op {
            Op::CheckNotExists => key.is_some().then_some("the key exists"),
            Op::CheckIndex(known) => (key.as_ref().map(|key| key.modify_index) != Some(*known))
                .then_some("failed index check"),
            Op::CheckSession(session) => {
                (holder != Some(*session)).then_some("failed session check")
            }
            Op::Lock(session, _) if !self.sessions.contains_key(*session) => {
                Some("invalid session")
            }
            Op::Lock(session, _) => holder
                .is_some_and(|holder| holder != *session)
                .then_some("lock is already held"),
            Op::Unlock(session, _) => {
                (holder != Some(*session)).then_some("lock isn't held by that session")
            }
        };
        if let Some(why) = refusal {
            return Err(why.to_owned());
        }
        let (session, value) = match op {
            Op::CheckNotExists | Op::CheckIndex(_) | Op::CheckSession(_) => return Ok(()),
            Op::Lock(session, value) => (Some((*session).clone()), value),
            Op::Unlock(_, value) => (None, value),
        };
        *key = Some(Key {
            modify_index: index,
            session,
            value: value.clone(),
        });
        Ok(())
    }

    /// What a reader of the lock key is told.
    pub(crate) fn sight(&self, set: usize) -> LockSight {
        LockSight {
            index: self.watch_index(set),
            key: self.locks[set].as_ref().map(|key| KeySight {
                modify_index: key.modify_index,
                session: key.session.clone(),
                record: match &key.value {
                    Value::Record(record) => Ok((**record).clone()),
                    Value::Garbage => Err(RecordError::Garbage {
                        why: "expected value at line 1 column 1".to_owned(),
                    }),
                    Value::OtherVersion => Err(RecordError::UnknownVersion { found: 2 }),
                },
            }),
        }
    }

    /// The index of a read of the lock key: of its last change, or of the store where there is none.
    pub(crate) fn watch_index(&self, set: usize) -> u64 {
        self.locks[set]
            .as_ref()
            .map_or(self.index, |key| key.modify_index)
    }

    pub(crate) fn record(&self, set: usize) -> Option<&Arc<Record>> {
        match &self.locks[set].as_ref()?.value {
            Value::Record(record) => Some(record),
            Value::Garbage | Value::OtherVersion => None,
        }
    }

    pub(crate) fn holder(&self, set: usize) -> Option<&SessionId> {
        self.locks[set].as_ref()?.session.as_ref()
    }

    pub(crate) fn create_session(&mut self, now: Time, lives: Time) -> SessionId {
        self.made += 1;
        self.index += 1;
        let id = SessionId::new(format!("session-{}", self.made));
        self.sessions.insert(
            id.clone(),
            Session {
                renewed_at: now,
                lives,
            },
        );
        id
    }

    pub(crate) fn renew_session(&mut self, id: &SessionId, now: Time) -> bool {
        let session = self.sessions.get_mut(id);
        session.is_some_and(|session| {
            session.renewed_at = now;
            true
        })
    }

    /// Its end frees what it held, in one step. Returns the sets whose lock it held.
    pub(crate) fn end_session(&mut self, id: &SessionId) -> Vec<usize> {
        if self.sessions.remove(id).is_none() {
            return Vec::new();
        }
        self.index += 1;
        let mut freed = Vec::new();
        for (set, key) in self.locks.iter_mut().enumerate() {
            if let Some(key) = key.as_mut().filter(|key| key.session.as_ref() == Some(id)) {
                key.session = None;
                key.modify_index = self.index;
                freed.push(set);
            }
        }
        freed
    }

    /// A new leader knows no timers: each session's life begins anew.
    pub(crate) fn new_leader(&mut self, now: Time) {
        for session in self.sessions.values_mut() {
            session.renewed_at = now;
        }
    }

    /// What anybody may do to the key with `consul kv put`: the lock stays held.
    pub(crate) fn overwrite(&mut self, set: usize, value: Value) {
        self.index += 1;
        let session = self.holder(set).cloned();
        self.locks[set] = Some(Key {
            modify_index: self.index,
            session,
            value,
        });
    }

    pub(crate) fn delete(&mut self, set: usize) {
        self.index += 1;
        self.locks[set] = None;
    }

    pub(crate) fn board(&self, set: usize) -> Board {
        let beside = &self.beside[set];
        Board {
            members: beside.members.clone(),
            ballots: beside.ballots.clone(),
            switchover: beside.switchover.clone(),
            pause: beside.pause.clone().or_else(|| self.cluster_pause.clone()),
            ..Board::default()
        }
    }

    pub(crate) fn write_ballot(&mut self, set: usize, ballot: &Ballot) {
        self.index += 1;
        let beside = &mut self.beside[set];
        beside.ballots_index = self.index;
        beside
            .ballots
            .insert(ballot.instance.clone(), ballot.clone());
    }

    /// Check-and-set of a member's key, which `rests_on` how it stood then.
    pub(crate) fn write_member(
        &mut self,
        set: usize,
        member: &Member,
        rests_on: Time,
        now: Time,
    ) -> bool {
        let beside = &mut self.beside[set];
        let written_at = beside.members_at.get(&member.instance);
        if written_at.is_some_and(|written_at| *written_at > rests_on) {
            return false;
        }
        beside.members_at.insert(member.instance.clone(), now);
        beside
            .members
            .insert(member.instance.clone(), member.clone());
        true
    }

    /// Check-and-set of the switchover key.
    pub(crate) fn write_switchover(
        &mut self,
        set: usize,
        index: u64,
        order: &Switchover,
    ) -> Option<u64> {
        let known = self.beside[set]
            .switchover
            .as_ref()
            .map_or(0, |(index, _)| *index);
        (known == index).then(|| self.order(set, order.clone()))
    }

    /// What an operator writes, whatever stands there.
    pub(crate) fn order(&mut self, set: usize, order: Switchover) -> u64 {
        self.index += 1;
        self.beside[set].switchover = Some((self.index, order));
        self.index
    }
}
