//! The cluster that the faults hit, and the supervisor that starts processes that died.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tarsec_harness::{
    Agent, Consul, ConsulOptions, Error, Process, ReplicaSet, ReplicaSetOptions, Result, Server,
    Value, World, Writers, eventually,
};

use super::crash;
use super::journal::Journal;
use super::schedule::{Kind, MEMBERS, Mode, SETS, Strike, Target};
use super::stalls::Stalls;

/// For what takes moments on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How long a supervisor takes to start a process that died.
const RESTART_DELAY: Duration = Duration::from_millis(300);
const SIGKILL: i32 = 9;
/// Enough for a crash's registers and its backtrace.
const LAST_LINES: usize = 100;
/// The guard's own words for an error in it, and the interpreter's.
const LUA_ERRORS: [&str; 5] = [
    "the guard stumbled",
    "attempt to ",
    "bad argument",
    "not enough memory",
    "stack overflow",
];
/// The last words of a 2.6.0 that can never start again: from a snapshot with rows of a synchronous space, or from a WAL
/// into which it wrote transactions that it had freed.
const LOST: [&str; 2] = [
    "transaction rolled back during snapshot recovery",
    "is used twice or COMMIT order is broken",
];
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A server that is frozen does not answer.
const SERVER_TIMEOUT: Duration = Duration::from_millis(500);
/// The last words of a 2.6.0 that joins while a synchronous write is confirmed.
const CANNOT_JOIN: &str = "Unknown request type 40";
const WRITES_PER_SECOND: u32 = 100;
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// The journal becomes synchronous on the instance where the set is born, before there is an agent. No checkpoints:
/// 2.6.0 cannot start from a snapshot with rows of a synchronous space.
const SYNCHRONOUS: &str = "
box.cfg{replication_synchro_quorum = 2, replication_synchro_timeout = 5, checkpoint_interval = 0}
if os.getenv('BOOTSTRAP') == 'true' and not box.space.journal.is_sync then
    box.cfg{read_only = false}
    box.space._space:update(box.space.journal.id, {{'=', 6, {is_sync = true}}})
    box.cfg{read_only = true}
end
";

/// Everything that runs.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) journal: &'a Journal,
    pub(crate) consul: Consul,
    pub(crate) sides: Vec<Side>,
    /// The processes that faults keep down, and by how many faults each.
    held: RefCell<BTreeMap<String, usize>>,
    /// The kinds of faults that are under way.
    under_way: RefCell<BTreeSet<Kind>>,
    /// How much of each instance's log has been read.
    read: RefCell<BTreeMap<String, u64>>,
    /// Who stood still when.
    pub(crate) stalls: Stalls,
    mode: Mode,
}

/// A replica set with its agents and writers.
pub(crate) struct Side {
    pub(crate) set: ReplicaSet,
    pub(crate) agents: Vec<Agent>,
    pub(crate) writers: Writers,
    pub(crate) synchronous: bool,
    /// Whether somebody deleted or overwrote the lock key.
    pub(crate) lock_touched: Cell<bool>,
}

/// The name of a replica set; the same as in its instances' names.
pub(crate) fn letter(set: usize) -> char {
    if set == 0 { 'a' } else { 'b' }
}

impl<'a> Stage<'a> {
    pub(crate) async fn start(
        world: &'a World,
        journal: &'a Journal,
        guard: &str,
        sync_loss: &str,
        mode: Mode,
    ) -> Result<Self> {
        let consul = world
            .consul_with(ConsulOptions::default().servers(3))
            .await?;
        let mut sides = Vec::new();
        for index in 0..SETS {
            let synchronous = index == 1;
            let mut options = ReplicaSetOptions::of(MEMBERS)
                .linked()
                .memtx_memory(512 << 20);
            if synchronous {
                options = options.extra_lua(SYNCHRONOUS);
            }
            let set = world.replica_set_with(options).await?;
            // Born once: an instance that comes back with an empty disk joins.
            set[0].set_env("BOOTSTRAP", "false");
            let agents = world
                .agents_with(&set, &consul, |_, agent| {
                    let agent = agent.linked().announced().env("GUARD", guard);
                    // Announced addresses are those of links.
                    let agent = agent.env("PEER_ADDRS", "127.0.0.1");
                    agent.env("SYNC_LOSS", sync_loss)
                })
                .await?;
            set.wait_for_master(SOON).await?;
            let writers = set
                .writers()
                .rate(WRITES_PER_SECOND)
                .probe_interval(PROBE_INTERVAL)
                .start();
            writers.wait_for_writes(20, SOON).await?;
            sides.push(Side {
                set,
                agents,
                writers,
                synchronous,
                lock_touched: Cell::new(false),
            });
        }
        Ok(Self {
            world,
            journal,
            consul,
            sides,
            held: RefCell::default(),
            under_way: RefCell::default(),
            read: RefCell::default(),
            stalls: Stalls::default(),
            mode,
        })
    }

    /// All processes that a supervisor looks after.
    pub(crate) fn processes(&self) -> Vec<&Process> {
        let servers = self.consul.servers().iter().map(Server::process);
        let members = self.sides.iter().flat_map(|side| {
            let instances = side.set.iter().map(tarsec_harness::Instance::process);
            instances.chain(side.agents.iter().map(Agent::process))
        });
        servers.chain(members).collect()
    }

    /// Starts processes that died and are not held down, for ever.
    pub(crate) async fn supervise(&self) -> std::convert::Infallible {
        let mut dead_since: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            for process in self.processes() {
                if process.is_running() || self.is_held(process) {
                    dead_since.remove(process.name());
                    continue;
                }
                let since = *dead_since
                    .entry(process.name().to_owned())
                    .or_insert_with(Instant::now);
                if since.elapsed() >= RESTART_DELAY {
                    self.start_again(process);
                    dead_since.remove(process.name());
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn start_again(&self, process: &Process) {
        let ended = process.exit_status().map(|status| status.to_string());
        let (name, ended) = (process.name(), ended.unwrap_or_default());
        self.note_end(process);
        match process.start() {
            Ok(()) => {
                self.journal.restarted();
                self.journal
                    .say(&format!("    started again: {name} ({ended})"));
            }
            Err(error) => self.journal.say(&format!("    {name}: {}", chain(&error))),
        }
    }

    /// Only `SIGKILL` is part of the play: faults send it, agents to what hangs, `GUARD=strict` to itself. A crash of
    /// 2.6.0 in the synchronous set, where it has faults of its own (docs/TARANTOOL.md), is what a supervisor is for.
    fn note_end(&self, process: &Process) {
        let Some(status) = process.exit_status() else {
            return;
        };
        if status.signal() == Some(SIGKILL) {
            return;
        }
        let last_words = process.tail(LAST_LINES);
        let what = format!("{} ended by itself ({status})", process.name());
        if !self.is_synchronous_instance(process) {
            return self.journal.violation(format!("{what}:\n{last_words}"));
        }
        match (status.signal(), crash::place(&last_words)) {
            (Some(_), Some(place)) => self.journal.known(format!("{what} in {place}")),
            (None, _) if last_words.contains(CANNOT_JOIN) => {
                self.journal.known(format!("{what}: {CANNOT_JOIN}"));
            }
            (ended_by, _) => match why_lost(&last_words).filter(|_| ended_by.is_none()) {
                Some(why) => self.journal.say(&format!("    {what}: {why}")),
                None => self.journal.violation(format!("{what}:\n{last_words}")),
            },
        }
    }

    /// Lines that instances have logged since the last call and that our own Lua inside them should never make them
    /// say.
    pub(crate) fn look_for_lua_errors(&self) {
        for instance in self.sides.iter().flat_map(|side| side.set.iter()) {
            let mut read = self.read.borrow_mut();
            let read = read.entry(instance.name().to_owned()).or_default();
            match unread(instance.process().stderr_path(), read) {
                Ok(text) => {
                    for line in text.lines().filter(|line| is_lua_error(line)) {
                        let name = instance.name();
                        self.journal.violation(format!("{name} said: {line}"));
                    }
                }
                Err(error) => {
                    let name = instance.name();
                    self.journal
                        .violation(format!("the log of {name} cannot be read: {error}"));
                }
            }
        }
    }

    /// Instances that agents have killed since the last call: none of them was well.
    pub(crate) fn judge_kills(&self) -> Result<()> {
        if self.mode != Mode::Stalls {
            // A link that is cut makes an instance silent, too.
            return Ok(());
        }
        for side in &self.sides {
            for (instance, agent) in side.set.iter().zip(&side.agents) {
                let (killed, well) = self.stalls.judge(instance, agent)?;
                self.journal.killed(killed);
                for words in well {
                    self.journal.violation(words);
                }
            }
        }
        Ok(())
    }

    fn is_synchronous_instance(&self, process: &Process) -> bool {
        let synchronous = self.sides.iter().filter(|side| side.synchronous);
        synchronous
            .flat_map(|side| side.set.iter())
            .any(|instance| instance.process().name() == process.name())
    }

    /// Keeps a process down, until [`Stage::release`].
    pub(crate) fn hold(&self, process: &Process) {
        *self
            .held
            .borrow_mut()
            .entry(process.name().to_owned())
            .or_default() += 1;
    }

    pub(crate) fn release(&self, process: &Process) {
        if let Some(count) = self.held.borrow_mut().get_mut(process.name()) {
            *count = count.saturating_sub(1);
        }
    }

    fn is_held(&self, process: &Process) -> bool {
        let held = self.held.borrow();
        held.get(process.name()).is_some_and(|count| *count > 0)
    }

    /// Waits until no fault of this kind is under way, and notes that the caller's is.
    pub(crate) async fn wait_until_over(&self, kind: Kind) {
        while !self.under_way.borrow_mut().insert(kind) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    pub(crate) fn is_over(&self, kind: Kind) {
        self.under_way.borrow_mut().remove(&kind);
    }

    /// A server that knows a leader, and the number of that leader.
    pub(crate) async fn server(&self) -> Result<(usize, Option<usize>)> {
        for (index, server) in self.consul.servers().iter().enumerate() {
            let asked = server.api().get("/v1/status/leader");
            let Ok(Ok(Value::String(leader))) = tokio::time::timeout(SERVER_TIMEOUT, asked).await
            else {
                continue;
            };
            if !leader.is_empty() {
                return Ok((index, self.consul.server_at(&leader)));
            }
        }
        Err(Error::NotRunning {
            name: "a Consul server with a leader".to_owned(),
        })
    }

    /// The member that a fault hits.
    pub(crate) async fn member(&self, strike: &Strike) -> usize {
        match strike.target {
            Target::Member(index) => index,
            Target::Master => {
                let writable = self.sides[strike.set].set.writable().await;
                writable.first().copied().unwrap_or(0)
            }
        }
    }

    /// Runs an operator's command against a server that answers; its exit code and last line.
    pub(crate) async fn order(&self, args: &[&str], deadline: Duration) -> Result<(bool, String)> {
        let (server, _) = self.server().await?;
        // There is no terminal to ask at.
        let args = [args, &["--yes"]].concat();
        let command = self
            .world
            .command(&self.consul, &args)?
            .env("CONSUL_HTTP_ADDR", &self.consul.agent_addr(server));
        let output = command.run(deadline).await?;
        let words = output.stdout.lines().chain(output.stderr.lines()).last();
        let code = output.code.map_or("-".to_owned(), |code| code.to_string());
        let words = format!("exit code {code}: {}", words.unwrap_or("").trim());
        Ok((output.code == Some(0), words))
    }

    /// Whether somebody has ordered a pause of a replica set.
    pub(crate) async fn is_pause_ordered(&self, set: usize) -> Result<bool> {
        let board = self.world.board(&self.consul, &self.sides[set].set);
        let (server, _) = self.server().await?;
        let api = self.consul.servers()[server].api();
        Ok(api.kv(&board.key("pause")).await?.is_some())
    }

    /// Ends a replica set's pause, whatever it takes.
    pub(crate) async fn resume(&self, set: usize) -> Result<()> {
        eventually(SOON, "the end of the pause", async || {
            let args = ["resume", "--replicaset", self.sides[set].set.uuid()];
            let words = match self.order(&args, Duration::from_secs(10)).await {
                Ok((_, words)) => words,
                Err(error) => chain(&error),
            };
            // The command also waits for the agents, which may be down.
            match self.is_pause_ordered(set).await {
                Ok(false) => Ok(()),
                Ok(true) => Err(words),
                Err(error) => Err(chain(&error)),
            }
        })
        .await
    }
}

/// Why an instance with these last words can never start again, where that is known of 2.6.0.
pub(crate) fn why_lost(last_words: &str) -> Option<&'static str> {
    LOST.into_iter().find(|words| last_words.contains(words))
}

/// The whole lines of a file beyond `read`, which moves on behind them.
fn unread(path: &Path, read: &mut u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*read))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    bytes.truncate(whole);
    *read += whole as u64;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether it speaks of a mistake in Lua, not of something that was refused for a reason.
fn is_lua_error(line: &str) -> bool {
    line.contains(" E> ") && LUA_ERRORS.iter().any(|words| line.contains(words))
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_lua_is_told_from_a_refusal() {
        let line =
            |words: &str| format!("2026-11-21 20:07:46.706 [1] main/135/lua eval:195 {words}");
        for words in [
            "E> tarsec: the guard stumbled and goes on: eval:12: oh",
            "E> ER_PROC_LUA: eval:12: attempt to index local 'x' (a nil value)",
        ] {
            assert!(is_lua_error(&line(words)), "{words}");
        }
        for words in [
            "E> ER_READONLY: Can't modify data because this instance is in read-only mode.",
            "E> tarsec: could not pass the barrier: Found uncommitted sync transactions",
            "I> attempt to connect",
        ] {
            assert!(!is_lua_error(&line(words)), "{words}");
        }
    }

    #[test]
    fn a_log_is_read_once_and_in_whole_lines() {
        let path = std::env::temp_dir().join(format!("tarsec-unread-{}", std::process::id()));
        let mut read = 0;
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        assert_eq!(unread(&path, &mut read).unwrap(), "one\ntwo\n");
        assert_eq!(unread(&path, &mut read).unwrap(), "");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(unread(&path, &mut read).unwrap(), "three\n");
        std::fs::remove_file(&path).unwrap();
    }
}
