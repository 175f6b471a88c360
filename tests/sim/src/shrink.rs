//! A failing run made shorter: faults are left out for as long as the same invariant fails.

use crate::invariants::Failure;
use crate::kept::SEEDS;
use crate::params::{Params, Weather};
use crate::time::{MS, SEC};
use crate::world::run;

/// The shortest list of faults found with which `seed` fails as it did.
#[must_use]
pub fn shrink(seed: u64, params: &Params, failure: &Failure) -> Params {
    let fails = |params: &Params| {
        let found = run(seed, params, false).failure;
        found.is_some_and(|found| found.invariant == failure.invariant)
    };
    let mut best = params.clone();
    let mut at = 0;
    while at < best.faults.len() {
        let mut fewer = best.clone();
        fewer.faults.remove(at);
        if fails(&fewer) {
            best = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    best
}

/// The parameters without whatever can be left out without making the failure rarer, chance being what it may.
pub(crate) fn distil(params: &Params, invariant: &str) -> Params {
    let share = |params: &Params| {
        let failures = (1..=SEEDS).filter_map(|seed| run(seed, params, false).failure);
        failures.filter(|it| it.invariant == invariant).count()
    };
    let mut best = params.clone();
    let mut best_share = share(&best);
    while let Some((simpler, found)) = simpler(&best)
        .into_iter()
        .map(|simpler| {
            let found = share(&simpler);
            (simpler, found)
        })
        // What hardly makes it rarer is worth being left out.
        .find(|(_, found)| *found > 0 && *found * 8 >= best_share * 7)
    {
        (best, best_share) = (simpler, found);
    }
    best
}

/// One step simpler, in each way there is.
fn simpler(params: &Params) -> Vec<Params> {
    let mut all = Vec::new();
    for at in 0..params.faults.len() {
        let mut fewer = params.clone();
        fewer.faults.remove(at);
        all.push(fewer);
    }
    let mut add = |change: &dyn Fn(&mut Weather)| {
        let mut milder = params.clone();
        change(&mut milder.weather);
        if milder.weather != params.weather {
            all.push(milder);
        }
    };
    add(&|weather| (weather.slow_one_in, weather.slow_max) = (0, 0));
    add(&|weather| weather.lost_request_one_in = 0);
    add(&|weather| weather.lost_reply_one_in = 0);
    add(&|weather| weather.fiber_late_max = 0);
    add(&|weather| weather.wal_max = MS);
    add(&|weather| weather.lag_max = MS);
    add(&|weather| weather.delay_max = MS);
    let last = params.faults.iter().map(|(at, _)| *at).max();
    let soon = last.unwrap_or(0) + 15 * SEC;
    if soon < params.calm_from {
        all.push(Params {
            calm_from: soon,
            ..params.clone()
        });
    }
    all
}

/// The faults, a line each.
#[must_use]
pub fn lines(params: &Params) -> Vec<String> {
    let faults = params.faults.iter();
    faults
        .map(|(at, fault)| format!("{:9.3} s  {fault:?}", *at as f64 / 1e9))
        .collect()
}
