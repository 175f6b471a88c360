//! `sim`: plays seeds, and says what it found. `sim mutants` shows that breakages of the core are found; `sim keep` prints
//! a scenario in which one is, to be kept.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tarsec_sim::kept::Scenario;
use tarsec_sim::mutants::{Mutant, ONLY_KEPT, switch_to};
use tarsec_sim::{Failure, Outcome, Params, run, shrink};

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Play seeds until one fails.
    Play,
    /// Play the mutants.
    Mutants,
    /// Find the scenarios in which one mutant fails, and print the one that fails most reliably.
    Keep,
}

struct Args {
    task: Task,
    /// This mutant; `None`: all of them, or none where seeds are played.
    only: Option<Mutant>,
    seeds: u64,
    from: u64,
    threads: usize,
    /// How many lines of what happened are printed.
    tail: usize,
}

impl Args {
    fn read() -> Result<Self, String> {
        let mut args = Self {
            task: Task::Play,
            only: None,
            seeds: 20_000,
            from: 1,
            threads: 2,
            tail: 60,
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            match name.as_str() {
                "mutants" => args.task = Task::Mutants,
                "keep" => args.task = Task::Keep,
                _ => args.set(&name, given.next())?,
            }
        }
        Ok(args)
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<(), String> {
        let value = value.ok_or_else(|| format!("{name} needs a value"))?;
        let number: u64 = value
            .parse()
            .map_err(|_| format!("{name} needs a number, not {value}"))?;
        let size = usize::try_from(number).unwrap_or(usize::MAX);
        match name {
            "--seeds" => self.seeds = number,
            "--from" => self.from = number,
            "--threads" => self.threads = size.max(1),
            "--only" if size <= Mutant::ALL.len() => self.only = numbered(size),
            "--tail" => self.tail = size,
            other => {
                return Err(format!(
                    "{other} {value} is none of mutants, keep, --seeds, --from, --threads, --tail, --only (a mutant)"
                ));
            }
        }
        Ok(())
    }
}

/// The mutant with this number; 0: none.
fn numbered(number: usize) -> Option<Mutant> {
    let mut all = Mutant::ALL.iter().copied();
    all.find(|mutant| mutant.number() == number)
}

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let result = match Args::read() {
        Ok(args) => match args.task {
            Task::Play => {
                switch_to(args.only);
                play(&args, &mut out)
            }
            Task::Mutants => play_mutants(&args, &mut out),
            Task::Keep => keep(&args, &mut out),
        },
        Err(why) => writeln!(out, "{why}").map(|()| ExitCode::from(2)),
    };
    result.unwrap_or(ExitCode::FAILURE)
}

#[derive(Default)]
struct Sum {
    seeds: AtomicU64,
    simulated_ns: AtomicU64,
    steps: AtomicU64,
    faults: AtomicU64,
    promotions: AtomicU64,
}

impl Sum {
    fn add(&self, outcome: &Outcome) {
        let add = |to: &AtomicU64, what: u64| to.fetch_add(what, Ordering::Relaxed);
        add(&self.seeds, 1);
        add(&self.simulated_ns, outcome.simulated_ns);
        add(&self.steps, outcome.steps);
        add(&self.faults, outcome.faults as u64);
        add(&self.promotions, outcome.promotions);
    }
}

/// All seeds in turn, until one fails. Returns the lowest that failed.
fn search(args: &Args, sum: &Sum) -> Option<(u64, Failure)> {
    let next = AtomicU64::new(args.from);
    let stop = AtomicBool::new(false);
    let found: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds {
                        return;
                    }
                    let outcome = run(seed, &Params::draw(seed), false);
                    sum.add(&outcome);
                    if let Some(failure) = outcome.failure {
                        stop.store(true, Ordering::Relaxed);
                        if let Ok(mut found) = found.lock()
                            && found.as_ref().is_none_or(|(known, _)| *known > seed)
                        {
                            *found = Some((seed, failure));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().ok().flatten()
}

#[allow(
    clippy::disallowed_methods,
    reason = "real time is only measured here, nothing is decided by it"
)]
fn play(args: &Args, out: &mut impl Write) -> io::Result<ExitCode> {
    let sum = Sum::default();
    let began = std::time::Instant::now();
    let found = search(args, &sum);
    let took = began.elapsed().as_secs_f64();
    let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let simulated = get(&sum.simulated_ns) as f64 / 1e9;
    writeln!(
        out,
        "{} seeds from {}: {} faults, {} promotions, {} turns of agents; {:.0} s simulated in {took:.1} s, {:.0} s a second",
        get(&sum.seeds),
        args.from,
        get(&sum.faults),
        get(&sum.promotions),
        get(&sum.steps),
        simulated,
        simulated / took
    )?;
    let Some((seed, failure)) = found else {
        writeln!(out, "no invariant was violated")?;
        return Ok(ExitCode::SUCCESS);
    };
    report(seed, &failure, args.tail, out)?;
    Ok(ExitCode::FAILURE)
}

fn report(seed: u64, failure: &Failure, tail: usize, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "seed {seed} violates \"{}\": {}",
        failure.invariant, failure.words
    )?;
    writeln!(out, "replay: make sim SEEDS=1 FROM={seed}")?;
    let shorter = shrink::shrink(seed, &Params::draw(seed), failure);
    let traced = run(seed, &shorter, true);
    let tail = traced.trace.len().saturating_sub(tail);
    for line in &traced.trace[tail..] {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "the faults that it needs:")?;
    for line in shrink::lines(&shorter) {
        writeln!(out, "  {line}")?;
    }
    if let Some(failure) = traced.failure {
        writeln!(out, "then: {} ({})", failure.words, failure.invariant)?;
    }
    Ok(())
}

/// Plays each mutant until an invariant catches it.
fn play_mutants(args: &Args, out: &mut impl Write) -> io::Result<ExitCode> {
    writeln!(
        out,
        "| rule | mutation | caught by | after seeds |\n| --- | --- | --- | --- |"
    )?;
    let mut uncaught = 0;
    for mutant in Mutant::ALL.iter().copied() {
        if args.only.is_some_and(|only| only != mutant) {
            continue;
        }
        let (rule, name) = (mutant.rule(), mutant.name());
        if args.only.is_none() && ONLY_KEPT.contains(&mutant) {
            writeln!(
                out,
                "| {rule} | {name} | its kept scenario (make test) | – |"
            )?;
            continue;
        }
        switch_to(Some(mutant));
        let sum = Sum::default();
        let found = search(args, &sum);
        switch_to(None);
        match found {
            Some((seed, failure)) => {
                let after = seed + 1 - args.from;
                writeln!(out, "| {rule} | {name} | {} | {after} |", failure.invariant)?;
            }
            None => {
                uncaught += 1;
                writeln!(out, "| {rule} | {name} | **nothing** | {} |", args.seeds)?;
            }
        }
        out.flush()?;
    }
    writeln!(out, "\n{uncaught} not caught within {} seeds", args.seeds)?;
    Ok(ExitCode::from(u8::from(uncaught > 0)))
}

/// So many runs that fail are made shorter; the one of which most is sure is printed.
const TRIED: u64 = 6;

fn keep(args: &Args, out: &mut impl Write) -> io::Result<ExitCode> {
    let Some(mutant) = args.only else {
        writeln!(out, "keep needs --only, the number of a mutant")?;
        return Ok(ExitCode::from(2));
    };
    switch_to(args.only);
    let (end, mut from) = (args.from + args.seeds, args.from);
    let mut best: Option<(u64, Scenario)> = None;
    for _ in 0..TRIED {
        let rest = Args {
            from,
            seeds: end - from,
            ..*args
        };
        let Some((seed, failure)) = search(&rest, &Sum::default()) else {
            break;
        };
        from = seed + 1;
        let found = Scenario::distil(mutant, failure.invariant, &Params::draw(seed));
        let (fails, _) = found.plays();
        if fails > best.as_ref().map_or(0, |(known, _)| *known) {
            best = Some((fails, found));
        }
    }
    let Some((_, scenario)) = best else {
        writeln!(out, "nothing was found that could be kept")?;
        return Ok(ExitCode::FAILURE);
    };
    writeln!(out, "{}", serde_json::to_string_pretty(&scenario)?)?;
    Ok(ExitCode::SUCCESS)
}
