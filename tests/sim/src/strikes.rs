//! Faults strike, and end.

use crate::agent::duration;
use crate::consul::Value;
use crate::decide::board::{Pause, Switchover, SwitchoverState, VERSION};
use crate::decide::event::Event;
use crate::decide::timing::Timing;
use crate::faults::{Cut, Fault, Who};
use crate::time::{MS, SEC, Time};
use crate::world::{Due, Mend, World};

impl World {
    /// Whom it strikes now.
    fn whom(&self, who: Who) -> usize {
        let master = |set: usize| {
            let members = self.sets[set].members.clone();
            let writable = members.clone().find(|at| !self.instances[*at].read_only);
            let named = || {
                let record = self.consul.record(set)?;
                self.find(set, &record.instance)
            };
            writable.or_else(named).unwrap_or(members.start)
        };
        match who {
            Who::Master(set) => master(set),
            Who::Holder(set) => {
                let record = self.consul.record(set);
                let named = record.and_then(|record| self.find(set, &record.instance));
                named.unwrap_or_else(|| master(set))
            }
            Who::Nth(set, n) => self.sets[set].members.start + n,
            Who::Replica(set, n) => {
                let members = self.sets[set].members.clone();
                let at = members.start + n % members.len();
                if at == master(set) {
                    members.start + (n + 1) % members.len()
                } else {
                    at
                }
            }
        }
    }

    fn disturb(&mut self, at: usize, time: Time) {
        self.checks.disturbed(at, self.now + time);
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "each of the three has its own share of the faults"
    )]
    pub(crate) fn strikes(&mut self, index: usize) {
        let fault = self.params.faults[index].1.clone();
        self.note(|_| format!("── {fault:?}"));
        match fault {
            Fault::KillInstance {
                who,
                restarts_after,
                new_clock,
            } => {
                let at = self.whom(who);
                self.kill_process(at, restarts_after);
                if new_clock {
                    self.new_clock(at);
                }
            }
            Fault::KillAgent {
                who,
                restarts_after,
            } => {
                let at = self.whom(who);
                self.kill_agent(at, restarts_after);
            }
            Fault::StopAgent {
                who,
                restarts_after,
            } => {
                let at = self.whom(who);
                if let Some(agent) = self.running_agent(at) {
                    self.agents[agent].stops = true;
                    self.disturb(at, restarts_after);
                    self.hear(agent, 0, Event::StopRequested { signal: "SIGTERM" });
                    self.schedule(
                        restarts_after + 100 * MS,
                        Due::Mend(Mend::StartAgent { instance: at }),
                    );
                }
            }
            Fault::SecondAgent { who } => {
                let at = self.whom(who);
                self.start_agent(at);
            }
            Fault::PauseAgent { who, time } => {
                let at = self.whom(who);
                self.pause_agent(at, time);
            }
            Fault::FreezeInstance { who, time } => {
                let at = self.whom(who);
                self.freeze(at, time, false);
            }
            Fault::PauseMachine { who, time } => {
                let at = self.whom(who);
                self.pause_agent(at, time);
                self.freeze(at, time, true);
            }
            Fault::LoseMachine { who, time } => {
                let at = self.whom(who);
                self.kill_agent(at, time);
                self.kill_process(at, time);
                self.isolate(at, time);
            }
            _ => self.strikes_outside(fault),
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "each of the three has its own share of the faults"
    )]
    fn strikes_outside(&mut self, fault: Fault) {
        match fault {
            Fault::CutConsul { who, how, time } => {
                let at = self.whom(who);
                self.cut_consul(at, how, time);
            }
            Fault::CutConsulForAll { how, time } => {
                for at in 0..self.instances.len() {
                    self.cut_consul(at, how, time);
                }
            }
            Fault::ConsulAgentRestarts { who, time } => {
                let at = self.whom(who);
                self.checks.forget_service(at);
                self.cut_consul(at, Cut::Refused, time);
            }
            Fault::LeaderLost { time } => self.leader_lost(time),
            Fault::CutLink { who, how, time } => {
                let at = self.whom(who);
                self.cut_link(at, how, time);
            }
            Fault::CutPeers {
                who,
                other,
                both,
                time,
            } => {
                let at = self.whom(who);
                let other = self.sets[self.instances[at].set].members.start + other;
                self.cut_peers(at, other, time);
                if both {
                    self.cut_peers(other, at, time);
                }
            }
            Fault::CutReplication { who, time } => {
                let at = self.whom(who);
                for peer in self.sets[self.instances[at].set].members.clone() {
                    self.cut_peers(peer, at, time);
                }
            }
            Fault::Isolate { who, time } => {
                let at = self.whom(who);
                self.isolate(at, time);
            }
            Fault::SlowDisk { who, time } => {
                let at = self.whom(who);
                self.disturb(at, time);
                self.instances[at].slow_disk_until = self.now + time;
            }
            Fault::SlowQueue { who, time } => {
                let at = self.whom(who);
                self.disturb(at, time);
                self.instances[at].slow_queue_until = self.now + time;
            }
            Fault::NoBarrier { who, time } => {
                let at = self.whom(who);
                self.disturb(at, time);
                self.instances[at].unwritable_until = self.now + time;
            }
            Fault::Denied { who, time } => {
                let at = self.whom(who);
                self.disturb(at, time);
                self.instances[at].ways.denied_until = self.now + time;
            }
            _ => self.strikes_by_hand(fault),
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "each of the three has its own share of the faults"
    )]
    fn strikes_by_hand(&mut self, fault: Fault) {
        match fault {
            Fault::EndSession { set } => {
                if let Some(session) = self.consul.holder(set).cloned() {
                    let freed = self.consul.end_session(&session);
                    self.disturb_all(set);
                    self.locks_changed(&freed);
                }
            }
            Fault::DeleteKey { set } => {
                self.consul.delete(set);
                self.checks.key_lost(set);
                self.disturb_all(set);
                self.locks_changed(&[set]);
            }
            Fault::Overwrite { set, other_version } => {
                let value = if other_version {
                    Value::OtherVersion
                } else {
                    Value::Garbage
                };
                self.consul.overwrite(set, value);
                self.checks.key_lost(set);
                self.disturb_all(set);
                self.locks_changed(&[set]);
            }
            Fault::ByHand { who } => {
                let at = self.whom(who);
                if self.instances[at].answers() && self.instances[at].guard.is_some() {
                    self.instances[at].read_only = false;
                    // Its fiber wakes in the same turn of the event loop (A3).
                    let pid = self.instances[at].pid;
                    self.fiber_wakes(at, pid);
                }
            }
            Fault::Switchover {
                set,
                target,
                catch_up_ms,
            } => {
                let name = target.map(|n| {
                    self.instances[self.sets[set].members.start + n]
                        .name
                        .clone()
                });
                let order = Switchover {
                    v: VERSION,
                    id: format!("order-{}", self.now),
                    target: name,
                    by: "operator".to_owned(),
                    at: 0,
                    at_ms: 0,
                    catch_up_ms,
                    state: SwitchoverState::Requested,
                    why: String::new(),
                };
                self.consul.order(set, order);
                self.order_written(set);
            }
            Fault::Pause { set, cluster, time } => {
                let pause = Pause {
                    by: "operator".to_owned(),
                    ..Pause::default()
                };
                if cluster {
                    self.consul.cluster_pause = Some(pause);
                } else {
                    self.consul.beside[set].pause = Some(pause);
                }
                self.checks.paused(set, cluster, self.now + time);
                self.schedule(time, Due::Mend(Mend::Pause { set, cluster }));
            }
            _ => {}
        }
    }

    fn disturb_all(&mut self, set: usize) {
        for at in self.sets[set].members.clone() {
            self.disturb(at, 0);
        }
    }

    /// The next process of it reads another clock: a machine that was started anew, a container that has moved.
    fn new_clock(&mut self, at: usize) {
        let now = self.now;
        let shown = self.instances[at].clock.instance(now).monotonic_ns;
        let base_ns = if self.rng.percent(50) {
            self.rng.between(SEC, 20 * SEC)
        } else {
            (shown + self.rng.below(100 * SEC)).saturating_sub(50 * SEC)
        };
        let clock = &mut self.instances[at].clock;
        clock.from = now;
        clock.base_ns = base_ns.max(1);
    }

    fn kill_agent(&mut self, at: usize, restarts_after: Time) {
        if let Some(agent) = self.running_agent(at) {
            self.note(|_| format!("agent-{agent} is killed"));
            self.ends_agent(agent);
            self.disturb(at, restarts_after);
            self.schedule(restarts_after, Due::Mend(Mend::StartAgent { instance: at }));
        }
    }

    fn pause_agent(&mut self, at: usize, time: Time) {
        if let Some(agent) = self.running_agent(at)
            && !self.agents[agent].paused
        {
            self.agents[agent].paused = true;
            self.agents[agent].paused_at = self.now;
            self.disturb(at, time);
            self.schedule(time, Due::Mend(Mend::ResumeAgent { agent }));
        }
    }

    fn resume_agent(&mut self, agent: usize) {
        let now = self.now;
        let it = &mut self.agents[agent];
        if !it.alive || !it.paused {
            return;
        }
        it.paused = false;
        it.awake_since = now;
        let slept = now - it.paused_at;
        let at = it.at;
        let deferred = std::mem::take(&mut it.deferred);
        self.disturb(at, 0);
        if slept > duration(Timing::OVERSLEPT) {
            // The first thing that it finds out; only then does it hear what waited.
            let patience = self.patience(agent);
            let it = &mut self.agents[agent];
            it.awake_since += patience;
            let ran_until = it.clock.tick(it.paused_at);
            self.hear(agent, 0, Event::Overslept { ran_until });
        }
        for due in deferred {
            self.schedule(0, due);
        }
    }

    fn cut_consul(&mut self, at: usize, how: Cut, time: Time) {
        let until = self.now + time;
        self.disturb(at, time);
        self.instances[at].ways.consul = Some((how, until));
        if let Some(agent) = self.running_agent(at) {
            self.watch_breaks(agent, how);
        }
        self.schedule(time, Due::Mend(Mend::Consul { instance: at }));
    }

    fn cut_link(&mut self, at: usize, how: Cut, time: Time) {
        let until = self.now + time;
        self.disturb(at, time);
        self.instances[at].ways.link = Some((how, until));
        if how == Cut::Refused {
            self.link_breaks(at);
        } else {
            self.falls_silent(at);
        }
        self.schedule(time, Due::Mend(Mend::Link { instance: at }));
    }

    fn cut_peers(&mut self, a: usize, b: usize, time: Time) {
        if a == b {
            return;
        }
        let now = self.now;
        self.cuts[a][b].get_or_insert(now);
        self.schedule(time, Due::Mend(Mend::Peers { a, b }));
    }

    fn isolate(&mut self, at: usize, time: Time) {
        self.cut_consul(at, Cut::Swallowed, time);
        for peer in self.sets[self.instances[at].set].members.clone() {
            self.cut_peers(at, peer, time);
            self.cut_peers(peer, at, time);
        }
    }

    fn leader_lost(&mut self, time: Time) {
        self.leader_at = self.leader_at.max(self.now + time);
        for at in 0..self.instances.len() {
            self.disturb(at, time);
            if let Some(agent) = self.running_agent(at) {
                self.watch_breaks(agent, Cut::Refused);
            }
        }
        self.stale = Some((self.now + time + 300 * MS, self.consul.beside.clone()));
        self.schedule(time, Due::Mend(Mend::Leader));
    }

    pub(crate) fn mends(&mut self, mend: Mend) {
        let now = self.now;
        match mend {
            Mend::StartInstance { instance, pid } => self.start_instance(instance, pid),
            Mend::StartAgent { instance } => {
                if self.running_agent(instance).is_none() {
                    self.start_agent(instance);
                }
            }
            Mend::ResumeAgent { agent } => self.resume_agent(agent),
            Mend::Thaw {
                instance,
                pid,
                machine,
            } => self.thaw(instance, pid, machine),
            Mend::Consul { instance } => {
                let way = &mut self.instances[instance].ways.consul;
                *way = way.filter(|(_, until)| *until > now);
            }
            Mend::Link { instance } => {
                let way = &mut self.instances[instance].ways.link;
                *way = way.filter(|(_, until)| *until > now);
                if let Some(agent) = self.running_agent(instance) {
                    self.schedule(20 * MS, Due::Speak { agent });
                }
            }
            Mend::Peers { a, b } => {
                self.cuts[a][b] = None;
                self.replicate_anew(a);
                self.replicate_anew(b);
            }
            Mend::Leader => {
                if now >= self.leader_at {
                    self.consul.new_leader(now);
                }
            }
            Mend::Pause { set, cluster } => {
                if cluster {
                    self.consul.cluster_pause = None;
                } else {
                    self.consul.beside[set].pause = None;
                }
            }
        }
    }

    /// From here on nothing goes wrong; whatever is not there is started.
    pub(crate) fn calms_down(&mut self) {
        self.note(|_| "── from here on all is well".to_owned());
        self.calm = true;
        let now = self.now;
        for set in 0..self.sets.len() {
            self.consul.beside[set].pause = None;
            if matches!(&self.consul.locks[set], Some(key) if matches!(key.value, Value::OtherVersion))
            {
                // An operator has to remove what another version left.
                self.consul.delete(set);
                self.locks_changed(&[set]);
            }
        }
        self.consul.cluster_pause = None;
        for at in 0..self.instances.len() {
            self.instances[at].ways = crate::agent::Ways::default();
            self.cuts[at].iter_mut().for_each(|cut| *cut = None);
            let pid = self.instances[at].pid;
            if self.instances[at].frozen {
                self.thaw(at, pid, true);
            }
            self.start_instance(at, pid);
        }
        for at in 0..self.instances.len() {
            match self.running_agent(at) {
                Some(agent) => self.resume_agent(agent),
                None => self.start_agent(at),
            }
            self.replicate_anew(at);
        }
        self.leader_at = self.leader_at.min(now);
        self.checks.calm_since = Some(now);
        self.schedule(10 * MS, Due::Look);
    }
}
