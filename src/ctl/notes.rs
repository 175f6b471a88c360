//! What is not as it should be, in words.

use std::collections::BTreeMap;
use std::time::Duration;

use super::view::{ClusterView, MemberRole, MemberView, SetState, SetView};
use crate::decide::record::{RecordError, Status};

/// The way out of a pause whose master is gone.
const MASTER_IS_DOWN: &str =
    "if it does not run, tarsec resume --master-is-down lets another take over";

const ON_PROMISES: &str =
    "it may go on for as long as every member promises it another lease (failsafe)";

/// All about one replica set, the worst first.
pub(super) fn of(
    view: &SetView,
    error: Option<&RecordError>,
    problems: Vec<String>,
) -> Vec<String> {
    let mut notes = Vec::new();
    // Whether the others have left is their agents' word: `of_unnamed`.
    let members = view.members.iter();
    let named = members.filter(|member| !view.is_unnamed(member));
    notes.extend(about_lock(view, error));
    notes.extend(about_pause(view));
    notes.extend(problems);
    notes.extend(view.members.iter().filter_map(about_candidate));
    notes.extend(named.clone().filter_map(about_member));
    notes.extend(named.filter_map(about_its_vshard));
    notes
}

/// All about members that the master does not name, where they have not left.
pub(super) fn of_unnamed(view: &SetView) -> Vec<String> {
    let mut notes = Vec::new();
    for member in view.members.iter().filter(|member| view.is_unnamed(member)) {
        if !member.left {
            notes.extend(about_member(member));
            notes.extend(about_its_vshard(member));
        }
    }
    notes
}

/// What concerns vshard and more than one replica set.
pub(super) fn about_vshard(view: &ClusterView) -> Vec<String> {
    let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let members = view.replicasets.iter().flat_map(|set| &set.members);
    let members = members.map(|member| (&member.fingerprint, &member.name));
    let routers = view
        .routers
        .iter()
        .map(|router| (&router.fingerprint, &router.name));
    for (fingerprint, name) in members.chain(routers) {
        if let Some(fingerprint) = fingerprint {
            holders.entry(fingerprint).or_default().push(name);
        }
    }
    let mut notes = Vec::new();
    if holders.len() > 1 {
        let groups: Vec<String> = holders
            .iter()
            .map(|(fingerprint, names)| format!("{fingerprint}: {}", names.join(", ")))
            .collect();
        notes.push(format!(
            "inconsistent vshard configuration; {}",
            groups.join("; ")
        ));
    }
    let unwell = view
        .routers
        .iter()
        .filter(|router| router.health != "passing");
    notes.extend(unwell.map(|router| format!("router {}: {}", router.name, router.reason)));
    for problem in view.routers.iter().filter_map(|it| it.problem.as_ref()) {
        if !notes.contains(problem) {
            notes.push(problem.clone());
        }
    }
    notes
}

fn about_lock(view: &SetView, error: Option<&RecordError>) -> Option<String> {
    let name = view.holder.as_ref().map_or("", |holder| &holder.name);
    if let (SetState::Master | SetState::Silent, Some(dead)) = (view.state, view.dead_master()) {
        let so = if view.pause.is_some() {
            "; nobody takes over before tarsec resume"
        } else {
            ""
        };
        return Some(format!("the process of {} is dead{so}", dead.name));
    }
    match view.state {
        SetState::Master => None,
        SetState::Unreadable => error.map(about_nonsense),
        SetState::Promoting => Some(format!("{name} has the lock and is not writable yet")),
        SetState::Silent => Some(about_silence(view, name)),
        SetState::None => Some(about_free_lock(view, name)),
    }
}

fn about_nonsense(error: &RecordError) -> String {
    let so = match error {
        RecordError::UnknownVersion { .. } => "no agent of this version touches it",
        RecordError::Garbage { .. } | RecordError::TooLong { .. } => {
            "a master that runs writes it again, otherwise a successor waits for a lease"
        }
    };
    format!("the lock key cannot be understood, {so}: {error}")
}

fn about_silence(view: &SetView, name: &str) -> String {
    let silence = super::words::span(view.silent_for());
    let so = if view.paused {
        format!(
            "; as it is paused, nothing bounds for how long it may be writable: {MASTER_IS_DOWN}"
        )
    } else if view.failsafe {
        format!("; {ON_PROMISES}")
    } else if view.is_over() {
        "; its lease is over".to_owned()
    } else {
        "; its lease is running out".to_owned()
    };
    format!("{name} has not refreshed its lock for {silence}{so}")
}

fn about_free_lock(view: &SetView, name: &str) -> String {
    let Some(record) = &view.lock.record else {
        return "nobody has ever held the lock, or its key was removed".to_owned();
    };
    let lease = super::words::span(Duration::from_millis(record.lease_ms));
    match (record.status, &view.lock.session) {
        (Status::Fenced, Some(_)) => format!("{name} holds the lock and is read-only"),
        (Status::Fenced, None) => {
            format!("{name} gave up the lock, read-only or dead: a successor need not wait")
        }
        (Status::Active | Status::Promoting, _) if record.paused => format!(
            "the lock is free, but {name} was paused and nothing bounds for how long it may be writable: \
             {MASTER_IS_DOWN}"
        ),
        (Status::Active | Status::Promoting, _) if record.failsafe => format!(
            "the lock is free, but {name} did not say that it is read-only: {ON_PROMISES}, and a successor waits for \
             its lease of {lease} and for the end of every promise"
        ),
        (Status::Active | Status::Promoting, _) => format!(
            "the lock is free, but {name} did not say that it is read-only: a successor waits for its lease of \
             {lease}"
        ),
    }
}

fn about_pause(view: &SetView) -> Option<String> {
    match (&view.pause, view.paused, view.state) {
        (Some(_), false, SetState::Master) => {
            Some("the master has not taken notice of the pause yet".to_owned())
        }
        (None, true, SetState::Master) => {
            Some("the pause is over, the master has not taken notice of that yet".to_owned())
        }
        (Some(_), _, SetState::None) => {
            Some("nobody becomes master before tarsec resume".to_owned())
        }
        (Some(_) | None, _, _) => None,
    }
}

fn about_candidate(member: &MemberView) -> Option<String> {
    let why = member.excluded.as_ref()?;
    Some(format!("{} does not run for master: {why}", member.name))
}

fn about_its_vshard(member: &MemberView) -> Option<String> {
    let problem = member.vshard.as_ref()?;
    Some(format!("vshard in {}: {problem}", member.name))
}

fn about_member(member: &MemberView) -> Option<String> {
    let name = &member.name;
    let is_master = matches!(member.role, MemberRole::Master | MemberRole::Promoting);
    match member.health.as_str() {
        "unknown" => Some(format!("{name} has no agent that wrote its key")),
        "passing" if member.following == Some(false) && !is_master => {
            Some(format!("{name} does not replicate from the master"))
        }
        "passing" => None,
        // Its agent's words are longer, and stand beside it.
        other => Some(format!("{name} is {other}")),
    }
}
