//! Scenarios that are kept: the parameters and the list of faults of a run that found something, as a file. A seed tells
//! another story as soon as something is drawn in another way; these do not.

use serde::{Deserialize, Serialize};

use crate::mutants::{self, Mutant};
use crate::params::Params;
use crate::shrink;
use crate::world::run;

/// So many seeds play a kept scenario: what chance decides within it differs.
pub const SEEDS: u64 = 32;

/// A run that found something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scenario {
    /// The mutant, by its name, that undoes what was mended.
    pub mutant: String,
    /// What then does not hold.
    pub invariant: String,
    /// Everything that the seed had decided before the run, as short as it could be made.
    pub params: Params,
}

impl Scenario {
    /// The mutant; `None`: there is none of that name.
    #[must_use]
    pub fn mutant(&self) -> Option<Mutant> {
        mutants::called(&self.mutant)
    }

    /// In how many of [`SEEDS`] runs the invariant fails, and what else failed first.
    #[must_use]
    pub fn plays(&self) -> (u64, Vec<String>) {
        let mut fails = 0;
        let mut others = Vec::new();
        for seed in 1..=SEEDS {
            match run(seed, &self.params, false).failure {
                Some(failure) if failure.invariant == self.invariant => fails += 1,
                Some(failure) => others.push(format!(
                    "seed {seed}: {}: {}",
                    failure.invariant, failure.words
                )),
                None => {}
            }
        }
        (fails, others)
    }

    /// What is left of a run of `mutant` (it is switched on) when all that it does not need is taken away.
    #[must_use]
    pub fn distil(mutant: Mutant, invariant: &str, params: &Params) -> Self {
        Self {
            mutant: mutant.name().to_owned(),
            invariant: invariant.to_owned(),
            params: shrink::distil(params, invariant),
        }
    }
}

/// How [`crate::decide::settings::Elector`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "crate::decide::settings::Elector")]
pub(crate) enum ElectorWord {
    Smart,
    Idle,
    First,
}

/// Durations in whole milliseconds: none is drawn finer.
pub(crate) mod ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(it: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(it.as_millis())
            .unwrap_or(u64::MAX)
            .serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// A [`crate::decide::timing::Timing`] is checked when it is read, like any other.
pub(crate) mod timing {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::decide::timing::Timing;

    #[derive(Serialize, Deserialize)]
    struct Words {
        #[serde(with = "super::ms")]
        lease_ms: Duration,
        #[serde(with = "super::ms")]
        session_ttl_ms: Duration,
        #[serde(with = "super::ms")]
        healthcheck_interval_ms: Duration,
        #[serde(with = "super::ms")]
        healthcheck_timeout_ms: Duration,
        #[serde(with = "super::ms")]
        liveness_interval_ms: Duration,
    }

    pub(crate) fn serialize<S: Serializer>(it: &Timing, to: S) -> Result<S::Ok, S::Error> {
        let words = Words {
            lease_ms: it.lease(),
            session_ttl_ms: it.session_ttl(),
            healthcheck_interval_ms: it.healthcheck_interval(),
            healthcheck_timeout_ms: it.healthcheck_timeout(),
            liveness_interval_ms: it.liveness_interval(),
        };
        words.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timing, D::Error> {
        let words = Words::deserialize(from)?;
        Timing::new(
            words.lease_ms,
            words.session_ttl_ms,
            words.healthcheck_interval_ms,
            words.healthcheck_timeout_ms,
            words.liveness_interval_ms,
        )
        .map_err(D::Error::custom)
    }
}
