//! Arguments and environment in, exit code out; everything between is in the library.

use std::io::{self, Write};
use std::process::ExitCode;

use tarsec::cli::{self, Command};
use tarsec::config::{Config, help};
use tarsec::exit::Exit;
use tarsec::logging;

fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run) => start(),
        Ok(Command::Help) => say(&mut io::stdout(), &help::text(), Exit::Stopped),
        Ok(Command::Version) => say(&mut io::stdout(), &cli::version(), Exit::Stopped),
        Err(error) => say(
            &mut io::stderr(),
            &format!("tarsec: {error}\n"),
            Exit::Settings,
        ),
    };
    exit.into()
}

fn start() -> Exit {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(errors) => {
            let lines: String = errors
                .to_string()
                .lines()
                .map(|line| format!("tarsec: {line}\n"))
                .collect();
            return say(&mut io::stderr(), &lines, Exit::Settings);
        }
    };
    logging::start(config.log);
    // One thread: the agent waits for others nearly all of its life, and one order of events is easier to reason about.
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(tarsec::run(config)),
        Err(error) => {
            tracing::error!(error = %error, "could not start the runtime");
            Exit::Internal
        }
    }
}

/// The one place that writes to stdout or stderr before there are logs. A reader that is gone is no error of ours.
fn say(to: &mut impl Write, text: &str, exit: Exit) -> Exit {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    exit
}
