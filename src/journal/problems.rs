//! What is said of a replica set's problems: each once, when it is first seen.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::Said;
use crate::decide::state::State;

/// Says what is new. Without a record nothing is known of problems, which is no reason to call them gone.
pub(crate) fn problems(said: &mut Said, state: &State) {
    if state.seen_record().is_none() {
        return;
    }
    let now: BTreeSet<String> = state.problems().into_iter().collect();
    for problem in now.difference(&said.problems) {
        warn!(problem, "the replica set has a problem");
    }
    for problem in said.problems.difference(&now) {
        info!(problem, "the replica set has this problem no more");
    }
    said.problems = now;
}
