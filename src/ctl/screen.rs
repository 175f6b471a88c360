//! Views as text of at most 80 columns that reads well at night.

use std::fmt::Write as _;
use std::time::Duration;

use super::paper::{Paper, Tone};
use super::past;
use super::view::{ClusterView, LeaseView, MemberRole, MemberView, SetState, SetView, Verdict};
use super::words::{ago, between, clean, lateness, moment, rows, short, span, wrapped};
use crate::consul::ConsulError;
use crate::decide::board::{Pause, Switchover, SwitchoverState};
use crate::decide::lag::Arrival;
use crate::decide::timing::moment_ms;
use crate::errors::with_causes;

/// Where the values begin, behind their labels.
const INDENT: usize = 14;
/// `99999 rows, 119 min`.
const BEHIND: usize = 19;
/// A switchover that ended longer ago is shown by the history alone.
const SWITCHOVER_SHOWN_MS: u64 = 3_600_000;

/// `tarsec status`
pub(super) fn status(paper: Paper, view: &ClusterView, prefix: &str) -> String {
    let mut out = heading(paper, &view.cluster, view.at_ms);
    if let Some(pause) = &view.pause {
        out.push_str(&labelled(paper, "PAUSED", &about_pause(pause, view.at_ms)));
    }
    for note in &view.notes {
        out.push_str(&labelled(paper, "!", note));
    }
    for agent in &view.waiting {
        let said = ago(agent.written_ms, view.at_ms);
        let text = format!(
            "the agent of {} has not seen its instance yet, so it is shown under no replica set: {} (said {said})",
            agent.name, agent.why
        );
        out.push_str(&labelled(paper, "!", &text));
    }
    if view.replicasets.is_empty() && view.waiting.is_empty() {
        let text = format!(
            "There is no replica set under {prefix}. No agent of it has run yet, CLUSTER_NAME or CONSUL_KV_PREFIX is \
             another, or the token may not read there."
        );
        let _ = write!(out, "\n{}", wrapped("", 0, &text, paper.width()));
    }
    for set in &view.replicasets {
        out.push('\n');
        out.push_str(&replicaset(paper, set, view.at_ms));
    }
    out.push_str(&routers(paper, view));
    out
}

/// vshard's routers.
fn routers(paper: Paper, view: &ClusterView) -> String {
    let names = view.routers.iter().map(|router| clean(&router.name));
    let Some(longest) = names.map(|name| name.chars().count()).max() else {
        return String::new();
    };
    let width = longest.clamp(6, paper.name_max());
    let mut out = format!(
        "\n  {:<width$}  {:<8}  {:>7}\n",
        "router", "health", "written"
    );
    for router in &view.routers {
        let ago = between(moment_ms(router.written_ms, router.written), view.at_ms);
        let (name, health) = (short(&router.name, width), short(&router.health, 8));
        let health = paper.paint(tone_of(&health), &format!("{health:<8}"));
        let _ = writeln!(out, "  {name:<width$}  {health}  {:>7}", short(&ago, 7));
    }
    out
}

/// What takes the place of a status where Consul gives none: it does not answer, denies the request, or has no leader.
pub(super) fn unknown(
    paper: Paper,
    cluster: &str,
    error: &ConsulError,
    at: u64,
    last_seen: Option<u64>,
) -> String {
    let (title, is_away) = match error {
        ConsulError::Unreachable { .. } | ConsulError::Timeout { .. } => {
            ("NO ANSWER FROM CONSUL", true)
        }
        ConsulError::Denied { .. } => ("CONSUL DENIES IT", false),
        ConsulError::Status { .. } => ("CONSUL ANSWERS WITH AN ERROR", true),
        ConsulError::Throttled { .. } => ("CONSUL ASKS FOR FEWER REQUESTS", true),
        ConsulError::Body { .. } | ConsulError::TooLong { .. } => {
            ("CONSUL'S ANSWER CANNOT BE READ", false)
        }
        ConsulError::Key { .. } => ("CONSUL CANNOT BE ASKED", false),
    };
    let mut out = heading(paper, cluster, at);
    let _ = writeln!(out, "\n{title}");
    out.push_str(&wrapped("  ", 2, &with_causes(error), paper.width()));
    if let Some(seen) = last_seen {
        let text = format!("The last status was read {}.", ago(seen, at));
        out.push_str(&wrapped("  ", 2, &text, paper.width()));
    }
    if !is_away {
        let text = "From here nothing is known of any master. It says nothing about the agents, which have settings and \
                    tokens of their own. What an agent knows it prints on SIGUSR1.";
        let _ = write!(out, "\n{}", wrapped("  ", 2, text, paper.width()));
        return out;
    }
    let text = "From here nothing is known of any master. If the agents cannot reach Consul either, a master goes on \
                until its lease ends, with FAILSAFE=on for as long as every member promises it another, and nobody \
                takes over before Consul is back. What an agent knows it prints on SIGUSR1.";
    let _ = write!(out, "\n{}", wrapped("  ", 2, text, paper.width()));
    out
}

/// `tarsec history`
pub(super) fn history(paper: Paper, view: &ClusterView) -> String {
    let mut out = heading(paper, &view.cluster, view.at_ms);
    for set in &view.replicasets {
        let _ = write!(out, "\nreplica set {}\n", short(&set.replicaset, 66));
        if set.history.is_empty() {
            out.push_str("  no change of hands has been written down\n");
        }
        for line in &set.history {
            out.push_str(&past::history_line(paper, line, view.at_ms));
        }
        if let Some(words) = past::left_out(set) {
            out.push_str(&wrapped("  ", 2, &words, paper.width()));
        }
    }
    out
}

fn heading(paper: Paper, cluster: &str, at: u64) -> String {
    let left = format!("cluster {}", short(cluster, 44));
    edges(paper, &left, &moment(at), None)
}

/// One text at each edge of the screen.
fn edges(paper: Paper, left: &str, right: &str, tone: Option<Tone>) -> String {
    let taken = left.chars().count() + right.chars().count();
    let room = paper.width().saturating_sub(taken);
    let right = tone.map_or_else(|| right.to_owned(), |tone| paper.paint(tone, right));
    format!("{left}{:room$}{right}\n", "")
}

fn labelled(paper: Paper, label: &str, text: &str) -> String {
    wrapped(&format!("  {label}  "), INDENT, text, paper.width())
}

fn replicaset(paper: Paper, set: &SetView, at: u64) -> String {
    let left = format!("replica set {}", short(&set.replicaset, 54));
    let (tone, tag) = tag(set);
    let mut out = edges(paper, &left, tag, Some(tone));
    out.push_str(&labelled(paper, "master", &about_master(set, at)));
    if let Some(reason) = set.reason.as_ref().filter(|reason| !reason.is_empty()) {
        out.push_str(&labelled(paper, "why", &past::about_why(set, reason)));
    }
    if let Some(lease) = &set.lease
        && set.dead_master().is_none()
    {
        out.push_str(&labelled(paper, "lease", &about_lease(set, lease)));
    }
    // The cluster's is at the top.
    if let Some(pause) = set.pause.as_ref().filter(|pause| !pause.cluster) {
        out.push_str(&labelled(paper, "PAUSED", &about_pause(pause, at)));
    }
    if let Some(order) = &set.switchover
        && is_news(order, at)
    {
        out.push_str(&labelled(
            paper,
            "switchover",
            &about_switchover(order, set, at),
        ));
    }
    for note in &set.notes {
        out.push_str(&labelled(paper, "!", note));
    }
    out.push_str(&members(paper, set, at));
    for risk in &set.rows_at_risk {
        out.push_str(&labelled(paper, "at risk", &past::about_risk(risk, at)));
    }
    out
}

fn tag(set: &SetView) -> (Tone, &'static str) {
    match set.verdict {
        Verdict::NoMaster => (Tone::Bad, "NO MASTER"),
        Verdict::Well | Verdict::Unwell if set.paused || set.pause.is_some() => {
            (Tone::Odd, "PAUSED")
        }
        Verdict::Unwell => (Tone::Odd, "LOOK"),
        Verdict::Well => (Tone::Good, "ok"),
    }
}

/// Of a health as it is shown.
fn tone_of(health: &str) -> Tone {
    match health {
        "passing" => Tone::Good,
        "warning" | "unknown" => Tone::Odd,
        _ => Tone::Bad,
    }
}

fn about_master(set: &SetView, at: u64) -> String {
    let Some(holder) = &set.holder else {
        return "none is known".to_owned();
    };
    let name = clean(&holder.name);
    let term = set.term.unwrap_or_default();
    match set.state {
        SetState::Master | SetState::Silent if set.dead_master().is_some() => {
            format!("none; {name} holds the lock, term {term}, and is dead")
        }
        SetState::Master | SetState::Silent => {
            let since = moment_ms(set.since_ms.unwrap_or(0), set.since.unwrap_or(0));
            let lasts = between(since, at);
            format!("{name}, term {term}, since {} ({lasts})", moment(since))
        }
        SetState::Promoting => format!("none; {name} is on its way, term {term}"),
        SetState::None | SetState::Unreadable => {
            format!("none; the last was {name}, term {term}")
        }
    }
}

fn about_lease(set: &SetView, lease: &LeaseView) -> String {
    let ms = |ms| span(Duration::from_millis(ms));
    let whole = ms(lease.lease_ms);
    if set.paused {
        return format!("{whole}, but paused: nothing bounds it");
    }
    match (lease.refreshed_ms_ago, lease.left_ms, lease.watched_ms) {
        (Some(ago), Some(left), _) => {
            let (ago, left) = (ms(ago), ms(left));
            format!("{whole}, refreshed {ago} ago, at most {left} left")
        }
        (Some(_) | None, _, 0) => format!("{whole}, how much is left is unknown"),
        (Some(_) | None, _, watched) => format!("{whole}, not refreshed for {}", ms(watched)),
    }
}

fn about_pause(pause: &Pause, at: u64) -> String {
    let scope = if pause.cluster {
        "the whole cluster, "
    } else {
        ""
    };
    let since = moment_ms(pause.at_ms, pause.at);
    let mut text = format!(
        "{scope}by {}, {} ({})",
        somebody(&pause.by),
        moment(since),
        ago(since, at)
    );
    if !pause.why.is_empty() {
        let _ = write!(text, ": {}", pause.why);
    }
    text
}

fn somebody(by: &str) -> &str {
    if by.is_empty() { "somebody" } else { by }
}

fn is_news(order: &Switchover, at: u64) -> bool {
    match order.state {
        SwitchoverState::Requested | SwitchoverState::Running => true,
        SwitchoverState::Done | SwitchoverState::Refused | SwitchoverState::Undone => {
            at.saturating_sub(moment_ms(order.at_ms, order.at)) < SWITCHOVER_SHOWN_MS
        }
        SwitchoverState::None => false,
    }
}

fn about_switchover(order: &Switchover, set: &SetView, at: u64) -> String {
    let target = match &order.target {
        Some(target) => set.name_of(target),
        None => "the best".to_owned(),
    };
    let state = match order.state {
        SwitchoverState::Requested => "REQUESTED",
        SwitchoverState::Running => "RUNNING",
        SwitchoverState::Done => "done",
        SwitchoverState::Refused => "refused",
        SwitchoverState::Undone => "undone",
        SwitchoverState::None => "none",
    };
    let asked = moment_ms(order.at_ms, order.at);
    let (by, ago) = (somebody(&order.by), ago(asked, at));
    let mut text = format!("{state}: to {target}, by {by}, {ago}");
    if !order.why.is_empty() {
        let _ = write!(text, ": {}", order.why);
    }
    text
}

fn members(paper: Paper, set: &SetView, at: u64) -> String {
    let members = &set.members;
    let lags: Vec<String> = members.iter().map(about_lag).collect();
    let names: Vec<String> = members.iter().map(|m| clean(&m.name)).collect();
    let longest = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max();
    // Names get the room that no lag needs: what tells equal names apart stands at their ends.
    let spare = BEHIND.saturating_sub(longest(&lags).unwrap_or(0).max(6));
    let width = longest(&names)
        .unwrap_or(0)
        .clamp(6, paper.name_max() + spare);
    let lag_width = BEHIND - width.saturating_sub(paper.name_max());
    let mut out = format!(
        "\n  {:<width$}  {:<9}  {:<8}  {:>lag_width$}  {:>4}  {:>7}\n",
        "member", "role", "health", "behind", "prio", "written"
    );
    if members.is_empty() {
        out.push_str("  none is known\n");
    }
    for (member, lag) in members.iter().zip(&lags) {
        let name = short(&member.name, width);
        let health = if member.left {
            "-".to_owned()
        } else if member.is_looked_after() {
            short(&member.health, 8)
        } else {
            // What the agent wrote is old.
            "no agent".to_owned()
        };
        let behind = short(lag, lag_width);
        // Numbers beyond these have no room, and rank members in the same order.
        let priority = member.priority.map(|priority| priority.clamp(-999, 9_999));
        let priority = priority.map_or("?".to_owned(), |priority| priority.to_string());
        let written = member.written.map_or("?".to_owned(), |written| {
            between(moment_ms(member.written_ms.unwrap_or(0), written), at)
        });
        let role = about_role(member, set.state);
        let health = paper.paint(tone_of(&health), &format!("{health:<8}"));
        let _ = writeln!(
            out,
            "  {name:<width$}  {role:<9}  {health}  {behind:>lag_width$}  {priority:>4}  {:>7}",
            short(&written, 7)
        );
        let is_well = member.health == "passing" || member.reason.is_empty();
        let why = (!is_well).then_some(&member.reason);
        for words in lacked(member).iter().chain(why) {
            out.push_str(&wrapped("", 6, words, paper.width()));
        }
    }
    out
}

fn about_role(member: &MemberView, state: SetState) -> &'static str {
    match member.role {
        MemberRole::Master if member.dead => "DEAD",
        MemberRole::Master if state == SetState::Silent => "MASTER?",
        MemberRole::Master => "MASTER",
        MemberRole::Promoting => "promoting",
        MemberRole::Former => "ex-master",
        MemberRole::Replica if member.left => "left",
        MemberRole::Replica => "replica",
        MemberRole::Anonymous => "anonymous",
    }
}

/// How far behind the member is, and where rows do not arrive, for how long they have not.
fn about_lag(member: &MemberView) -> String {
    let MemberView {
        behind_rows,
        behind_ms,
        arrival,
        ..
    } = member;
    match (member.role, behind_rows.zip(*behind_ms).zip(*arrival)) {
        (MemberRole::Master | MemberRole::Promoting | MemberRole::Former, _) => "-".to_owned(),
        (MemberRole::Replica | MemberRole::Anonymous, None) => "?".to_owned(),
        // What the agent wrote is old.
        (_, Some(_)) if !member.is_looked_after() => "?".to_owned(),
        (_, Some(((rows, ms), Arrival::Arriving))) => {
            let unit = if rows == 1 { "row" } else { "rows" };
            let rows = count(rows);
            format!("{rows} {unit}, {}", lateness(Arrival::Arriving, ms))
        }
        (_, Some(((_, ms), arrival))) => lateness(arrival, ms),
    }
}

/// What a member lacks at which rows do not arrive.
fn lacked(member: &MemberView) -> Option<String> {
    let missing = member.behind_rows.filter(|rows| *rows > 0)?;
    let arrival = member.arrival.filter(|_| member.is_looked_after())?;
    (arrival != Arrival::Arriving).then(|| format!("it lacks {}", rows(missing)))
}

/// At most five characters, rounded up.
fn count(rows: u64) -> String {
    let units = [
        (1, ""),
        (1_000, "k"),
        (1_000_000, "M"),
        (1_000_000_000, "G"),
        (1_000_000_000_000, "T"),
        (1_000_000_000_000_000, "P"),
    ];
    let fits = |unit: u64| rows.div_ceil(unit) < if unit == 1 { 100_000 } else { 10_000 };
    let found = units.iter().find(|(unit, _)| fits(*unit));
    let (unit, name) = found.unwrap_or(&(1_000_000_000_000_000_000, "E"));
    format!("{}{name}", rows.div_ceil(*unit))
}

#[cfg(test)]
mod tests;
