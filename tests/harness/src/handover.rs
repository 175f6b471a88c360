//! A change of hands, stage by stage, as the agents logged it.

use crate::agent::{Agent, LogLine};
use crate::error::{Error, Result};
use crate::moment::Moment;

/// The stages of a change of hands after the master's process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// The index of the agent that got the lock.
    pub winner: usize,
    /// The dead instance's agent has the proof.
    pub death_seen: Moment,
    /// Consul has confirmed to it that the lock is given up.
    pub released: Moment,
    /// The winner sees the lock free.
    pub woken: Moment,
    /// Consul has confirmed to the winner that the lock is its own.
    pub acquired: Moment,
    /// The winner's instance has said that it is writable.
    pub promoted: Moment,
}

impl Handover {
    /// Reads the agents' logs from `since` on; `old` is the index of the agent whose instance died then.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the stage that nobody logged.
    pub fn after_crash(agents: &[Agent], old: usize, since: Moment) -> Result<Self> {
        let missing = |stage: &str| Error::malformed(format!("the logs: nobody says '{stage}'"));
        let find = |agent: usize, message: &str| {
            let lines = agents[agent].logs_since(since)?;
            let line = lines.iter().find(|line| line.message() == message);
            line.and_then(LogLine::at).ok_or_else(|| missing(message))
        };
        let mut candidates = (0..agents.len()).filter(|agent| *agent != old);
        let winner = candidates
            .find(|agent| find(*agent, "lock acquired").is_ok())
            .ok_or_else(|| missing("lock acquired"))?;
        Ok(Self {
            winner,
            death_seen: find(old, "instance died")?,
            released: find(old, "lock released")?,
            woken: find(winner, "lock seen free")?,
            acquired: find(winner, "lock acquired")?,
            promoted: find(winner, "promoted")?,
        })
    }
}
