//! What `SIGUSR1` prints for people: one screen, a field a line.

use std::time::Duration;

use super::{Head, RouterView, View};
use crate::ctl::words::{exact_moment, lateness, rows, span, wrapped};
use crate::decide::board::{Pause, Switchover, SwitchoverState};
use crate::decide::observed::{Peer, Probe};
use crate::decide::plan::CatalogEntry;
use crate::decide::record::{Record, Status};
use crate::decide::router::RouterState;
use crate::decide::state::{Link, State};
use crate::decide::timing::Tick;
use crate::decide::vclock::{Vclock, rows_missing};

/// What a terminal has at least.
const WIDTH: usize = 80;
/// Where values begin.
const INDENT: usize = 13;

/// The screen, as it stands in the view's moment.
pub(super) fn text(view: &View<'_>) -> String {
    let mut page = Page::default();
    head(&view.head, &mut page);
    page.field("instance", instance(view));
    page.field("role", role(view));
    page.field("reason", view.reason());
    page.field("lease", lease(view));
    page.field("lock", lock(view));
    page.field("record", record(view));
    replication(view, &mut page);
    if let Some(behind) = behind(view) {
        page.field("behind", behind);
    }
    page.field("guard", guard(view));
    page.field("failsafe", failsafe(view));
    page.field("orders", orders(view));
    page.field("catalog", catalog(view));
    faults(
        &present_faults(view.state),
        &view.state.problems(),
        &mut page,
    );
    tail(&view.head, &mut page);
    page.0
}

/// The same for a router's agent, which has neither lock nor lease.
pub(super) fn router(view: &RouterView<'_>) -> String {
    let mut page = Page::default();
    let RouterView {
        head: of, state, ..
    } = view;
    head(of, &mut page);
    let router = match &state.identity {
        Some(who) => format!("{}, {}, Tarantool {}", view.announce, who.uuid, who.version),
        None => view.announce.to_owned(),
    };
    let connected = if state.lost.is_none() {
        "connected"
    } else {
        "unreachable"
    };
    page.field("router", format!("{router}: {connected}"));
    page.field("role", "vshard router");
    page.field("reason", view.reason.unwrap_or("nothing is known yet"));
    page.field("masters", masters(state));
    page.field("catalog", told(state.told.as_ref()));
    let all = [
        ("router", state.lost.as_ref()),
        ("vshard", state.vshard.fault.as_ref()),
        ("Consul", state.consul_fault.as_ref()),
    ];
    faults(&all, &[], &mut page);
    tail(of, &mut page);
    page.0
}

fn masters(state: &RouterState) -> String {
    let Some(masters) = &state.vshard.masters else {
        return "not read yet".to_owned();
    };
    let all = masters.values().filter(|(_, master)| master.is_somebody());
    let all: Vec<String> = all
        .map(|(_, master)| format!("{} (term {})", master.name, master.term))
        .collect();
    let left_out = state.vshard.left_out.join(", ");
    match (all.is_empty(), left_out.is_empty()) {
        (true, _) => "none".to_owned(),
        (false, true) => all.join(", "),
        (false, false) => format!("{}; not reached: {left_out}", all.join(", ")),
    }
}

fn head(head: &Head<'_>, page: &mut Page) {
    let running = span(head.now.elapsed());
    page.field("tarsec", format!("{}, agent {}", head.version, head.agent));
    page.field(
        "time",
        format!("{}, running for {running}", exact_moment(head.wall_ms, 0)),
    );
}

fn tail(head: &Head<'_>, page: &mut Page) {
    page.field(
        "last error",
        match &head.last_fault {
            Some(fault) => format!("{}: {}", exact_moment(fault.at_ms, 0), fault.words),
            None => "none".to_owned(),
        },
    );
    page.field(
        "lost",
        match (head.lost.log_lines, head.lost.dumps) {
            (0, 0) => "nothing".to_owned(),
            (lines, dumps) => {
                format!("{lines} log lines and {dumps} dumps, since nobody read them in time")
            }
        },
    );
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn field(&mut self, label: &str, value: impl AsRef<str>) {
        self.0
            .push_str(&wrapped(label, INDENT, value.as_ref(), WIDTH));
    }
}

impl View<'_> {
    fn reason(&self) -> String {
        let reason = self.reason.map(ToString::to_string);
        reason.unwrap_or_else(|| "nothing is known yet".to_owned())
    }

    /// `0.4 s ago`.
    fn ago(&self, at: Tick) -> String {
        format!("{} ago", span(self.head.now.since(at)))
    }

    /// As operators know a member: its name where that is known, else a part of its UUID.
    fn name(&self, uuid: &str) -> String {
        let board = self.state.board.as_ref();
        let member = board.and_then(|(board, _)| board.members.get(uuid));
        let record = self
            .state
            .seen_record()
            .filter(|seen| seen.instance == uuid);
        let name = member.map(|member| member.name.as_str());
        match name.or(record.map(|record| record.name.as_str())) {
            Some(name) => format!("{name} ({})", brief(uuid)),
            None => brief(uuid).to_owned(),
        }
    }
}

/// The first part of a UUID, which tells the members of a replica set apart.
fn brief(uuid: &str) -> &str {
    uuid.split('-').next().unwrap_or(uuid)
}

fn instance(view: &View<'_>) -> String {
    let instance = &view.state.instance;
    let state = match &instance.link {
        Link::Unknown => "not reached yet".to_owned(),
        Link::Up => match instance.silent_since {
            Some(since) => format!("connected, silent for {}", span(view.head.now.since(since))),
            None => "connected".to_owned(),
        },
        Link::Down { since, .. } => {
            format!("unreachable for {}", span(view.head.now.since(*since)))
        }
        Link::Dead { since, .. } => format!("dead since {}", view.ago(*since)),
        Link::Unsuitable { .. } => "unsuitable".to_owned(),
    };
    let named = &view.state.settings.announce;
    match &instance.probe {
        Some(probe) => format!(
            "{named}, {}, of replica set {}, Tarantool {}: {state}",
            probe.uuid, probe.replicaset_uuid, probe.version
        ),
        None => format!("{named}: {state}"),
    }
}

fn role(view: &View<'_>) -> String {
    let state = view.state;
    let term = state.highest_term;
    let Some(probe) = &state.instance.probe else {
        return format!("unknown, term {term}");
    };
    let age = state.instance.probed_at.map(|at| view.ago(at));
    let seen = age.map_or_else(String::new, |age| format!(", as it said {age}"));
    let is = match (state.is_serving(), probe.ro) {
        (true, _) => "MASTER, writable",
        (false, true) => "replica, read-only",
        (false, false) => "WRITABLE WITHOUT A LEASE OF THIS AGENT'S",
    };
    format!("{is}, term {term}{seen}")
}

fn lease(view: &View<'_>) -> String {
    let state = view.state;
    let whole = span(state.settings.timing.lease());
    if state.stands_down() {
        return "none, and none is needed: the guard stands down for a pause".to_owned();
    }
    match state.instance.lease {
        Some(lease) if view.head.now < lease.over_at => {
            let left = span(lease.over_at.since(view.head.now));
            let certain = if state.is_serving() { "" } else { "at most " };
            format!("{certain}{left} left of {whole}")
        }
        Some(_) => "over".to_owned(),
        None if state.may_be_writable(view.head.now) => "none known of".to_owned(),
        None => "none".to_owned(),
    }
}

fn lock(view: &View<'_>) -> String {
    let state = view.state;
    let Some(sight) = &state.lock.sight else {
        return "not read yet".to_owned();
    };
    let seen = view.ago(state.lock.learned_at);
    let is = match &sight.key {
        None => "there is no key".to_owned(),
        Some(key) => {
            let index = key.modify_index;
            match &key.session {
                None => format!("free, index {index}"),
                Some(session) if state.holds_lock() => {
                    format!("held by this agent, session {session}, index {index}")
                }
                Some(session) => {
                    let holder = key.record.as_ref().ok();
                    let holder = holder.map(|record| view.name(&record.instance));
                    let holder = holder.unwrap_or_else(|| "somebody".to_owned());
                    format!("held by {holder}, session {session}, index {index}")
                }
            }
        }
    };
    let doubt = match (state.lock.unreadable, state.lock.outdated) {
        (true, _) => "; Consul cannot be read since",
        (false, true) => "; that is outdated",
        (false, false) => "",
    };
    format!("{is}, seen {seen}{doubt}")
}

fn record(view: &View<'_>) -> String {
    let Some(record) = view.state.seen_record() else {
        return "none".to_owned();
    };
    let Record {
        term,
        status,
        refresh,
        reason,
        paused,
        ..
    } = record;
    let status = match status {
        Status::Promoting => "promoting",
        Status::Active => "active",
        Status::Fenced => "fenced",
    };
    let paused = if *paused { ", PAUSED" } else { "" };
    let by = view.name(&record.instance);
    format!("term {term}, {status}{paused}, refresh {refresh}, by {by}: {reason}")
}

fn replication(view: &View<'_>, page: &mut Page) {
    let Some(probe) = &view.state.instance.probe else {
        return page.field("replication", "unknown");
    };
    let others = || {
        probe
            .replication
            .iter()
            .filter(|peer| peer.uuid != probe.uuid)
    };
    let count = |fits: fn(&Peer) -> bool| others().filter(|peer| fits(peer)).count();
    let followed = count(|peer| {
        let upstream = peer.upstream.as_ref();
        upstream.is_some_and(|upstream| upstream.status == "follow")
    });
    let following = count(|peer| peer.downstream_status.as_deref() == Some("follow"));
    let all = others().count();
    page.field(
        "replication",
        format!(
            "follows {followed} of {all}, followed by {following} of {all}, vclock {}",
            vclock(&probe.vclock)
        ),
    );
    for peer in others() {
        page.field(
            "",
            format!("{}: {}", view.name(&peer.uuid), peer_words(probe, peer)),
        );
    }
}

/// How far this instance is behind the master; a master is behind nobody.
fn behind(view: &View<'_>) -> Option<String> {
    let state = view.state;
    if state.is_serving() || state.instance.probe.is_none() {
        return None;
    }
    let Some(behind) = state.behind(view.head.now) else {
        return Some("unknown: no word of a master has been compared with".to_owned());
    };
    let word = state.lock.unchanged.as_ref();
    let word = word.map_or_else(String::new, |known| {
        format!(", by its word {}", view.ago(known.spoke_at))
    });
    let (missing, late) = (rows(behind.rows), lateness(behind.arrival, behind.ms));
    let of = view.name(&behind.of);
    Some(format!("{missing}, {late}, of {of}{word}"))
}

fn peer_words(probe: &Probe, peer: &Peer) -> String {
    let here = match &peer.upstream {
        None => "not replicated from".to_owned(),
        Some(upstream) => {
            let idle = upstream
                .idle_s
                .and_then(|idle| Duration::try_from_secs_f64(idle).ok());
            let heard = idle.map(|idle| format!(", heard {} ago", span(idle)));
            let why = upstream.message.as_ref().map(|why| format!(" ({why})"));
            let status = &upstream.status;
            format!(
                "{status}{}{}",
                why.unwrap_or_default(),
                heard.unwrap_or_default()
            )
        }
    };
    let there = match (probe.confirmed_by(&peer.uuid), &peer.downstream_status) {
        (Some(has), _) => match rows_missing(&probe.vclock, has) {
            0 => "has every row from here".to_owned(),
            rows => format!("lacks {rows} rows from here"),
        },
        (None, Some(status)) => format!("its side: {status}"),
        (None, None) => "does not replicate from here".to_owned(),
    };
    format!("{here}; {there}")
}

/// `1:20 2:5`.
fn vclock(vclock: &Vclock) -> String {
    let all: Vec<String> = vclock
        .iter()
        .map(|(id, lsn)| format!("{id}:{lsn}"))
        .collect();
    if all.is_empty() {
        "empty".to_owned()
    } else {
        all.join(" ")
    }
}

fn guard(view: &View<'_>) -> String {
    let Some(probe) = &view.state.instance.probe else {
        return "unknown".to_owned();
    };
    let guard = &probe.guard;
    let is = match (guard.stood_down, guard.promoting, guard.leased) {
        (true, _, _) => "STANDS DOWN",
        (false, true, _) => "promoting",
        (false, false, true) => "lets writes in until its lease ends",
        (false, false, false) if probe.is_fenced() => "keeps it read-only",
        (false, false, false) => "fencing",
    };
    let mut text = format!("{is}, term {}, fenced {} times", guard.term, guard.fences);
    if let Some(why) = &guard.last_fence {
        text.push_str(&format!(", last because {why}"));
    }
    if guard.unleased > 0 {
        let times = guard.unleased;
        text.push_str(&format!("; made writable by another hand {times} times"));
    }
    text
}

fn failsafe(view: &View<'_>) -> String {
    let state = view.state;
    let switched = if state.settings.failsafe { "on" } else { "off" };
    let mut parts = vec![switched.to_owned()];
    if let Some(why) = &state.hold.unwritten {
        parts.push(format!("Consul cannot be written: {why}"));
    }
    if let Some(promised) = state.hold.promised {
        parts.push(format!(
            "every member promised {}",
            view.ago(promised.reply_at)
        ));
    }
    if let Some(why) = &state.hold.unpromised {
        parts.push(format!("NOT PROMISED: {why}"));
    }
    let probe = state.instance.probe.as_ref();
    if let Some(promise) = probe.and_then(Probe::promise_to_another) {
        let age = state
            .instance
            .probed_at
            .map_or(Duration::ZERO, |at| view.head.now.since(at));
        let left = Duration::from_nanos(promise.left_ns).saturating_sub(age);
        parts.push(format!(
            "bound by a promise to {} in term {} for another {}",
            view.name(&promise.to),
            promise.term,
            span(left)
        ));
    }
    parts.join("; ")
}

fn orders(view: &View<'_>) -> String {
    let orders = &view.state.orders;
    let mut parts = Vec::new();
    if let Some(Pause {
        by, why, cluster, ..
    }) = &orders.pause
    {
        let scope = if *cluster {
            "the cluster"
        } else {
            "the replica set"
        };
        parts.push(format!("{scope} is PAUSED by {by}: {why}"));
    }
    if let Some((
        _,
        Switchover {
            target,
            by,
            state,
            why,
            ..
        },
    )) = &orders.switchover
        && let Some(state) = switchover_words(*state)
    {
        let target = match target {
            Some(uuid) => view.name(uuid),
            None => "the best member".to_owned(),
        };
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        parts.push(format!("switchover to {target} by {by} {state}{why}"));
    }
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join("; ")
    }
}

/// What has become of the order; `None` where an operator never gave one.
fn switchover_words(state: SwitchoverState) -> Option<&'static str> {
    match state {
        SwitchoverState::Requested => Some("is asked for"),
        SwitchoverState::Running => Some("has begun"),
        SwitchoverState::Done => Some("is done"),
        SwitchoverState::Refused => Some("was refused"),
        SwitchoverState::Undone => Some("was undone"),
        SwitchoverState::None => None,
    }
}

fn catalog(view: &View<'_>) -> String {
    let catalog = &view.state.catalog;
    match &catalog.told {
        _ if catalog.removed => "deregistered".to_owned(),
        Some(entry) => format!("{}, {}", told(Some(entry)), view.ago(catalog.told_at)),
        None => told(None),
    }
}

fn told(entry: Option<&CatalogEntry>) -> String {
    match entry {
        None => "not told yet".to_owned(),
        Some(entry) => {
            let (health, role) = (entry.health.name(), entry.registered.role.name());
            format!("told that it is a {health} {role}")
        }
    }
}

/// What is wrong in this moment, a line each.
fn faults(own: &[(&str, Option<&String>)], problems: &[String], page: &mut Page) {
    let mut label = "faults";
    let own = own.iter().filter_map(|(of, why)| Some((*of, (*why)?)));
    let shared = problems.iter().map(|problem| ("the replica set", problem));
    for (of, why) in own.chain(shared) {
        page.field(label, format!("{of}: {why}"));
        label = "";
    }
    if !label.is_empty() {
        page.field(label, "none");
    }
}

fn present_faults(state: &State) -> [(&'static str, Option<&String>); 11] {
    let instance = &state.instance;
    let link = match &instance.link {
        Link::Unknown | Link::Up => None,
        Link::Down { why, .. } | Link::Unsuitable { why } => Some(why),
        Link::Dead { proof, .. } => Some(proof),
    };
    let broken = instance.feed.as_ref().filter(|feed| feed.broken);
    let feed = broken.and_then(|feed| feed.fault.as_ref());
    let consul = state.consul_fault.as_ref().map(|fault| &fault.why);
    let unread = state.unread.board.as_ref();
    let unread = unread.or(state.unread.ballots.as_ref());
    let unread = unread.map(|fault| &fault.why);
    [
        ("instance", link),
        ("its process", instance.process.as_ref()),
        ("kill", instance.kill_failed.as_ref()),
        ("replication", feed),
        ("guard", instance.guard_refused.as_ref()),
        ("Consul", consul),
        ("members and orders", unread),
        ("Consul denies", state.denied.as_ref()),
        ("catalog", state.catalog.fault.as_ref()),
        ("member key", state.catalog.member_fault.as_ref()),
        ("superseded by", state.superseded.as_ref()),
    ]
}
