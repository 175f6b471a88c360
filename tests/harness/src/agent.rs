//! tarsec's agents: one process per instance.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::consul::Consul;
use crate::error::{Error, Result, chain};
use crate::moment::Moment;
use crate::process::{Output, Process, Recipe, Rights};
use crate::proxy::Proxy;
use crate::tarantool::Instance;
use crate::wait::eventually;
use crate::world::Shared;

const DUMP_TIMEOUT: Duration = Duration::from_secs(5);

/// The defaults of tests: short times, machine-readable logs.
const DEFAULTS: [(&str, &str); 7] = [
    ("MASTER_LEASE", "3s"),
    ("CONSUL_LOCK_TTL", "10s"),
    ("HEALTHCHECK_INTERVAL", "500ms"),
    ("HEALTHCHECK_TIMEOUT", "1s"),
    ("LOG_FORMAT", "json"),
    ("DUMP_FORMAT", "json"),
    ("LOG_LEVEL", "info"),
];

/// An agent that is yet to be started.
#[derive(Debug)]
pub struct AgentBuilder {
    shared: std::sync::Arc<Shared>,
    name: String,
    instance_addr: String,
    consul_addr: String,
    linked: bool,
    announced: bool,
    rights: Option<Rights>,
    output: Output,
    program: Option<std::path::PathBuf>,
    instance_link: Option<Proxy>,
    consul_link: Option<Proxy>,
    env: Vec<(String, String)>,
}

/// A tarsec process.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    consul_link: Option<Proxy>,
    instance_link: Option<Proxy>,
    announced_link: Option<Proxy>,
}

/// One line of an agent's log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The line as it stands in the file.
    pub text: String,
    /// The line as JSON; `Null` when it is none (a panic, for example).
    pub json: Value,
}

impl AgentBuilder {
    pub(crate) fn new(
        shared: &std::sync::Arc<Shared>,
        instance: &Instance,
        consul: &Consul,
    ) -> Result<Self> {
        shared.agent_binary()?;
        let login = Instance::agent_login();
        let server = instance.index % consul.servers().len();
        let consul_addr = consul.agent_addr(server);
        let own = [
            ("TARANTOOL_ADDR", instance.addr()),
            ("ANNOUNCE_ADDR", instance.addr()),
            ("TARANTOOL_USER", &login.user),
            ("TARANTOOL_PASSWORD", &login.password),
            ("CLUSTER_NAME", &shared.cluster),
        ];
        let mut builder = Self {
            shared: shared.clone(),
            name: format!("agent-{}", instance.name()),
            instance_addr: instance.addr().to_owned(),
            linked: false,
            announced: false,
            rights: None,
            output: Output::Files,
            program: None,
            instance_link: None,
            consul_link: None,
            env: consul.agent_env(&consul_addr),
            consul_addr,
        };
        for (name, value) in DEFAULTS.into_iter().chain(own) {
            builder = builder.env(name, value);
        }
        Ok(builder)
    }

    /// An agent that is told nothing of any instance or Consul.
    pub(crate) fn bare(shared: &std::sync::Arc<Shared>, name: &str) -> Result<Self> {
        shared.agent_binary()?;
        let defaults = DEFAULTS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self {
            shared: shared.clone(),
            name: name.to_owned(),
            instance_addr: String::new(),
            consul_addr: String::new(),
            linked: false,
            announced: false,
            rights: None,
            output: Output::Files,
            program: None,
            instance_link: None,
            consul_link: None,
            env: defaults.to_vec(),
        })
    }

    /// Sets a variable, over the test defaults.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable away, so that the agent's own default counts.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    /// Another name for the process and its logs, for a second agent on the same instance.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Leads the agent's way to Consul and to its instance through links of its own:
    /// [`Agent::consul_link`], [`Agent::instance_link`].
    #[must_use]
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Reaches Consul through a link made by [`World::proxy`](crate::World::proxy).
    #[must_use]
    pub fn consul_via(mut self, link: &Proxy) -> Self {
        self.consul_link = Some(link.clone());
        self
    }

    /// Reaches its own instance through a link; the instance is still announced as it is.
    #[must_use]
    pub fn instance_via(mut self, link: &Proxy) -> Self {
        self.instance_link = Some(link.clone());
        self
    }

    /// Announces the instance under a link's address, which is then how other agents reach it.
    #[must_use]
    pub fn announce_via(self, link: &Proxy) -> Self {
        let addr = link.addr().to_owned();
        self.env("ANNOUNCE_ADDR", &addr)
    }

    /// Announces the instance under a link of its own, [`Agent::announced_link`]: that is how the agents of the other
    /// members reach it, while its own agent and the other instances go straight to it.
    #[must_use]
    pub fn announced(mut self) -> Self {
        self.announced = true;
        self
    }

    /// As whom it runs.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// Where its stdout and stderr lead.
    #[must_use]
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Another build of the agent than the world's.
    #[must_use]
    pub fn program(mut self, program: &std::path::Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Starts the agent; it does not wait for anything.
    ///
    /// # Errors
    /// When the process or a link cannot be started.
    pub async fn start(mut self) -> Result<Agent> {
        if self.linked {
            self.consul_link
                .get_or_insert(Proxy::start(&self.shared, &self.consul_addr).await?);
            self.instance_link
                .get_or_insert(Proxy::start(&self.shared, &self.instance_addr).await?);
        }
        let mut announced_link = None;
        if self.announced {
            let link = Proxy::start(&self.shared, &self.instance_addr).await?;
            self = self.announce_via(&link);
            announced_link = Some(link);
        }
        if let Some(addr) = self.consul_link.as_ref().map(|link| link.addr().to_owned()) {
            self = self.env("CONSUL_HTTP_ADDR", &addr);
        }
        if let Some(addr) = self
            .instance_link
            .as_ref()
            .map(|link| link.addr().to_owned())
        {
            self = self.env("TARANTOOL_ADDR", &addr);
        }
        let recipe = Recipe {
            program: match self.program {
                Some(program) => program,
                None => self.shared.agent_binary()?.to_owned(),
            },
            args: Vec::new(),
            env: self.env,
            dir: self.shared.dir.clone(),
        };
        let process = self.shared.process(&self.name, recipe);
        process.set_output(self.output);
        // An agent that could look into processes would see that a link is not its instance, and would not take the instance for
        // one that it may kill. Others go by the user alone, and the link's is the instance's.
        let through_link = self.instance_link.is_some();
        let default = if through_link {
            Rights::Unprying
        } else {
            Rights::Own
        };
        process.set_rights(self.rights.unwrap_or(default));
        process.start()?;
        Ok(Agent {
            process,
            consul_link: self.consul_link,
            instance_link: self.instance_link,
            announced_link,
        })
    }
}

impl Agent {
    /// The process, for its pid, its logs and signals of any kind.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The link to Consul, with [`AgentBuilder::linked`] or [`AgentBuilder::consul_via`].
    #[must_use]
    pub fn consul_link(&self) -> Option<&Proxy> {
        self.consul_link.as_ref()
    }

    /// The link to the instance, with [`AgentBuilder::linked`] or [`AgentBuilder::instance_via`].
    #[must_use]
    pub fn instance_link(&self) -> Option<&Proxy> {
        self.instance_link.as_ref()
    }

    /// The link over which the other members' agents reach the instance, with [`AgentBuilder::announced`].
    #[must_use]
    pub fn announced_link(&self) -> Option<&Proxy> {
        self.announced_link.as_ref()
    }

    /// Another build of the agent from the next start on.
    pub fn set_program(&self, program: &std::path::Path) {
        self.process.set_program(program.to_owned());
    }

    /// Sets a variable for the next start.
    pub fn set_env(&self, name: &str, value: &str) {
        self.process.set_env(name, value);
    }

    /// Starts an agent that has ended.
    ///
    /// # Errors
    /// When it runs.
    pub fn start(&self) -> Result<()> {
        self.process.start()
    }

    /// `SIGKILL`; waits until the process is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// `SIGTERM`; waits for the end and says how it ended.
    ///
    /// # Errors
    /// When it is not running or does not end in time.
    pub async fn term(&self, deadline: Duration) -> Result<ExitStatus> {
        self.process.terminate(deadline).await
    }

    /// Waits until the agent has ended by itself.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        self.process.wait(deadline).await
    }

    /// `SIGKILL` if it runs, and a new start.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&self) -> Result<()> {
        if self.process.is_running() {
            self.kill().await?;
        }
        self.start()
    }

    /// `SIGSTOP`.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn freeze(&self) -> Result<()> {
        self.process.freeze().await
    }

    /// `SIGCONT`.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    /// `SIGUSR1`, and the document that the agent prints for it.
    ///
    /// # Errors
    /// [`Error::Timeout`] when no complete document appears within five seconds.
    pub async fn usr1(&self) -> Result<Value> {
        self.dump(Signal::USR1).await
    }

    /// `SIGUSR2`, and the document that the agent prints for it.
    ///
    /// # Errors
    /// As [`Agent::usr1`].
    pub async fn usr2(&self) -> Result<Value> {
        self.dump(Signal::USR2).await
    }

    /// The log so far, over all starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn logs(&self) -> Result<Vec<LogLine>> {
        let path = self.process.stderr_path();
        let text = std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
        Ok(String::from_utf8_lossy(&text)
            .lines()
            .map(LogLine::parse)
            .collect())
    }

    /// What was logged from a moment on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn logs_since(&self, since: Moment) -> Result<Vec<LogLine>> {
        let mut lines = self.logs()?;
        lines.retain(|line| line.at().is_some_and(|at| at >= since));
        Ok(lines)
    }

    /// Waits for a log line; `skip` lines at the start of the log are not looked at
    /// (`agent.logs()?.len()` taken earlier looks at new lines only).
    ///
    /// # Errors
    /// [`Error::Timeout`], with the last line.
    pub async fn wait_for_log(
        &self,
        deadline: Duration,
        what: &str,
        skip: usize,
        fits: impl Fn(&LogLine) -> bool,
    ) -> Result<LogLine> {
        eventually(deadline, what, async || {
            let lines = self.logs().map_err(|error| chain(&error))?;
            let found = lines.iter().skip(skip).find(|line| fits(line)).cloned();
            found.ok_or_else(|| {
                lines
                    .last()
                    .map_or_else(|| "an empty log".to_owned(), ToString::to_string)
            })
        })
        .await
    }

    async fn dump(&self, signal: Signal) -> Result<Value> {
        let path = self.process.stdout_path();
        let read = || format!("read {}", path.display());
        let before = std::fs::metadata(path).map_err(Error::io(read()))?.len();
        self.process.signal(signal)?;
        eventually(
            DUMP_TIMEOUT,
            &format!("a document after {signal:?}"),
            async || {
                let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
                let mut text = String::new();
                file.seek(SeekFrom::Start(before))
                    .map_err(|error| error.to_string())?;
                file.read_to_string(&mut text)
                    .map_err(|error| error.to_string())?;
                serde_json::from_str(&text)
                    .map_err(|error| format!("{} bytes: {error}", text.len()))
            },
        )
        .await
    }
}

impl LogLine {
    fn parse(line: &str) -> Self {
        Self {
            text: line.to_owned(),
            json: serde_json::from_str(line).unwrap_or(Value::Null),
        }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        self.field("message").as_str().unwrap_or_default()
    }

    /// `INFO`, `WARN`, …
    #[must_use]
    pub fn level(&self) -> &str {
        self.json["level"].as_str().unwrap_or_default()
    }

    /// The time stamp as logged.
    #[must_use]
    pub fn timestamp(&self) -> &str {
        self.json["timestamp"].as_str().unwrap_or_default()
    }

    /// When it was logged.
    #[must_use]
    pub fn at(&self) -> Option<Moment> {
        Moment::parse(self.timestamp())
    }

    /// A field of the event, `Null` when there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        let nested = &self.json["fields"][name];
        if nested.is_null() {
            &self.json[name]
        } else {
            nested
        }
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
