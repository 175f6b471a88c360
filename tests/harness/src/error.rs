//! The one error of the harness.

use std::path::PathBuf;
use std::time::Duration;

/// What went wrong, in a sentence that names what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a socket or a process could not be handled.
    #[error("could not {action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A deadline passed before something came true.
    #[error("waited {waited:.1?} in vain for {what}; last seen: {last}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        waited: Duration,
        /// The state at the last look.
        last: String,
    },
    /// The process has ended or was never started.
    #[error("{name} is not running")]
    NotRunning {
        /// The process's name in its world.
        name: String,
    },
    /// The process is there already.
    #[error("{name} is running already")]
    AlreadyRunning {
        /// The process's name in its world.
        name: String,
    },
    /// The process ended while something was expected of it.
    #[error("{name} ended ({status}); its last words:\n{tail}")]
    Exited {
        /// The process's name in its world.
        name: String,
        /// Its exit status, in words.
        status: String,
        /// The last lines of its log.
        tail: String,
    },
    /// A helper program (openssl) failed.
    #[error("{program} failed: {output}")]
    Program {
        /// The program.
        program: String,
        /// What it printed.
        output: String,
    },
    /// Tarantool answered with an error.
    #[error("tarantool refused: {message} (code {code})")]
    Refused {
        /// Tarantool's error code, 7 being `ER_READONLY`.
        code: u32,
        /// Tarantool's words.
        message: String,
    },
    /// A message did not look as it should.
    #[error("could not understand {what}")]
    Malformed {
        /// The message, and what was odd about it.
        what: String,
    },
    /// Consul was not reached.
    #[error("could not {action}")]
    Http {
        /// What was asked of Consul.
        action: String,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// Consul answered with an error.
    #[error("consul answered {status} to an attempt to {action}: {body}")]
    HttpStatus {
        /// What was asked of Consul.
        action: String,
        /// The HTTP status.
        status: u16,
        /// The answer's text.
        body: String,
    },
    /// No port was free.
    #[error("no free port among those of {}", lock_dir.display())]
    NoPort {
        /// Where the reservations are kept.
        lock_dir: PathBuf,
    },
    /// An agent was asked for without a binary.
    #[error("this world has no agent: name one with World::builder().agent_binary(path)")]
    NoAgentBinary,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err`: an I/O error with what was attempted.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action: action.into(),
            source,
        }
    }

    /// A message that cannot be understood.
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    /// Whether Tarantool refused a write because the instance is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused { code: 7, .. })
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
