//! An election that nothing disturbs is won by the freshest of the fit (docs/PROTOCOL.md, "An election").

use crate::agent::duration;
use crate::decide::settings::Elector;
use crate::time::{SEC, Time};
use crate::world::World;

impl World {
    /// Long enough for an election and for everything that may still be on its way.
    fn quiet_time(&self, set: usize) -> Time {
        let params = &self.params.sets[set];
        duration(params.timing.lease()) + duration(params.timing.healthcheck_timeout()) * 2 + SEC
    }

    /// It may be master, and nothing has troubled it or its agent for long.
    pub(super) fn is_fit(&self, set: usize, at: usize) -> bool {
        let it = &self.instances[at];
        let quiet = self.checks.places[at].disturbed_until + self.quiet_time(set) <= self.now;
        self.params.sets[set].priorities[it.n] >= 0
            && it.answers()
            && self.running_agent(at).is_some()
            && quiet
    }

    /// Nothing has troubled whoever won, and nobody ordered who it was to be.
    pub(super) fn was_quiet(&self, set: usize, at: usize) -> bool {
        let memory = &self.checks.sets[set];
        // An `ELECTION_WINDOW` that a ballot cannot be written in, with its calls there and back, is a wrong setting.
        let window = crate::agent::duration(self.params.sets[set].window);
        self.is_fit(set, at)
            && window >= self.params.weather.delay_max * 8
            && memory.handed_to.is_none()
            && !memory.key_lost
            && memory.paused_until + self.quiet_time(set) <= self.now
            && self.now > self.quiet_time(set) * 2
            && self.leader_at + self.quiet_time(set) <= self.now
    }

    pub(super) fn check_election(&mut self, set: usize, at: usize) {
        let params = &self.params.sets[set];
        let before = self.checks.sets[set].served;
        let Some((_, before)) = before.filter(|(_, before)| *before != at) else {
            return;
        };
        if params.elector != Elector::Smart || !self.was_quiet(set, at) {
            return;
        }
        // Rows that were held up may arrive from it here and there at the last moment.
        let healed_at = self.checks.places[before].disturbed_until;
        let healed = healed_at <= self.now && healed_at + self.quiet_time(set) > self.now;
        if healed && self.instances[before].answers() {
            return;
        }
        let n = self.instances[before].n;
        let own = self.instances[at].has[n];
        for other in self.sets[set].members.clone() {
            let it = &self.instances[other];
            if other == at || other == before || !self.is_fit(set, other) {
                continue;
            }
            // What has arrived since the ballots counts for nobody.
            if it.has[n] > own + params.rows_under_way(&self.params.weather) {
                let words = format!(
                    "instance {at} becomes master with {own} rows of the last one, instance {other} is fit and has {}",
                    it.has[n]
                );
                return self.fail("the freshest of the fit is elected", words);
            }
        }
    }
}

impl crate::params::SetParams {
    /// Rows that may arrive between a ballot and the promotion that rests on it.
    fn rows_under_way(&self, weather: &crate::params::Weather) -> u64 {
        (weather.lag_max * 2 + weather.delay_max * 20) / (self.write_gap / 2) + 3
    }
}
