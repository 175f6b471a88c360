//! Whatever stands in the lock, in the keys beside it, in the history and in an operator's order, and whatever an instance says of
//! itself, in whatever order and at whatever times: the core neither panics nor overflows, does a bounded number of things at once,
//! believes no term beyond the bound, and writes nothing that its own kind cannot read.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tarsec::decide::addresses::PeerAddrs;
use tarsec::decide::board::{Ballot, Board, HistoryLine, Member, Switchover, parse};
use tarsec::decide::decide;
use tarsec::decide::event::{Event, GuardCommandKind, KillResult, LockStepKind};
use tarsec::decide::sight::{ConsulFault, KeySight, LockSight};
use tarsec::decide::ids::SessionId;
use tarsec::decide::observed::Probe;
use tarsec::decide::plan::{Action, Attempt};
use tarsec::decide::record::Record;
use tarsec::decide::settings::{Elector, Settings, SyncLoss};
use tarsec::decide::state::State;
use tarsec::decide::term::Term;
use tarsec::decide::timing::{Tick, Timing};
use tarsec::decide::unguarded::Unguarded;

/// A turn starts at most one thing at each place.
const MAX_ACTIONS: usize = 16;
/// Longer stories find nothing that shorter ones do not.
const MAX_EVENTS: usize = 200;

const OWN: &str = "00000000-0000-4000-8000-000000000001";
const SET: &str = "00000000-0000-4000-9000-000000000001";

struct Words<'a, 'b>(&'b mut Unstructured<'a>);

impl Words<'_, '_> {
    fn below(&mut self, limit: u64) -> Result<u64> {
        self.0.int_in_range(0..=limit - 1)
    }

    fn flag(&mut self) -> Result<bool> {
        bool::arbitrary(self.0)
    }

    /// Around what numbers mean here, or any.
    fn number(&mut self) -> Result<u64> {
        let around = [
            1,
            7,
            60_000,
            1 << 32,
            1 << 52,
            (1 << 53) - 1,
            1 << 53,
            u64::MAX,
            1_700_000_000_000,
        ];
        Ok(match self.below(4)? {
            0 => self.below(12)?,
            1 => u64::from(u8::arbitrary(self.0)?),
            2 => self
                .0
                .choose(&around)?
                .wrapping_add(self.below(3)?)
                .wrapping_sub(1),
            _ => u64::arbitrary(self.0)?,
        })
    }

    fn instance(&mut self) -> Result<String> {
        Ok(match self.below(8)? {
            0..3 => OWN.to_owned(),
            3..6 => format!("00000000-0000-4000-8000-00000000000{}", self.below(4)? + 1),
            6 => String::new(),
            _ => "x".repeat(usize::try_from(self.number()? % 5_000).unwrap_or(0)),
        })
    }

    /// As an instance names itself and its peers: Tarantool refuses anything but a UUID.
    fn uuid(&mut self) -> Result<String> {
        Ok(format!(
            "00000000-0000-4000-8000-00000000000{}",
            self.below(4)? + 1
        ))
    }

    fn text(&mut self) -> Result<String> {
        Ok(match self.below(4)? {
            0 => String::new(),
            1 => "10.0.0.1:3301".to_owned(),
            2 => "\"\u{1f}".repeat(usize::try_from(self.number()? % 300).unwrap_or(0)),
            _ => String::arbitrary(self.0)?,
        })
    }

    fn vclock(&mut self) -> Result<Value> {
        let mut vclock = serde_json::Map::new();
        for _ in 0..self.below(4)? {
            let component = self.below(4)?.to_string();
            vclock.insert(component, json!(self.number()?));
        }
        Ok(Value::Object(vclock))
    }

    fn instances(&mut self) -> Result<Vec<String>> {
        (0..self.below(4)?).map(|_| self.instance()).collect()
    }

    fn maybe(&mut self, value: impl FnOnce(&mut Self) -> Result<Value>) -> Result<Value> {
        if self.flag()? {
            value(self)
        } else {
            Ok(Value::Null)
        }
    }

    fn party(&mut self) -> Result<Value> {
        Ok(json!({"instance": self.instance()?, "name": self.text()?}))
    }

    fn record(&mut self) -> Result<Value> {
        let status = self.0.choose(&["promoting", "active", "fenced"])?;
        let mut record = json!({
            "v": 1, "term": self.number()?, "instance": self.instance()?, "replicaset": SET, "name": self.text()?,
            "uri": self.text()?, "agent": self.0.choose(&["first", "second"])?, "status": status,
            "lease_ms": self.number()?, "refresh": self.number()?, "vclock": self.vclock()?, "members": self.instances()?,
            "since": self.number()?, "since_ms": self.number()?, "reason": self.text()?, "base": self.vclock()?,
            "following": self.instances()?, "split_off": self.instances()?, "failsafe": self.flag()?,
            "paused": self.flag()?, "refused": self.flag()?, "offered": self.flag()?, "tried": self.instances()?,
            "problems": [self.text()?],
        });
        record["last_master"] =
            self.maybe(|it| Ok(json!({"instance": it.instance()?, "vclock": it.vclock()?})))?;
        record["quorum"] =
            self.maybe(|it| Ok(json!({"size": it.number()?, "members": it.instances()?})))?;
        record["handover_to"] = self.maybe(|it| Ok(json!(it.instance()?)))?;
        record["unguarded"] = self.maybe(|it| Ok(json!(it.instances()?)))?;
        record["rate_rows_per_s"] = self.maybe(|it| Ok(json!(it.number()?)))?;
        Ok(record)
    }

    fn lock(&mut self) -> Result<LockSight> {
        let index = self.number()?;
        let key = if self.flag()? {
            let record = Record::parse(self.record()?.to_string().as_bytes());
            let session = self.below(3)?;
            let session =
                (session > 0).then(|| SessionId::new(["own", "theirs"][usize::from(session == 2)]));
            Some(KeySight {
                modify_index: index,
                session,
                record,
            })
        } else {
            None
        };
        Ok(LockSight { index, key })
    }

    fn member(&mut self) -> Result<Option<Member>> {
        let member = json!({
            "v": 1, "instance": self.instance()?, "replicaset": SET, "name": self.text()?, "uri": self.text()?,
            "role": "replica", "health": self.text()?, "reason": self.text()?, "dead": self.flag()?,
            "term": self.number()?, "lease_ms": self.number()?, "priority": i64::arbitrary(self.0)?,
            "vclock": self.vclock()?, "upstreams": {self.instance()?: "follow"}, "unfollowed": self.flag()?,
            "anonymous": self.flag()?, "shared": {"MASTER_LEASE": self.text()?}, "written": self.number()?,
            "written_ms": self.number()?, "paused": self.flag()?, "stands_down": self.flag()?,
        });
        Ok(parse(member.to_string().as_bytes()))
    }

    fn ballot(&mut self) -> Result<Option<Ballot>> {
        let mut ballot = json!({
            "v": 1, "instance": self.instance()?, "name": self.text()?, "term": self.number()?, "index": self.number()?,
            "vclock": self.vclock()?, "following": self.flag()?, "priority": i64::arbitrary(self.0)?,
            "idle_ms": self.number()?, "unfollowed": self.flag()?,
        });
        ballot["excluded"] = self.maybe(|it| Ok(json!(it.text()?)))?;
        ballot["vote"] = self.maybe(|it| Ok(json!(it.flag()?)))?;
        Ok(parse(ballot.to_string().as_bytes()))
    }

    fn ballots(&mut self) -> Result<BTreeMap<String, Ballot>> {
        let mut ballots = BTreeMap::new();
        for _ in 0..self.below(4)? {
            if let Some(ballot) = self.ballot()? {
                ballots.insert(ballot.instance.clone(), ballot);
            }
        }
        Ok(ballots)
    }

    fn switchover(&mut self) -> Result<Option<Switchover>> {
        let states = ["requested", "running", "done", "refused", "undone", "none"];
        let switchover = json!({
            "v": 1, "id": self.text()?, "target": self.maybe(|it| Ok(json!(it.instance()?)))?, "by": self.text()?,
            "at": self.number()?, "at_ms": self.number()?, "state": self.0.choose(&states)?, "why": self.text()?,
            "catch_up_ms": self.number()?,
        });
        Ok(parse(switchover.to_string().as_bytes()))
    }

    fn board(&mut self) -> Result<Box<Board>> {
        let mut board = Board {
            ballots: self.ballots()?,
            ..Board::default()
        };
        for _ in 0..self.below(4)? {
            if let Some(member) = self.member()? {
                board.members.insert(member.instance.clone(), member);
            }
        }
        if self.flag()? {
            let index = self.number()?;
            board.switchover = self.switchover()?.map(|it| (index, it));
        }
        if self.flag()? {
            let pause = json!({"by": self.text()?, "at": self.number()?, "at_ms": self.number()?, "why": self.text()?});
            board.pause = serde_json::from_value(pause).ok();
        }
        Ok(Box::new(board))
    }

    fn line(&mut self) -> Result<Option<HistoryLine>> {
        let causes = ["first", "released", "taken_over", "switchover"];
        let mut line = json!({
            "v": 1, "term": self.number()?, "at": self.number()?, "at_ms": self.number()?, "cause": self.0.choose(&causes)?,
            "reason": self.text()?, "from": self.party()?, "to": self.party()?, "rows_at_risk": self.number()?,
            "vclock": self.vclock()?,
        });
        line["rate_rows_per_s"] = self.maybe(|it| Ok(json!(it.number()?)))?;
        line["last_word_age_ms"] = self.maybe(|it| Ok(json!(it.number()?)))?;
        line["returned"] =
            self.maybe(|it| Ok(json!({"at": it.number()?, "rows": it.number()?})))?;
        Ok(parse(line.to_string().as_bytes()))
    }

    fn probe(&mut self, now_ns: u64) -> Result<Option<Box<Probe>>> {
        let mut peers = Vec::new();
        for id in 0..self.below(4)? {
            peers.push(json!({
                "id": id, "uuid": self.uuid()?, "downstream_status": self.text()?, "downstream_vclock": self.vclock()?,
                "upstream": {
                    "status": self.0.choose(&["follow", "stopped", "disconnected"])?, "peer": self.text()?,
                    "lag_s": f64::arbitrary(self.0)?, "idle_s": f64::arbitrary(self.0)?, "message": self.text()?,
                },
            }));
        }
        let clock = if self.flag()? { now_ns } else { self.number()? };
        let instance = if self.flag()? {
            OWN.to_owned()
        } else {
            self.uuid()?
        };
        let mut probe = json!({
            "now": clock, "uuid": instance, "replicaset_uuid": SET, "ro": self.flag()?, "read_only": self.flag()?,
            "status": self.0.choose(&["running", "orphan", "loading"])?, "vclock": self.vclock()?, "id": self.below(3)?,
            "replication": peers, "pid": 7, "quorum": self.maybe(|it| Ok(json!(it.number()?)))?,
            "guard": {
                "term": self.number()?, "deadline": self.number()?, "leased": self.flag()?, "landed": self.flag()?,
                "promoting": self.flag()?, "barrier": self.flag()?, "fences": self.number()?, "unleased": self.number()?,
                "age_ns": self.number()?, "stood_down": self.flag()?, "base": self.maybe(Self::vclock)?,
                "fenced_ago_ns": self.maybe(|it| Ok(json!(it.number()?)))?,
                "writable_ago_ns": self.maybe(|it| Ok(json!(it.number()?)))?,
            },
        });
        probe["guard"]["promise"] = self.maybe(|it| {
            Ok(json!({"to": it.uuid()?, "term": it.number()?, "left_ns": it.number()?}))
        })?;
        Ok(serde_json::from_value(probe).ok().map(Box::new))
    }

    fn settings(&mut self) -> Result<Settings> {
        let lease = Duration::from_secs(10);
        let timing = Timing::new(
            lease,
            Duration::from_secs(15),
            Duration::from_secs(1),
            Duration::from_secs(2),
            Duration::from_millis(50),
        );
        Ok(Settings {
            timing: timing.expect("these fit into each other"),
            priority: Some(self.below(3)?.cast_signed() - 1),
            kill_hung: self.flag()?,
            follow: self.flag()?,
            elector: *self
                .0
                .choose(&[Elector::Smart, Elector::Idle, Elector::First])?,
            election_window: Duration::from_millis(250),
            sync_loss: *self.0.choose(&[SyncLoss::Refuse, SyncLoss::Accept])?,
            max_lag_rows: self.below(3)?,
            max_idle: Duration::from_secs(self.below(3)?),
            replica_max_idle: Duration::from_secs(self.below(6)?),
            failover_cooldown: Duration::from_secs(self.below(90)?),
            member_interval: Duration::from_secs(10),
            failsafe: self.flag()?,
            shared: BTreeMap::new(),
            announce: "10.0.0.1:3301".to_owned(),
            agent: "first".to_owned(),
            peer_addrs: PeerAddrs::parse("10.0.0.0/8").expect("a network"),
        })
    }
}

struct Story<'a, 'b> {
    state: State,
    words: Words<'a, 'b>,
    now: Tick,
    /// Begun and not answered yet.
    begun: VecDeque<Action>,
}

impl Story<'_, '_> {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.now.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn passes(&mut self) -> Result<()> {
        let ms = match self.words.below(6)? {
            0 => 0,
            1 => self.words.below(300)?,
            2 | 3 => self.words.below(3_000)?,
            4 => self.words.below(90_000)?,
            _ => self.words.below(90_000_000)?,
        };
        self.now = self.now + Duration::from_millis(ms);
        self.state
            .reads_wall_clock(1_700_000_000_000_u64.wrapping_add(self.words.number()? % 1_000_000));
        Ok(())
    }

    fn fault(&mut self) -> Result<ConsulFault> {
        Ok(ConsulFault {
            why: self.words.text()?,
            denied: self.words.flag()?,
        })
    }

    /// An answer to what was begun first, or to nothing at all.
    fn answer(&mut self) -> Result<Option<Event>> {
        let Some(action) = self.begun.pop_front() else {
            return Ok(None);
        };
        if self.words.below(8)? == 0 {
            return Ok(None);
        }
        let is_done = self.words.below(4)? > 0;
        let index = self.words.number()?;
        let step = |step, result| Event::LockStepEnded { step, result };
        let result = |fault| if is_done { Ok(Ok(index)) } else { fault };
        Ok(Some(match action {
            Action::Guard(command) => {
                let now_ns = self.now_ns();
                let Some(probe) = self.words.probe(now_ns)? else {
                    return Ok(None);
                };
                let refused = (!is_done).then(|| "no".to_owned());
                Event::GuardAnswered {
                    command: command.kind(),
                    probe,
                    refused,
                }
            }
            Action::Kill => Event::KillEnded {
                result: KillResult::Killed,
            },
            Action::CreateSession => Event::SessionCreated {
                result: Ok(SessionId::new("own")),
            },
            Action::RenewSession { session } => Event::SessionRenewed {
                session,
                result: Ok(is_done),
            },
            Action::DestroySession { .. } => Event::SessionDestroyed,
            Action::ReadLock => self.lock_read()?,
            Action::ReadBoard => Event::BoardRead {
                result: Ok(self.words.board()?),
            },
            Action::WriteBallot { ballot } => Event::BallotWritten {
                index: ballot.index,
                result: Ok((index, self.words.ballots()?)),
            },
            Action::ReadBallots { .. } => Event::BallotsRead {
                result: Ok((index, self.words.ballots()?)),
            },
            Action::WriteSwitchover { .. } => Event::SwitchoverWritten {
                result: Ok(is_done.then_some(index)),
            },
            Action::ReadHistory => self.history_read()?,
            Action::WriteHistory { line, .. } => Event::HistoryWritten {
                term: line.term,
                result: Ok(()),
            },
            Action::AskPromises {
                reading, members, ..
            } => {
                let answers = members.into_keys().map(|it| (it, Ok(()))).collect();
                Event::PromisesAnswered {
                    reading,
                    answers,
                    unguarded: Unguarded::default(),
                }
            }
            Action::Acquire { .. } => step(LockStepKind::Acquire, result(Ok(Err("no".to_owned())))),
            Action::Refresh { .. } => step(LockStepKind::Refresh, result(Err(self.fault()?))),
            Action::TakeOver { .. } => {
                step(LockStepKind::TakeOver, result(Ok(Err("no".to_owned()))))
            }
            Action::Release { .. } => step(LockStepKind::Release, result(Err(self.fault()?))),
            Action::Tell { .. } | Action::Deregister => Event::CatalogEnded {
                result: Ok(is_done),
            },
            Action::WriteMember { .. } => Event::MemberEnded { result: Ok(()) },
            Action::Vshard(_) | Action::Exit { .. } => return Ok(None),
        }))
    }

    fn lock_read(&mut self) -> Result<Event> {
        let result = Ok(self.words.lock()?);
        Ok(Event::LockRead {
            asked_at: self.now,
            by_watch: self.words.flag()?,
            result,
        })
    }

    fn history_read(&mut self) -> Result<Event> {
        let mut lines = Vec::new();
        for _ in 0..self.words.below(4)? {
            lines.extend(self.words.line()?);
        }
        lines.sort_by_key(|line| line.term);
        Ok(Event::HistoryRead { result: Ok(lines) })
    }

    fn event(&mut self) -> Result<Option<Event>> {
        let now_ns = self.now_ns();
        Ok(Some(match self.words.below(20)? {
            0..7 => return self.answer(),
            7 | 8 => {
                let Some(probe) = self.words.probe(now_ns)? else {
                    return Ok(None);
                };
                Event::Attached {
                    probe,
                    process: Ok(()),
                }
            }
            9 => {
                let Some(probe) = self.words.probe(now_ns)? else {
                    return Ok(None);
                };
                Event::GuardAnswered {
                    command: GuardCommandKind::Probe,
                    probe,
                    refused: None,
                }
            }
            10 | 11 => self.lock_read()?,
            12 => Event::BoardRead {
                result: Ok(self.words.board()?),
            },
            13 => Event::BoardSeen {
                asked_at: self.now,
                result: Ok(self.words.board()?),
            },
            14 => self.history_read()?,
            15 => {
                let Some(switchover) = self.words.switchover()? else {
                    return Ok(None);
                };
                Event::SwitchoverSeen {
                    index: self.words.number()?,
                    switchover,
                }
            }
            16 => Event::Died {
                proof: self.words.text()?,
            },
            17 => Event::Unreachable {
                why: self.words.text()?,
            },
            18 => Event::Overslept {
                ran_until: self.now,
            },
            _ => Event::Woke,
        }))
    }

    fn turn(&mut self) -> Result<()> {
        self.passes()?;
        if let Some(event) = self.event()? {
            self.state.apply(event, self.now);
        }
        let plan = decide(&self.state, self.now);
        assert!(plan.actions.len() <= MAX_ACTIONS, "{:?}", plan.actions);
        for action in plan.actions {
            check(&action);
            self.state.begin(&action, self.now);
            if self.begun.len() < 64 {
                self.begun.push_back(action);
            }
        }
        // Beyond that terms grow one by one.
        let most = Term::MAX_BELIEVED.get() + MAX_EVENTS as u64;
        assert!(self.state.highest_term.get() <= most);
        Ok(())
    }
}

fn check(action: &Action) {
    let written = match action {
        Action::Acquire { attempt, .. }
        | Action::Refresh { attempt, .. }
        | Action::TakeOver { attempt, .. } => {
            let Attempt { record, .. } = &**attempt;
            record
        }
        Action::Release { record, .. } => record,
        Action::WriteMember { member } => {
            return reads_again::<Member>(&serde_json::to_vec(member));
        }
        Action::WriteBallot { ballot } => {
            return reads_again::<Ballot>(&serde_json::to_vec(ballot));
        }
        Action::WriteHistory { line, .. } => {
            return reads_again::<HistoryLine>(&serde_json::to_vec(line));
        }
        _ => return,
    };
    assert_eq!(Record::parse(&written.to_bytes()).as_ref(), Ok(written));
}

fn reads_again<T: serde::de::DeserializeOwned>(written: &serde_json::Result<Vec<u8>>) {
    let written = written.as_ref().expect("it can be written");
    assert!(
        parse::<T>(written).is_some(),
        "{} bytes: {}",
        written.len(),
        String::from_utf8_lossy(written)
    );
}

fn tell(input: &[u8]) -> Result<()> {
    let mut words = Unstructured::new(input);
    let mut words = Words(&mut words);
    let settings = words.settings()?;
    let mut story = Story {
        state: State::new(settings),
        words,
        now: Tick::default(),
        begun: VecDeque::new(),
    };
    for _ in 0..MAX_EVENTS {
        if story.words.0.is_empty() {
            break;
        }
        story.turn()?;
    }
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    // An input that ends in the middle of a word ends the story.
    let _ = tell(input);
});
