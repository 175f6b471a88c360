//! Child processes: started, signalled and ended by pid, each with its own log files.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};

/// How long a killed process may take to vanish: the kernel frees gigabytes first.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
const WAIT_INTERVAL: Duration = Duration::from_millis(2);

/// How to start a process, as often as needed.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: PathBuf,
}

/// As whom a process runs. All but the first take root, without which they are the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// As the tests do.
    Own,
    /// As the tests do, but it may not look into processes that have more rights (`CAP_SYS_PTRACE`).
    Unprying,
    /// As this user, without any capability.
    User(u32),
    /// As this user, with `CAP_KILL` and nothing else: what the agent's unit gives it.
    Killer(u32),
}

impl Rights {
    /// What setpriv is told.
    fn args(self) -> Vec<String> {
        let ids = |user: u32| {
            [
                format!("--reuid={user}"),
                format!("--regid={user}"),
                "--clear-groups".to_owned(),
                "--no-new-privs".to_owned(),
            ]
        };
        let all_sets = ["inh-caps", "ambient-caps", "bounding-set"];
        let sets = |caps: &str| all_sets.map(|set| format!("--{set}={caps}"));
        match self {
            _ if !is_root() => Vec::new(),
            Self::Own => Vec::new(),
            // The kernel lets a process be looked into only by those who may all that it may.
            Self::Unprying => ["inh-caps", "bounding-set"]
                .map(|set| format!("--{set}=-sys_ptrace,-chown"))
                .to_vec(),
            Self::User(user) => ids(user).into_iter().chain(sets("-all")).collect(),
            Self::Killer(user) => ids(user).into_iter().chain(sets("-all,+kill")).collect(),
        }
    }
}

/// Whether processes can be started as other users than the tests' own.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where a process's stdout and stderr lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Into its log files.
    Files,
    /// Into pipes that are full and that nobody reads, until [`Process::read_pipes`].
    UnreadPipes,
    /// To a disk that takes nothing: every write fails.
    FullDisk,
}

/// A process of a world. Cheap to clone; all clones are the same process.
///
/// It is started through `setpriv --pdeathsig KILL`, which sets the signal and then becomes the
/// program (`exec`: same pid), so that it ends when the test process ends, however that ends.
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    recipe: Mutex<Recipe>,
    stdout: PathBuf,
    stderr: PathBuf,
    child: Mutex<Option<Child>>,
    output: Mutex<Output>,
    rights: Mutex<Rights>,
    /// The reading ends of an unread process's output, each with the file that its bytes belong into.
    pipes: Mutex<Vec<(PipeReader, PathBuf)>>,
}

impl Process {
    pub(crate) fn new(name: &str, recipe: Recipe, log_dir: &Path) -> Self {
        let log = |kind: &str| log_dir.join(format!("{name}.{kind}"));
        let inner = Inner {
            name: name.to_owned(),
            recipe: Mutex::new(recipe),
            stdout: log("stdout"),
            stderr: log("stderr"),
            child: Mutex::new(None),
            output: Mutex::new(Output::Files),
            rights: Mutex::new(Rights::Own),
            pipes: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The process's name in its world and in its logs' names.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The file that collects standard output over all starts.
    #[must_use]
    pub fn stdout_path(&self) -> &Path {
        &self.inner.stdout
    }

    /// The file that collects standard error over all starts.
    #[must_use]
    pub fn stderr_path(&self) -> &Path {
        &self.inner.stderr
    }

    /// All that it has printed, over all starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        text_of(&self.inner.stdout)
    }

    /// All that it has said on standard error, over all starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        text_of(&self.inner.stderr)
    }

    /// Sets a variable for the next start.
    pub(crate) fn set_program(&self, program: PathBuf) {
        lock(&self.inner.recipe).program = program;
    }

    pub(crate) fn set_env(&self, name: &str, value: &str) {
        let mut recipe = lock(&self.inner.recipe);
        recipe.env.retain(|(known, _)| known != name);
        recipe.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process; its output is appended to its log files.
    ///
    /// # Errors
    /// When it is running already or cannot be started.
    pub fn start(&self) -> Result<()> {
        if self.is_running() {
            return Err(Error::AlreadyRunning {
                name: self.inner.name.clone(),
            });
        }
        let recipe = lock(&self.inner.recipe).clone();
        let mut command = Command::new("setpriv");
        command
            .args(lock(&self.inner.rights).args())
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&recipe.program)
            .args(&recipe.args)
            .current_dir(&recipe.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUST_BACKTRACE", "1")
            .envs(recipe.env)
            .stdin(Stdio::null());
        command
            .stdout(self.sink(&self.inner.stdout)?)
            .stderr(self.sink(&self.inner.stderr)?);
        let child = spawn(command).map_err(Error::io(format!("start {}", self.inner.name)))?;
        *lock(&self.inner.child) = Some(child);
        Ok(())
    }

    /// From the next start on, it runs with these.
    pub(crate) fn set_rights(&self, rights: Rights) {
        *lock(&self.inner.rights) = rights;
    }

    /// From the next start on, its output goes there.
    pub(crate) fn set_output(&self, output: Output) {
        *lock(&self.inner.output) = output;
    }

    fn sink(&self, path: &Path) -> Result<Stdio> {
        match *lock(&self.inner.output) {
            Output::Files => append_to(path).map(Stdio::from),
            Output::UnreadPipes => self.full_pipe(path),
            Output::FullDisk => append_to(Path::new("/dev/full")).map(Stdio::from),
        }
    }

    /// The writing end of a pipe that takes not one byte more; bytes that come out of it one day belong into that file.
    fn full_pipe(&self, path: &Path) -> Result<Stdio> {
        let failed = || Error::io("fill a pipe".to_owned());
        let (reader, mut writer) = std::io::pipe().map_err(failed())?;
        let size = rustix::pipe::fcntl_getpipe_size(&writer);
        let size = size.map_err(|error| failed()(error.into()))?;
        // Empty lines: they are neither log lines nor documents.
        writer.write_all(&vec![b'\n'; size]).map_err(failed())?;
        lock(&self.inner.pipes).push((reader, path.to_owned()));
        Ok(writer.into())
    }

    /// Begins to read the output of a process that nobody read so far: all of it goes into its log files.
    ///
    /// # Errors
    /// When a log file cannot be opened.
    pub fn read_pipes(&self) -> Result<()> {
        self.set_output(Output::Files);
        for (mut reader, path) in lock(&self.inner.pipes).drain(..) {
            let mut file = append_to(&path)?;
            // It ends with the process.
            std::thread::spawn(move || std::io::copy(&mut reader, &mut file));
        }
        Ok(())
    }

    /// The pid, while the process runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.child().as_mut() {
            Some(child) => child.try_wait().ok()?.is_none().then(|| child.id()),
            None => None,
        }
    }

    /// Whether the process has been started and has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// How the process ended, once it has.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child()
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// Sends a signal. The pid cannot belong to another process: we have not reaped this one.
    ///
    /// # Errors
    /// [`Error::NotRunning`], or the kernel's refusal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut guard = self.child();
        let not_running = || Error::NotRunning {
            name: self.inner.name.clone(),
        };
        let child = guard.as_mut().ok_or_else(not_running)?;
        if !matches!(child.try_wait(), Ok(None)) {
            return Err(not_running());
        }
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(not_running)?;
        let action = || format!("send {signal:?} to {}", self.inner.name);
        kill_process(pid, signal).map_err(|error| Error::io(action())(error.into()))
    }

    /// `SIGKILL`, without waiting for the end.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn kill_no_wait(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// `SIGKILL`, and waits until the process is gone.
    ///
    /// # Errors
    /// As [`Process::signal`] and [`Process::wait`].
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_killed().await
    }

    /// Waits until a process that was killed is gone.
    pub(crate) async fn wait_killed(&self) -> Result<()> {
        self.wait(KILL_TIMEOUT).await.map(|_| ())
    }

    /// `SIGTERM`, and waits until the process has ended.
    ///
    /// # Errors
    /// As [`Process::signal`] and [`Process::wait`].
    pub async fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(deadline).await
    }

    /// `SIGSTOP`, and waits until every thread has stopped.
    ///
    /// # Errors
    /// As [`Process::signal`]; [`Error::Timeout`] when it does not stop within a second.
    pub async fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        crate::wait::eventually(Duration::from_secs(1), "the process to stop", async || {
            let states = self.thread_states();
            let stopped = states
                .chars()
                .all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'));
            if stopped {
                Ok(())
            } else {
                Err(format!("thread states {states}"))
            }
        })
        .await
    }

    /// `SIGCONT`.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::NotRunning`] when it was never started.
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if self.child().is_none() {
                return Err(Error::NotRunning {
                    name: self.inner.name.clone(),
                });
            }
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if started.elapsed() >= deadline {
                let what = format!("the end of {}", self.inner.name);
                return Err(Error::Timeout {
                    what,
                    waited: deadline,
                    last: "it runs".to_owned(),
                });
            }
            tokio::time::sleep(WAIT_INTERVAL).await;
        }
    }

    /// [`Error::Exited`] when the process has ended.
    pub(crate) fn check_running(&self) -> Result<()> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => Err(Error::Exited {
                name: self.inner.name.clone(),
                status: describe(status),
                tail: self.tail(15),
            }),
        }
    }

    /// Ends the process at once, for a world that ends.
    pub(crate) fn reap(&self) {
        if let Some(child) = self.child().as_mut() {
            // Both can only fail when the process is gone, which is what is wanted.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// The last lines of both logs.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let mut text = String::new();
        for path in [&self.inner.stdout, &self.inner.stderr] {
            let content = std::fs::read(path).unwrap_or_default();
            let content = String::from_utf8_lossy(&content);
            let all: Vec<&str> = content.lines().collect();
            if all.is_empty() {
                continue;
            }
            text.push_str(&format!("  {} ({} lines)\n", path.display(), all.len()));
            for line in &all[all.len().saturating_sub(lines)..] {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }

    /// Name, state and the last lines of the logs.
    #[must_use]
    pub fn explain(&self, lines: usize) -> String {
        let state = match (self.pid(), self.exit_status()) {
            (Some(pid), _) => format!("runs as pid {pid}"),
            (None, Some(status)) => format!("ended: {}", describe(status)),
            (None, None) => "was not started".to_owned(),
        };
        format!("{} {state}\n{}", self.inner.name, self.tail(lines))
    }

    fn thread_states(&self) -> String {
        let Some(pid) = self.pid() else {
            return String::new();
        };
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
        // The state follows the name, which stands in parentheses and may hold any character.
        tasks
            .filter_map(stat)
            .filter_map(|stat| stat.rsplit(") ").next()?.chars().next())
            .collect()
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        lock(&self.inner.child)
    }
}

/// An exit status in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

fn text_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn append_to(path: &Path) -> Result<File> {
    let open = File::options().create(true).append(true).open(path);
    open.map_err(Error::io(format!("open {}", path.display())))
}

/// A panic elsewhere does not make a child or a list of processes wrong.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Order = (Command, SyncSender<std::io::Result<Child>>);

/// The parent-death signal fires when the *thread* that started the child ends, so one thread that
/// lives as long as the process starts them all.
static SPAWNER: LazyLock<Mutex<SyncSender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = sync_channel::<Order>(16);
    std::thread::spawn(move || {
        for (mut command, reply) in inbox {
            reply.send(command.spawn()).ok();
        }
    });
    Mutex::new(orders)
});

fn spawn(command: Command) -> std::io::Result<Child> {
    let gone = || std::io::Error::other("the thread that starts processes has ended");
    let (reply, answer) = sync_channel(1);
    lock(&SPAWNER).send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
