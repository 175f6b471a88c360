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
    /// The winner has found that it is its turn, and reaches for the lock.
    pub elected: Moment,
    /// Consul has confirmed to the winner that the lock is its own.
    pub acquired: Moment,
    /// The winner's instance has said that it is writable.
    pub promoted: Moment,
}

/// The stages of a take-over after a machine was lost with its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeOver {
    /// The index of the agent that got the lock.
    pub winner: usize,
    /// The winner has found that it is its turn, and reaches for the lock.
    pub elected: Moment,
    /// Consul has confirmed to the winner that the lock is its own.
    pub acquired: Moment,
    /// The winner's instance has said that it is writable.
    pub promoted: Moment,
}

/// The stages of a switchover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// The index of the agent that got the lock.
    pub winner: usize,
    /// The old master's instance has said that it is read-only.
    pub fenced: Moment,
    /// Consul has confirmed to its agent that the lock is given up.
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
    /// [`Error::Malformed`] with the stage that no agent logged.
    pub fn after_crash(agents: &[Agent], old: usize, since: Moment) -> Result<Self> {
        let logs = Logs { agents, since };
        let winner = logs.winner(old, &[ACQUIRED])?;
        Ok(Self {
            winner,
            death_seen: logs.find(old, &["instance died"])?,
            released: logs.find(old, &[RELEASED])?,
            woken: logs.find(winner, &[WOKEN])?,
            elected: logs.find(winner, &[ELECTED])?,
            acquired: logs.find(winner, &[ACQUIRED])?,
            promoted: logs.find(winner, &[PROMOTED])?,
        })
    }
}

impl TakeOver {
    /// Reads the agents' logs from `since` on; `old` is the index of the agent that was lost then.
    ///
    /// # Errors
    /// As [`Handover::after_crash`].
    pub fn after_loss(agents: &[Agent], old: usize, since: Moment) -> Result<Self> {
        // A lock whose session has ended is not taken over: it is free.
        let won = [TAKEN_OVER, ACQUIRED];
        let logs = Logs { agents, since };
        let winner = logs.winner(old, &won)?;
        Ok(Self {
            winner,
            elected: logs.find(winner, &[TAKING_OVER, ELECTED])?,
            acquired: logs.find(winner, &won)?,
            promoted: logs.find(winner, &[PROMOTED])?,
        })
    }
}

impl Switch {
    /// Reads the agents' logs from `since` on; `old` is the index of the agent that was asked to hand over then.
    ///
    /// # Errors
    /// As [`Handover::after_crash`].
    pub fn by_order(agents: &[Agent], old: usize, since: Moment) -> Result<Self> {
        let logs = Logs { agents, since };
        let winner = logs.winner(old, &[ACQUIRED])?;
        Ok(Self {
            winner,
            fenced: logs.find(old, &["fenced"])?,
            released: logs.find(old, &[RELEASED])?,
            woken: logs.find(winner, &[WOKEN])?,
            acquired: logs.find(winner, &[ACQUIRED])?,
            promoted: logs.find(winner, &[PROMOTED])?,
        })
    }
}

const RELEASED: &str = "lock released";
const WOKEN: &str = "lock seen free";
const ELECTED: &str = "acquiring the lock";
const ACQUIRED: &str = "lock acquired";
const TAKING_OVER: &str = "taking the lock over from a holder that has not been heard of";
const TAKEN_OVER: &str = "lock taken over";
const PROMOTED: &str = "promoted";

struct Logs<'a> {
    agents: &'a [Agent],
    since: Moment,
}

impl Logs<'_> {
    /// When an agent first logged one of these.
    fn find(&self, agent: usize, messages: &[&str]) -> Result<Moment> {
        let lines = self.agents[agent].logs_since(self.since)?;
        let line = lines.iter().find(|line| messages.contains(&line.message()));
        line.and_then(LogLine::at).ok_or_else(|| missing(messages))
    }

    /// The agent other than `old` that says that the lock is its own.
    fn winner(&self, old: usize, messages: &[&str]) -> Result<usize> {
        let mut candidates = (0..self.agents.len()).filter(|agent| *agent != old);
        candidates
            .find(|agent| self.find(*agent, messages).is_ok())
            .ok_or_else(|| missing(messages))
    }
}

fn missing(messages: &[&str]) -> Error {
    Error::malformed(format!(
        "the logs: nobody says '{}'",
        messages.join("' or '")
    ))
}
