//! `tarsec status` and `tarsec history`: they read, and change nothing.

use std::time::Duration;

use tokio::time::sleep;

use super::context::Context;
use super::outcome::{Ended, Outcome};
use super::past;
use super::reader::BEAT;
use super::screen;
use super::view::{ClusterView, SetState, SetView, Verdict, patience};
use super::words::span;
use crate::cli::{HistoryArgs, StatusArgs};
use crate::clock;
use crate::consul::ConsulError;
use crate::plain;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

pub(super) async fn status(context: &mut Context<'_>, args: &StatusArgs) -> Result<Outcome, Ended> {
    if args.watch {
        return watch(context, args).await;
    }
    let mut view = match context.look().await {
        Ok(view) => narrowed(view, args)?,
        Err(error) => return Err(unreachable(context, args, error)),
    };
    if !args.no_wait {
        tell_about_wait(context, &view);
        let replicaset = view.replicasets.first().map(|set| set.replicaset.clone());
        let only = replicaset.filter(|_| args.only.name().is_some());
        let concerns = |uuid: &str| only.as_deref().is_none_or(|only| only == uuid);
        let seen = context.reader.wait_for_signs(view, concerns).await;
        view = match seen {
            Ok(view) => narrowed(view, args)?,
            Err(error) => return Err(unreachable(context, args, error)),
        };
    }
    view = context.with_agents(view).await;
    show(context, &view, args)?;
    Ok(match view.verdict {
        Verdict::Well => Outcome::Done,
        Verdict::Unwell => Outcome::Unwell,
        Verdict::NoMaster => Outcome::NoMaster,
    })
}

fn narrowed(view: ClusterView, args: &StatusArgs) -> Result<ClusterView, Ended> {
    match args.only.name() {
        None => Ok(view),
        Some(name) => {
            let uuid = view.choose(Some(name))?.replicaset.clone();
            Ok(view.only(&uuid))
        }
    }
}

fn show(context: &mut Context<'_>, view: &ClusterView, args: &StatusArgs) -> Result<(), Ended> {
    let text = if args.json {
        json(view)
    } else {
        screen::status(context.terminal.paper, view, context.config.keys().prefix())
    };
    let clear = if args.watch && context.terminal.draws && !args.json {
        CLEAR
    } else {
        ""
    };
    let end = if args.watch && !context.terminal.draws && !args.json {
        "\n"
    } else {
        ""
    };
    context.terminal.print(&format!("{clear}{text}{end}"))
}

/// One document a line.
pub(super) fn json(view: &impl serde::Serialize) -> String {
    // A struct of strings, numbers and maps with string keys always serialises.
    let text = serde_json::to_string(view).unwrap_or_default();
    format!("{}\n", plain::json(&text))
}

/// A screen where a screen is wanted; its exit code says the same to a program.
fn unreachable(context: &mut Context<'_>, args: &StatusArgs, error: ConsulError) -> Ended {
    if !args.json {
        let at = clock::wall_ms();
        let text = screen::unknown(
            context.terminal.paper,
            &context.config.cluster,
            &error,
            at,
            None,
        );
        // The error is complained about in any case.
        let _ = context.terminal.print(&text);
    }
    error.into()
}

fn tell_about_wait(context: &mut Context<'_>, view: &ClusterView) {
    let holds = |set: &SetView| set.lease().filter(|_| set.state == SetState::Master);
    let longest = view.replicasets.iter().filter_map(holds).max();
    if let Some(lease) = longest
        && context.terminal.draws
    {
        let bound = span(patience(lease));
        context.terminal.progress(&format!(
            "looking for a sign of life, for {bound} at most (--no-wait does not)"
        ));
    }
}

async fn watch(context: &mut Context<'_>, args: &StatusArgs) -> Result<Outcome, Ended> {
    let mut last_seen = None;
    loop {
        match context.reader.next().await {
            Ok(view) => {
                last_seen = Some(view.at_ms);
                let view = context.with_agents(narrowed(view, args)?).await;
                show(context, &view, args)?;
            }
            Err(error) if args.json || error.is_denied() => return Err(error.into()),
            Err(error) => {
                let at = clock::wall_ms();
                let text = screen::unknown(
                    context.terminal.paper,
                    &context.config.cluster,
                    &error,
                    at,
                    last_seen,
                );
                let (clear, end) = if context.terminal.draws {
                    (CLEAR, "")
                } else {
                    ("", "\n")
                };
                context.terminal.print(&format!("{clear}{text}{end}"))?;
                sleep(BEAT).await;
            }
        }
        if context.terminal.unread {
            return Ok(Outcome::Done);
        }
        // Many replica sets refresh at different moments; no eye needs each.
        sleep(REDRAW_PAUSE).await;
    }
}

/// Between two screens at least.
const REDRAW_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn history(
    context: &mut Context<'_>,
    args: &HistoryArgs,
) -> Result<Outcome, Ended> {
    let mut view = context.look().await?;
    if let Some(name) = args.only.name() {
        let uuid = view.choose(Some(name))?.replicaset.clone();
        view = view.only(&uuid);
    }
    if view.replicasets.is_empty() {
        view.choose(None)?;
    }
    let text = if args.json {
        for set in &view.replicasets {
            if let Some(words) = past::left_out(set) {
                context.terminal.progress(&words);
            }
        }
        let sets = view.replicasets.iter();
        let lines = sets.map(|set| (&set.replicaset, &set.history));
        json(&lines.collect::<std::collections::BTreeMap<_, _>>())
    } else {
        screen::history(context.terminal.paper, &view)
    };
    context.terminal.print(&text)?;
    Ok(Outcome::Done)
}
