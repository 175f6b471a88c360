//! What an agent of every kind begins with.

use signal_hook_tokio::Signals;
use tracing::error;

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::consul::Consul;
use crate::errors::with_causes;
use crate::exit::Exit;
use crate::http::Display;
use crate::logging::Output;
use crate::signals;

/// What the process has before its agent: it outlives the agent that finds that its instance is a router.
#[derive(Clone)]
pub(crate) struct Begin {
    /// The clock of all loops of this process, and of all that they show.
    pub(crate) clock: Clock,
    pub(crate) output: Output,
    pub(crate) display: Display,
}

/// What an agent begins with, whatever it looks after.
pub(crate) struct Setup {
    pub(crate) agent_id: String,
    pub(crate) consul: Consul,
    pub(crate) signals: Signals,
}

impl Setup {
    pub(crate) fn new(config: &Config) -> Result<Self, Exit> {
        let agent_id = clock::random_id().map_err(|cause| {
            error!(
                error = with_causes(&cause),
                "no randomness for the agent's id"
            );
            Exit::Internal
        })?;
        let (timeout, lease) = (config.timing.healthcheck_timeout(), config.timing.lease());
        let consul = Consul::for_lease(&config.consul, timeout, lease).map_err(|cause| {
            error!(
                error = with_causes(&cause),
                "cannot set up the way to Consul"
            );
            Exit::Settings
        })?;
        let signals = signals::receive().map_err(|cause| {
            error!(error = with_causes(&cause), "cannot receive signals");
            Exit::Internal
        })?;
        Ok(Self {
            agent_id,
            consul,
            signals,
        })
    }
}
