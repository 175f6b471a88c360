//! The tables.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::failover::{self, Failovers};
use super::floor::Floor;
use super::idle::Cost;
use super::leader::{self, Deaths};
use super::lost::{self, Losses};
use super::switchover::{self, Switchovers, Undone};
use super::vshard;

/// Median of a failover, kill to first accepted write.
const SMALL_MS: f64 = 50.0;
const LARGE_MS: f64 = 100.0;
/// The same for a lost machine, beyond the lease.
const LOST_BEYOND_LEASE_MS: f64 = 1000.0;
/// Median of a switchover's gap.
const SWITCHOVER_MS: f64 = 20.0;
/// Median of a failover, kill to the first write through a router.
const VSHARD_MS: f64 = 100.0;
const RESIDENT_MIB: f64 = 12.0;
const CPU_PERCENT: f64 = 0.5;
const HOLDER_PER_SECOND: f64 = 1.5;
const REPLICA_PER_SECOND: f64 = 0.6;

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

pub(crate) fn heading(consul_on_disk: bool) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("tarsec bench, on {cores} cores, load {}", load());
    println!(
        "  {}, {}, one server on loopback, its state {}",
        version("consul".as_ref()),
        version(tarsec_harness::tarantool().as_os_str()),
        if consul_on_disk {
            "on disk"
        } else {
            "in memory"
        }
    );
}

pub(crate) fn ending() {
    println!("\nload at the end {}", load());
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn version(program: &OsStr) -> String {
    let output = std::process::Command::new(program)
        .arg("--version")
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| format!("{} of unknown version", program.display()))
}

/// One line that overwrites itself, for a person who waits.
pub(crate) fn progress(what: &str, number: u32, of: u32, ms: f64) {
    if std::io::stderr().is_terminal() {
        eprint!("\r  {what} run {number} of {of}: {ms:.1} ms   ");
        if number == of {
            eprint!("\r{:78}\r", "");
        }
        // A progress line that does not show is no loss.
        std::io::stderr().flush().ok();
    }
}

/// Median, 90th percentile and maximum.
#[derive(Clone, Copy)]
struct Summary {
    median: f64,
    p90: f64,
    max: f64,
}

impl Summary {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        // The nearest rank: the least value that so large a part of all does not exceed.
        let at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
        };
        Self {
            median: at(0.5),
            p90: at(0.9),
            max: at(1.0),
        }
    }

    fn columns(&self) -> String {
        format!("{:>9.1} {:>8.1} {:>8.1}", self.median, self.p90, self.max)
    }
}

/// A stage's name, and when it ended.
type Stage<Run> = (&'static str, fn(&Run) -> f64);

/// Each stage since the begin, and alone.
fn stages<Run>(begin: &str, runs: &[Run], stages: &[Stage<Run>]) {
    println!("  milliseconds          {begin:>28}              stage alone");
    println!("                            median      p90      max    median      p90      max");
    let mut before: fn(&Run) -> f64 = |_| 0.0;
    for (name, stage) in stages {
        let total = Summary::of(runs.iter().map(stage));
        let alone = Summary::of(runs.iter().map(|run| stage(run) - before(run)));
        println!("  {name:<22}{}{}", total.columns(), alone.columns());
        before = *stage;
    }
}

/// An operation's name, how long it took, and whether the sum needs it.
type Bare<'a> = (&'static str, &'a [f64], bool);

/// Prints bare operations and returns the sum of the medians of the operations that count.
fn bare(operations: &[Bare<'_>]) -> f64 {
    println!("  floor: the same operations, bare, with no agent");
    let mut sum = 0.0;
    for (name, times, counts) in operations {
        let summary = Summary::of(times.iter().copied());
        let mark = if *counts { '+' } else { ' ' };
        println!("  {mark} {name:<20}{}", summary.columns());
        if *counts {
            sum += summary.median;
        }
    }
    println!("  = {:<20}{sum:>9.1}", "floor");
    sum
}

fn against_floor(median: f64, floor: f64) {
    println!("  total / floor {:>18.1} ×", median / floor);
}

pub(crate) fn failovers(failovers: &Failovers, floor: &Floor, large: bool) {
    const STAGES: [Stage<failover::Run>; 7] = [
        ("death seen", |run| run.death_seen),
        ("released", |run| run.released),
        ("woken", |run| run.woken),
        ("elected", |run| run.elected),
        ("acquired", |run| run.acquired),
        ("promoted", |run| run.promoted),
        ("first write accepted", |run| run.first_write),
    ];
    let runs = &failovers.runs;
    let least = runs.iter().map(|run| run.resident_kib).min().unwrap_or(0);
    println!(
        "\nCrash failover, {}: {} kills of a master with {} MiB or more resident",
        if large { "large" } else { "small" },
        runs.len(),
        least / 1024
    );
    stages("since the kill", runs, &STAGES);
    let total = Summary::of(runs.iter().map(|run| run.first_write));
    let target = if large { LARGE_MS } else { SMALL_MS };
    println!(
        "  {}",
        verdict("median to first write", total.median, target, "ms")
    );
    let floor_ms = bare(&[
        ("kill: connection ends", &floor.connection_end, false),
        ("kill: seen exiting", &floor.exiting, false),
        ("kill: the sooner", &floor.soonest, true),
        ("transaction and wake", &floor.wake, true),
        ("two ballots", &floor.ballots, true),
        ("new session", &floor.session, true),
        ("transaction", &floor.transaction, true),
        ("box.cfg read_only", &floor.switch, true),
        ("one write", &floor.write, true),
    ]);
    against_floor(total.median, floor_ms);
    let resident: Vec<String> = failovers
        .agents
        .iter()
        .map(|usage| format!("{:.1}", mib(usage.resident_kib)))
        .collect();
    println!(
        "  writes accepted {}, by one master at a time; the agents have {} MiB resident now",
        failovers.accepted,
        resident.join(", ")
    );
}

pub(crate) fn losses(losses: &Losses, floor: &Floor) {
    const STAGES: [Stage<lost::Run>; 5] = [
        ("lease and margin over", |run| run.up_for_grabs),
        ("elected", |run| run.elected),
        ("taken over", |run| run.acquired),
        ("promoted", |run| run.promoted),
        ("first write accepted", |run| run.first_write),
    ];
    let runs = &losses.runs;
    let lease = losses.lease.as_secs_f64();
    println!(
        "\nLost machine, lease {lease} s: {} kills of a master's process and agent together",
        runs.len()
    );
    stages("since the kill", runs, &STAGES);
    let total = Summary::of(runs.iter().map(|run| run.first_write)).median;
    let target = lease * 1000.0 + LOST_BEYOND_LEASE_MS;
    println!(
        "  {}",
        verdict("median to first write", total, target, "ms")
    );
    let waits: Vec<f64> = runs.iter().map(|run| run.up_for_grabs).collect();
    let floor_ms = bare(&[
        ("lease and margin", &waits, true),
        ("two ballots", &floor.ballots, true),
        ("new session", &floor.session, true),
        ("transaction", &floor.transaction, true),
        ("box.cfg read_only", &floor.switch, true),
        ("one write", &floor.write, true),
    ]);
    against_floor(total, floor_ms);
    println!(
        "  writes accepted {}, by one master at a time",
        losses.accepted
    );
}

pub(crate) fn switchovers(switchovers: &Switchovers, floor: &Floor) {
    const STAGES: [Stage<switchover::Run>; 6] = [
        ("fenced", |run| run.fenced),
        ("released", |run| run.released),
        ("woken", |run| run.woken),
        ("acquired", |run| run.acquired),
        ("promoted", |run| run.promoted),
        ("first write accepted", |run| run.first_write),
    ];
    let runs = &switchovers.runs;
    let orders = runs.len() + switchovers.undone.len();
    println!("\nSwitchover: {orders} orders, under 1000 writes a second");
    print!("{}", undone(&switchovers.undone, orders));
    if runs.is_empty() {
        return;
    }
    let order = Summary::of(runs.iter().map(|run| run.last_write));
    println!("  order to last write   {}", order.columns());
    stages("since the last write", runs, &STAGES);
    let gap = Summary::of(runs.iter().map(|run| run.first_write)).median;
    println!(
        "  {}",
        verdict("median gap for a writer", gap, SWITCHOVER_MS, "ms")
    );
    let floor_ms = bare(&[
        ("box.cfg read_only", &floor.switch, true),
        ("one write, replicated", &floor.replicated, true),
        ("transaction and wake", &floor.wake, true),
        ("transaction", &floor.transaction, true),
        ("box.cfg read_only", &floor.switch, true),
        ("one write", &floor.write, true),
    ]);
    against_floor(gap, floor_ms);
    println!(
        "  writes accepted {}, by one master at a time, none of them missing; failed {}",
        switchovers.accepted, switchovers.failed
    );
}

pub(crate) fn vshard(runs: &[vshard::Run]) {
    println!("\nvshard: {} crash failovers, seen by clients", runs.len());
    println!("  milliseconds since the kill                       median      p90      max");
    let rows: [Stage<vshard::Run>; 3] = [
        ("first write, at the instance", |run| run.direct),
        ("first write, through a router", |run| run.routed),
        ("the same, through every router", |run| run.every_router),
    ];
    for (name, value) in rows {
        println!(
            "  {name:<46}{}",
            Summary::of(runs.iter().map(value)).columns()
        );
    }
    let median = Summary::of(runs.iter().map(|run| run.routed)).median;
    println!(
        "  {}",
        verdict("median through a router", median, VSHARD_MS, "ms")
    );
}

/// How many orders left the same master, and why; each was counted among the orders, and in no figure of those done.
fn undone(undone: &[Undone], orders: usize) -> String {
    let mut text = format!("  {} of {orders} undone or refused\n", undone.len());
    let mut reasons: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for one in undone {
        reasons.entry(&one.why).or_default().push(one.gap);
    }
    for (why, gaps) in reasons {
        let longest = Summary::of(gaps.iter().copied()).max;
        let times = gaps.len();
        text.push_str(&format!(
            "    {times}× {why}; the longest gap for a writer {longest:.1} ms\n"
        ));
    }
    text
}

pub(crate) fn leaders(all: &[Deaths]) {
    const ROWS: [Stage<leader::Run>; 3] = [
        ("longest gap", |run| run.gap),
        ("Consul took no write", |run| run.outage),
        ("floor: gap when quiet", |run| run.quiet_gap),
    ];
    println!("\nDead leader of three Consul servers, default raft_multiplier, lease 10 s");
    for deaths in all {
        println!(
            "  FAILSAFE={}, killed {}×",
            deaths.failsafe,
            deaths.runs.len()
        );
        println!("  milliseconds              median      p90      max");
        for (name, row) in ROWS {
            let summary = Summary::of(deaths.runs.iter().map(row));
            println!("  {name:<22}{}", summary.columns());
        }
        let refused: usize = deaths.runs.iter().map(|run| run.refused).sum();
        let changes: usize = deaths.runs.iter().map(|run| run.changes).sum();
        println!("  writes refused by the master {refused}, changes of hands {changes}");
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// What was measured, what was aimed at, and whether that was reached.
fn verdict(what: &str, value: f64, target: f64, unit: &str) -> String {
    let mark = if value <= target { "pass" } else { "missed" };
    format!("{what:<26}{value:>8.2} {unit:<6} target {target:>6.1}   {mark}")
}

pub(crate) fn costs(costs: &[Cost], watched: Duration) {
    let seconds = watched.as_secs_f64();
    println!("\nAn idle agent at default settings, watched for {seconds:.0} s");
    for cost in costs {
        let per_second = cost.requests.values().sum::<u64>() as f64 / seconds;
        let (role, target) = if cost.is_holder {
            ("holder", HOLDER_PER_SECOND)
        } else {
            ("replica", REPLICA_PER_SECOND)
        };
        let percent = cost.cpu.as_secs_f64() / seconds * 100.0;
        let resident = mib(cost.usage.resident_kib);
        println!(
            "  {role:<8}{}",
            verdict("resident", resident, RESIDENT_MIB, "MiB")
        );
        println!("          {}", verdict("CPU", percent, CPU_PERCENT, "%"));
        println!(
            "          {}",
            verdict("requests to Consul", per_second, target, "/s")
        );
        if !cost.requests.is_empty() {
            println!("          {}", kinds(&cost.requests, seconds));
        }
    }
}

fn kinds(requests: &BTreeMap<String, u64>, seconds: f64) -> String {
    let kind = |(kind, count): (&String, &u64)| format!("{kind} {:.2}", *count as f64 / seconds);
    requests.iter().map(kind).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_take_the_nearest_rank() {
        let summary = Summary::of((1..=30).map(f64::from));
        assert_eq!(
            (summary.median, summary.p90, summary.max),
            (15.0, 27.0, 30.0)
        );
        let one = Summary::of([7.0]);
        assert_eq!((one.median, one.p90, one.max), (7.0, 7.0, 7.0));
    }

    #[test]
    fn switchovers_that_were_undone_are_counted_by_reason() {
        assert_eq!(undone(&[], 50), "  0 of 50 undone or refused\n");
        let one = |why: &str, gap| Undone {
            why: why.to_owned(),
            gap,
        };
        let some = [
            one("undone: late", 2100.0),
            one("refused: unfit", 2.0),
            one("undone: late", 2200.0),
        ];
        assert_eq!(
            undone(&some, 50),
            "  3 of 50 undone or refused\n\
             \x20   1× refused: unfit; the longest gap for a writer 2.0 ms\n\
             \x20   2× undone: late; the longest gap for a writer 2200.0 ms\n"
        );
    }

    #[test]
    fn a_target_is_reached_at_its_very_value() {
        assert!(verdict("x", 12.0, 12.0, "MiB").ends_with("pass"));
        assert!(verdict("x", 12.01, 12.0, "MiB").ends_with("missed"));
    }
}
