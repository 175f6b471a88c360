//! The command line: without a subcommand it is the agent, with one it is an operator's command. Settings are in the
//! environment for both.

use std::ffi::OsString;
use std::time::Duration;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// No argument: run the agent.
    Run,
    /// `--help`, `-h`.
    Help,
    /// `--version`, `-V`.
    Version,
    /// `--help` after a subcommand.
    HelpOn(Topic),
    /// An operator's command.
    Order(Order),
}

/// A subcommand's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Shows replica sets and members.
    Status,
    /// Moves a master.
    Switchover,
    /// Stops automatic changes of hands.
    Pause,
    /// Allows them again.
    Resume,
    /// Shows past changes of hands.
    History,
}

/// An operator's command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `tarsec status`
    Status(StatusArgs),
    /// `tarsec switchover`
    Switchover(SwitchoverArgs),
    /// `tarsec pause`
    Pause(PauseArgs),
    /// `tarsec resume`
    Resume(ResumeArgs),
    /// `tarsec history`
    History(HistoryArgs),
}

/// What `status` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusArgs {
    /// One replica set alone.
    pub replicaset: Option<String>,
    /// `--json`
    pub json: bool,
    /// `--watch`
    pub watch: bool,
    /// `--no-wait`: do not look for a sign of life of each master.
    pub no_wait: bool,
}

/// What `switchover` moves where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchoverArgs {
    /// `--replicaset`
    pub replicaset: Option<String>,
    /// `--to`; `None`: the best.
    pub to: Option<String>,
    /// `--timeout`: how long the target may take to catch up.
    pub catch_up: Duration,
    /// `--yes`
    pub yes: bool,
    /// `--no-wait`
    pub no_wait: bool,
}

/// What `pause` pauses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseArgs {
    /// `--replicaset` or `--cluster`
    pub scope: Scope,
    /// `--why`
    pub why: String,
    /// `--yes`
    pub yes: bool,
    /// `--no-wait`
    pub no_wait: bool,
}

/// What `resume` resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeArgs {
    /// `--replicaset` or `--cluster`
    pub scope: Scope,
    /// `--master-is-down`: the operator's word that the paused master does not run.
    pub master_is_down: bool,
    /// `--yes`
    pub yes: bool,
    /// `--no-wait`
    pub no_wait: bool,
}

/// What `history` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryArgs {
    /// One replica set alone.
    pub replicaset: Option<String>,
    /// `--json`
    pub json: bool,
}

/// How far a pause reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All replica sets of the cluster.
    Cluster,
    /// The named replica set, or the cluster's only one.
    ReplicaSet(Option<String>),
}

/// Why the arguments mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Neither a flag nor a command.
    #[error(
        "{argument} is not an argument, allowed are --help, --version and the commands status, switchover, pause, \
         resume and history; settings come from the environment"
    )]
    Argument {
        /// What was found.
        argument: String,
    },
    /// No argument of this command.
    #[error("{argument} is not an argument of {command}, see tarsec {command} --help")]
    ArgumentOf {
        /// The command's name, as it is typed.
        command: &'static str,
        /// What was found.
        argument: String,
    },
    /// A flag with a value that it cannot have, or without one.
    #[error("{flag} is \"{value}\", allowed is {allowed}")]
    Value {
        /// The flag, as it is typed.
        flag: &'static str,
        /// What was found.
        value: String,
        /// What would have been right.
        allowed: &'static str,
    },
    /// Two flags that exclude each other.
    #[error("{first} and {second} are both given, allowed is one of them")]
    Both {
        /// One of the two flags.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
}

/// How long a switchover's target may take to catch up when nothing else is said.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Nothing can be written meanwhile.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// The first argument that means nothing here.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut words = Words::new(arguments);
    let mut command = Command::Run;
    while let Some(word) = words.next() {
        if command == Command::Run
            && let Some(topic) = Topic::of(&word)
        {
            return order(topic, words);
        }
        command = match word.as_str() {
            "--help" | "-h" => Command::Help,
            "--version" | "-V" if command == Command::Run => Command::Version,
            "--version" | "-V" => command,
            _ => return Err(UsageError::Argument { argument: word }),
        };
    }
    Ok(command)
}

impl Topic {
    /// Every command, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Status,
        Self::Switchover,
        Self::Pause,
        Self::Resume,
        Self::History,
    ];

    /// The name that an operator types.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Switchover => "switchover",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::History => "history",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == word)
    }
}

/// All that any command can be told.
#[derive(Default)]
struct Flags {
    replicaset: Option<String>,
    cluster: bool,
    to: Option<String>,
    catch_up: Option<Duration>,
    why: Option<String>,
    json: bool,
    watch: bool,
    yes: bool,
    no_wait: bool,
    master_is_down: bool,
}

fn order(topic: Topic, mut words: Words) -> Result<Command, UsageError> {
    let mut flags = Flags::default();
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "--help" | "-h") {
            return Ok(Command::HelpOn(topic));
        }
        let unknown = if flags.take(topic, &word, &mut words)? {
            // A value behind a flag that takes none.
            words.value.take()
        } else {
            Some(word)
        };
        if let Some(argument) = unknown {
            return Err(UsageError::ArgumentOf {
                command: topic.name(),
                argument,
            });
        }
    }
    flags.order(topic).map(Command::Order)
}

impl Flags {
    /// Whether the word means something to this command.
    fn take(&mut self, topic: Topic, word: &str, words: &mut Words) -> Result<bool, UsageError> {
        use Topic::{History, Pause, Resume, Status, Switchover};
        match (topic, word) {
            (_, "--replicaset") => self.replicaset = Some(words.value("--replicaset")?),
            (Pause | Resume, "--cluster") => self.cluster = true,
            (Switchover, "--to") => self.to = Some(words.value("--to")?),
            (Switchover, "--timeout") => self.catch_up = Some(words.duration("--timeout")?),
            (Pause, "--why") => self.why = Some(words.value("--why")?),
            (Resume, "--master-is-down") => self.master_is_down = true,
            (Status | History, "--json") => self.json = true,
            (Status, "--watch") => self.watch = true,
            (Status | Switchover | Pause | Resume, "--no-wait") => self.no_wait = true,
            (Switchover | Pause | Resume, "--yes" | "-y") => self.yes = true,
            (Status | History, name)
                if self.replicaset.is_none() && !name.starts_with('-') && !name.is_empty() =>
            {
                self.replicaset = Some(name.to_owned());
            }
            (Status | Switchover | Pause | Resume | History, _) => return Ok(false),
        }
        Ok(true)
    }

    fn order(self, topic: Topic) -> Result<Order, UsageError> {
        let both = |first, second| Err(UsageError::Both { first, second });
        if self.cluster && self.replicaset.is_some() {
            return both("--replicaset", "--cluster");
        }
        if self.cluster && self.master_is_down {
            return both("--master-is-down", "--cluster");
        }
        let scope = if self.cluster {
            Scope::Cluster
        } else {
            Scope::ReplicaSet(self.replicaset.clone())
        };
        let Self {
            replicaset,
            json,
            watch,
            yes,
            no_wait,
            master_is_down,
            ..
        } = self;
        Ok(match topic {
            Topic::Status => Order::Status(StatusArgs {
                replicaset,
                json,
                watch,
                no_wait,
            }),
            Topic::Switchover => Order::Switchover(SwitchoverArgs {
                replicaset,
                to: self.to,
                catch_up: self.catch_up.unwrap_or(CATCH_UP),
                yes,
                no_wait,
            }),
            Topic::Pause => Order::Pause(PauseArgs {
                scope,
                why: self.why.unwrap_or_default(),
                yes,
                no_wait,
            }),
            Topic::Resume => Order::Resume(ResumeArgs {
                scope,
                master_is_down,
                yes,
                no_wait,
            }),
            Topic::History => Order::History(HistoryArgs { replicaset, json }),
        })
    }
}

/// The arguments, `--flag=value` as two of them.
struct Words {
    rest: std::vec::IntoIter<String>,
    value: Option<String>,
}

impl Words {
    fn new(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let text = |argument: OsString| argument.to_string_lossy().into_owned();
        let all: Vec<String> = arguments.into_iter().map(text).collect();
        Self {
            rest: all.into_iter(),
            value: None,
        }
    }

    /// The next argument; a value that the flag before did not take stands for itself.
    fn next(&mut self) -> Option<String> {
        if let Some(value) = self.value.take() {
            return Some(value);
        }
        let word = self.rest.next()?;
        match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                self.value = Some(value.to_owned());
                Some(flag.to_owned())
            }
            Some(_) | None => Some(word),
        }
    }

    fn value(&mut self, flag: &'static str) -> Result<String, UsageError> {
        let value = match self.value.take() {
            Some(value) => value,
            None => self.rest.next().unwrap_or_default(),
        };
        if value.is_empty() || value.starts_with("--") {
            return Err(UsageError::Value {
                flag,
                value,
                allowed: "something, after a space or =",
            });
        }
        Ok(value)
    }

    fn duration(&mut self, flag: &'static str) -> Result<Duration, UsageError> {
        let value = self.value(flag)?;
        let found = humantime::parse_duration(&value).ok();
        found
            .filter(|found| !found.is_zero() && *found <= CATCH_UP_MAX)
            .ok_or(UsageError::Value {
                flag,
                value,
                allowed: "a duration such as 500ms or 2s, at most 1m",
            })
    }
}

/// `tarsec 0.1.0`.
#[must_use]
pub fn version() -> String {
    format!("{} {}\n", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, UsageError> {
        parse(arguments.iter().map(OsString::from))
    }

    proptest! {
        #[test]
        fn any_arguments_are_a_command_or_a_sentence(
            arguments in prop::collection::vec(
                prop_oneof![any::<String>(), "(switchover|pause|resume|history|status|--[a-z]{0,9}(=.{0,9})?)"],
                0..5,
            ),
        ) {
            if let Err(error) = parse(arguments.iter().map(OsString::from)) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    fn order(line: &str) -> Order {
        let words: Vec<&str> = line.split(' ').collect();
        match parsed(&words) {
            Ok(Command::Order(order)) => order,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn runs_without_arguments() {
        assert_eq!(parsed(&[]), Ok(Command::Run));
    }

    #[test]
    fn knows_three_flags_in_two_spellings_each() {
        for help in ["--help", "-h"] {
            assert_eq!(parsed(&[help]), Ok(Command::Help));
        }
        for version in ["--version", "-V"] {
            assert_eq!(parsed(&[version]), Ok(Command::Version));
        }
        assert_eq!(parsed(&["-h", "-V"]), Ok(Command::Help));
        assert_eq!(parsed(&["-V", "-h"]), Ok(Command::Help));
    }

    #[test]
    fn refuses_everything_else_with_a_sentence() {
        for argument in ["run", "--config", "-v", "", "status"] {
            let error = parsed(&["--help", argument]).expect_err("not an argument");
            let text = error.to_string();
            assert!(text.contains("allowed are --help, --version"), "{text}");
        }
    }

    #[test]
    fn every_command_has_help() {
        for topic in Topic::ALL {
            for help in ["--help", "-h"] {
                let found = parsed(&[topic.name(), help]);
                assert_eq!(found, Ok(Command::HelpOn(topic)));
            }
        }
    }

    #[test]
    fn values_stand_behind_a_space_or_an_equals_sign() {
        for line in [
            "switchover --to b --replicaset r --timeout 500ms --yes --no-wait",
            "switchover --to=b --replicaset=r --timeout=500ms -y --no-wait",
        ] {
            let Order::Switchover(args) = order(line) else {
                panic!("{line}");
            };
            assert_eq!(args.to.as_deref(), Some("b"));
            assert_eq!(args.replicaset.as_deref(), Some("r"));
            assert_eq!(args.catch_up, Duration::from_millis(500));
            assert!(args.yes && args.no_wait);
        }
    }

    #[test]
    fn a_pause_is_of_a_replica_set_unless_the_cluster_is_named() {
        let scope = |line| match order(line) {
            Order::Pause(PauseArgs { scope, .. }) | Order::Resume(ResumeArgs { scope, .. }) => {
                scope
            }
            other @ (Order::Status(_) | Order::Switchover(_) | Order::History(_)) => {
                panic!("{other:?}")
            }
        };
        assert_eq!(scope("pause"), Scope::ReplicaSet(None));
        assert_eq!(
            scope("resume --replicaset r"),
            Scope::ReplicaSet(Some("r".to_owned()))
        );
        assert_eq!(scope("pause --cluster --why racks"), Scope::Cluster);
    }

    #[test]
    fn status_and_history_take_a_replica_set_by_itself() {
        let args = StatusArgs {
            replicaset: Some("r".to_owned()),
            watch: true,
            ..StatusArgs::default()
        };
        assert_eq!(order("status --watch r"), Order::Status(args));
        let args = HistoryArgs {
            replicaset: Some("r".to_owned()),
            json: true,
        };
        assert_eq!(order("history r --json"), Order::History(args));
    }

    #[test]
    fn refuses_what_a_command_cannot_be_told() {
        for (line, words) in [
            ("status --yes", "--yes is not an argument of status"),
            ("status a b", "b is not an argument of status"),
            ("status --json=1", "1 is not an argument of status"),
            ("switchover b", "b is not an argument of switchover"),
            ("switchover --to", "--to is \"\""),
            ("switchover --to --yes", "--to is \"--yes\""),
            ("switchover --timeout 2", "--timeout is \"2\""),
            ("switchover --timeout 2m", "at most 1m"),
            ("switchover --timeout 0s", "--timeout is \"0s\""),
            ("pause --replicaset r --cluster", "both given"),
            ("resume --cluster --master-is-down", "both given"),
            ("history --watch", "--watch is not an argument of history"),
        ] {
            let words_of_line: Vec<&str> = line.split(' ').collect();
            let error = parsed(&words_of_line).expect_err(line).to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
