//! The watches: on the lock key, for as long as an agent runs, and on the switchover key.

use crate::agent::duration;
use crate::decide::event::Event;
use crate::faults::Cut;
use crate::requests::no_answer;
use crate::time::{MS, Time};
use crate::world::{Due, World};

impl World {
    pub(crate) fn watch_after(&mut self, agent: usize, after: Time) {
        let watch = &mut self.agents[agent].watch;
        watch.turn += 1;
        watch.waits = false;
        let turn = watch.turn;
        self.schedule(after, Due::WatchAsks { agent, turn });
    }

    pub(crate) fn watch_asks(&mut self, agent: usize, turn: u32) {
        if self.agents[agent].watch.turn != turn {
            return;
        }
        let tick = self.tick(agent);
        let now = self.now;
        let watch = &mut self.agents[agent].watch;
        watch.asked_at = tick;
        watch.held = watch.after > 0;
        let set = self.instances[self.agents[agent].at].set;
        match self.consul_cut(agent) {
            Some(Cut::Refused) => return self.watch_fails(agent, MS),
            Some(Cut::Swallowed) => {
                let after = self.watch_holds(agent) + self.patience(agent);
                return self.watch_fails(agent, after);
            }
            Some(Cut::RepliesSwallowed) | None => {}
        }
        let denied = now < self.instances[self.agents[agent].at].ways.denied_until;
        if denied || now < self.leader_at {
            let after = self.delay() * 2;
            return self.watch_fails(agent, after);
        }
        self.looked(agent);
        if self.agents[agent].watch.after != self.consul.watch_index(set) {
            self.watch_answers(agent);
            return;
        }
        self.agents[agent].watch.waits = true;
        let hold = self.watch_holds(agent);
        let ended_after = self.params.weather.holds_end_after;
        let cut = ended_after > 0 && ended_after < hold;
        self.agents[agent].watch.cut = cut;
        let after = if cut { ended_after } else { hold };
        self.schedule(after, Due::WatchOver { agent, turn });
    }

    /// How long its question is held, as `src/agent.rs` asks for it, with Consul's jitter.
    fn watch_holds(&self, agent: usize) -> Time {
        let it = &self.agents[agent];
        let timing = &self.params.sets[self.instances[it.at].set].timing;
        if !it.watch.held {
            return 0;
        }
        let hold = duration(if it.watch.news {
            timing.watch_hold()
        } else {
            timing.watch_beat()
        });
        hold + hold / 16
    }

    /// Consul looks at the lock for it. What lies between two looks that are far apart is no time in which it could read
    /// Consul, whatever it thinks: R3's count begins with the second at the earliest.
    pub(crate) fn looked(&mut self, agent: usize) {
        let timing = &self.params.sets[self.instances[self.agents[agent].at].set].timing;
        let limit = duration(timing.unread_limit() + timing.healthcheck_timeout());
        let now = self.now;
        let it = &mut self.agents[agent];
        if now - it.looked_at > limit + limit / 50 {
            it.unread_at = now;
        }
        it.looked_at = now;
    }

    /// The lock has not changed, and the answer is as old as the question; or a proxy ends what takes too long for it.
    pub(crate) fn watch_over(&mut self, agent: usize, turn: u32) {
        let watch = &self.agents[agent].watch;
        if watch.turn == turn && watch.waits {
            if watch.cut {
                self.watch_fails(agent, MS);
            } else {
                self.watch_answers(agent);
            }
        }
    }

    fn watch_beat(&self, agent: usize) -> Time {
        let set = self.instances[self.agents[agent].at].set;
        duration(self.params.sets[set].timing.watch_beat())
    }

    fn watch_answers(&mut self, agent: usize) {
        let after = self.delay() * 2;
        self.agents[agent].watch.waits = false;
        if self.consul_cut(agent).is_some() {
            let patience = self.patience(agent);
            return self.watch_fails(agent, patience);
        }
        let set = self.instances[self.agents[agent].at].set;
        let sight = self.consul.sight(set);
        if self.agents[agent].watch.seen != sight.index {
            self.looked(agent);
        }
        let beat = self.watch_beat(agent);
        let watch = &mut self.agents[agent].watch;
        watch.turn += 1;
        watch.failures = 0;
        watch.news = watch.seen != sight.index;
        watch.seen = sight.index;
        let asked_at = watch.asked_at;
        // Where holds fail at once, looks are no closer together than where they last.
        let pitch = if std::mem::take(&mut watch.was_cut) {
            beat
        } else {
            0
        };
        watch.after = if sight.index < watch.after {
            0
        } else {
            sight.index
        };
        // A watch on a missing key wakes with every write anywhere in the store.
        let pause = if sight.key.is_none() { 100 * MS } else { 0 };
        let pause = pause.max(pitch);
        let event = Event::LockRead {
            asked_at,
            by_watch: true,
            result: Ok(sight),
        };
        self.schedule(
            after,
            Due::WatchHears {
                agent,
                event: Box::new(event),
                pause,
            },
        );
    }

    fn watch_fails(&mut self, agent: usize, after: Time) {
        let watch = &mut self.agents[agent].watch;
        watch.turn += 1;
        watch.waits = false;
        watch.after = 0;
        if watch.held {
            // No news: the next question is not held, and decides.
            watch.was_cut = true;
            return self.watch_after(agent, after);
        }
        watch.failures += 1;
        let pause = if watch.failures <= 3 {
            100 * MS
        } else {
            1_000 * MS
        };
        let event = Event::LockRead {
            asked_at: watch.asked_at,
            by_watch: true,
            result: Err(no_answer()),
        };
        self.schedule(
            after,
            Due::WatchHears {
                agent,
                event: Box::new(event),
                pause,
            },
        );
    }

    pub(crate) fn watch_hears(&mut self, agent: usize, event: Event, pause: Time) {
        self.step(agent, event);
        if self.agents[agent].alive {
            self.watch_after(agent, pause);
        }
    }

    /// The locks of these sets have changed: their watches wake.
    pub(crate) fn locks_changed(&mut self, sets: &[usize]) {
        for set in sets {
            for agent in 0..self.agents.len() {
                let it = &self.agents[agent];
                if it.alive && it.watch.waits && self.instances[it.at].set == *set {
                    self.watch_answers(agent);
                }
            }
        }
    }

    /// The connection under a waiting watch is gone.
    pub(crate) fn watch_breaks(&mut self, agent: usize, how: Cut) {
        if self.agents[agent].watch.waits {
            let after = match how {
                Cut::Refused => MS,
                Cut::Swallowed | Cut::RepliesSwallowed => {
                    self.watch_holds(agent) / 2 + self.patience(agent)
                }
            };
            self.watch_fails(agent, after);
        }
    }

    /// Somebody has written the switchover key.
    pub(crate) fn order_written(&mut self, set: usize) {
        for instance in self.sets[set].members.clone() {
            if let Some(agent) = self.running_agent(instance) {
                let after = self.delay() * 2;
                self.schedule(after, Due::OrderSeen { agent });
            }
        }
    }

    pub(crate) fn order_seen(&mut self, agent: usize) {
        let set = self.instances[self.agents[agent].at].set;
        if !self.agents[agent].knows_keys {
            return;
        }
        if self.consul_cut(agent).is_some() || self.now < self.leader_at {
            self.schedule(1_000 * MS, Due::OrderSeen { agent });
            return;
        }
        let Some((index, order)) = self.consul.beside[set].switchover.clone() else {
            return;
        };
        if self.agents[agent].order_seen == index {
            return;
        }
        self.agents[agent].order_seen = index;
        self.step(
            agent,
            Event::SwitchoverSeen {
                index,
                switchover: order,
            },
        );
    }
}
