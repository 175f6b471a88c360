//! What agents ask for, on its way and where it arrives.

use super::*;

impl World {
    pub(super) fn send(&mut self, at: usize, action: Action) {
        let place = &self.places[at];
        let (agent, asked_at) = (place.agent, self.now);
        if matches!(action, Action::Exit { .. }) {
            self.places[at].state = None;
            self.places[at].agent += 1;
            return;
        }
        if let Action::AskPromises { .. } = &action {
            self.asks(at, agent, &action);
            return;
        }
        let for_consul = action.guard_command_kind().is_none() && !matches!(action, Action::Kill);
        let mut after = self.soon();
        let mut reply_lost = false;
        let reachable = if for_consul {
            self.places[at].consul
        } else {
            self.places[at].link || matches!(action, Action::Kill)
        };
        if !reachable {
            if let Some(event) = lost(&action, asked_at) {
                self.hear(at, 100.ms(), event);
            }
            return;
        }
        if for_consul {
            let weather = self.weather;
            if weather.slow_one_in > 0 && self.random(weather.slow_one_in) == 0 {
                let slow_us = u64::try_from(weather.slow.as_micros()).unwrap();
                after = Duration::from_micros(self.random(slow_us));
            }
            reply_lost = weather.lost_one_in > 0 && self.random(weather.lost_one_in) == 0;
        }
        // Whatever has not been answered by then counts as lost, and may be carried out all the same.
        if (after > 2.secs() || reply_lost)
            && let Some(event) = lost(&action, asked_at)
        {
            reply_lost = true;
            self.hear(at, 2.secs(), event);
        }
        self.schedule(
            after,
            Due::Arrive {
                at,
                agent,
                action,
                asked_at,
                reply_lost,
            },
        );
    }

    pub(super) fn arrive(
        &mut self,
        at: usize,
        agent: u32,
        action: Action,
        asked_at: Tick,
        reply_lost: bool,
    ) {
        let now = self.now;
        let reply = if matches!(action, Action::Kill) {
            let place = &self.places[at];
            let word = place.instance.last_word(now).filter(|_| place.link);
            let result = match word {
                Some(probe) => KillResult::Spared(probe),
                None => {
                    self.kills_instance(at);
                    KillResult::Killed
                }
            };
            Some(Event::KillEnded { result })
        } else if action.guard_command_kind().is_some() {
            if self.places[at].instance.frozen {
                let waiting = (agent, action.clone(), asked_at, true);
                self.places[at].waiting_for_thaw.push(waiting);
                if let Some(event) = lost(&action, asked_at) {
                    self.hear(at, 2.secs(), event);
                }
                return;
            }
            // Another agent attached meanwhile, or the process is gone.
            if self.places[at].agent != agent || !self.places[at].instance.alive {
                lost(&action, asked_at)
            } else {
                let reply = self.places[at].instance.obey(&action, now);
                self.wake_guard(at);
                reply
            }
        } else {
            let reply = self.lock.obey(&action, asked_at, now);
            if reply.is_none() {
                // A blocking query: it looks again.
                let due = Due::Arrive {
                    at,
                    agent,
                    action,
                    asked_at,
                    reply_lost,
                };
                self.schedule(1.ms(), due);
                return;
            }
            reply
        };
        if reply_lost {
            return;
        }
        if let Some(event) = reply {
            let after = self.soon();
            if let Some(seen) = self.lock.seen_beside(&event, self.now) {
                self.schedule(
                    after,
                    Due::Hear {
                        at,
                        agent,
                        event: seen,
                    },
                );
            }
            self.schedule(after, Due::Hear { at, agent, event });
        }
    }
}
