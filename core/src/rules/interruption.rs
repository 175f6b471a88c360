//! What a serving master adds to its term's line of history.

use super::planner::Planner;
use crate::words::interruption::keep;
use crate::words::record::Record;

impl Planner<'_> {
    /// Of a serving master: adds what has happened within its term to the term's line. The line is read before, since an
    /// ex-master may have written there what it brought back; one that is not there is not written anew.
    pub(super) fn tell_interruptions(&mut self, record: &Record) {
        let hold = &self.state.hold;
        let untold = hold.gained.as_ref().is_some_and(|gained| !gained.told);
        if hold.interruptions.is_empty() || untold {
            return;
        }
        let Some(lines) = &self.state.past.lines else {
            self.read_history();
            return;
        };
        let Some(line) = lines.iter().find(|line| line.term == record.term) else {
            return;
        };
        let mut line = line.clone();
        for interruption in &hold.interruptions {
            keep(&mut line.interruptions, interruption.clone());
        }
        self.write_history(line, false);
    }
}
