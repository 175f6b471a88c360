//! The loop: select, apply the event, decide, execute.

use crate::config::Config;
use crate::exit::Exit;

/// Looks after the instance until a signal or an error that waiting can't mend.
pub async fn run(config: Config) -> Exit {
    tracing::error!(cluster = %config.cluster, "this build has no agent loop yet");
    Exit::Internal
}
