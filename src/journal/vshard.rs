//! What is logged about vshard.

use tracing::{debug, info, warn};

use super::{Said, Topic};
use crate::decide::router::RouterEvent;
use crate::decide::vshard::{Look, Report, VshardEvent};

/// Whether this is not just another failure of the same kind, for the same reason.
pub(super) fn is_news(said: &mut Said, event: &VshardEvent) -> bool {
    match event {
        VshardEvent::Applied { result, .. } => match result {
            Err(why) => said.is_news(Topic::Vshard, why),
            Ok((_, look)) => match report(look.as_ref().as_ref()) {
                Some(report) => said.is_news(Topic::Vshard, &words(report)),
                None => true,
            },
        },
        VshardEvent::MasterWritten { result: Err(fault) } => {
            said.is_news(Topic::Masters, &fault.why)
        }
        VshardEvent::MasterWritten { result: Ok(_) } => {
            said.forget(&[Topic::Masters]);
            true
        }
        VshardEvent::MastersSeen { .. }
        | VshardEvent::ConfigSeen { .. }
        | VshardEvent::LoginChanged
        | VshardEvent::RouterFound => true,
    }
}

fn report(look: Option<&Look>) -> Option<&Report> {
    look?.last.as_ref()
}

/// The words that tell a report from the next one of the same kind.
fn words(report: &Report) -> String {
    let done = if report.storage || report.routers > 0 {
        report.sequence
    } else {
        0
    };
    format!(
        "{done} {:?} {:?} {:?}",
        report.failed, report.problems, report.left_out
    )
}

pub(super) fn say(event: &VshardEvent) {
    match event {
        VshardEvent::MastersSeen { masters } => {
            let names: Vec<String> = masters
                .values()
                .filter(|(_, master)| master.is_somebody())
                .map(|(_, master)| format!("{} (term {})", master.name, master.term))
                .collect();
            info!(masters = names.join(", "), "masters of the cluster");
        }
        VshardEvent::ConfigSeen { index: Some(index) } => {
            info!(index, "central vshard configuration seen");
        }
        VshardEvent::ConfigSeen { index: None } => {
            debug!("there is no central vshard configuration");
        }
        VshardEvent::Applied {
            result: Err(why), ..
        } => warn!(why, "could not configure vshard"),
        VshardEvent::Applied {
            result: Ok((_, look)),
            ..
        } => applied(look.as_ref().as_ref()),
        VshardEvent::MasterWritten { result: Err(fault) } => {
            warn!(
                why = fault.why,
                "could not write who is master for vshard's sake"
            );
        }
        VshardEvent::MasterWritten { result: Ok(_) }
        | VshardEvent::LoginChanged
        | VshardEvent::RouterFound => {}
    }
}

fn applied(look: Option<&Look>) {
    let Some(report) = report(look) else {
        return;
    };
    if let Some(why) = &report.failed {
        warn!(
            why,
            code = report.code,
            "vshard did not take the configuration"
        );
    }
    for problem in &report.problems {
        warn!(problem, "vshard");
    }
    if !report.left_out.is_empty() {
        info!(
            replicasets = report.left_out.join(", "),
            "masters that a router cannot reach yet"
        );
    }
    if report.storage || report.routers > 0 {
        info!(
            storage = report.storage,
            routers = report.routers,
            took_ms = report.took_ms,
            "vshard configured"
        );
    }
}

/// What happens to a router's agent, where it is more than routine.
pub(crate) fn router(said: &mut Said, event: &RouterEvent) {
    match event {
        RouterEvent::Attached { identity, .. } => {
            said.forget(&[Topic::Guard]);
            info!(uuid = identity.uuid, "router attached");
        }
        RouterEvent::Lost { why } => {
            if said.is_news(Topic::Guard, why) {
                warn!(why, "router unreachable");
            }
        }
        RouterEvent::Looked { result: Err(why) } => {
            if said.is_news(Topic::Board, why) {
                warn!(why, "could not look at the router");
            }
        }
        RouterEvent::Vshard(event) => {
            if is_news(said, event) {
                say(event);
            }
        }
        RouterEvent::Told { result: Err(fault) } => {
            if said.is_news(Topic::Catalog, &fault.why) {
                warn!(why = fault.why, "could not tell the catalog");
            }
        }
        RouterEvent::KeyWritten { result: Err(fault) } => {
            if said.is_news(Topic::Member, &fault.why) {
                warn!(why = fault.why, "could not write the router's key");
            }
        }
        RouterEvent::Told { result: Ok(_) } => said.forget(&[Topic::Catalog]),
        RouterEvent::KeyWritten { result: Ok(()) } => said.forget(&[Topic::Member]),
        RouterEvent::Looked { result: Ok(_) } => said.forget(&[Topic::Board]),
        RouterEvent::NeighboursSeen(_) | RouterEvent::StopRequested | RouterEvent::Woke => {}
    }
}
