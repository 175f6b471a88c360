//! What came of a command, as its exit code, and why it did not do what it was asked to.

use crate::consul::ConsulError;
use crate::errors::with_causes;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; for `status`: every replica set has a master and nothing is wrong.
    Done,
    /// Consul did not answer or denied it, or something broke that should not.
    Failed,
    /// The arguments or the settings are wrong, or there is nobody to ask.
    Usage,
    /// It was refused, and nothing has changed.
    Refused,
    /// The switchover was begun and undone.
    Undone,
    /// The outcome did not come in time.
    NotInTime,
    /// There is no master.
    NoMaster,
    /// There is a master, and something is not as it should be.
    Unwell,
    /// The answer to the question was no.
    Declined,
}

impl Outcome {
    /// Every way to end, by code.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Refused,
        Self::Undone,
        Self::NotInTime,
        Self::NoMaster,
        Self::Unwell,
        Self::Declined,
    ];

    /// The code that the command ends with. 3 to 5 are the agent's.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 6,
            Self::Undone => 7,
            Self::NotInTime => 8,
            Self::NoMaster => 9,
            Self::Unwell => 10,
            Self::Declined => 11,
        }
    }

    /// What it means, for `--help` and docs/OPERATING.md.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; status: every replica set has a master, and nothing is wrong",
            Self::Failed => "Consul did not answer or denied it, or an internal error",
            Self::Usage => {
                "bad arguments or settings, an unclear replica set, or no terminal and no --yes"
            }
            Self::Refused => "refused, for the reason given; nothing has changed",
            Self::Undone => "the switchover was undone: the same master is writable again",
            Self::NotInTime => "the outcome did not come in time; it may still come",
            Self::NoMaster => "there is no master",
            Self::Unwell => "status: there is a master, and something is not as it should be",
            Self::Declined => "the answer to the question was no; nothing has changed",
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) why: String,
}

impl Ended {
    pub(super) fn new(outcome: Outcome, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { outcome, why }
    }
}

impl From<ConsulError> for Ended {
    fn from(error: ConsulError) -> Self {
        Self::new(Outcome::Failed, with_causes(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;
    use crate::exit::Exit;

    #[test]
    fn codes_are_what_scripts_were_told() {
        assert_eq!(
            Outcome::ALL.map(Outcome::code),
            [0, 1, 2, 6, 7, 8, 9, 10, 11]
        );
    }

    #[test]
    fn no_code_means_two_things() {
        for outcome in Outcome::ALL.into_iter().skip(3) {
            assert!(Exit::ALL.iter().all(|exit| exit.code() != outcome.code()));
        }
    }

    #[test]
    fn operating_page_lists_every_code() {
        let page = include_str!("../../docs/OPERATING.md");
        for outcome in Outcome::ALL {
            let line = format!("| {} | {} |", outcome.code(), outcome.meaning());
            assert!(page.contains(&line), "docs/OPERATING.md lacks: {line}");
        }
    }
}
