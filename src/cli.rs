//! The command line: without a subcommand it is the agent, with one it is an operator's command. Settings are in the
//! environment for both.
//!
//! `clap` reads it by the types below, and `--help` shows their doc comments.

mod usage;

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::shells::{Bash, Fish, Zsh};

use crate::config;
use crate::ctl::help::{Topic, below};
pub use usage::UsageError;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// No argument: run the agent.
    Run,
    /// Print this on stdout, and nothing else: help, the version, a shell's script.
    Show(String),
    /// An operator's command.
    Order(Order),
}

/// Where help's lines end in a wider terminal, and where there is none.
const WIDTH: usize = 96;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "tarsec: at most one writable Tarantool instance per replica set, by a Consul lock and a lease",
    after_help = config::help::below(),
    max_term_width = WIDTH,
    args_override_self = true,
    disable_help_subcommand = true,
)]
struct Line {
    #[command(subcommand)]
    word: Option<Word>,
}

#[derive(Debug, Subcommand)]
enum Word {
    #[command(flatten)]
    Order(Order),
    /// Print a script by which a shell completes commands and flags
    #[command(after_help = COMPLETION)]
    Completion {
        /// The shell that reads it
        shell: Shell,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

const COMPLETION: &str = "\
    bash:  tarsec completion bash > /usr/share/bash-completion/completions/tarsec\n\
    fish:  tarsec completion fish > ~/.config/fish/completions/tarsec.fish\n\
    zsh:   tarsec completion zsh > _tarsec, in a directory of $fpath\n\n\
    It needs no settings, and ends with 0, or with 2 where the shell is none of these.";

/// An operator's command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Order {
    /// Show replica sets and their members
    #[command(after_help = below(Topic::Status))]
    Status(StatusArgs),
    /// Move the master of a replica set
    #[command(after_help = below(Topic::Switchover))]
    Switchover(SwitchoverArgs),
    /// Stop all automatic changes of hands
    #[command(after_help = below(Topic::Pause))]
    Pause(PauseArgs),
    /// Allow automatic changes of hands again
    #[command(after_help = below(Topic::Resume))]
    Resume(ResumeArgs),
    /// Show past changes of hands
    #[command(after_help = below(Topic::History))]
    History(HistoryArgs),
    /// Remove the keys of a member that is gone
    #[command(after_help = below(Topic::Forget))]
    Forget(ForgetArgs),
}

/// What `status` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StatusArgs {
    /// All replica sets, or one.
    #[command(flatten)]
    pub only: Only,
    /// One JSON document a line; fields may be added, none changes its meaning under the same v
    #[arg(long)]
    pub json: bool,
    /// Show it again whenever something changes, until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Do not look for a sign of life of each master
    #[arg(long)]
    pub no_wait: bool,
}

/// What `switchover` moves where.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SwitchoverArgs {
    /// The new master, by any part of its name, address or UUID; without it the best replica
    #[arg(long, value_name = "MEMBER", value_parser = word, allow_hyphen_values = true)]
    pub to: Option<String>,
    /// The replica set whose master moves
    #[arg(long, value_parser = word, allow_hyphen_values = true)]
    pub replicaset: Option<String>,
    /// How long the target may take to catch up, while nothing can be written: up to 1m
    #[arg(
        long = "timeout",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = catch_up,
        allow_hyphen_values = true
    )]
    pub catch_up: Duration,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Do not wait for the outcome
    #[arg(long)]
    pub no_wait: bool,
}

/// What `pause` pauses.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PauseArgs {
    /// How far it reaches.
    #[command(flatten)]
    pub reach: Reach,
    /// Shown by tarsec status
    #[arg(long, value_name = "TEXT", value_parser = word, allow_hyphen_values = true)]
    pub why: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Do not wait until the masters have taken notice
    #[arg(long)]
    pub no_wait: bool,
}

/// What `resume` resumes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ResumeArgs {
    /// How far it reaches.
    #[command(flatten)]
    pub reach: Reach,
    /// Your word that the paused master does not run, so that another takes over
    #[arg(long, conflicts_with = "cluster")]
    pub master_is_down: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Do not wait until the masters have taken notice
    #[arg(long)]
    pub no_wait: bool,
}

/// What `history` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct HistoryArgs {
    /// All replica sets, or one.
    #[command(flatten)]
    pub only: Only,
    /// One JSON object, replica set UUID -> the last 64 changes of hands, the newest first
    #[arg(long)]
    pub json: bool,
}

/// Whom `forget` forgets.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ForgetArgs {
    /// The member, by any part of its name, address or UUID
    #[arg(value_name = "MEMBER", value_parser = word)]
    pub member: String,
    /// The replica set that it was in
    #[arg(long, value_parser = word, allow_hyphen_values = true)]
    pub replicaset: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Which replica set is shown, in either spelling.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Only {
    /// Show this replica set alone
    #[arg(value_name = "REPLICASET", value_parser = set_name)]
    name: Option<String>,
    /// The same, as the other commands spell it
    #[arg(
        long = "replicaset",
        id = "replicaset",
        value_name = "REPLICASET",
        value_parser = word,
        allow_hyphen_values = true,
        conflicts_with = "name",
        hide = true
    )]
    flag: Option<String>,
}

impl Only {
    /// The replica set's name; `None`: all of them.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref().or(self.flag.as_deref())
    }
}

/// How far a pause reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Reach {
    /// One replica set
    #[arg(long, value_parser = word, allow_hyphen_values = true, conflicts_with = "cluster")]
    replicaset: Option<String>,
    /// All replica sets of the cluster
    #[arg(long)]
    cluster: bool,
}

/// How far a pause reaches, without the flags that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All replica sets of the cluster.
    Cluster,
    /// The named one, or the only one.
    ReplicaSet(Option<&'a str>),
}

impl Reach {
    /// What the flags say.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        if self.cluster {
            Scope::Cluster
        } else {
            Scope::ReplicaSet(self.replicaset.as_deref())
        }
    }
}

/// Nothing can be written while a switchover's target catches up.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// The first one that means nothing.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let text = |argument: OsString| argument.to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments.into_iter().map(text).collect();
    // The agent begins without putting together the help that it never shows.
    if arguments.is_empty() {
        return Ok(Command::Run);
    }
    let program = std::iter::once(env!("CARGO_PKG_NAME").to_owned());
    match Line::try_parse_from(program.chain(arguments.iter().cloned())) {
        Ok(Line { word: None }) => Ok(Command::Run),
        Ok(Line {
            word: Some(Word::Order(order)),
        }) => Ok(Command::Order(order)),
        Ok(Line {
            word: Some(Word::Completion { shell }),
        }) => Ok(Command::Show(script(shell))),
        Err(answer) if !answer.use_stderr() => Ok(Command::Show(answer.to_string())),
        Err(error) => Err(UsageError::new(&error, &Line::command(), &arguments)),
    }
}

fn script(shell: Shell) -> String {
    let (mut line, mut out) = (Line::command(), Vec::new());
    let name = env!("CARGO_PKG_NAME");
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut line, name, &mut out),
        Shell::Fish => clap_complete::generate(Fish, &mut line, name, &mut out),
        Shell::Zsh => clap_complete::generate(Zsh, &mut line, name, &mut out),
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a flag must be followed by.
const SOMETHING: &str = "something, after a space or =";

/// A value is never empty, and what begins with `--` is the next flag.
fn word(value: &str) -> Result<String, &'static str> {
    if value.is_empty() || value.starts_with("--") {
        return Err(SOMETHING);
    }
    Ok(value.to_owned())
}

fn set_name(value: &str) -> Result<String, &'static str> {
    word(value).map_err(|_| "the beginning of a replica set's UUID, or a member's name")
}

fn catch_up(value: &str) -> Result<Duration, &'static str> {
    let found = humantime::parse_duration(&word(value)?).ok();
    found
        .filter(|found| !found.is_zero() && *found <= CATCH_UP_MAX)
        .ok_or("a duration such as 500ms or 2s, at most 1m")
}

#[cfg(test)]
mod tests;
