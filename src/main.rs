//! Arguments and environment in, exit code out; everything between is in the library.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use rustix::termios::tcgetwinsize;
use tarsec::cli::{self, Command, Order};
use tarsec::config::{Config, ConfigError, OperatorConfig};
use tarsec::ctl::outcome::Outcome;
use tarsec::ctl::{self, Paper, Terminal};
use tarsec::exit::Exit;
use tarsec::{logging, plain};

fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run) => start(),
        Ok(Command::Show(text)) => say(&mut io::stdout(), &text, Exit::Stopped),
        Ok(Command::Order(order)) => return ExitCode::from(carry_out(order).code()),
        Err(error) => say(
            &mut io::stderr(),
            &plain::lines(&format!("tarsec: {error}\n")),
            Exit::Settings,
        ),
    };
    exit.into()
}

fn start() -> Exit {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(errors) => return complain(&errors),
    };
    let output = match logging::start_agent(config.log) {
        Ok(output) => output,
        Err(error) => {
            let text = format!("tarsec: could not start a thread for the log: {error}\n");
            return say(&mut io::stderr(), &text, Exit::Internal);
        }
    };
    // One thread: the agent waits for others nearly all of its life, and one order of events is easier to reason about.
    let exit = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let exit = runtime.block_on(tarsec::run(config, output.clone()));
            // A look-up of a name that hangs in a thread of the runtime must not keep the process.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            tracing::error!(error = %error, "could not start the runtime");
            Exit::Internal
        }
    };
    output.drain();
    exit
}

fn carry_out(order: Order) -> Outcome {
    let config = match OperatorConfig::from_env() {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors);
            return Outcome::Usage;
        }
    };
    logging::start(config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let draws = stdout.is_terminal();
    let asks = stdin.is_terminal();
    let mut input = stdin.lock();
    let terminal = Terminal {
        out: &mut stdout.lock(),
        errors: &mut io::stderr(),
        answers: if asks { Some(&mut input) } else { None },
        draws,
        paper: paper(draws),
        unread: false,
    };
    match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(ctl::run(order, config, terminal));
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            tracing::error!(error = %error, "could not start the runtime");
            Outcome::Failed
        }
    }
}

/// As wide as the terminal, by whatever source says so; output that is no terminal gets the width and the words of a
/// file.
fn paper(is_terminal: bool) -> Paper {
    if !is_terminal {
        return Paper::PLAIN;
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let wished = set("COLUMNS").and_then(|columns| columns.parse().ok());
    let found = || Some(usize::from(tcgetwinsize(io::stdout()).ok()?.ws_col));
    let columns = wished.or_else(found).unwrap_or_default();
    let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
    // <https://no-color.org>
    Paper::terminal(columns, set("NO_COLOR").is_none() && !is_dumb)
}

fn complain(errors: &ConfigError) -> Exit {
    let lines: String = errors
        .to_string()
        .lines()
        .map(|line| format!("tarsec: {}\n", plain::line(line)))
        .collect();
    say(&mut io::stderr(), &lines, Exit::Settings)
}

/// The one place that writes to stdout or stderr before there are logs. A reader that is gone is no error of ours.
fn say(to: &mut impl Write, text: &str, exit: Exit) -> Exit {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    exit
}
