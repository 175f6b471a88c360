//! A failing run made shorter: faults are left out for as long as the same invariant fails.

use crate::invariants::Failure;
use crate::params::Params;
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

/// The faults, a line each.
#[must_use]
pub fn lines(params: &Params) -> Vec<String> {
    let faults = params.faults.iter();
    faults
        .map(|(at, fault)| format!("{:9.3} s  {fault:?}", *at as f64 / 1e9))
        .collect()
}
