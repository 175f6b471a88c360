//! A switchover loses nothing: in the moment of the release to its target, the target has every row that has landed
//! (DESIGN 3, "planned switchover").

use crate::world::World;

impl World {
    pub(super) fn check_handed_over(&mut self, set: usize, at: usize, target: &str) {
        let Some(target) = self.find(set, target) else {
            return;
        };
        let (from, to) = (&self.instances[at].has, &self.instances[target].has);
        if from.iter().zip(to).any(|(from, to)| from > to) {
            let words = format!("the lock is handed over with {from:?}, and the target has {to:?}");
            self.fail("switchover loses nothing", words);
        }
    }
}
