//! An instance and its agent as one thing that can be lost: what stands on one machine.

use crate::agent::Agent;
use crate::error::Result;
use crate::process::Process;
use crate::tarantool::Instance;

/// An instance and the agent beside it.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    instance: &'a Instance,
    agent: &'a Agent,
}

impl<'a> Machine<'a> {
    /// The machine on which these two run.
    #[must_use]
    pub fn of(instance: &'a Instance, agent: &'a Agent) -> Self {
        Self { instance, agent }
    }

    /// `SIGKILL` to both, without waiting for the end. The agent goes first: it must not see the instance die.
    ///
    /// # Errors
    /// When one of them is not running.
    pub fn kill_no_wait(&self) -> Result<()> {
        self.agent.process().kill_no_wait()?;
        self.instance.process().kill_no_wait()
    }

    /// `SIGKILL` to both; waits until they are gone.
    ///
    /// # Errors
    /// When one of them is not running.
    pub async fn kill(&self) -> Result<()> {
        self.kill_no_wait()?;
        self.wait_gone().await
    }

    /// Waits until both are gone, after [`Machine::kill_no_wait`].
    ///
    /// # Errors
    /// When one of them does not end.
    pub async fn wait_gone(&self) -> Result<()> {
        for process in self.processes() {
            process.wait_killed().await?;
        }
        Ok(())
    }

    /// `SIGSTOP` to both at once; waits until every thread of either stands still.
    ///
    /// # Errors
    /// When one of them is not running.
    pub async fn freeze(&self) -> Result<()> {
        for process in self.processes() {
            process.signal(rustix::process::Signal::STOP)?;
        }
        for process in self.processes() {
            process.freeze().await?;
        }
        Ok(())
    }

    /// `SIGCONT` to both. The instance goes first, which is the harder case: its agent is not there yet to end it.
    ///
    /// # Errors
    /// When one of them is not running.
    pub fn thaw(&self) -> Result<()> {
        self.instance.thaw()?;
        self.agent.thaw()
    }

    /// Starts both again, the agent first, as after a boot; waits until the instance is ready.
    ///
    /// # Errors
    /// When one of them runs or does not come up.
    pub async fn start(&self) -> Result<()> {
        self.agent.start()?;
        self.instance.start().await
    }

    fn processes(&self) -> [&Process; 2] {
        [self.agent.process(), self.instance.process()]
    }
}
