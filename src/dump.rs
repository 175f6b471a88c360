//! `SIGUSR1`, `SIGUSR2`: one JSON document each, on stdout, and nothing else ever goes there.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::decide::plan::Plan;
use crate::decide::state::State;
use crate::decide::timing::Tick;
use crate::journal;
use crate::logging::Output;

/// Enough to see how the agent came to where it is; an idle agent has none.
const TRANSITIONS: usize = 32;

/// What the dump shows besides the state.
pub(crate) struct Dump {
    agent: String,
    output: Output,
    transitions: VecDeque<Value>,
}

impl Dump {
    pub(crate) fn new(agent: String, output: Output) -> Self {
        Self {
            agent,
            output,
            transitions: VecDeque::with_capacity(TRANSITIONS),
        }
    }

    /// Remembers a change of mind.
    pub(crate) fn note(&mut self, old: Option<&Plan>, new: &Plan, now: Tick) {
        let words = new.reason.to_string();
        // A reason that only has another end in time is no change of mind.
        if old.is_some_and(|old| old.reason.to_string() == words) {
            return;
        }
        if self.transitions.len() == TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(json!({
            "at": now,
            "reason": new.reason,
            "words": words,
            "actions": new.actions,
        }));
    }

    /// `SIGUSR1`: Consul and Tarantool as the reconciler sees them.
    pub(crate) fn print_outside(&self, state: &State, plan: Option<&Plan>, now: Tick) {
        print(
            &self.output,
            &json!({
                "dump": "outside",
                "agent": self.agent,
                "now": now,
                "reason": plan.map(|plan| plan.reason.to_string()),
                "tarantool": {
                    "link": state.instance.link,
                    "probe": state.instance.probe,
                    "probe_age_s": state.instance.probed_at.map(|at| now.since(at).as_secs_f64()),
                    "silent_since": state.instance.silent_since,
                    "process_hidden": state.instance.process,
                },
                "consul": {
                    "lock": state.lock,
                    "holds_lock": state.holds_lock(),
                    "session": state.session,
                    "catalog": state.catalog,
                    "fault": state.consul_fault,
                },
                "lost": lost(&self.output),
            }),
        );
    }

    /// `SIGUSR2`: the whole reconciler.
    pub(crate) fn print_all(&self, config: &Config, state: &State, plan: Option<&Plan>, now: Tick) {
        let settings: serde_json::Map<String, Value> = config
            .effective()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::String(value)))
            .collect();
        let timing = &config.timing;
        print(
            &self.output,
            &json!({
                "dump": "reconciler",
                "agent": self.agent,
                "version": env!("CARGO_PKG_VERSION"),
                "now": now,
                "settings": settings,
                "timers_s": {
                    "lease": timing.lease().as_secs_f64(),
                    "refresh_interval": timing.refresh_interval().as_secs_f64(),
                    "session_renew_interval": timing.session_renew_interval().as_secs_f64(),
                    "margin": crate::decide::timing::Timing::margin(timing.lease()).as_secs_f64(),
                    "wake_in": plan.and_then(|plan| plan.wake_at).map_or(Duration::ZERO, |at| at.since(now)).as_secs_f64(),
                },
                "plan": plan,
                "reason": plan.map(|plan| plan.reason.to_string()),
                "serving": state.is_serving(),
                "may_be_writable": state.may_be_writable(now),
                "lease_left_s": state.instance.lease.map_or(0.0, |lease| lease.over_at.since(now).as_secs_f64()),
                "state": journal::describe(state),
                "transitions": self.transitions,
                "lost": lost(&self.output),
            }),
        );
    }
}

/// What nobody will see of what this agent said.
pub(crate) fn lost(output: &Output) -> Value {
    json!({"log_lines": output.log.lost(), "dumps": output.dumps.lost()})
}

pub(crate) fn print(output: &Output, document: &Value) {
    output.dumps.put(format!("{document}\n").into_bytes());
}
