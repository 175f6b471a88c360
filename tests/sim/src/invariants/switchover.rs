//! A switchover loses nothing: in the moment of the release to its target, the target has every row that has landed
//! (DESIGN 3, "planned switchover").

use crate::decide::record::Record;
use crate::world::World;

impl World {
    /// A holder that was not promoted may hand on to a member with fewer rows: R7 says when.
    ///
    /// Rows of an earlier master that came back may reach it behind its own last word: those are not its to hand over.
    pub(super) fn check_handed_over(
        &mut self,
        set: usize,
        at: usize,
        target: &str,
        record: &Record,
    ) {
        let target = self.find(set, target).filter(|_| !record.refused);
        let Some(target) = target else {
            return;
        };
        let own = self.instances[at].n;
        let knew = |n: usize, has: u64| {
            let told = record.vclock.get(&(n + 1).to_string());
            if n == own {
                has
            } else {
                has.min(told.copied().unwrap_or(0))
            }
        };
        let (from, to) = (&self.instances[at].has, &self.instances[target].has);
        let mut rows = from.iter().zip(to).enumerate();
        if rows.any(|(n, (from, to))| knew(n, *from) > *to) {
            let words = format!("the lock is handed over with {from:?}, and the target has {to:?}");
            self.fail("switchover loses nothing", words);
        }
    }
}
