//! A replica set under tarsec, live: its master's process is killed, the next one is frozen, an agent is killed and
//! comes back; each time with what happened and how long each stage took.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for people that measures real time"
)]

mod acts;
mod screen;
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use screen::Screen;
use tarsec_harness::{INTERRUPTED, World, unless_interrupted};

const HELP: &str = "\
Shows a replica set of three under tarsec: kills its master's process, freezes the
next one, kills an agent and brings it back. Takes less than a minute.

Usage: TARSEC_BIN=path/to/tarsec demo [--help]

Needs consul, tarantool and setpriv on the PATH. Exit code 0: all went as it should,
and nothing is left running. 1: it did not; the logs are kept and named. 130: Ctrl-C,
everything is ended and removed.
";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("demo: unknown argument '{other}', try --help");
            return ExitCode::from(2);
        }
    }
    let Some(binary) = std::env::var_os("TARSEC_BIN") else {
        eprintln!("demo: TARSEC_BIN is not set, it is to be the agent's binary");
        return ExitCode::from(2);
    };
    let screen = Screen::new();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let world = match World::builder().agent_binary(binary).start("demo") {
        Ok(world) => world,
        Err(error) => {
            eprintln!("demo: {}", stage::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(unless_interrupted(play(&screen, world))) {
        Ok(code) => code,
        Err(signal) => {
            screen.blank();
            screen.say(&format!("{signal}: everything is ended and removed."));
            ExitCode::from(INTERRUPTED)
        }
    }
}

async fn play(screen: &Screen, world: World) -> ExitCode {
    let started = Instant::now();
    let ended = acts::play(screen, &world).await;
    let pids = world.pids();
    if let Err(failure) = &ended {
        screen.blank();
        screen.bad(&stage::chain(failure));
        world.keep();
        tell_logs(screen, &world);
    }
    drop(world);
    let left: Vec<u32> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
    let seconds = started.elapsed().as_secs_f64();
    if left.is_empty() {
        screen.good(&format!(
            "Nothing is left running. This took {seconds:.0} seconds."
        ));
    } else {
        screen.bad(&format!("These processes are left running: {left:?}"));
    }
    screen.blank();
    if ended.is_ok() && left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether there is such a process that is not just waiting to be reaped.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.trim().chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    })
}

/// Says which processes have ended, and where the logs of all of them are.
fn tell_logs(screen: &Screen, world: &World) {
    let explained = world.explain();
    for line in explained.lines().filter(|line| line.contains(" ended: ")) {
        screen.say(line);
    }
    screen.say("The logs:");
    let entries = std::fs::read_dir(world.dir())
        .into_iter()
        .flatten()
        .flatten();
    let mut logs: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let is_log = path
                .extension()
                .is_some_and(|kind| kind == "stderr" || kind == "stdout");
            is_log && std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
        })
        .collect();
    logs.sort();
    for log in logs {
        println!("    {}", log.display());
    }
}
