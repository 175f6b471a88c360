//! `tarsec pause` and `tarsec resume`: the key, and the master's word that it has taken notice.

use std::time::Duration;

use super::context::{Context, operator};
use super::outcome::{Ended, Outcome};
use super::view::{ClusterView, SetState, SetView};
use super::words;
use crate::cli::{PauseArgs, ResumeArgs, Scope};
use crate::clock;
use crate::decide::board::Pause;
use crate::decide::record::Status;
use crate::decide::timing::moment_ms;
use crate::keys::json_bytes;

/// A master reads the board with each refresh, so a lease is more than enough for it; this is for the ways.
const NOTICE: Duration = Duration::from_secs(5);

/// What a pause is about.
struct Area {
    key: String,
    /// `None`: the cluster.
    replicaset: Option<String>,
    /// For sentences.
    name: String,
    lease: Duration,
}

impl Area {
    fn of(context: &Context<'_>, view: &ClusterView, scope: Scope<'_>) -> Result<Self, Ended> {
        let config = &context.config;
        let keys = config.keys();
        match scope {
            Scope::Cluster => Ok(Self {
                key: keys.pause(),
                replicaset: None,
                name: format!("the cluster {}", config.cluster),
                lease: view
                    .replicasets
                    .iter()
                    .filter_map(SetView::lease)
                    .max()
                    .unwrap_or_default(),
            }),
            Scope::ReplicaSet(name) => {
                let set = view.choose(name)?;
                Ok(Self {
                    key: keys.replicaset(&set.replicaset).pause(),
                    name: format!("replica set {}", set.replicaset),
                    lease: set.lease().unwrap_or_default(),
                    replicaset: Some(set.replicaset.clone()),
                })
            }
        }
    }

    fn sets<'v>(&self, view: &'v ClusterView) -> impl Iterator<Item = &'v SetView> {
        let only = self.replicaset.clone();
        view.replicasets
            .iter()
            .filter(move |set| only.as_ref().is_none_or(|only| *only == set.replicaset))
    }

    /// Its own pause; a replica set may be under the cluster's as well.
    fn pause(&self, view: &ClusterView) -> Option<Pause> {
        match &self.replicaset {
            None => view.pause.clone(),
            Some(_) => {
                let set = self.sets(view).find(|set| set.own_pause)?;
                set.pause.clone()
            }
        }
    }
}

pub(super) async fn pause(context: &mut Context<'_>, args: &PauseArgs) -> Result<Outcome, Ended> {
    let view = context.look().await?;
    let area = Area::of(context, &view, args.reach.scope())?;
    let name = &area.name;
    if let Some(known) = area.pause(&view) {
        let (by, at) = (&known.by, words::moment(moment_ms(known.at_ms, known.at)));
        context
            .terminal
            .say(&format!("{name} has been paused by {by} since {at}"))?;
    } else {
        context.terminal.ask(
            &format!(
                "A pause of {name}: the master stays master, and stays writable even where its agent or Consul fails; \
                 should it die, nobody takes over before tarsec resume."
            ),
            args.yes,
        )?;
        let at_ms = clock::wall_ms();
        let pause = Pause {
            by: operator(),
            at: at_ms / 1000,
            at_ms,
            why: words::clean(args.why.as_deref().unwrap_or_default()),
            cluster: area.replicaset.is_none(),
        };
        let bytes = json_bytes(&pause);
        // Somebody who was first has written the same.
        context.consul.put_key_if(&area.key, 0, &bytes).await?;
        context.terminal.say(&format!("asked to pause {name}"))?;
    }
    if args.no_wait {
        return Ok(Outcome::Done);
    }
    let has_noticed = |set: &SetView| match set.state {
        SetState::Master | SetState::Silent => set.paused,
        // No guard is up, and candidates look at the pause before they do anything.
        SetState::None | SetState::Promoting | SetState::Unreadable => true,
    };
    let view = wait(context, &area, has_noticed).await?;
    for set in area.sets(&view) {
        let uuid = &set.replicaset;
        let so = match set.state {
            SetState::Master | SetState::Silent => format!("{} is master", set.holder_name()),
            SetState::None | SetState::Promoting | SetState::Unreadable => {
                "it has no master, and nobody becomes one".to_owned()
            }
        };
        context
            .terminal
            .say(&format!("replica set {uuid} is paused: {so}"))?;
    }
    Ok(Outcome::Done)
}

pub(super) async fn resume(context: &mut Context<'_>, args: &ResumeArgs) -> Result<Outcome, Ended> {
    let view = context.look().await?;
    let area = Area::of(context, &view, args.reach.scope())?;
    let name = &area.name;
    let is_paused = area.pause(&view).is_some();
    if area.replicaset.is_some() && !is_paused && view.pause.is_some() {
        let why =
            "the whole cluster is paused, not this replica set alone: tarsec resume --cluster";
        return Err(Ended::new(Outcome::Refused, why));
    }
    if is_paused {
        context.terminal.ask(
            &format!(
                "The end of the pause of {name}: where there is no master, or it has failed, another takes over."
            ),
            args.yes,
        )?;
        context.consul.delete_key(&area.key).await?;
        context.terminal.say(&format!("asked to resume {name}"))?;
    } else {
        context.terminal.say(&format!("{name} has no pause"))?;
    }
    if args.no_wait {
        return Ok(Outcome::Done);
    }
    let has_noticed = |set: &SetView| match set.state {
        // Another pause above or below this one keeps it paused.
        SetState::Master | SetState::Silent => set.pause.is_some() || !set.paused,
        SetState::None | SetState::Promoting | SetState::Unreadable => true,
    };
    let view = wait(context, &area, has_noticed).await?;
    after(context, &area, &view)
}

/// What the replica sets are after a resume.
fn after(context: &mut Context<'_>, area: &Area, view: &ClusterView) -> Result<Outcome, Ended> {
    let mut outcome = Outcome::Done;
    for set in area.sets(view) {
        let uuid = &set.replicaset;
        let (so, what) = match (set.state, &set.pause) {
            (_, Some(pause)) if pause.cluster => (
                "the cluster is still paused: tarsec resume --cluster".to_owned(),
                Outcome::Refused,
            ),
            (_, Some(_)) => (
                format!("it has a pause of its own: tarsec resume --replicaset {uuid}"),
                Outcome::Done,
            ),
            (SetState::Master | SetState::Silent, None) => {
                (format!("{} is master", set.holder_name()), Outcome::Done)
            }
            (SetState::None | SetState::Promoting | SetState::Unreadable, None) => {
                let last = set.lock.record.as_ref();
                let is_over = last.is_none_or(|record| record.status == Status::Fenced);
                let stuck = set.paused && set.state == SetState::None && !is_over;
                let note = set
                    .notes
                    .first()
                    .map_or("there is no master yet", |note| note);
                let outcome = if stuck {
                    Outcome::NoMaster
                } else {
                    Outcome::Done
                };
                (note.to_owned(), outcome)
            }
        };
        context
            .terminal
            .say(&format!("replica set {uuid} has no more pause: {so}"))?;
        if what != Outcome::Done {
            outcome = what;
        }
    }
    Ok(outcome)
}

/// Looks until all masters have taken notice.
async fn wait(
    context: &mut Context<'_>,
    area: &Area,
    has_noticed: impl Fn(&SetView) -> bool,
) -> Result<ClusterView, Ended> {
    let deadline = area.lease + NOTICE;
    let mut missing = String::new();
    let seen = context
        .reader
        .wait_until(deadline, |view| {
            let late = area.sets(view).find(|set| !has_noticed(set));
            missing = late.map_or_else(String::new, about_late);
            missing.is_empty().then(|| view.clone())
        })
        .await?;
    seen.ok_or_else(|| {
        let lease = words::span(deadline);
        let why = format!("written, but not noticed within {lease}: {missing}");
        Ended::new(Outcome::NotInTime, why)
    })
}

fn about_late(set: &SetView) -> String {
    let name = set.holder_name();
    match set.state {
        SetState::Silent => set
            .notes
            .first()
            .map_or_else(|| name.to_owned(), String::clone),
        SetState::Master | SetState::None | SetState::Promoting | SetState::Unreadable => {
            format!("{name} still says otherwise in its record")
        }
    }
}
