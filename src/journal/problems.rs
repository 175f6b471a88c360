//! What is said of the problems of a replica set, or of a router: each once, when it is first seen.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::Said;
use crate::decide::router::RouterState;
use crate::decide::state::State;

/// Says what is new. Without a record nothing is known of problems, which is no reason to call them gone.
pub(crate) fn problems(said: &mut Said, state: &State) {
    if state.seen_record().is_none() {
        return;
    }
    say(said, state.problems());
}

/// Says what is new of a router's problems.
pub(crate) fn of_router(said: &mut Said, state: &RouterState) {
    say(said, state.problem());
}

fn say(said: &mut Said, problems: impl IntoIterator<Item = String>) {
    let now: BTreeSet<String> = problems.into_iter().collect();
    for problem in now.difference(&said.problems) {
        warn!(problem, "there is a problem");
    }
    for problem in said.problems.difference(&now) {
        info!(problem, "there is this problem no more");
    }
    said.problems = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_said_when_it_begins_and_when_it_ends_and_not_in_between() {
        let known = |said: &Said| said.problems.iter().cloned().collect::<Vec<_>>();
        let mut said = Said::default();
        say(&mut said, ["a".to_owned(), "b".to_owned()]);
        say(&mut said, ["b".to_owned(), "b".to_owned()]);
        assert_eq!(known(&said), ["b"]);
        say(&mut said, None);
        assert_eq!(known(&said), [""; 0]);
    }
}
