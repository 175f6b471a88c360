//! Random faults, drawn from a seed, on a real cluster: three Consul servers, two replica sets of three under tarsec, one
//! of them synchronous, writers on every instance, and the oracle.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for people that measures real time"
)]

mod crash;
mod journal;
mod schedule;
mod settle;
mod stage;
mod stalls;
mod strike;
mod verdict;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use journal::Journal;
use schedule::{LANES, Mode, ROUND, Strike};
use settle::wrong;
use stage::{Stage, chain};
use tarsec_harness::{INTERRUPTED, Result, World, unless_interrupted};

const HELP: &str = "\
Breaks a real cluster under tarsec in random ways, at most two at once, and sees
that there was one master at a time, that there is one again afterwards, and that
no acknowledged synchronous write was lost.

Usage: TARSEC_BIN=path/to/tarsec chaos [--minutes N] [--seed S] [--guard strict|lease]
                                  [--sync-loss refuse|accept] [--stalls] [--schedule]

  --minutes N   how long (2): rounds of 30 s of faults, each followed by a look; none is
                begun after so long
  --seed S      what the faults are drawn from (1)
  --guard G     the agents' GUARD (strict). With lease, a machine that is frozen and
                wakes up late may acknowledge what was queued in it
  --sync-loss L the agents' SYNC_LOSS (refuse)
  --stalls      no other faults than agents, instances and machines that stand still
                and go on
  --schedule    print the faults and do nothing

Needs consul, tarantool and setpriv on the PATH. Exit code 0: nothing was found, and
the logs are removed. 1: something was; the logs are kept and named. 2: bad arguments.
";

/// What was asked for.
struct Options {
    minutes: u64,
    seed: u64,
    guard: String,
    sync_loss: String,
    mode: Mode,
    schedule_only: bool,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("chaos: {what}, try --help");
            return ExitCode::from(2);
        }
    };
    if options.schedule_only {
        print_schedule(&options);
        return ExitCode::SUCCESS;
    }
    let Some(binary) = std::env::var_os("TARSEC_BIN") else {
        eprintln!("chaos: TARSEC_BIN is not set, it is to be the agent's binary");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let world = match World::builder().agent_binary(binary).start("chaos") {
        Ok(world) => world,
        Err(error) => {
            eprintln!("chaos: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(unless_interrupted(run(&options, world))) {
        Ok(code) => code,
        Err(signal) => {
            eprintln!("chaos: {signal}: everything is ended and removed");
            ExitCode::from(INTERRUPTED)
        }
    }
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            minutes: 2,
            seed: 1,
            guard: "strict".to_owned(),
            sync_loss: "refuse".to_owned(),
            mode: Mode::All,
            schedule_only: false,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let number = |text: String| {
                text.parse()
                    .map_err(|_| format!("'{text}' is not a whole number"))
            };
            match arg.as_str() {
                "--minutes" => options.minutes = number(value()?)?,
                "--seed" => options.seed = number(value()?)?,
                "--guard" => options.guard = value()?,
                "--sync-loss" => options.sync_loss = value()?,
                "--stalls" => options.mode = Mode::Stalls,
                "--schedule" => options.schedule_only = true,
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("unknown argument '{other}'")),
            }
        }
        if !["refuse", "accept"].contains(&options.sync_loss.as_str()) {
            return Err(format!("'{}' is no SYNC_LOSS", options.sync_loss));
        }
        if !["strict", "lease"].contains(&options.guard.as_str()) {
            return Err(format!("'{}' is no GUARD", options.guard));
        }
        Ok(Some(options))
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.minutes * 60)
    }
}

/// As many rounds as there are at most: how long the look after each takes shows only on the way.
fn print_schedule(options: &Options) {
    for round in 0..(options.minutes * 60).div_ceil(ROUND.as_secs()) {
        println!("round {}", round + 1);
        let mut strikes = schedule::draw(options.mode, options.seed, round).concat();
        strikes.sort_by_key(|strike| strike.at);
        for strike in strikes {
            println!("  {strike}");
        }
    }
}

async fn run(options: &Options, world: World) -> ExitCode {
    let journal = Journal::new(world.dir());
    let started = Instant::now();
    if let Err(error) = break_things(options, &world, &journal).await {
        journal.violation(format!("the run could not go on: {}", chain(&error)));
    }
    journal.sum_up();
    let seconds = started.elapsed().as_secs_f64();
    let (minutes, seed) = (options.minutes, options.seed);
    if journal.is_clean() {
        journal.print(&format!(
            "\nverdict: safe. MINUTES={minutes} SEED={seed} took {seconds:.0} s"
        ));
        return ExitCode::SUCCESS;
    }
    world.keep();
    let dir = world.dir().display();
    journal.print(&format!(
        "\nverdict: VIOLATION. MINUTES={minutes} SEED={seed} took {seconds:.0} s; the logs are in {dir}"
    ));
    ExitCode::FAILURE
}

async fn break_things(options: &Options, world: &World, journal: &Journal) -> Result<()> {
    journal.say(&format!(
        "seed {}, {} minutes, GUARD={}, SYNC_LOSS={}; logs in {}",
        options.seed,
        options.minutes,
        options.guard,
        options.sync_loss,
        world.dir().display()
    ));
    let stage = Stage::start(
        world,
        journal,
        &options.guard,
        &options.sync_loss,
        options.mode,
    )
    .await?;
    // Neither ends by itself before the rounds do.
    let rounds = tokio::select! {
        ended = all_rounds(options, &stage) => ended,
        never = stage.supervise() => match never {},
    };
    let judged = verdict::judge(stage, journal).await;
    rounds.and(judged)
}

async fn all_rounds(options: &Options, stage: &Stage<'_>) -> Result<()> {
    let first = Instant::now();
    for round in 0.. {
        if first.elapsed() >= options.length() {
            break;
        }
        stage.journal.say(&format!("round {}", round + 1));
        stage.journal.round();
        let [one, other] = schedule::draw(options.mode, options.seed, round);
        const { assert!(LANES == 2, "as many as are joined here") };
        let begun = tokio::time::Instant::now();
        tokio::join!(
            Box::pin(lane(stage, begun, one)),
            Box::pin(lane(stage, begun, other))
        );
        stage.journal.say(&format!(
            "    no fault any more, {:.1} s after the round began",
            begun.elapsed().as_secs_f64()
        ));
        settle::settle(stage).await?;
        if !stage.journal.is_clean() {
            return Err(wrong("what follows a violation"));
        }
    }
    Ok(())
}

/// One fault after the other. A fault that lasts longer than it should moves the next ones back, up to half a round.
async fn lane(stage: &Stage<'_>, begun: tokio::time::Instant, strikes: Vec<Strike>) {
    for strike in strikes {
        tokio::time::sleep_until(begun + strike.at).await;
        if begun.elapsed() > ROUND * 3 / 2 {
            stage.journal.in_vain(strike.label());
            continue;
        }
        stage.wait_until_over(strike.kind).await;
        strike::carry_out(stage, &strike).await;
        stage.is_over(strike.kind);
    }
}
