//! Who stood still when, and whether an instance that was killed for hanging had hung: an agent's own stall is no evidence.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tarsec_harness::{Agent, Instance, Result};

/// `HEALTHCHECK_TIMEOUT` in the harness's defaults: an agent has asked for so long before it kills.
const PATIENCE: Duration = Duration::from_secs(1);
/// How inexactly it is known from outside since when a process stands still or runs.
const BLUR: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(10);
const KILLED: &str = "hung instance killed";

/// What stood still, from a moment to another.
#[derive(Debug)]
struct Stall {
    process: String,
    from: SystemTime,
    until: Option<SystemTime>,
}

/// The stalls of a run, and the kills that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    all: RefCell<Vec<Stall>>,
    judged: RefCell<BTreeSet<String>>,
}

impl Stalls {
    pub(crate) fn begins(&self, process: &str) {
        self.all.borrow_mut().push(Stall {
            process: process.to_owned(),
            from: SystemTime::now(),
            until: None,
        });
    }

    pub(crate) fn ends(&self, process: &str) {
        for stall in self.all.borrow_mut().iter_mut() {
            if stall.process == process && stall.until.is_none() {
                stall.until = Some(SystemTime::now());
            }
        }
    }

    fn stands_still(&self, process: &str, at: SystemTime) -> bool {
        let all = self.all.borrow();
        all.iter().any(|stall| {
            let is_over = stall.until.is_some_and(|until| until < at);
            stall.process == process && stall.from <= at && !is_over
        })
    }

    /// For how long, in one piece before that moment, the instance stood still, counting only time in which its agent ran.
    /// Between two stalls an instance need not have run for as long as is not known exactly.
    fn asked_in_vain(&self, instance: &str, agent: &str, killed_at: SystemTime) -> Duration {
        let mut at = killed_at - BLUR;
        if !self.stands_still(instance, at) {
            return Duration::ZERO;
        }
        let mut stood_at = at;
        let mut asked = Duration::ZERO;
        while at + BLUR > stood_at {
            if self.stands_still(instance, at) {
                stood_at = at;
                if !self.stands_still(agent, at) {
                    asked += STEP;
                }
            }
            at -= STEP;
        }
        asked
    }

    /// How many instances this agent has killed since the last look, and in words those of them that were well.
    pub(crate) fn judge(&self, instance: &Instance, agent: &Agent) -> Result<(usize, Vec<String>)> {
        let (name, by) = (instance.name(), agent.process().name());
        let mut killed = 0;
        let mut well = Vec::new();
        for line in agent.logs()? {
            let id = format!("{by} {}", line.timestamp());
            let Some(at) = line.at().filter(|_| line.message() == KILLED) else {
                continue;
            };
            if !self.judged.borrow_mut().insert(id) {
                continue;
            }
            killed += 1;
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at.epoch_ms());
            let asked = self.asked_in_vain(name, by, at);
            if asked + BLUR * 2 < PATIENCE {
                let asked = asked.as_secs_f64();
                let at = line.timestamp();
                well.push(format!(
                    "{by} killed {name} at {at}, which it had asked in vain for {asked:.2} s"
                ));
            }
        }
        Ok((killed, well))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalls(all: &[(&str, u64, u64)], begin: SystemTime) -> Stalls {
        let moment = |ms| begin + Duration::from_millis(ms);
        let stalls = Stalls::default();
        for (process, from, until) in all {
            stalls.all.borrow_mut().push(Stall {
                process: (*process).to_owned(),
                from: moment(*from),
                until: Some(moment(*until)),
            });
        }
        stalls
    }

    #[test]
    fn only_time_in_which_the_agent_ran_counts_as_asking() {
        let begin = SystemTime::now();
        let killed_at = begin + Duration::from_secs(20);
        let asked = |all: &[(&str, u64, u64)]| {
            stalls(all, begin)
                .asked_in_vain("a0", "agent", killed_at)
                .as_millis()
        };
        assert_eq!(asked(&[]), 0);
        assert!((2_600..=2_800).contains(&asked(&[("a0", 17_000, 20_000)])));
        assert!(asked(&[("a0", 7_000, 19_900), ("agent", 7_000, 19_500)]) < 300);
        // It ran in between.
        assert!(asked(&[("a0", 7_000, 18_000), ("a0", 19_500, 20_000)]) < 300);
        // It woke after its agent, and had stopped again before it could answer.
        let again = [
            ("a0", 10_000, 19_400),
            ("agent", 10_000, 19_000),
            ("a0", 19_420, 20_000),
        ];
        assert!((600..=720).contains(&asked(&again)), "{}", asked(&again));
    }
}
