//! What a run prints, also kept in `chaos.log` beside the other logs, and what it counts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The run's own record.
pub(crate) struct Journal {
    file: RefCell<Option<File>>,
    /// Faults by label: how many happened, and how many had nothing to happen to.
    faults: RefCell<BTreeMap<String, (usize, usize)>>,
    violations: RefCell<Vec<String>>,
    known: RefCell<Vec<String>>,
    rounds: Cell<usize>,
    restarts: Cell<usize>,
    kills: Cell<usize>,
    longest_settling: Cell<Duration>,
}

impl Journal {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            // Without the file there is still the screen.
            file: RefCell::new(File::create(dir.join("chaos.log")).ok()),
            faults: RefCell::default(),
            violations: RefCell::default(),
            known: RefCell::default(),
            rounds: Cell::default(),
            restarts: Cell::default(),
            kills: Cell::default(),
            longest_settling: Cell::default(),
        }
    }

    /// A line with the time of day, which is how agents and instances stamp their logs.
    pub(crate) fn say(&self, text: &str) {
        self.print(&format!("{}  {text}", time_of_day()));
    }

    pub(crate) fn print(&self, text: &str) {
        println!("{text}");
        self.keep(text);
    }

    /// A line for the file alone.
    pub(crate) fn keep(&self, text: &str) {
        if let Some(file) = self.file.borrow_mut().as_mut() {
            writeln!(file, "{text}").ok();
        }
    }

    pub(crate) fn happened(&self, label: String) {
        self.faults.borrow_mut().entry(label).or_default().0 += 1;
    }

    pub(crate) fn in_vain(&self, label: String) {
        self.faults.borrow_mut().entry(label).or_default().1 += 1;
    }

    pub(crate) fn round(&self) {
        self.rounds.set(self.rounds.get() + 1);
    }

    pub(crate) fn restarted(&self) {
        self.restarts.set(self.restarts.get() + 1);
    }

    pub(crate) fn killed(&self, instances: usize) {
        self.kills.set(self.kills.get() + instances);
    }

    pub(crate) fn settled(&self, took: Duration) {
        self.longest_settling
            .set(self.longest_settling.get().max(took));
    }

    /// Something that must not be.
    pub(crate) fn violation(&self, what: String) {
        self.say(&format!("VIOLATION: {what}"));
        self.violations.borrow_mut().push(what);
    }

    /// Something that docs/LIMITS.md or a page that it names says.
    pub(crate) fn known(&self, what: String) {
        self.say(&format!("known limit: {what}"));
        self.known.borrow_mut().push(what);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.borrow().is_empty()
    }

    /// The table of faults and what else was counted.
    pub(crate) fn sum_up(&self) {
        self.print("");
        self.print(&format!("{:<36} {:>6} {:>8}", "fault", "times", "in vain"));
        let (mut times, mut vain) = (0, 0);
        for (label, (happened, in_vain)) in self.faults.borrow().iter() {
            self.print(&format!("{label:<36} {happened:>6} {in_vain:>8}"));
            times += happened;
            vain += in_vain;
        }
        self.print(&format!("{:<36} {times:>6} {vain:>8}", "all"));
        self.print("");
        for (what, count) in [
            ("rounds", self.rounds.get()),
            ("processes started again", self.restarts.get()),
            ("hung instances killed by agents", self.kills.get()),
        ] {
            self.print(&format!("{what:<36} {count:>6}"));
        }
        self.print(&format!(
            "{:<36} {:>6.1} s",
            "longest until all was well",
            self.longest_settling.get().as_secs_f64()
        ));
        for (title, lines) in [
            ("known limits met", self.known.borrow()),
            ("violations", self.violations.borrow()),
        ] {
            self.print(&format!("{title:<36} {:>6}", lines.len()));
            for line in lines.iter() {
                self.print(&format!("  {line}"));
            }
        }
    }
}

/// `hh:mm:ss.mmm`, UTC.
fn time_of_day() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = now.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{:03}",
        seconds % 60,
        now.subsec_millis()
    )
}
