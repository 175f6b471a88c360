//! What `SIGUSR1` and `SIGUSR2` print: one document each, on stdout, and nothing else ever goes there.
//!
//! `DUMP_FORMAT=text` is for people: one screen (`screen`), and the whole as an indented tree (`tree`). With `json` each
//! document is an object on one line.

mod screen;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::clock;
use crate::config::Config;
use crate::decide::plan::{Plan, Reason};
use crate::decide::router::{RouterPlan, RouterState};
use crate::decide::state::State;
use crate::decide::timing::{Tick, Timing};
use crate::journal;
use crate::logging::{Fault, Lost, Output};
use crate::plain;

/// Enough to see how the agent came to where it is; an idle agent has none.
const TRANSITIONS: usize = 32;

/// What a dump shows besides the state.
pub(crate) struct Dump {
    agent: String,
    output: Output,
    transitions: VecDeque<Value>,
}

/// Everything that a storage's agent may show, in one moment.
struct View<'a> {
    head: Head<'a>,
    state: &'a State,
    reason: Option<&'a Reason>,
}

/// The same for a router's agent.
struct RouterView<'a> {
    head: Head<'a>,
    announce: &'a str,
    state: &'a RouterState,
    reason: Option<&'a str>,
}

/// The agent that speaks, and the moment of which it speaks.
struct Head<'a> {
    agent: &'a str,
    version: &'static str,
    /// Milliseconds since the epoch by the wall clock.
    wall_ms: u64,
    now: Tick,
    last_fault: Option<Fault>,
    lost: Lost,
}

/// Its parts in the order in which people read them.
type Document = Vec<(&'static str, Value)>;

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
            "time": moment(clock::wall_ms()),
            "reason": new.reason,
            "words": words,
            "actions": new.actions,
        }));
    }

    /// `SIGUSR1`: Consul and Tarantool as the reconciler sees them.
    pub(crate) fn print_outside(
        &self,
        config: &Config,
        state: &State,
        plan: Option<&Plan>,
        now: Tick,
    ) {
        let view = View {
            head: self.head(now),
            state,
            reason: plan.map(|plan| &plan.reason),
        };
        self.print(if config.log.json_dumps {
            json_line(outside(&view))
        } else {
            plain::lines(&screen::text(&view))
        });
    }

    /// `SIGUSR2`: the whole reconciler.
    pub(crate) fn print_all(&self, config: &Config, state: &State, plan: Option<&Plan>, now: Tick) {
        let timing = &config.timing;
        let wake_in = plan.and_then(|plan| plan.wake_at);
        let document = vec![
            ("dump", json!("reconciler")),
            ("agent", json!(self.agent)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("time", json!(moment(clock::wall_ms()))),
            ("now", json!(now)),
            ("reason", json!(plan.map(|plan| plan.reason.to_string()))),
            ("serving", json!(state.is_serving())),
            ("may_be_writable", json!(state.may_be_writable(now))),
            (
                "lease_left_s",
                json!(
                    state
                        .instance
                        .lease
                        .map_or(0.0, |lease| lease.over_at.since(now).as_secs_f64())
                ),
            ),
            (
                "timers_s",
                json!({
                    "lease": timing.lease().as_secs_f64(),
                    "refresh_interval": timing.refresh_interval().as_secs_f64(),
                    "session_renew_interval": timing.session_renew_interval().as_secs_f64(),
                    "margin": Timing::margin(timing.lease()).as_secs_f64(),
                    "wake_in": wake_in.map_or(Duration::ZERO, |at| at.since(now)).as_secs_f64(),
                }),
            ),
            ("settings", settings(config)),
            ("plan", json!(plan)),
            ("state", journal::describe(state)),
            ("transitions", json!(self.transitions)),
            ("last_error", last_error(self.output.last_fault().as_ref())),
            ("lost", lost(self.output.lost())),
        ];
        self.print_document(config, document);
    }

    /// Both signals to a router's agent.
    pub(crate) fn print_router(
        &self,
        config: &Config,
        state: &RouterState,
        plan: Option<&RouterPlan>,
        now: Tick,
        all: bool,
    ) {
        let view = RouterView {
            head: self.head(now),
            announce: &config.announce.id,
            state,
            reason: plan.map(|plan| plan.reason.as_str()),
        };
        if !all && !config.log.json_dumps {
            return self.print(plain::lines(&screen::router(&view)));
        }
        let document = vec![
            ("dump", json!(if all { "reconciler" } else { "outside" })),
            ("role", json!("router")),
            ("agent", json!(self.agent)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("time", json!(moment(view.head.wall_ms))),
            ("now", json!(now)),
            ("reason", json!(view.reason)),
            ("settings", json!(all.then(|| settings(config)))),
            ("plan", json!(plan.filter(|_| all))),
            ("state", json!(state)),
            ("last_error", last_error(view.head.last_fault.as_ref())),
            ("lost", lost(view.head.lost)),
        ];
        self.print_document(config, document);
    }

    fn head(&self, now: Tick) -> Head<'_> {
        Head {
            agent: &self.agent,
            version: env!("CARGO_PKG_VERSION"),
            wall_ms: clock::wall_ms(),
            now,
            last_fault: self.output.last_fault(),
            lost: self.output.lost(),
        }
    }

    fn print_document(&self, config: &Config, document: Document) {
        self.print(if config.log.json_dumps {
            json_line(document)
        } else {
            plain::lines(&tree::text(&document))
        });
    }

    fn print(&self, text: String) {
        self.output.dumps.put(text.into_bytes());
    }
}

fn outside(view: &View<'_>) -> Document {
    let View { head, state, .. } = view;
    let instance = &state.instance;
    let probe_age = instance
        .probed_at
        .map(|at| head.now.since(at).as_secs_f64());
    vec![
        ("dump", json!("outside")),
        ("agent", json!(head.agent)),
        ("version", json!(head.version)),
        ("time", json!(moment(head.wall_ms))),
        ("now", json!(head.now)),
        ("reason", json!(view.reason.map(ToString::to_string))),
        (
            "tarantool",
            json!({
                "link": instance.link,
                "probe": instance.probe,
                "probe_age_s": probe_age,
                "silent_since": instance.silent_since,
                "behind": state.behind(head.now),
                "process_hidden": instance.process,
            }),
        ),
        (
            "consul",
            json!({
                "lock": state.lock,
                "holds_lock": state.holds_lock(),
                "session": state.session,
                "catalog": state.catalog,
                "fault": state.consul_fault,
                "unread": state.unread,
            }),
        ),
        ("last_error", last_error(head.last_fault.as_ref())),
        ("lost", lost(head.lost)),
    ]
}

fn settings(config: &Config) -> Value {
    let all = config.effective().into_iter();
    let all: Map<String, Value> = all
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect();
    Value::Object(all)
}

fn last_error(fault: Option<&Fault>) -> Value {
    json!(fault.map(|fault| json!({"time": moment(fault.at_ms), "words": fault.words})))
}

/// The lines and dumps of this agent that nobody will see.
fn lost(lost: Lost) -> Value {
    json!({"log_lines": lost.log_lines, "dumps": lost.dumps})
}

fn json_line(document: Document) -> String {
    let parts = document.into_iter();
    let object: Map<String, Value> = parts.map(|(key, value)| (key.to_owned(), value)).collect();
    format!("{}\n", plain::json(&Value::Object(object).to_string()))
}

/// `2026-01-02T03:04:05.678Z`.
fn moment(wall_ms: u64) -> String {
    // The last second that the format can show.
    let at = UNIX_EPOCH + Duration::from_millis(wall_ms.min(253_402_300_799_000));
    humantime::format_rfc3339_millis(at).to_string()
}
