//! An instance: a process with a guard in it, a disk under it, and clients that write.

use crate::agent::{Told, Ways};
use crate::decide::event::Event;
use crate::decide::observed::{Peer, Probe, Upstream};
use crate::decide::vclock::Vclock;
use crate::faults::Cut;
use crate::guard::Guard;
use crate::params::SIZE_MAX;
use crate::time::{Clock, MS, SEC, Time};
use crate::world::{Due, World};

/// How far each component of a vclock is.
pub(crate) type Lsns = [u64; SIZE_MAX];

/// Without a word for that long a peer counts as disconnected (four times `replication_timeout`).
const DISCONNECTED: Time = 4 * SEC;

/// One instance, through all its processes.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) set: usize,
    pub(crate) n: usize,
    pub(crate) name: String,
    pub(crate) clock: Clock,
    pub(crate) pid: u32,
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    pub(crate) frozen_until: Time,
    /// It loads before then.
    pub(crate) runs_from: Time,
    pub(crate) down_since: Option<Time>,
    pub(crate) read_only: bool,
    pub(crate) guard: Option<Guard>,
    pub(crate) fiber_due: bool,
    pub(crate) writes: bool,
    pub(crate) wal_free_at: Time,
    pub(crate) slow_disk_until: Time,
    pub(crate) slow_queue_until: Time,
    /// No memory is left for a barrier until then.
    pub(crate) unwritable_until: Time,
    pub(crate) in_flight: u32,
    pub(crate) has: Lsns,
    /// What the others have confirmed of ours, by their number.
    pub(crate) confirmed: [Lsns; SIZE_MAX],
    /// Rows are on their way to them, as they stood when they were sent.
    pub(crate) sending: [Option<Lsns>; SIZE_MAX],
    /// Synchronous rows that wait for their quorum.
    pub(crate) waiting: Vec<u64>,
    /// Replicates from that one alone, or from nobody (`REPLICATION=follow`).
    pub(crate) sources: Option<Option<usize>>,
    pub(crate) sees_process: bool,
    pub(crate) ways: Ways,
    /// Fences whose answer waits for the barrier.
    pub(crate) fences: Vec<crate::requests::Command>,
}

impl Instance {
    pub(crate) fn new(set: usize, n: usize, clock: Clock, sees_process: bool) -> Self {
        Self {
            set,
            n,
            name: format!("instance-{set}-{n}"),
            clock,
            pid: 100,
            alive: true,
            frozen: false,
            frozen_until: 0,
            runs_from: 0,
            down_since: None,
            read_only: true,
            guard: None,
            fiber_due: false,
            writes: false,
            wal_free_at: 0,
            slow_disk_until: 0,
            slow_queue_until: 0,
            unwritable_until: 0,
            in_flight: 0,
            has: [0; SIZE_MAX],
            confirmed: [[0; SIZE_MAX]; SIZE_MAX],
            sending: [None; SIZE_MAX],
            waiting: Vec::new(),
            sources: None,
            sees_process,
            ways: Ways::default(),
            fences: Vec::new(),
        }
    }

    /// A client's write would begin now.
    pub(crate) fn is_writable(&self) -> bool {
        self.alive && !self.frozen && !self.read_only
    }

    /// It can answer.
    pub(crate) fn answers(&self) -> bool {
        self.alive && !self.frozen
    }

    pub(crate) fn vclock(&self) -> Vclock {
        vclock(&self.has)
    }

    /// When its lease ends, in true time; `None`: it has none.
    pub(crate) fn lease_ends(&self) -> Option<Time> {
        let guard = self
            .guard
            .as_ref()
            .filter(|guard| self.alive && guard.leased)?;
        Some(self.clock.when(guard.deadline_ns))
    }
}

pub(crate) fn vclock(lsns: &Lsns) -> Vclock {
    let set = lsns.iter().enumerate().filter(|(_, lsn)| **lsn > 0);
    set.map(|(n, lsn)| ((n + 1).to_string(), *lsn)).collect()
}

impl World {
    /// What the guard answers with every word.
    pub(crate) fn probe(&mut self, instance: usize) -> Option<Box<Probe>> {
        let it = &self.instances[instance];
        let now_ns = it.clock.instance(self.now).monotonic_ns;
        let guard = it.guard.as_ref()?.state(now_ns);
        let set = it.set;
        let replication = self.sets[set]
            .members
            .clone()
            .map(|peer| self.peer(instance, peer))
            .collect();
        let names = self.sets[set].members.clone();
        let configured = names
            .map(|peer| self.instances[peer].name.clone())
            .collect();
        let it = &self.instances[instance];
        Some(Box::new(Probe {
            now: it.clock.instance(self.now),
            uuid: it.name.clone(),
            replicaset_uuid: String::from(["set-0", "set-1", "set-2"][set.min(2)]),
            ro: it.read_only,
            ro_reason: None,
            read_only: it.read_only,
            status: "running".to_owned(),
            vclock: it.vclock(),
            vshard: None,
            id: it.n as u64 + 1,
            replication,
            configured,
            election_mode: None,
            quorum: Some(self.params.sets[set].quorum()),
            pid: it.pid,
            pid_namespace: None,
            boot_id: None,
            version: "2.6.0".to_owned(),
            declared: None,
            name: None,
            guard,
        }))
    }

    fn peer(&self, own: usize, peer: usize) -> Peer {
        let (it, other) = (&self.instances[own], &self.instances[peer]);
        let mut row = Peer {
            id: other.n as u64 + 1,
            uuid: other.name.clone(),
            upstream: None,
            downstream_status: None,
            downstream_vclock: None,
        };
        if own == peer {
            return row;
        }
        if self.pulls(own, peer) {
            let broken = self.broken_since(peer, own);
            let idle = broken.map_or(200 * MS, |since| self.now - since + 200 * MS);
            let follows = other.alive && idle < DISCONNECTED;
            row.upstream = Some(Upstream {
                status: if follows { "follow" } else { "disconnected" }.to_owned(),
                peer: Some(other.name.clone()),
                lag_s: None,
                idle_s: Some(idle as f64 / 1e9),
                message: None,
                locked_out: false,
            });
        }
        if self.pulls(peer, own) {
            let broken = self.broken_since(peer, own);
            let idle = broken.map_or(0, |since| self.now - since);
            if other.alive && idle < DISCONNECTED {
                row.downstream_status = Some("follow".to_owned());
                row.downstream_vclock = Some(vclock(&it.confirmed[other.n]));
            }
        }
        row
    }

    /// Since when nothing has come from there to here.
    fn broken_since(&self, there: usize, here: usize) -> Option<Time> {
        let down = self.instances[there].down_since;
        match (down, self.cuts[there][here]) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The end of the process. Whoever sees it learns of it.
    pub(crate) fn kill_process(&mut self, instance: usize, restarts_after: Time) {
        if !self.instances[instance].alive {
            return;
        }
        self.note(|_| format!("instance {instance} dies"));
        let now = self.now;
        let it = &mut self.instances[instance];
        let pid = it.pid;
        it.alive = false;
        it.frozen = false;
        it.down_since = Some(now);
        it.guard = None;
        it.read_only = true;
        it.in_flight = 0;
        it.waiting.clear();
        it.writes = false;
        it.fences.clear();
        self.checks.disturbed(instance, now);
        self.checks.died(instance);
        for agent in 0..self.agents.len() {
            let it = &self.agents[agent];
            let sees = it.sees == Some(pid);
            let connected = it.conn.is_some_and(|conn| conn.pid == pid);
            if it.at == instance && it.alive && (sees || connected) {
                let after = self.rng.between(MS, 50 * MS);
                self.schedule(after, Due::Dies { agent, pid });
            }
        }
        self.schedule(
            restarts_after,
            Due::Mend(crate::world::Mend::StartInstance { instance, pid }),
        );
    }

    pub(crate) fn start_instance(&mut self, instance: usize, pid: u32) {
        let slowly = self.rng.percent(50);
        let loads = self.rng.below(if slowly { 400 } else { 20 }) * MS;
        let now = self.now;
        let it = &mut self.instances[instance];
        if it.alive || it.pid != pid {
            return;
        }
        it.pid += 1;
        it.alive = true;
        it.down_since = None;
        it.runs_from = now + loads;
        it.confirmed = [[0; SIZE_MAX]; SIZE_MAX];
        it.sending = [None; SIZE_MAX];
        it.sources = None;
        it.wal_free_at = now;
        it.fiber_due = false;
        self.checks.disturbed(instance, now);
        self.note(|_| format!("instance {instance} starts"));
        self.replicate_anew(instance);
    }

    pub(crate) fn freeze(&mut self, instance: usize, time: Time, machine: bool) {
        let now = self.now;
        let it = &mut self.instances[instance];
        if !it.alive || it.frozen {
            return;
        }
        it.frozen = true;
        it.frozen_until = now + time;
        it.down_since = Some(now);
        let pid = it.pid;
        self.checks.disturbed(instance, now);
        self.schedule(
            time,
            Due::Mend(crate::world::Mend::Thaw {
                instance,
                pid,
                machine,
            }),
        );
        self.falls_silent(instance);
    }

    /// Nobody answers pings any more: whoever is connected sees that after a while.
    pub(crate) fn falls_silent(&mut self, instance: usize) {
        for agent in self.running_agents(instance) {
            let after = self.rng.between(55, 260) * MS;
            self.schedule(after, Due::Silence { agent });
        }
    }

    pub(crate) fn silence(&mut self, agent: usize) {
        let it = &self.agents[agent];
        let instance = &self.instances[it.at];
        let swallowed = instance
            .ways
            .link
            .is_some_and(|(cut, _)| cut != Cut::Refused);
        let silent = it.conn.is_some_and(|conn| conn.pid == instance.pid)
            && (instance.frozen || swallowed)
            && instance.alive;
        if silent && it.told == Told::Attached {
            self.agents[agent].told = Told::Silent;
            self.step(agent, Event::FellSilent);
        }
    }

    pub(crate) fn speak(&mut self, agent: usize) {
        let it = &self.agents[agent];
        let instance = &self.instances[it.at];
        let swallowed = instance
            .ways
            .link
            .is_some_and(|(cut, _)| cut != Cut::Refused);
        if it.told == Told::Silent && instance.answers() && !swallowed {
            self.agents[agent].told = Told::Attached;
            self.step(agent, Event::SpokeAgain);
        }
    }

    pub(crate) fn thaw(&mut self, instance: usize, pid: u32, machine: bool) {
        let it = &mut self.instances[instance];
        if it.pid != pid || !it.alive || !it.frozen {
            return;
        }
        it.frozen = false;
        it.down_since = None;
        self.note(|_| format!("instance {instance} goes on"));
        self.check_thawed(instance, machine);
        for agent in self.running_agents(instance) {
            let after = self.rng.between(1, 200) * MS;
            self.schedule(after, Due::Speak { agent });
        }
        self.replicate_anew(instance);
        self.look_with_fiber(instance);
    }
}
