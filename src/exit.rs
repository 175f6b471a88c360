//! Exit codes: what a supervisor, or a person reading its log, may conclude.

use std::process::ExitCode;

/// Why the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A signal asked for it, and the lock was given up as R2 has it.
    Stopped,
    /// Something broke that should not. Start it again.
    Internal,
    /// The settings or the arguments are wrong. Starting it again changes nothing.
    Settings,
    /// The instance cannot be looked after, and waiting will not mend it: the peer is not Tarantool, somebody else decides who is
    /// master there, it lacks what the guard needs, or it belongs to another replica set than before.
    Unsuitable,
    /// Another agent looks after the same instance now.
    Superseded,
    /// A second signal asked for it: nothing was given up, the lease runs out by itself.
    SecondSignal,
}

impl Exit {
    /// Every way to end, by code.
    pub const ALL: [Self; 6] = [
        Self::Stopped,
        Self::Internal,
        Self::Settings,
        Self::Unsuitable,
        Self::Superseded,
        Self::SecondSignal,
    ];

    /// The code that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Internal => 1,
            Self::Settings => 2,
            Self::Unsuitable => 3,
            Self::Superseded => 4,
            Self::SecondSignal => 5,
        }
    }

    /// What it means, for `--help` and the last log line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Stopped => {
                "stopped by a signal: the instance is read-only or its lease over, the lock released unless Consul did not answer; \
                 in a pause all is left as it is"
            }
            Self::Internal => "internal error",
            Self::Settings => "bad settings or arguments",
            Self::Unsuitable => {
                "waiting cannot mend the instance: it is not Tarantool, it lacks what the guard needs, it belongs to another \
                 replica set than before, its election_mode is candidate or manual, or, with Tarantool 3, its \
                 replication.failover is not supervised"
            }
            Self::Superseded => "another agent attached to the same instance",
            Self::SecondSignal => "a second signal: stopped at once, without a release",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_supervisors_were_told() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_documents_say_what_the_codes_mean_in_the_same_words() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATING.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, section) = text.split_once("### Exit codes of the agent").unwrap();
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(section.contains(&row), "put this row there:\n{row}");
        }
    }
}
