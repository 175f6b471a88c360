//! What is wrong with the environment, all of it at once.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::decide::timing::TimingError;
use crate::plain;

/// One thing to change in the environment.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A value that is not allowed.
    #[error("{name} is \"{value}\", allowed is {allowed}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value, redacted where it is a secret.
        value: String,
        /// What would have been right.
        allowed: String,
    },
    /// A value whose bytes are not text.
    #[error("{name} is not valid UTF-8")]
    NotUnicode {
        /// The variable.
        name: String,
    },
    /// Two variables that exclude each other.
    #[error("{first} and {second} are both set, allowed is one of them")]
    Both {
        /// One of the two variables.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
    /// A variable that makes no sense without another.
    #[error("{name} is set, allowed is that only together with {missing}")]
    Without {
        /// The variable that is set.
        name: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// A login that has to travel in a URI of the database and cannot.
    #[error(
        "{name} has {found}, which no URI of Tarantool carries (it decodes nothing), and {reason}; allowed are {allowed}"
    )]
    NotForUri {
        /// The variable.
        name: &'static str,
        /// What was found in it.
        found: String,
        /// Why it has to travel in a URI.
        reason: &'static str,
        /// What would have been right.
        allowed: &'static str,
    },
    /// Tags that do not tell a master from a replica.
    #[error(
        "MASTER_TAGS and {replica_variable} both begin with \"{tag}\", allowed with CONSUL_SERVICE_NAME \
         is a different first tag: it alone tells a master from a replica (resec demands the same)"
    )]
    SameTags {
        /// `REPLICA_TAGS` or `SLAVE_TAGS`.
        replica_variable: &'static str,
        /// The tag.
        tag: String,
    },
    /// A secret's file that could not be read.
    #[error("could not read the file that {name} names, {}", shown(path))]
    Unreadable {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A secret's file with nothing in it.
    #[error("{name} names {}, which is empty", shown(path))]
    EmptyFile {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A name that nobody reads, so close to one of ours that it can only be a typo.
    #[error("{name} is not a setting, the nearest one is {nearest}")]
    UnknownName {
        /// What the environment has.
        name: String,
        /// What was probably meant.
        nearest: &'static str,
    },
    /// Durations that do not fit together.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The environment could not be read at all.
    #[error("could not read the environment")]
    Environment(#[from] envy::Error),
}

/// A path, unless it may be the secret itself, set where its file's name belongs.
pub(super) fn shown(path: &Path) -> String {
    if path.components().count() > 1 {
        plain::value(&path.to_string_lossy()).into_owned()
    } else {
        "not shown as it has no directory and may be the secret itself".to_owned()
    }
}

/// Everything that is wrong with the environment: at least one thing, one a line.
#[derive(Debug)]
pub struct ConfigError {
    first: Box<SettingError>,
    rest: Vec<SettingError>,
}

impl ConfigError {
    /// What is wrong, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &SettingError> {
        std::iter::once(self.first.as_ref()).chain(&self.rest)
    }

    fn and(mut self, other: Self) -> Self {
        self.rest.push(*other.first);
        self.rest.extend(other.rest);
        self
    }

    pub(super) fn from_all(errors: impl IntoIterator<Item = SettingError>) -> Result<(), Self> {
        let mut errors = errors.into_iter();
        match errors.next() {
            None => Ok(()),
            Some(first) => Err(Self {
                first: Box::new(first),
                rest: errors.collect(),
            }),
        }
    }
}

impl<E: Into<SettingError>> From<E> for ConfigError {
    fn from(error: E) -> Self {
        Self {
            first: Box::new(error.into()),
            rest: Vec::new(),
        }
    }
}

impl fmt::Display for ConfigError {
    /// Causes are part of the line: the operator who reads it has to mend them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
            let mut source = error.source();
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// Two results of which both may be wrong, so that no error hides behind another.
pub(super) trait AndAlso<T> {
    /// Both values, or the errors of both.
    fn and_also<U>(self, other: Result<U, ConfigError>) -> Result<(T, U), ConfigError>;
}

impl<T> AndAlso<T> for Result<T, ConfigError> {
    fn and_also<U>(self, other: Result<U, ConfigError>) -> Result<(T, U), ConfigError> {
        match (self, other) {
            (Ok(one), Ok(two)) => Ok((one, two)),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
            (Err(one), Err(two)) => Err(one.and(two)),
        }
    }
}
