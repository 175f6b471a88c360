//! The operator's commands: the agents' own binary, run with arguments.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::consul::Consul;
use crate::error::{Error, Result};
use crate::process::{Process, Recipe};
use crate::world::Shared;

/// A command that is yet to be run. It knows Consul and the cluster, and nothing of any instance.
#[derive(Debug)]
pub struct Cli {
    shared: std::sync::Arc<Shared>,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub struct CliOutput {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All that it printed.
    pub stdout: String,
    /// All that it complained about.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Cli {
    pub(crate) fn new(
        shared: &std::sync::Arc<Shared>,
        consul: &Consul,
        args: &[&str],
    ) -> Result<Self> {
        shared.agent_binary()?;
        let running = consul
            .servers()
            .iter()
            .position(|server| server.process().is_running());
        let mut env = consul.agent_env(&consul.agent_addr(running.unwrap_or(0)));
        env.push(("CLUSTER_NAME".to_owned(), shared.cluster.clone()));
        Ok(Self {
            shared: shared.clone(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env,
        })
    }

    /// Sets a variable; the way to Consul and `CLUSTER_NAME` are set already.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it without waiting for its end, for commands that watch or wait. Its input is empty and no terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self) -> Result<Process> {
        let recipe = Recipe {
            program: self.shared.agent_binary()?.to_owned(),
            args: self.args.iter().map(Into::into).collect(),
            env: self.env,
            dir: self.shared.dir.clone(),
        };
        let process = self.shared.process(&self.shared.next_command(), recipe);
        process.start()?;
        Ok(process)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it does not end in time; it is killed then. Any exit code is no error here.
    pub async fn run(self, deadline: Duration) -> Result<CliOutput> {
        let started = Instant::now();
        let process = self.start()?;
        let ended = process.wait(deadline).await;
        if ended.is_err() {
            process.kill().await?;
        }
        Ok(CliOutput {
            code: ended?.code(),
            stdout: process.stdout()?,
            stderr: process.stderr()?,
            took: started.elapsed(),
        })
    }
}

impl CliOutput {
    /// What was printed, as one JSON document.
    ///
    /// # Errors
    /// [`Error::Malformed`], with all that was printed.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).map_err(|error| {
            let (out, complaints) = (&self.stdout, &self.stderr);
            Error::malformed(format!("a command's output ({error}): {out}{complaints}"))
        })
    }
}
