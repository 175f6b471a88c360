//! What a seed decides before anything happens: sizes, settings, weather, and the list of faults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::settings::Elector;
use crate::decide::timing::Timing;
use crate::faults::{self, Fault};
use crate::kept;
use crate::rng::Rng;
use crate::time::{MS, SEC, Time};

/// No replica set is larger.
pub(crate) const SIZE_MAX: usize = 5;

/// The settings of one replica set: all its agents have the same (assumption A6), but for the priority.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetParams {
    pub(crate) size: usize,
    #[serde(with = "kept::timing")]
    pub(crate) timing: Timing,
    #[serde(with = "kept::ElectorWord")]
    pub(crate) elector: Elector,
    #[serde(with = "kept::ms")]
    pub(crate) window: Duration,
    #[serde(with = "kept::ms")]
    pub(crate) cooldown: Duration,
    #[serde(with = "kept::ms")]
    pub(crate) member_interval: Duration,
    pub(crate) max_lag_rows: u64,
    #[serde(with = "kept::ms")]
    pub(crate) max_idle: Duration,
    pub(crate) failsafe: bool,
    pub(crate) follow: bool,
    pub(crate) kill_hung: bool,
    pub(crate) priorities: [i64; SIZE_MAX],
    /// Whether the agent sees and may kill its instance's process.
    pub(crate) sees_process: [bool; SIZE_MAX],
    /// Of a hundred writes so many are synchronous.
    pub(crate) sync_share: u64,
    /// A promotion needs a quorum for the synchronous queue, as in Tarantool 2.10 and later.
    pub(crate) queue_needs_quorum: bool,
    pub(crate) write_gap: Time,
    /// `SYNC_LOSS=refuse`.
    #[serde(default)]
    pub(crate) refuses_loss: bool,
}

impl SetParams {
    /// How many members must have a synchronous row; 0: there are none.
    pub(crate) fn quorum(&self) -> u64 {
        if self.sync_share == 0 {
            0
        } else {
            self.size as u64 / 2 + 1
        }
    }
}

/// How long things take, and what gets lost, in one case of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weather {
    pub(crate) delay_max: Time,
    pub(crate) slow_one_in: u64,
    pub(crate) slow_max: Time,
    pub(crate) lost_request_one_in: u64,
    pub(crate) lost_reply_one_in: u64,
    pub(crate) wal_max: Time,
    pub(crate) lag_max: Time,
    /// How late fibers wake at most (A4 allows 250 ms and more).
    pub(crate) fiber_late_max: Time,
    /// What stands before Consul ends requests that are held for longer; 0: nothing does.
    #[serde(default)]
    pub(crate) holds_end_after: Time,
}

/// Everything that a seed decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    pub(crate) sets: Vec<SetParams>,
    pub(crate) weather: Weather,
    pub(crate) faults: Vec<(Time, Fault)>,
    /// From then on nothing more goes wrong.
    pub(crate) calm_from: Time,
    /// The machines' wall clocks are set again and again, by up to a day.
    #[serde(default)]
    pub(crate) clocks_are_set: bool,
}

impl Params {
    /// As the seed has it.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let sets = rng.one_of(&[1, 1, 1, 1, 1, 1, 2, 2, 3]);
        let mut sets: Vec<SetParams> = (0..sets).map(|_| draw_set(&mut rng, sets)).collect();
        let mut weather = draw_weather(&mut rng);
        let mut apart = Rng::new(seed, 5);
        let mut refusing = Rng::new(seed, 6);
        for set in &mut sets {
            set.refuses_loss = refusing.percent(60);
        }
        weather.holds_end_after = apart.one_of(&[0, 0, 0, 1, 50, 300, 700, 1_500, 3_000]) * MS;
        let (faults, calm_from) = faults::draw(&mut rng, &sets);
        Self {
            sets,
            weather,
            faults,
            calm_from,
            clocks_are_set: false,
        }
    }

    /// How many faults the seed drew.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.faults.len()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn draw_timing(rng: &mut Rng) -> Timing {
    let lease_ms = rng.one_of(&[2_000, 2_000, 2_000, 2_500, 3_000, 4_000, 5_000, 10_000]);
    let lease = ms(lease_ms);
    let timeout = ms(rng.between(lease_ms / 10, lease_ms / 2 + 1));
    let interval = ms(rng.between(lease_ms / 8, lease_ms / 2 + 1));
    let ttl = lease.max(ms(rng.one_of(&[10_000, 10_000, 15_000])));
    let made = Timing::new(lease, ttl, interval, timeout, ms(50).min(interval));
    // The values above are within the bounds, whatever was drawn.
    made.unwrap_or_else(|error| unreachable!("{error}"))
}

fn draw_set(rng: &mut Rng, sets: usize) -> SetParams {
    let sizes: &[usize] = if sets == 1 {
        &[1, 2, 2, 3, 3, 3, 3, 3, 4, 5]
    } else {
        &[1, 2, 2, 3]
    };
    let mut priorities = [0; SIZE_MAX];
    let mut sees_process = [true; SIZE_MAX];
    let size = rng.one_of(sizes);
    if rng.percent(25) {
        priorities = std::array::from_fn(|_| rng.one_of(&[0, 0, 1, 5, -1]));
        // Somebody must be allowed to be master.
        priorities[rng.index(size)] = 1;
    }
    for sees in &mut sees_process {
        *sees = !rng.percent(15);
    }
    SetParams {
        size,
        timing: draw_timing(rng),
        elector: rng.one_of(&[
            Elector::Smart,
            Elector::Smart,
            Elector::Smart,
            Elector::Idle,
            Elector::First,
        ]),
        window: ms(rng.one_of(&[50, 250, 250, 250, 500])),
        cooldown: ms(rng.one_of(&[0, 0, 0, 0, 0, 0, 5_000])),
        member_interval: ms(rng.one_of(&[1_000, 10_000])),
        max_lag_rows: rng.one_of(&[0, 0, 0, 0, 0, 1_000]),
        max_idle: Duration::ZERO,
        failsafe: rng.percent(75),
        follow: rng.percent(10),
        kill_hung: rng.percent(90),
        priorities,
        sees_process,
        sync_share: rng.one_of(&[0, 50, 100]),
        queue_needs_quorum: rng.percent(30),
        write_gap: rng.between(40, 200) * MS,
        refuses_loss: false,
    }
}

fn draw_weather(rng: &mut Rng) -> Weather {
    let rough = rng.percent(60);
    let some = |rng: &mut Rng, all: &[u64]| if rough { rng.one_of(all) } else { 0 };
    Weather {
        delay_max: rng.one_of(&[1, 1, 2, 5, 20]) * MS,
        slow_one_in: some(rng, &[0, 15, 40, 100]),
        slow_max: rng.one_of(&[100, 500, 3_000, 20_000]) * MS,
        lost_request_one_in: some(rng, &[0, 25, 60]),
        lost_reply_one_in: some(rng, &[0, 15, 40, 100]),
        wal_max: rng.one_of(&[1, 1, 5, 30]) * MS,
        lag_max: rng.one_of(&[1, 5, 50, 400]) * MS,
        fiber_late_max: some(rng, &[0, 5, 100, 200]) * MS,
        holds_end_after: 0,
    }
}

/// The longest that anything which a seed draws goes on.
pub(crate) const FAULT_MAX: Time = 25 * SEC;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::run;

    /// A cooldown rests on the age that a term had, by the wall clock, when an agent first saw it, so there is none here.
    #[test]
    fn a_wall_clock_that_is_set_changes_nothing_but_words() {
        for seed in 1..=60 {
            let mut params = Params::draw(seed);
            for set in &mut params.sets {
                set.cooldown = Duration::ZERO;
            }
            let told = run(seed, &params, true);
            params.clocks_are_set = true;
            let set = run(seed, &params, true);
            assert_eq!(told.steps, set.steps, "seed {seed}");
            assert_eq!(told.promotions, set.promotions, "seed {seed}");
            assert_eq!(told.trace.len(), set.trace.len(), "seed {seed}");
            assert!(set.failure.is_none(), "seed {seed}: {:?}", set.failure);
        }
    }
}
