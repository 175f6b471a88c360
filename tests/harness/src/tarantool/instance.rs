//! One Tarantool instance.

use std::time::Duration;

use serde_json::Value;

use super::iproto::{Connection, Login};
use crate::error::{Error, Result};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::wait::eventually;

/// A healthy instance answers in well under a millisecond; a loaded machine may be slower.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A reload waits as long as `replication.connect_timeout` for peers that are away, 30 s unless told otherwise.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough for a shutdown that waits for its WAL.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `box.info.ro`.
    pub read_only: bool,
    /// `box.info.status`: `running`, `orphan`, `loading`, …
    pub status: String,
    /// `box.info.vclock`, ordered by replica id.
    pub vclock: Vec<(u32, u64)>,
    /// The term of the guard, where one is installed.
    pub term: Option<u64>,
}

/// A Tarantool process of a replica set.
#[derive(Debug)]
pub struct Instance {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) replicaset_uuid: String,
    pub(crate) addr: String,
    pub(crate) process: Process,
    /// Links to the other members, by their index; empty unless asked for.
    pub(crate) links: Vec<(usize, Proxy)>,
}

impl Instance {
    /// The name, as in the logs' file names and in the journal.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The instance UUID.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The replica set's UUID.
    #[must_use]
    pub fn replicaset_uuid(&self) -> &str {
        &self.replicaset_uuid
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The process, for its pid, its logs and signals of any kind.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The harness's login, a superuser.
    #[must_use]
    pub fn login() -> Login {
        Login {
            user: "harness".to_owned(),
            password: "harness-secret".to_owned(),
        }
    }

    /// The agent's login, which may execute and nothing more.
    #[must_use]
    pub fn agent_login() -> Login {
        Login {
            user: "tarsec".to_owned(),
            password: "tarsec-secret".to_owned(),
        }
    }

    /// Sets a variable for the next start.
    pub fn set_env(&self, name: &str, value: &str) {
        self.process.set_env(name, value);
    }

    /// Starts the process, and waits for nothing.
    ///
    /// # Errors
    /// When it is running or cannot be started.
    pub fn launch(&self) -> Result<()> {
        self.process.start()
    }

    /// Starts the process and waits until it answers.
    ///
    /// # Errors
    /// When it is running, ends, or does not answer in time.
    pub async fn start(&self) -> Result<()> {
        self.process.start()?;
        self.wait_ready().await
    }

    /// Waits until the instance has run its whole `init.lua`.
    ///
    /// # Errors
    /// [`Error::Exited`] with the log's end, or [`Error::Timeout`].
    pub async fn wait_ready(&self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        eventually(START_TIMEOUT, &what, async || {
            if let Err(exited) = self.process.check_running() {
                return Ok(Err(exited));
            }
            let answer = self
                .eval("return box.info.status, rawget(_G, 'app_is_ready')", &[])
                .await;
            match answer.as_deref() {
                Ok([status, Value::Bool(true)]) if status == "running" => Ok(Ok(())),
                Ok(other) => Err(format!("{other:?}")),
                Err(error) => Err(crate::error::chain(error)),
            }
        })
        .await?
    }

    /// `SIGKILL`; waits until the process is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// `SIGTERM`; waits until the process is gone.
    ///
    /// # Errors
    /// When it is not running or does not stop in time.
    pub async fn stop(&self) -> Result<()> {
        self.process.terminate(STOP_TIMEOUT).await.map(|_| ())
    }

    /// `SIGSTOP`; waits until every thread stands still.
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

    /// Kills the process if it runs, starts it and waits until it is ready.
    ///
    /// # Errors
    /// As [`Instance::start`].
    pub async fn restart(&self) -> Result<()> {
        if self.process.is_running() {
            self.kill().await?;
        }
        self.start().await
    }

    /// Removes the data of an instance that is not running: it comes back with an empty disk.
    ///
    /// # Errors
    /// When it is running or its directory cannot be removed.
    pub fn wipe(&self, world: &crate::world::World) -> Result<()> {
        if self.process.is_running() {
            return Err(Error::AlreadyRunning {
                name: self.name.clone(),
            });
        }
        let dir = world.dir().join(&self.name);
        std::fs::remove_dir_all(&dir).map_err(Error::io(format!("remove {}", dir.display())))
    }

    /// A connection as the harness's superuser.
    ///
    /// # Errors
    /// When the instance does not take it within two seconds.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.addr, &Self::login(), ASK_TIMEOUT).await
    }

    /// Runs Lua on a fresh connection as the superuser.
    ///
    /// # Errors
    /// [`Error::Refused`] when the Lua fails; otherwise as [`Instance::connect`].
    pub async fn eval(&self, lua: &str, args: &[Value]) -> Result<Vec<Value>> {
        self.connect().await?.eval(lua, args, ASK_TIMEOUT).await
    }

    /// What the instance says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn standing(&self) -> Result<Standing> {
        let values = self.eval(STANDING, &[]).await?;
        let odd = || Error::malformed(format!("the standing of {}: {values:?}", self.name));
        let [read_only, status, vclock, term] = values.as_slice() else {
            return Err(odd());
        };
        let part = |entry: &Value| {
            Some((
                u32::try_from(entry.get(0)?.as_u64()?).ok()?,
                entry.get(1)?.as_u64()?,
            ))
        };
        Ok(Standing {
            read_only: read_only.as_bool().ok_or_else(odd)?,
            status: status.as_str().ok_or_else(odd)?.to_owned(),
            vclock: vclock
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(part)
                .collect(),
            term: term.as_u64(),
        })
    }

    /// Whether the instance accepts writes: it answers, and not `box.info.ro`.
    pub async fn is_writable(&self) -> bool {
        self.says_writable().await == Some(true)
    }

    /// What the instance says about accepting writes; `None` without an answer in time.
    pub async fn says_writable(&self) -> Option<bool> {
        let asked = self.eval("return box.info.ro", &[]);
        match tokio::time::timeout(ASK_TIMEOUT, asked).await {
            Ok(Ok(values)) => values.first().and_then(Value::as_bool).map(|ro| !ro),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Makes the instance writable or read-only by hand, as an operator would.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn set_writable(&self, writable: bool) -> Result<()> {
        self.eval("box.cfg{read_only = ...}", &[Value::Bool(!writable)])
            .await
            .map(|_| ())
    }

    /// `config:reload()` of Tarantool 3's declarative configuration, which must succeed; returns the alerts after it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the reload fails, or when the instance does not answer within a minute: a reload
    /// waits for peers that are away.
    pub async fn reload(&self) -> Result<Vec<String>> {
        let lua = "local config = require('config')
            config:reload()
            local alerts = setmetatable({}, {__serialize = 'seq'})
            for _, alert in ipairs(config:info().alerts) do table.insert(alerts, alert.message) end
            return alerts";
        let mut connection = self.connect().await?;
        let values = connection.eval(lua, &[], RELOAD_TIMEOUT).await?;
        let alerts = values
            .first()
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        Ok(alerts
            .filter_map(|alert| alert.as_str().map(str::to_owned))
            .collect())
    }

    /// Installs a guard that says what it is told, for tests without an agent.
    ///
    /// # Errors
    /// When the instance does not answer.
    pub async fn pretend_term(&self, term: u64) -> Result<()> {
        let lua = "local t = ... tarsec_guard = {term = function() return t end}";
        self.eval(lua, &[Value::from(term)]).await.map(|_| ())
    }

    /// Grows the resident memory by so many mebibytes of rows that are neither logged nor
    /// replicated. Needs a `memtx_memory` that holds them.
    ///
    /// # Errors
    /// When memory runs out or the instance does not answer within two minutes.
    pub async fn fill(&self, mebibytes: u64) -> Result<()> {
        let mut connection = self.connect().await?;
        let args = [Value::from(mebibytes)];
        connection
            .eval("return ballast_fill(...)", &args, Duration::from_secs(120))
            .await
            .map(|_| ())
    }

    /// The rows of the journal.
    ///
    /// # Errors
    /// When the instance does not answer.
    pub async fn journal_len(&self) -> Result<u64> {
        let values = self.eval("return box.space.journal:len()", &[]).await?;
        values
            .first()
            .and_then(Value::as_u64)
            .ok_or_else(|| Error::malformed("the journal's length"))
    }

    /// The link over which this member follows another one.
    #[must_use]
    pub fn link_to(&self, other: usize) -> Option<&Proxy> {
        self.links
            .iter()
            .find(|(index, _)| *index == other)
            .map(|(_, link)| link)
    }
}

const STANDING: &str = "
local guard, term = rawget(_G, 'tarsec_guard'), nil
if type(guard) == 'table' and type(guard.term) == 'function' then term = guard.term() end
if type(guard) == 'table' and type(guard.term) == 'number' then term = guard.term end
local vclock = setmetatable({}, {__serialize = 'seq'})
-- Component 0 counts local rows, which nobody else has.
for id, lsn in pairs(box.info.vclock) do if id ~= 0 then table.insert(vclock, {id, lsn}) end end
-- pairs() has no order, and who compares two of them wants one.
table.sort(vclock, function(a, b) return a[1] < b[1] end)
return box.info.ro, box.info.status, vclock, term
";
