//! The command line: two flags, and everything else is in the environment.

use std::ffi::OsString;

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// No argument: run the agent.
    Run,
    /// `--help`, `-h`.
    Help,
    /// `--version`, `-V`.
    Version,
}

/// An argument that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{argument} is not an argument, allowed are --help and --version; settings come from the environment"
)]
pub struct UsageError {
    argument: String,
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// The first one that means nothing.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut command = Command::Run;
    for argument in arguments {
        command = match (command, argument.to_str()) {
            (_, Some("--help" | "-h")) | (Command::Help, Some("--version" | "-V")) => Command::Help,
            (Command::Run | Command::Version, Some("--version" | "-V")) => Command::Version,
            (Command::Run | Command::Help | Command::Version, _) => {
                return Err(UsageError {
                    argument: argument.to_string_lossy().into_owned(),
                });
            }
        };
    }
    Ok(command)
}

/// `tarsec 0.1.0`.
#[must_use]
pub fn version() -> String {
    format!("{} {}\n", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, UsageError> {
        parse(arguments.iter().map(OsString::from))
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
    }

    #[test]
    fn refuses_everything_else_with_a_sentence() {
        for argument in ["run", "--config", "-v", ""] {
            let error = parsed(&["--help", argument]).expect_err("not an argument");
            assert!(
                error
                    .to_string()
                    .contains("allowed are --help and --version"),
                "{error}"
            );
        }
    }
}
