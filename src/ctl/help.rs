//! What the commands say about themselves.

use std::fmt::Write as _;

use super::outcome::Outcome;
use crate::cli::Topic;

/// One line each, for the agent's own `--help`.
#[must_use]
pub fn commands() -> String {
    let mut out = String::from("\nCommands (tarsec COMMAND --help):\n");
    for topic in Topic::ALL {
        let _ = writeln!(out, "  {:<11} {}", topic.name(), about(topic));
    }
    out.push_str(
        "  They talk to Consul alone, so they work from anywhere, and read CLUSTER_NAME, CONSUL_* and LOG_*.\n",
    );
    out
}

fn about(topic: Topic) -> &'static str {
    match topic {
        Topic::Status => "show replica sets and their members",
        Topic::Switchover => "move the master of a replica set",
        Topic::Pause => "stop all automatic changes of hands",
        Topic::Resume => "allow them again",
        Topic::History => "show past changes of hands",
    }
}

/// The text of `tarsec COMMAND --help`.
#[must_use]
pub fn text(topic: Topic) -> String {
    let mut out = format!(
        "tarsec {}: {}\n\n{}",
        topic.name(),
        about(topic),
        body(topic)
    );
    if topic != Topic::History {
        out.push_str(SET);
    }
    out.push_str("\nExit codes:\n");
    for outcome in Outcome::ALL {
        if can_end(topic, outcome) {
            let _ = writeln!(out, "  {:>2}  {}", outcome.code(), outcome.meaning());
        }
    }
    out
}

/// Which exit codes a command may have.
fn can_end(topic: Topic, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Failed | Outcome::Usage | Outcome::NoMaster => true,
        Outcome::Unwell => topic == Topic::Status,
        Outcome::Undone => topic == Topic::Switchover,
        Outcome::Refused | Outcome::NotInTime | Outcome::Declined => {
            matches!(topic, Topic::Switchover | Topic::Pause | Topic::Resume)
        }
    }
}

const SET: &str = "\nA replica set is named by its UUID or the beginning of it, or by the name of a member. Where the\n\
                   cluster has only one it need not be named.\n";

fn body(topic: Topic) -> &'static str {
    match topic {
        Topic::Status => STATUS,
        Topic::Switchover => SWITCHOVER,
        Topic::Pause => PAUSE,
        Topic::Resume => RESUME,
        Topic::History => HISTORY,
    }
}

const STATUS: &str = "Usage: tarsec status [--json] [--watch] [--no-wait] [REPLICASET]

  --json      one JSON document a line; fields may be added, none changes its meaning under the same v
  --watch     show it again whenever something changes, until interrupted
  --no-wait   do not look for a sign of life

It looks at each lock until it sees its holder refresh it, which is every quarter of the lease, and
says so where that does not come in time. Times and ages are by the clocks that wrote them.

behind: rows that the master had at its last word and the member lacked when it was looked at after
that, and how late rows arrive, or for how long they have not; as of when its agent last wrote, up to
MEMBER_INTERVAL ago. ?: unknown.
";

const SWITCHOVER: &str = "Usage: tarsec switchover [--to MEMBER] [--replicaset REPLICASET] [--timeout 2s] [--yes] [--no-wait]

  --to MEMBER    the new master, by any part of its name, address or UUID; without it the best replica
  --timeout 2s   how long it may take to catch up, while nothing can be written: up to 1m
  --yes, -y      do not ask
  --no-wait      do not wait for the outcome

The master becomes read-only, the target catches up and takes over. If it does not in time, the same
master is writable again and nothing is lost. A request that nobody takes notice of is withdrawn.
";

const PAUSE: &str =
    "Usage: tarsec pause [--replicaset REPLICASET | --cluster] [--why TEXT] [--yes] [--no-wait]

  --cluster    all replica sets of the cluster
  --why TEXT   shown by tarsec status
  --yes, -y    do not ask
  --no-wait    do not wait until the masters have taken notice

Until tarsec resume no master is replaced by itself, and masters stay writable whatever becomes of
their agents or of Consul. While a master is paused, nothing bounds for how long it may be writable.
";

const RESUME: &str = "Usage: tarsec resume [--replicaset REPLICASET | --cluster] [--master-is-down] [--yes] [--no-wait]

  --cluster          ends the pause of the cluster; those of single replica sets stay
  --master-is-down   your word that the paused master does not run, so that another takes over
  --yes, -y          do not ask
  --no-wait          do not wait until the masters have taken notice

--master-is-down is for a master that was lost with its machine while it was paused. It is refused
where its agent still refreshes the lock: then the agent knows better, and resume is enough.
";

const HISTORY: &str = "Usage: tarsec history [--json] [REPLICASET]

  --json   one JSON object, replica set UUID -> the last 64 changes of hands, the newest first

No writes for: from when the old master was last known to be writable until the new one was, as well as
that is known; the election is the last part of it. A machine that was lost or cut off is told from the
other, and more is known of its outage, when its agent is back.
Rows at risk: what the old master had at its last word and the new one lacked when it became master;
unknown where it may have written since. When it comes back, its agent counts what it alone had written.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal_and_lists_exit_codes() {
        for topic in Topic::ALL {
            let text = text(topic);
            assert!(text.lines().all(|line| line.len() <= 104), "{text}");
            assert!(text.contains("Usage: tarsec "), "{text}");
            assert!(text.contains("\n   2  "), "{text}");
        }
        assert!(text(Topic::Status).contains("\n  10  "));
        assert!(!text(Topic::Pause).contains("\n   7  "));
    }
}
