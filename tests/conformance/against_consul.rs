//! Consul: 1.8.7 behind the agent's own adapter, and `tests/sim/src/consul.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tarsec::decide::term::Term;

use tarsec::config::{ConsulConfig, ConsulTls};
use tarsec::consul::{Consul, LockOutcome, LockStep, LockView, Renewal};
use tarsec_harness::{Result, World};

use crate::consul::{Store, Value};
use crate::decide::ids::SessionId;
use crate::decide::plan::{Action, Attempt};
use crate::decide::record::{Cause, Record, Status};
use crate::decide::sight::LockSight;
use crate::decide::timing::Reading;
use crate::decide::vclock::Vclock;
use crate::rng::Rng;

/// Two locks, so that what happens to one is seen not to concern the other.
const LOCKS: usize = 2;
const SESSIONS: usize = 3;
const STEPS: usize = 400;
const TIMEOUT: Duration = Duration::from_secs(20);
/// A watch that has nothing to say is over soon.
const WATCH: Duration = Duration::from_millis(30);
const RUBBISH: &str = "rubbish";

/// Model and Consul, and how the words of one are said in the other.
struct Twins {
    real: Consul,
    api: tarsec_harness::ConsulApi,
    model: Store,
    /// In the model, and in Consul.
    sessions: Vec<(SessionId, SessionId)>,
    /// Each key's indices, as they were seen, in the model and in Consul.
    indices: [Vec<(u64, u64)>; LOCKS],
    /// No two writes are alike: Consul takes a write that changes nothing for none.
    written: u64,
}

fn key(lock: usize) -> String {
    format!("conformance/{lock}/leader")
}

fn record(refresh: u64) -> Record {
    Record {
        v: 1,
        term: Term::from(1),
        instance: "instance".to_owned(),
        replicaset: "set".to_owned(),
        name: "instance".to_owned(),
        uri: "instance:3301".to_owned(),
        agent: "agent".to_owned(),
        status: Status::Active,
        lease_ms: 2_000,
        refresh,
        vclock: Vclock::default(),
        members: Vec::new(),
        since: 0,
        since_ms: 0,
        reason: "a test".to_owned(),
        cause: Cause::First,
        base: Vclock::default(),
        following: Vec::new(),
        split_off: Vec::new(),
        failsafe: false,
        paused: false,
        refused: false,
        last_master: None,
        unguarded: None,
        rate_rows_per_s: None,
        quorum: None,
        offered: false,
        tried: Default::default(),
        end: None,
        handover_to: None,
        problems: Vec::new(),
    }
}

fn bytes(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).unwrap()
}

/// The reasons for a refusal, and the words for each in model and Consul.
const KINDS: [(&str, &[&str]); 6] = [
    ("there is a key", &["the key exists", "exists"]),
    ("another index", &["failed index check", "check index"]),
    (
        "another session",
        &["failed session check", "check session"],
    ),
    ("no such session", &["invalid session"]),
    ("held", &["lock is already held"]),
    ("not held", &["lock isn't held"]),
];

/// The reason for the first refusal: Consul goes on, and says of each operation what is wrong with it.
fn kind(why: &str) -> &'static str {
    let found = KINDS.iter().filter_map(|(kind, words)| {
        let at = words.iter().filter_map(|word| why.find(word)).min()?;
        Some((at, *kind))
    });
    let first = found.min();
    first.map_or_else(
        || panic!("a refusal of no known kind: {why}"),
        |(_, kind)| kind,
    )
}

impl Twins {
    /// The key, as both see it now, is the same.
    async fn compare(&mut self, lock: usize, after: &str) -> Result<LockView> {
        let view = self.real.read_lock(&key(lock)).await.unwrap();
        let sight = self.model.sight(lock);
        let said = |session: &SessionId| {
            let at = self.sessions.iter().position(|(known, _)| known == session);
            self.sessions[at.unwrap()].1.clone()
        };
        let expected = sight.key.as_ref().map(|key| {
            let value = match self.model.record(lock) {
                Some(record) => bytes(record),
                None => RUBBISH.as_bytes().to_vec(),
            };
            (key.session.as_ref().map(said), value)
        });
        let found = view.key.clone().map(|key| (key.session, key.value));
        assert_eq!(found, expected, "lock {lock} after {after}");
        self.compare_index(lock, &sight, &view, after);
        Ok(view)
    }

    /// An index grows in one when it grows in the other.
    fn compare_index(&mut self, lock: usize, sight: &LockSight, view: &LockView, after: &str) {
        let (Some(here), Some(there)) = (&sight.key, &view.key) else {
            return;
        };
        assert_eq!(view.index, there.modify_index, "lock {lock} after {after}");
        assert_eq!(sight.index, here.modify_index, "lock {lock} after {after}");
        let now = (here.modify_index, there.modify_index);
        let known = self.indices[lock].last().copied().unwrap_or((0, 0));
        assert_eq!(
            now.0.cmp(&known.0),
            now.1.cmp(&known.1),
            "lock {lock} after {after}: {now:?} after {known:?}"
        );
        if now != known {
            self.indices[lock].push(now);
        }
    }

    /// A watch that knows the last index: answered at once where something has happened, else when it is over.
    async fn watch(&mut self, lock: usize, known: &LockView, after: &str) {
        let seen = self.real.watch_lock(&key(lock), known.index, WATCH).await;
        let seen = seen.unwrap();
        if seen.key.is_some() && known.key.is_some() {
            let changed = seen.index > known.index;
            let news = seen.key != known.key;
            assert_eq!(changed, news, "the watch on lock {lock} after {after}");
        }
    }

    /// Mostly the index that is true; else an index that was true, or none.
    fn draw_index(&self, rng: &mut Rng, lock: usize) -> Option<(u64, u64)> {
        let known = &self.indices[lock];
        match rng.below(10) {
            0..7 => known.last().copied(),
            _ if known.is_empty() => None,
            _ => Some(known[known.len() - 1 - rng.index(known.len().min(4))]),
        }
    }

    /// Mostly the session that holds the lock.
    fn draw_session(&self, rng: &mut Rng, lock: usize) -> (SessionId, SessionId) {
        let held = self.model.holder(lock).filter(|_| rng.percent(70));
        let known = held.and_then(|held| self.sessions.iter().find(|(known, _)| known == held));
        // Among the last sessions are some that have ended.
        let last = &self.sessions[self.sessions.len() - (SESSIONS + 1)..];
        known.unwrap_or(&last[rng.index(last.len())]).clone()
    }

    /// One step at the lock, in the words of both.
    fn draw_step(&mut self, rng: &mut Rng, lock: usize) -> (Action, LockStep) {
        self.written += 1;
        let record = record(self.written);
        let value = bytes(&record);
        let (here, there) = self.draw_session(rng, lock);
        let attempt = Box::new(Attempt {
            record: record.clone(),
            reading: Reading {
                t0: Default::default(),
                reply_at: Default::default(),
            },
            gain: None,
        });
        let index = self.draw_index(rng, lock);
        let Some((index, real_index)) = index.filter(|_| !rng.percent(10)) else {
            let action = Action::Acquire {
                session: here,
                index: None,
                attempt,
            };
            let session = there;
            return (action, LockStep::Create { session, value });
        };
        match rng.below(4) {
            0 => (
                Action::Acquire {
                    session: here,
                    index: Some(index),
                    attempt,
                },
                LockStep::Acquire {
                    index: real_index,
                    session: there,
                    value,
                },
            ),
            1 => (
                Action::Refresh {
                    session: here,
                    index,
                    attempt,
                },
                LockStep::Refresh {
                    index: real_index,
                    session: there,
                    value,
                },
            ),
            2 => (
                Action::Release {
                    session: here,
                    index,
                    record: Box::new(record),
                },
                LockStep::Release {
                    index: real_index,
                    session: there,
                    value,
                },
            ),
            _ => {
                let (mine, real_mine) = self.draw_session(rng, LOCKS - 1 - lock);
                let action = Action::TakeOver {
                    session: mine,
                    holder: here,
                    index,
                    attempt,
                };
                let step = LockStep::TakeOver {
                    index: real_index,
                    holder: there,
                    session: real_mine,
                    value,
                };
                (action, step)
            }
        }
    }

    async fn step(&mut self, rng: &mut Rng, lock: usize, refusals: &mut BTreeSet<&'static str>) {
        let (action, step) = self.draw_step(rng, lock);
        let (_, model) = self.model.lock_step(lock, &action).unwrap();
        let real = self.real.transact(&key(lock), &step).await.unwrap();
        match (real, model) {
            (LockOutcome::Done { modify_index, .. }, Ok(index)) => {
                self.indices[lock].push((index, modify_index));
            }
            (LockOutcome::Refused { why }, Err(known)) => {
                assert_eq!(kind(&why), kind(&known), "{why} {action:?}");
                refusals.insert(kind(&why));
            }
            (real, model) => panic!("{step:?}: Consul says {real:?}, the model {model:?}"),
        }
    }

    async fn begin_session(&mut self) {
        let real = self.real.create_session("conformance", TIMEOUT).await;
        let model = self.model.create_session(0, 0);
        self.sessions.push((model, real.unwrap()));
    }

    /// Renews or ends one of the last sessions.
    async fn session(&mut self, rng: &mut Rng) {
        let (model, real) =
            self.sessions[self.sessions.len() - 1 - rng.index(SESSIONS + 1)].clone();
        if rng.percent(50) {
            let renewed = self.real.renew_session(&real).await.unwrap();
            let expected = self.model.renew_session(&model, 0);
            assert_eq!(renewed == Renewal::Renewed, expected, "{real} is renewed");
        } else {
            self.real.destroy_session(&real).await.unwrap();
            self.model.end_session(&model);
            self.begin_session().await;
        }
    }

    /// Changes that anybody may make to a key.
    async fn by_hand(&mut self, rng: &mut Rng, lock: usize) -> Result<()> {
        if rng.percent(40) {
            self.api.kv_delete(&key(lock)).await?;
            self.model.delete(lock);
        } else if rng.percent(50) {
            // Twice the same is no change.
            if self.model.record(lock).is_some() || self.model.locks[lock].is_none() {
                self.api.kv_put(&key(lock), RUBBISH).await?;
                self.model.overwrite(lock, Value::Garbage);
            }
        } else {
            self.written += 1;
            let record = record(self.written);
            self.api.kv_put(&key(lock), bytes(&record)).await?;
            self.model.overwrite(lock, Value::Record(Arc::new(record)));
        }
        Ok(())
    }
}

fn settings(addr: &str) -> ConsulConfig {
    ConsulConfig {
        base_url: format!("http://{addr}"),
        token: None,
        basic_auth: None,
        tls: ConsulTls::default(),
        namespace: None,
        kv_prefix: "conformance".to_owned(),
        lock_key: None,
        session_name: "conformance".to_owned(),
        monitor_retries: 3,
        monitor_retry_interval: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn the_simulations_consul_answers_as_consul() {
    let story = async |world: &World| {
        let options = tarsec_harness::ConsulOptions::default().in_memory();
        let consul = world.consul_with(options).await?;
        let mut twins = Twins {
            real: Consul::new(&settings(&consul.agent_addr(0)), TIMEOUT).unwrap(),
            api: consul.api()?.clone(),
            model: Store::new(LOCKS),
            sessions: Vec::new(),
            indices: Default::default(),
            written: 0,
        };
        for _ in 0..=SESSIONS {
            twins.begin_session().await;
        }
        let mut rng = Rng::new(1, 4);
        let mut refusals = BTreeSet::new();
        for number in 0..STEPS {
            let lock = rng.index(LOCKS);
            let known = twins.real.read_lock(&key(lock)).await.unwrap();
            match rng.below(10) {
                0 => twins.session(&mut rng).await,
                1 => twins.by_hand(&mut rng, lock).await?,
                _ => twins.step(&mut rng, lock, &mut refusals).await,
            }
            let after = format!("step {number}");
            if rng.percent(10) {
                twins.watch(lock, &known, &after).await;
            }
            for lock in 0..LOCKS {
                twins.compare(lock, &after).await?;
            }
        }
        // Nothing was left out by chance.
        let all: BTreeSet<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(refusals, all);
        Ok(())
    };
    World::builder().story("consul-conformance", story).await;
}
