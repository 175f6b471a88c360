//! What an operator reads of arguments that mean nothing, put together from what `clap` found.

use std::error::Error as _;

use clap::builder::PossibleValue;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, Command};

use super::SOMETHING;

/// Why the arguments mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Neither a flag nor a command.
    #[error(
        "{argument} is not an argument{}, allowed are --help, --version and the commands {commands}; settings come from \
         the environment",
        or_rather(.nearest.as_deref())
    )]
    Argument {
        /// What was found.
        argument: String,
        /// What may have been meant.
        nearest: Option<String>,
        /// Those that there are.
        commands: String,
    },
    /// No argument of this command.
    #[error("{argument} is not an argument of {command}{}, see tarsec {command} --help", or_rather(.nearest.as_deref()))]
    ArgumentOf {
        /// The command.
        command: String,
        /// What was found.
        argument: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// An argument with a value that it cannot have, or without one.
    #[error("{name} is \"{value}\", allowed is {allowed}")]
    Value {
        /// The argument.
        name: String,
        /// What was found.
        value: String,
        /// What would have been right.
        allowed: String,
    },
    /// Two arguments that exclude each other.
    #[error("{first} and {second} are both given, allowed is one of them")]
    Both {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
}

fn or_rather(nearest: Option<&str>) -> String {
    let words = |nearest| format!(" (the nearest one is {nearest})");
    nearest.map(words).unwrap_or_default()
}

impl UsageError {
    /// Says what `clap` found in the arguments of `line`.
    pub(super) fn new(error: &clap::Error, line: &Command, arguments: &[String]) -> Self {
        use ContextKind::{
            InvalidArg, InvalidSubcommand, InvalidValue, PriorArg, SuggestedArg,
            SuggestedSubcommand,
        };
        let said = |kind| error.get(kind).map(ToString::to_string);
        // In the order in which they were given.
        if let (Some(first), Some(second)) = (said(InvalidArg), said(PriorArg)) {
            let (first, second) = (bare(&first), bare(&second));
            return Self::Both { first, second };
        }
        let names: Vec<&str> = line.get_subcommands().map(Command::get_name).collect();
        let command = arguments
            .first()
            .and_then(|first| line.find_subcommand(first));
        let is_missing = error.kind() == ErrorKind::MissingRequiredArgument;
        let value = said(InvalidValue).or_else(|| is_missing.then(String::new));
        let takes_none = error.kind() == ErrorKind::TooManyValues;
        if let (false, Some(name), Some(value)) = (takes_none, said(InvalidArg), &value) {
            let why = error.source().map(ToString::to_string);
            return Self::Value {
                name: bare(&name),
                value: value.clone(),
                allowed: why
                    .or_else(|| choices(command?))
                    .unwrap_or_else(|| SOMETHING.to_owned()),
            };
        }
        // Behind a flag that takes no value, the value is what was found.
        let found = value.or_else(|| said(InvalidArg));
        let argument = found.or_else(|| said(InvalidSubcommand));
        let argument = argument.unwrap_or_else(|| arguments.join(" "));
        let nearest = said(SuggestedArg).or_else(|| said(SuggestedSubcommand));
        // The likeliest of several is the last.
        let nearest = nearest.and_then(|all| all.split(", ").last().map(str::to_owned));
        match command {
            Some(command) => Self::ArgumentOf {
                command: command.get_name().to_owned(),
                argument,
                nearest,
            },
            None => Self::Argument {
                argument,
                nearest,
                commands: listed(&names, "and"),
            },
        }
    }
}

/// The words that a command can be followed by, where they are known.
fn choices(command: &Command) -> Option<String> {
    let arguments = command.get_positionals();
    let words: Vec<_> = arguments.flat_map(Arg::get_possible_values).collect();
    let names: Vec<&str> = words.iter().map(PossibleValue::get_name).collect();
    (!names.is_empty()).then(|| listed(&names, "or"))
}

/// The name alone of an argument that is shown as `--to <MEMBER>` or `[REPLICASET]`.
fn bare(shown: &str) -> String {
    let name = shown.split(' ').next().unwrap_or(shown);
    name.trim_matches(['[', ']', '<', '>', ',']).to_owned()
}

/// `a, b and c`.
fn listed(names: &[&str], and: &str) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}
