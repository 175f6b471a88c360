//! What a script may do to the world.

use std::time::Duration;

use super::super::fixtures::Span;
use super::{Broken, Due, World};
use crate::event::Event;

impl World {
    /// `kill -9` of the instance.
    pub(in crate::tests) fn kills_instance(&mut self, at: usize) {
        if !self.places[at].instance.alive {
            return;
        }
        self.note(format!("instance {at} is killed"));
        let place = &mut self.places[at];
        place.instance.alive = false;
        place.instance.frozen = false;
        place.waiting_for_thaw.clear();
        let (pid, restarts) = (place.instance.pid, place.instance_restarts);
        self.hear(
            at,
            25.ms(),
            Event::Died {
                proof: "it is a zombie".to_owned(),
            },
        );
        if let Some(after) = restarts {
            self.schedule(after, Due::StartInstance { at, pid });
        }
    }

    /// `kill -9` of the agent.
    pub(in crate::tests) fn kills_agent(&mut self, at: usize) {
        self.note(format!("agent {at} is killed"));
        self.places[at].state = None;
        self.places[at].agent += 1;
        if let Some(after) = self.places[at].agent_restarts {
            self.schedule(after, Due::StartAgent { at });
        }
    }

    /// The machine is gone.
    pub(in crate::tests) fn loses_machine(&mut self, at: usize) {
        self.places[at].agent_restarts = None;
        self.places[at].instance_restarts = None;
        self.kills_agent(at);
        self.kills_instance(at);
    }

    pub(in crate::tests) fn asks_to_stop(&mut self, at: usize) {
        self.hear(
            at,
            Duration::ZERO,
            Event::StopRequested { signal: "SIGTERM" },
        );
    }

    /// What an operator may do to the key, or an expired session.
    pub(in crate::tests) fn ends_session_of_holder(&mut self) {
        if let Some(session) = self.lock.holder().cloned() {
            self.note(format!("{session} is ended"));
            self.lock.end_session(&session);
            self.wake_watches();
        }
    }

    pub(in crate::tests) fn breaks(&mut self, at: usize, what: Broken, time: Duration) {
        self.note(format!("{what:?} breaks at {at} for {time:?}"));
        match what {
            Broken::Frozen => {
                if !self.places[at].instance.alive || self.places[at].instance.frozen {
                    return;
                }
                self.places[at].instance.frozen = true;
                self.hear(at, 60.ms(), Event::FellSilent);
            }
            Broken::Consul => self.places[at].consul = false,
            Broken::Peers => self.places[at].peers = false,
            Broken::Link => {
                self.places[at].link = false;
                let why = "the connection timed out".to_owned();
                self.hear(at, 60.ms(), Event::Unreachable { why });
            }
        }
        if what == Broken::Consul && self.places[at].watch.waits {
            self.watch_after(at, 1.ms());
        }
        self.schedule(time, Due::Mend { at, what });
    }

    pub(in crate::tests) fn mend(&mut self, at: usize, what: Broken) {
        self.note(format!("{what:?} is over at {at}"));
        match what {
            Broken::Consul => self.places[at].consul = true,
            Broken::Peers => self.places[at].peers = true,
            Broken::Link => {
                self.places[at].link = true;
                self.attach(at);
            }
            Broken::Frozen => {
                if !self.places[at].instance.frozen {
                    return;
                }
                self.places[at].instance.frozen = false;
                // Writes that were queued run before the guard does, so R5 is to see to it that this does not happen.
                // An agent that was started after the process froze has never attached to it, and cannot.
                let state = self.places[at].state.as_ref();
                if state.is_some_and(|state| state.instance.probe.is_some()) {
                    self.look();
                }
                self.places[at].instance.guard_wakes(self.now);
                // Never before the silence, however short it was.
                self.hear(at, 60.ms(), Event::SpokeAgain);
                for (agent, action, asked_at, reply_lost) in
                    std::mem::take(&mut self.places[at].waiting_for_thaw)
                {
                    self.arrive(at, agent, action, asked_at, reply_lost);
                }
                self.wake_guard(at);
                let state = self.places[at].state.as_ref();
                if state.is_some_and(|state| state.live_probe().is_none()) {
                    self.attach(at);
                }
            }
        }
    }
}
