//! What signals ask of an agent, of whichever kind it is.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook_tokio::Signals;
use tracing::warn;

/// What an operator, or a supervisor, wants by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To see what the agent sees of Consul and Tarantool.
    Look,
    /// To see all of the agent.
    LookAtAll,
    /// The agent to stop; with the signal's name.
    Stop(&'static str),
    /// Nothing that there is to be done.
    Nothing,
}

/// Receives every signal that would otherwise end the agent without a release, except the signals for faults of its
/// own.
pub(crate) fn receive() -> io::Result<Signals> {
    Signals::new([SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGXFSZ])
}

/// What a signal that was received asks for.
pub(crate) fn asked(signal: i32) -> Asked {
    match signal {
        SIGUSR1 => Asked::Look,
        SIGUSR2 => Asked::LookAtAll,
        SIGHUP => {
            warn!(
                "SIGHUP ignored: settings are read at the start alone, restart the agent to change them"
            );
            Asked::Nothing
        }
        // The file that the log goes into may not grow any more. Its outlet has the failed write, and counts it.
        SIGXFSZ => Asked::Nothing,
        SIGINT => Asked::Stop("SIGINT"),
        SIGQUIT => Asked::Stop("SIGQUIT"),
        _ => Asked::Stop("SIGTERM"),
    }
}
