//! The world of the model: nodes of an agent and an instance each, one lock key, and what is between them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::consul::Store;
use crate::decide::event::Event;
use crate::decide::observed::{Peer, Probe, Upstream};
use crate::decide::plan::Action;
use crate::decide::record::Status;
use crate::decide::settings::{Elector, Settings, SyncLoss};
use crate::decide::sight::ConsulFault;
use crate::decide::state::State;
use crate::decide::term::Term;
use crate::decide::timing::{InstanceTime, Tick, Timing};
use crate::decide::vclock::Vclock;
use crate::guard::Guard;
use crate::time::{MS, SEC, Time};

/// `MASTER_LEASE`.
pub(crate) const LEASE: Time = 10 * SEC;
/// The model's tick: a refresh interval.
pub(crate) const QUARTER: Time = LEASE / 4;
/// Timers that are due this soon are waited for without a whole tick.
pub(crate) const SHORT: Time = QUARTER / 2;
/// What every turn of an agent takes on its node's clock, so that one thing comes after another.
const TURN_NS: u64 = 10_000;
/// No moment's turns take longer together: what is due a quarter after one of them is due at the next moment.
pub(crate) const TURNS_TAKE: Time = 5 * MS;
/// How long a request may be on its way before its sender gives it up (`HEALTHCHECK_TIMEOUT`).
pub(crate) const PATIENCE: Time = LEASE / 2;

/// What happened in the last move, for the properties.
pub(crate) mod seen {
    pub(crate) const TERM_WENT_BACK: u16 = 1;
    pub(crate) const PROMOTED_BELOW: u16 = 1 << 1;
    pub(crate) const FENCED_TOO_EARLY: u16 = 1 << 2;
    pub(crate) const HUNG_WENT_ON: u16 = 1 << 3;
    pub(crate) const OTHER_MASTER: u16 = 1 << 4;
    pub(crate) const BY_RELEASE: u16 = 1 << 5;
    pub(crate) const AFTER_A_WAIT: u16 = 1 << 6;
    pub(crate) const TAKEN_OVER: u16 = 1 << 7;
    pub(crate) const DEADLINE: u16 = 1 << 8;
    pub(crate) const SAME_TERM: u16 = 1 << 9;
    pub(crate) const STEP_REFUSED: u16 = 1 << 10;
    pub(crate) const KILLED: u16 = 1 << 11;
    pub(crate) const ON_PROMISES: u16 = 1 << 12;
    pub(crate) const ROW_LOST: u16 = 1 << 13;
    pub(crate) const ROW_KEPT: u16 = 1 << 14;
}

/// A request that is on its way to Consul: a step at the lock.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) action: Action,
    /// It has been on its way since then; only a fault lets time pass meanwhile.
    pub(crate) at: Time,
    pub(crate) slow: bool,
}

/// An agent and the instance beside it, which share a clock.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) state: State,
    pub(crate) running: bool,
    pub(crate) paused: bool,
    /// Which run of the agent it is.
    pub(crate) run: u32,
    pub(crate) stops: bool,
    /// What has arrived during a pause.
    pub(crate) inbox: Vec<Event>,
    pub(crate) watch_in_inbox: bool,
    pub(crate) step: Option<Sent>,
    /// Requests that their sender has given up, and that may still be carried out.
    pub(crate) orphans: VecDeque<Action>,
    pub(crate) wake_at: Option<Tick>,
    /// The index that the watch on the lock told last, and when it was asked anew.
    pub(crate) watched: u64,
    pub(crate) watch_asked_at: Tick,
    /// It waits for other ballots than those of this index.
    pub(crate) ballots_after: Option<u64>,
    pub(crate) turns: u64,
    pub(crate) attaches: u32,
    pub(crate) pid: u32,
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    pub(crate) read_only: bool,
    pub(crate) guard: Option<Guard>,
    /// Commands that wait in a frozen instance, with the attach that they came over.
    pub(crate) parked: Vec<(u32, Action)>,
    /// How many rows it has, by the node that wrote them.
    pub(crate) rows: Vec<u64>,
    /// For how many moments a frozen instance has been past its lease beside an agent that could kill it.
    pub(crate) overdue: u8,
}

/// How large the model is. Everything else in it is drawn to the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) agents: usize,
    /// How far time goes, in quarters of a lease.
    pub(crate) ticks: u64,
    pub(crate) faults: u8,
    /// Begin with a master that serves, rather than with nothing.
    pub(crate) served: bool,
    pub(crate) failsafe: bool,
    /// A master acknowledges so many rows once one other node has them, and ballots decide. Faults are then those of whole
    /// agents and instances: what is slow and lost on its way is the other searches' business.
    pub(crate) rows: u8,
}

/// Everything there is. Two worlds with the same print are one.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) bounds: Bounds,
    pub(crate) now: Time,
    pub(crate) ends_at: Time,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) consul: Arc<Store>,
    pub(crate) consul_down: bool,
    pub(crate) faults_left: u8,
    pub(crate) writes_left: u8,
    /// The rows that were acknowledged, by the node that wrote them.
    pub(crate) acknowledged: Vec<u64>,
    /// Which node served which term.
    pub(crate) served: Vec<(Term, usize)>,
    pub(crate) seen: u16,
    /// Events that are yet to be heard; empty between two moves.
    pub(crate) queue: VecDeque<(usize, Event)>,
    node_prints: Vec<u64>,
    print: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.now / MS)?;
        if let Some(record) = self.consul.record(0) {
            let holder = self.consul.holder(0);
            write!(
                f,
                " {}#{} {:?} {holder:?}",
                record.instance, record.term, record.status
            )?;
        }
        for n in 0..self.nodes.len() {
            write!(f, " {}", if self.is_writable(n) { 'W' } else { 'r' })?;
        }
        Ok(())
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.print);
    }
}

/// Takes in what `Debug` writes, without keeping it.
struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn digest(value: &impl fmt::Debug) -> u64 {
    let mut digest = Digest(DefaultHasher::new());
    // Nothing that takes everything can fail.
    let _ = fmt::Write::write_fmt(&mut digest, format_args!("{value:?}"));
    digest.0.finish()
}

pub(crate) fn name(n: usize) -> String {
    format!("instance-{n}")
}

pub(crate) fn duration(time: Time) -> Duration {
    Duration::from_nanos(time)
}

pub(crate) fn fault() -> ConsulFault {
    ConsulFault {
        why: "no answer".to_owned(),
        denied: false,
    }
}

fn settings(bounds: Bounds, n: usize, run: u32) -> Settings {
    let timing = Timing::new(
        duration(LEASE),
        duration(LEASE),
        duration(LEASE / 2),
        duration(PATIENCE),
        duration(SEC),
    );
    Settings {
        timing: timing.expect("the model's durations fit together"),
        priority: Some(0),
        kill_hung: true,
        follow: false,
        elector: if bounds.rows > 0 {
            Elector::Smart
        } else {
            Elector::First
        },
        election_window: duration(250 * MS),
        sync_loss: SyncLoss::Refuse,
        max_lag_rows: 0,
        max_idle: Duration::ZERO,
        replica_max_idle: Duration::from_secs(5),
        failover_cooldown: Duration::ZERO,
        member_interval: duration(60 * SEC),
        failsafe: bounds.failsafe,
        peer_addrs: Default::default(),
        shared: BTreeMap::new(),
        announce: name(n),
        agent: format!("agent-{n}-{run}"),
    }
}

impl Node {
    fn new(bounds: Bounds, n: usize) -> Self {
        Self {
            state: State::new(settings(bounds, n, 0)),
            running: false,
            paused: false,
            run: 0,
            stops: false,
            inbox: Vec::new(),
            watch_in_inbox: false,
            step: None,
            orphans: VecDeque::new(),
            wake_at: None,
            watched: 0,
            watch_asked_at: Tick::default(),
            ballots_after: None,
            turns: 0,
            attaches: 0,
            pid: 100,
            alive: true,
            frozen: false,
            read_only: true,
            guard: None,
            parked: Vec::new(),
            rows: vec![0; bounds.agents],
            overdue: 0,
        }
    }

    /// A new run of its agent, which knows nothing.
    pub(crate) fn new_run(&mut self, bounds: Bounds, n: usize) {
        self.run += 1;
        self.running = true;
        self.paused = false;
        self.stops = false;
        self.inbox.clear();
        self.watch_in_inbox = false;
        self.wake_at = None;
        self.watched = 0;
        self.ballots_after = None;
        self.state = State::new(settings(bounds, n, self.run));
    }
}

impl World {
    /// All agents have just started.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let mut world = Self {
            bounds,
            now: 100 * SEC,
            ends_at: 0,
            nodes: (0..bounds.agents)
                .map(|n| Arc::new(Node::new(bounds, n)))
                .collect(),
            consul: Arc::new(Store::new(1)),
            consul_down: false,
            faults_left: bounds.faults,
            writes_left: bounds.rows,
            acknowledged: vec![0; bounds.agents],
            served: Vec::new(),
            seen: 0,
            queue: VecDeque::new(),
            node_prints: vec![0; bounds.agents],
            print: 0,
        };
        for n in 0..bounds.agents {
            world.node(n).new_run(bounds, n);
            world.attach(n);
            world.drain();
        }
        if bounds.served {
            world.first_master();
        }
        world.ends_at = world.now + bounds.ticks * QUARTER;
        world.seal();
        world
    }

    /// Lets everything take its course until somebody serves and has said so.
    fn first_master(&mut self) {
        for _ in 0..200 {
            let serves = (0..self.nodes.len()).any(|n| self.is_writable(n));
            let said = self
                .consul
                .record(0)
                .is_some_and(|record| record.status == Status::Active);
            let sent = self.nodes.iter().position(|node| node.step.is_some());
            match sent {
                Some(n) => self.deliver(n),
                None if serves && said => return,
                None => self.tick(),
            }
        }
        panic!("nobody becomes master where nothing happens: {self:?}");
    }

    pub(crate) fn node(&mut self, n: usize) -> &mut Node {
        self.node_prints[n] = 0;
        Arc::make_mut(&mut self.nodes[n])
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        Arc::make_mut(&mut self.consul)
    }

    /// What its agent's clock shows, and its instance's.
    pub(crate) fn clock_ns(&self, n: usize) -> u64 {
        self.now + self.nodes[n].turns * TURN_NS
    }

    pub(crate) fn clock(&self, n: usize) -> Tick {
        Tick::at(Duration::from_nanos(self.clock_ns(n)))
    }

    /// A client's write would begin now.
    pub(crate) fn is_writable(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.alive && !node.frozen && !node.read_only
    }

    /// A lease runs in it, whether it is frozen or not.
    pub(crate) fn is_leased(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let guard = node
            .guard
            .as_ref()
            .filter(|guard| node.alive && guard.leased);
        guard.is_some_and(|guard| guard.deadline_ns > self.clock_ns(n))
    }

    pub(crate) fn probe(&self, n: usize) -> Option<Box<Probe>> {
        let node = &self.nodes[n];
        let now_ns = self.clock_ns(n);
        let guard = node.guard.as_ref()?.state(now_ns);
        let peer = |peer: usize| Peer {
            id: peer as u64 + 1,
            uuid: name(peer),
            upstream: (peer != n).then(|| Upstream {
                status: "follow".to_owned(),
                peer: Some(name(peer)),
                lag_s: None,
                idle_s: None,
                message: None,
                locked_out: false,
            }),
            downstream_status: (peer != n).then(|| "follow".to_owned()),
            downstream_vclock: (peer != n).then(|| self.vclock(peer)),
        };
        Some(Box::new(Probe {
            now: InstanceTime {
                monotonic_ns: now_ns,
            },
            uuid: name(n),
            replicaset_uuid: "set".to_owned(),
            ro: node.read_only,
            ro_reason: None,
            read_only: node.read_only,
            status: "running".to_owned(),
            vclock: self.vclock(n),
            vshard: None,
            id: n as u64 + 1,
            replication: (0..self.nodes.len()).map(peer).collect(),
            configured: (0..self.nodes.len()).map(name).collect(),
            election_mode: None,
            quorum: Some(if self.bounds.rows > 0 { 2 } else { 0 }),
            pid: node.pid,
            pid_namespace: None,
            boot_id: None,
            version: "2.6.0".to_owned(),
            declared: None,
            name: None,
            guard,
        }))
    }

    pub(crate) fn vclock(&self, n: usize) -> Vclock {
        let rows = self.nodes[n].rows.iter().enumerate();
        let written = rows.filter(|(_, rows)| **rows > 0);
        written
            .map(|(writer, rows)| ((writer + 1).to_string(), *rows))
            .collect()
    }

    /// Rows that one has and the other lacks, and nothing keeps them from going there.
    pub(crate) fn may_flow(&self, from: usize, to: usize) -> bool {
        let goes = |n: usize| self.nodes[n].alive && !self.nodes[n].frozen;
        let (here, there) = (&self.nodes[from].rows, &self.nodes[to].rows);
        goes(from) && goes(to) && here.iter().zip(there).any(|(here, there)| here > there)
    }

    pub(crate) fn flow(&mut self, from: usize, to: usize) {
        let here = self.nodes[from].rows.clone();
        for (row, theirs) in self.node(to).rows.iter_mut().zip(here) {
            *row = (*row).max(theirs);
        }
    }

    /// Takes the world's print when a move is over.
    pub(crate) fn seal(&mut self) {
        assert!(
            self.queue.is_empty(),
            "a move ends when everything is heard"
        );
        for (print, node) in self.node_prints.iter_mut().zip(&self.nodes) {
            if *print == 0 {
                *print = digest(node);
            }
        }
        let mut all = DefaultHasher::new();
        self.node_prints.hash(&mut all);
        (
            self.now,
            self.ends_at,
            self.consul_down,
            self.faults_left,
            self.writes_left,
            self.seen,
        )
            .hash(&mut all);
        self.served.hash(&mut all);
        self.acknowledged.hash(&mut all);
        digest(&self.consul).hash(&mut all);
        self.print = all.finish();
    }
}
