//! A lock and an instance to play with: Consul's transactions and the guard's rules, without I/O.

mod instance;

use crate::event::KillResult;
use crate::term::Term;
pub(super) use instance::ToyInstance;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::board::{Ballot, Board, HistoryLine, Member, Pause, Switchover};
use crate::event::{Event, LockStepKind};
use crate::ids::SessionId;
use crate::observed::{GuardClock, GuardState, Peer, Probe, Promise, Upstream};
use crate::plan::{Action, Before};
use crate::record::Record;
use crate::sight::{ConsulFault, KeySight, LockSight};
use crate::timing::{InstanceTime, Tick};
use crate::vclock::Vclock;
use crate::vshard::{VshardAction, VshardEvent};

/// Consul, as far as one lock key needs it.
#[derive(Debug, Default)]
pub(super) struct ToyLock {
    /// Members that are writable and have no guard.
    pub(super) unguarded: crate::unguarded::Unguarded,
    pub(super) index: u64,
    pub(super) key: Option<ToyKey>,
    /// Living sessions and when each was last renewed.
    pub(super) sessions: BTreeMap<SessionId, Tick>,
    sessions_made: u64,
    /// The highest term that a member key mentions.
    pub(super) members_term: Term,
    pub(super) members: BTreeMap<String, Member>,
    pub(super) ballots: BTreeMap<String, Ballot>,
    ballots_index: u64,
    pub(super) switchover: Option<(u64, Switchover)>,
    pub(super) pause: Option<Pause>,
    /// More members' keys stand there than are read.
    pub(super) misses_members: bool,
    pub(super) history: BTreeMap<u64, HistoryLine>,
}

/// A board on which some member mentions this term.
pub(super) fn board_with_term(term: Term) -> Board {
    let member: Member = serde_json::from_value(serde_json::json!({
        "v": 1, "instance": "", "replicaset": "", "name": "", "uri": "", "role": "replica",
        "term": term, "lease_ms": 0,
    }))
    .unwrap();
    Board {
        members: BTreeMap::from([("somebody".to_owned(), member)]),
        ..Board::default()
    }
}

/// A healthy replica's key.
pub(super) fn member(instance: &str, name: &str) -> Member {
    serde_json::from_value(serde_json::json!({
        "v": 1, "instance": instance, "replicaset": "replicaset", "name": name, "uri": name, "role": "replica",
        "health": "passing", "term": 1, "lease_ms": 10_000,
    }))
    .unwrap()
}

#[derive(Debug, Clone)]
pub(super) struct ToyKey {
    pub(super) modify_index: u64,
    pub(super) session: Option<SessionId>,
    pub(super) value: Vec<u8>,
}

impl ToyLock {
    /// What a blocking query waits for a change of.
    pub(super) fn watch_index(&self) -> u64 {
        self.key.as_ref().map_or(self.index, |key| key.modify_index)
    }

    pub(super) fn sight(&self) -> LockSight {
        LockSight {
            index: self.watch_index(),
            key: self.key.as_ref().map(|key| KeySight {
                modify_index: key.modify_index,
                session: key.session.clone(),
                record: Record::parse(&key.value),
            }),
        }
    }

    pub(super) fn holder(&self) -> Option<&SessionId> {
        self.key.as_ref()?.session.as_ref()
    }

    pub(super) fn record(&self) -> Option<Record> {
        Record::parse(&self.key.as_ref()?.value).ok()
    }

    /// Writes the key, whoever asks: what an operator with `consul kv put` may do.
    pub(super) fn put(&mut self, session: Option<SessionId>, value: impl Into<Vec<u8>>) -> u64 {
        self.index += 1;
        let modify_index = self.index;
        self.key = Some(ToyKey {
            modify_index,
            session,
            value: value.into(),
        });
        modify_index
    }

    pub(super) fn put_record(&mut self, session: Option<SessionId>, record: &Record) -> u64 {
        self.put(session, record.to_bytes())
    }

    pub(super) fn delete_key(&mut self) {
        self.index += 1;
        self.key = None;
    }

    pub(super) fn create_session(&mut self, now: Tick) -> SessionId {
        self.sessions_made += 1;
        self.index += 1;
        let id = SessionId::new(format!("session-{}", self.sessions_made));
        self.sessions.insert(id.clone(), now);
        id
    }

    /// Its end frees what it held, in one step.
    pub(super) fn end_session(&mut self, id: &SessionId) {
        if self.sessions.remove(id).is_some() && self.holder() == Some(id) {
            let value = self.key.take().map(|key| key.value).unwrap_or_default();
            self.put(None, value);
        }
    }

    pub(super) fn expire_sessions(&mut self, age: Duration, now: Tick) {
        let expired: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, renewed_at)| now.since(**renewed_at) > age)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.end_session(&id);
        }
    }

    fn renew_session(&mut self, id: &SessionId, now: Tick) -> bool {
        match self.sessions.get_mut(id) {
            Some(renewed_at) => {
                *renewed_at = now;
                true
            }
            None => false,
        }
    }

    fn acquire(
        &mut self,
        session: &SessionId,
        index: Option<u64>,
        record: &Record,
    ) -> Result<u64, String> {
        if !self.sessions.contains_key(session) {
            return Err("invalid session".to_owned());
        }
        if index != self.key.as_ref().map(|key| key.modify_index) {
            return Err("the index is another".to_owned());
        }
        if self.holder().is_some_and(|holder| holder != session) {
            return Err("the lock is held".to_owned());
        }
        Ok(self.put_record(Some(session.clone()), record))
    }

    fn take_over(
        &mut self,
        session: &SessionId,
        holder: &SessionId,
        index: u64,
        record: &Record,
    ) -> Result<u64, String> {
        if !self.sessions.contains_key(session) {
            return Err("invalid session".to_owned());
        }
        if self.key.as_ref().map(|key| key.modify_index) != Some(index) {
            return Err("the index is another".to_owned());
        }
        if self.holder() != Some(holder) {
            return Err("the lock is not held by that session".to_owned());
        }
        Ok(self.put_record(Some(session.clone()), record))
    }

    /// What a holder reads beside its refresh.
    pub(super) fn seen_beside(&self, answer: &Event, asked_at: Tick) -> Option<Event> {
        let refreshed = matches!(
            answer,
            Event::LockStepEnded {
                step: LockStepKind::Refresh,
                result: Ok(Ok(_)),
            }
        );
        refreshed.then(|| Event::BoardSeen {
            asked_at,
            result: Ok(Box::new(self.board())),
        })
    }

    /// The ballot of a member whose agent waits for the lock that stands there now.
    pub(super) fn says_ready(&mut self, instance: &str) {
        let term = self
            .record()
            .map_or(Term::FIRST, |record| record.term.next());
        let index = self.watch_index();
        let ballot = serde_json::from_value(serde_json::json!({
            "v": 1, "instance": instance, "name": "b:3301", "term": term, "index": index,
        }));
        self.write_ballot(&ballot.unwrap());
    }

    /// What an operator writes, whatever stands there.
    pub(super) fn order(&mut self, switchover: Switchover) {
        self.index += 1;
        self.switchover = Some((self.index, switchover));
    }

    fn write_switchover(&mut self, index: u64, switchover: &Switchover) -> Option<u64> {
        let known = self.switchover.as_ref().map_or(0, |(known, _)| *known);
        (known == index).then(|| {
            self.order(switchover.clone());
            self.index
        })
    }

    pub(super) fn write_ballot(&mut self, ballot: &Ballot) {
        self.index += 1;
        self.ballots_index = self.index;
        self.ballots.insert(ballot.instance.clone(), ballot.clone());
    }

    pub(super) fn board(&self) -> Board {
        let mut board = board_with_term(self.members_term);
        board.members.extend(self.members.clone());
        Board {
            ballots: self.ballots.clone(),
            switchover: self.switchover.clone(),
            pause: self.pause.clone(),
            misses_members: self.misses_members,
            ..board
        }
    }

    /// What a blocking query for ballots answers; without news there is no answer until its wait is over.
    pub(super) fn ballots_after(&self, after: u64, waited: bool) -> Option<Event> {
        (after == 0 || self.ballots_index > after || waited).then(|| Event::BallotsRead {
            result: Ok((self.ballots_index.max(1), self.ballots.clone())),
        })
    }

    /// `check-session`, `check-index` and a write that keeps or ends the hold.
    fn write_held(
        &mut self,
        session: &SessionId,
        index: u64,
        keep: bool,
        record: &Record,
    ) -> Result<u64, String> {
        if self.holder() != Some(session) {
            return Err("the session does not hold the lock".to_owned());
        }
        if self.key.as_ref().map(|key| key.modify_index) != Some(index) {
            return Err("failed index check".to_owned());
        }
        Ok(self.put_record(keep.then(|| session.clone()), record))
    }

    /// Carries out what is Consul's to carry out, and answers; `None`: not for Consul.
    pub(super) fn obey(&mut self, action: &Action, asked_at: Tick, now: Tick) -> Option<Event> {
        let step = |step, result| Event::LockStepEnded {
            step,
            result: Ok(result),
        };
        Some(match action {
            Action::CreateSession => Event::SessionCreated {
                result: Ok(self.create_session(now)),
            },
            Action::RenewSession { session } => Event::SessionRenewed {
                session: session.clone(),
                result: Ok(self.renew_session(session, now)),
            },
            Action::DestroySession { session } => {
                self.end_session(session);
                Event::SessionDestroyed
            }
            Action::ReadLock => Event::LockRead {
                asked_at,
                by_watch: false,
                result: Ok(self.sight()),
            },
            Action::ReadBoard => Event::BoardRead {
                result: Ok(Box::new(self.board())),
            },
            Action::Acquire {
                session,
                index,
                attempt,
            } => step(
                LockStepKind::Acquire,
                self.acquire(session, *index, &attempt.record),
            ),
            Action::Refresh {
                session,
                index,
                attempt,
            } => step(
                LockStepKind::Refresh,
                self.write_held(session, *index, true, &attempt.record),
            ),
            Action::TakeOver {
                session,
                holder,
                index,
                attempt,
            } => step(
                LockStepKind::TakeOver,
                self.take_over(session, holder, *index, &attempt.record),
            ),
            Action::WriteBallot { ballot } => {
                self.write_ballot(ballot);
                Event::BallotWritten {
                    index: ballot.index,
                    result: Ok((self.ballots_index, self.ballots.clone())),
                }
            }
            Action::ReadBallots { after, wait } => {
                let waited = now.since(asked_at) >= *wait;
                return self.ballots_after(*after, waited);
            }
            Action::WriteSwitchover {
                index, switchover, ..
            } => Event::SwitchoverWritten {
                result: Ok(self.write_switchover(*index, switchover)),
            },
            Action::ReadHistory => Event::HistoryRead {
                result: Ok(self.history.values().cloned().collect()),
            },
            Action::WriteHistory { line, .. } => {
                self.history.insert(line.term.get(), (**line).clone());
                Event::HistoryWritten {
                    term: line.term,
                    result: Ok(()),
                }
            }
            Action::AskPromises {
                members, reading, ..
            } => Event::PromisesAnswered {
                unguarded: self.unguarded.clone(),
                reading: *reading,
                answers: members
                    .keys()
                    .map(|uuid| (uuid.clone(), Err("cannot be reached".to_owned())))
                    .collect(),
            },
            Action::Release {
                session,
                index,
                record,
            } => step(
                LockStepKind::Release,
                self.write_held(session, *index, false, record),
            ),
            Action::Tell { .. } | Action::Deregister => Event::CatalogEnded { result: Ok(true) },
            Action::WriteMember { member } => {
                self.members_term = self.members_term.max(member.term);
                self.members
                    .insert(member.instance.clone(), (**member).clone());
                Event::MemberEnded { result: Ok(()) }
            }
            Action::Guard(_) | Action::Kill | Action::Vshard(_) | Action::Exit { .. } => {
                return None;
            }
        })
    }
}

/// What the agent hears when the answer to `action` never comes.
pub(super) fn lost(action: &Action, asked_at: Tick) -> Option<Event> {
    let fault = ConsulFault {
        why: "no answer".to_owned(),
        denied: false,
    };
    let step = |step| Event::LockStepEnded {
        step,
        result: Err(fault.clone()),
    };
    Some(match action {
        Action::CreateSession => Event::SessionCreated { result: Err(fault) },
        Action::RenewSession { session } => Event::SessionRenewed {
            session: session.clone(),
            result: Err(fault),
        },
        Action::DestroySession { .. } => Event::SessionDestroyed,
        Action::ReadLock => Event::LockRead {
            asked_at,
            by_watch: false,
            result: Err(fault),
        },
        Action::ReadBoard => Event::BoardRead { result: Err(fault) },
        Action::WriteBallot { ballot } => Event::BallotWritten {
            index: ballot.index,
            result: Err(fault),
        },
        Action::ReadBallots { .. } => Event::BallotsRead { result: Err(fault) },
        Action::WriteSwitchover { .. } => Event::SwitchoverWritten { result: Err(fault) },
        Action::ReadHistory => Event::HistoryRead { result: Err(fault) },
        Action::WriteHistory { line, .. } => Event::HistoryWritten {
            term: line.term,
            result: Err(fault),
        },
        Action::AskPromises {
            members, reading, ..
        } => Event::PromisesAnswered {
            unguarded: Default::default(),
            reading: *reading,
            answers: members
                .keys()
                .map(|uuid| (uuid.clone(), Err("no answer".to_owned())))
                .collect(),
        },
        Action::Acquire { .. } => step(LockStepKind::Acquire),
        Action::TakeOver { .. } => step(LockStepKind::TakeOver),
        Action::Refresh { .. } => step(LockStepKind::Refresh),
        Action::Release { .. } => step(LockStepKind::Release),
        Action::Tell { .. } | Action::Deregister => Event::CatalogEnded { result: Err(fault) },
        Action::WriteMember { .. } => Event::MemberEnded { result: Err(fault) },
        Action::Kill => Event::KillEnded {
            result: KillResult::Failed("no answer".to_owned()),
        },
        Action::Vshard(VshardAction::Apply { sequence, .. }) => {
            Event::Vshard(VshardEvent::Applied {
                sequence: *sequence,
                result: Err("no answer".to_owned()),
            })
        }
        Action::Vshard(VshardAction::WriteMaster { .. }) => {
            Event::Vshard(VshardEvent::MasterWritten { result: Err(fault) })
        }
        Action::Exit { .. } => return None,
        Action::Guard(_) => Event::GuardFailed {
            command: action.guard_command_kind()?,
            why: "no answer".to_owned(),
        },
    })
}

/// A peer that follows and is followed.
pub(super) fn follower(uuid: &str) -> Peer {
    Peer {
        // Of the master that the records and vclocks of these tests speak of.
        id: 1,
        uuid: uuid.to_owned(),
        upstream: Some(Upstream {
            status: "follow".to_owned(),
            peer: None,
            lag_s: None,
            idle_s: Some(0.1),
            message: None,
            locked_out: false,
        }),
        downstream_status: Some("follow".to_owned()),
        downstream_vclock: Some(Vclock::from([("1".to_owned(), u64::MAX)])),
    }
}
