//! A pause: nothing changes hands by itself. The order in which the record and the guard learn of it matters: while a
//! guard stands down no time bounds its lease, so the record must say `paused` before, and until after.

use std::time::Duration;

use super::planner::Planner;
use crate::event::GuardCommandKind;
use crate::plan::{Action, CatalogEntry, Ending, GuardCommand, Health, Reason};
use crate::state::Link;
use crate::state::slots::Place;
use crate::words::board::Member;
use crate::words::observed::Probe;
use crate::words::record::Record;
use crate::words::timing::{Reading, Tick};

/// How often the board is read where no refresh brings it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Planner<'_> {
    /// An operator's pause, in words; `None`: there is none that we know of.
    pub(super) fn pause_words(&self) -> Option<String> {
        let pause = self.state.orders.pause.as_ref()?;
        let what = if pause.cluster {
            "the cluster"
        } else {
            "the replica set"
        };
        let by = if pause.by.is_empty() {
            "somebody"
        } else {
            &pause.by
        };
        let why = if pause.why.is_empty() {
            String::new()
        } else {
            format!(" ({})", pause.why)
        };
        Some(format!("{what} is PAUSED by {by}{why}"))
    }

    /// Whether the next record has to say so: a pause begins with that, and ends with it.
    pub(super) fn says_paused(&self) -> bool {
        let stands_down = sound!(self.state.stands_down(); RecordStopsSayingPaused => false);
        self.state.orders.pause.is_some() || stands_down
    }

    /// For the member's key: before the guard stands down, and until after, whatever has become of the lock.
    pub(super) fn tells_that_it_stands_down(&self) -> bool {
        let state = self.state;
        let will = state.is_serving() && state.holds_lock() && state.orders.pause.is_some();
        let does = state.stands_down() && state.may_be_writable(self.now);
        will || sound!(does; KeySilentWithoutLock => false)
    }

    /// For everybody: by the holder's own knowledge, or by the holder's word.
    pub(super) fn is_paused(&self) -> bool {
        if self.state.holds_lock() {
            return self.says_paused();
        }
        match self.state.key_session() {
            Some(_) => self.state.seen_record().is_some_and(|record| record.paused),
            None => self.state.orders.pause.is_some(),
        }
    }

    /// No entry looks as usual during a pause.
    pub(super) fn loud_about_pause(&self, entry: CatalogEntry) -> CatalogEntry {
        if !self.is_paused() {
            return entry;
        }
        let output = if entry.output.contains("PAUSED") {
            entry.output
        } else {
            format!("{}; PAUSED: nothing changes hands by itself", entry.output)
        };
        let health = match entry.health {
            Health::Passing => Health::Warning,
            Health::Warning | Health::Critical => entry.health,
        };
        CatalogEntry {
            output,
            health,
            ..entry
        }
    }

    /// Of a master: the guard stands down once the record says `paused`, and up again while a lease runs.
    pub(super) fn mind_pause(&mut self, record: &Record, probe: &Probe) -> Option<Reason> {
        let lease = self.state.settings.timing.lease();
        let Some(words) = self.pause_words() else {
            let knows_orders = self.state.board.is_some();
            let leased = probe.guard.deadline > probe.now + lease / 4;
            if self.state.stands_down() && knows_orders && leased && self.may_command_guard() {
                self.tell_guard(GuardCommand::StandDown { down: false });
            }
            return None;
        };
        if self.may_stand_down(record, probe) && self.may_command_guard() {
            self.tell_guard(GuardCommand::StandDown { down: true });
        }
        let lacking = self.unfit(self.state.settings.timing.healthcheck_timeout());
        if self.state.lock.outdated || lacking.is_some() {
            // No refresh brings the board, and the pause may end meanwhile.
            self.look_at_board(LOOK_INTERVAL);
        }
        // Until it stands down the lease is what counts, and the entry says beside that that there is a pause.
        (probe.guard.stood_down || lacking.is_some())
            .then_some(Reason::MasterPaused { words, lacking })
    }

    fn may_stand_down(&self, record: &Record, probe: &Probe) -> bool {
        if !record.paused || probe.guard.stood_down || !probe.is_master(record.term) {
            return false;
        }
        let state = self.state;
        let seen = state.seen_record().map(Record::stamp);
        // To an agent that comes when the record was deleted, the member's key is all that tells.
        if !self.is_behind_member_key(state.hold.reading) {
            return false;
        }
        // A write whose reply was lost before this record was accepted rests on an older index, and comes to nothing; one
        // that rests on there being no record does so while this one stands.
        !state.pending.is_busy(Place::Lock) && !state.lock.outdated && seen == Some(record.stamp())
    }

    /// Whether a write that rests on this reading began once the member's key was known to tell of the pause. If Consul
    /// accepts such a write the record stood in its place then; so whoever finds none looked later, and finds the key.
    fn is_behind_member_key(&self, reading: Option<Reading>) -> bool {
        let since = self.state.catalog.stands_down_since;
        let (Some(since), Some(reading)) = (since, reading) else {
            return false;
        };
        sound!(reading.reply_at >= since; StandsDownOnOldRecord => true)
    }

    /// The words for another member, of those that count, whose key says on a board of no earlier than `since` that its
    /// guard may stand down.
    pub(super) fn who_stands_down(
        &self,
        since: Tick,
        counts: impl Fn(&Member) -> bool,
    ) -> Option<String> {
        let own = self.state.live_probe().map(|probe| &probe.uuid);
        let (board, _) = self.state.board_since(since)?;
        let mut others = board.members.values();
        let found = others.find(|it| {
            let stands_down = sound!(it.stands_down; KeysUnaskedWithoutRecord => false);
            stands_down && Some(&it.instance) != own && counts(it)
        });
        found.map(|it| format!("{}, whose guard may stand down", it.name))
    }

    /// The same for members whose keys were not read: one of them may say so.
    pub(super) fn who_may_stand_down_unread(&self, since: Tick) -> Option<String> {
        let (board, _) = self.state.board_since(since)?;
        let words = board.unread.join("; ");
        let unread =
            format!("a member whose key is not read and whose guard may stand down ({words})");
        board.misses_members.then_some(unread)
    }

    /// Why not to be promoted yet behind a lock that had no record. A request for it that was carried out late has not
    /// been behind a look at the members' keys, and no wait outlives a guard that stands down.
    pub(super) fn looks_at_guards(&mut self, since: Tick) -> Option<Reason> {
        let by = self.who_stands_down(since, |_| true);
        if let Some(by) = by.or_else(|| self.who_may_stand_down_unread(since)) {
            return Some(Reason::Paused { by });
        }
        if self.state.board_since(since).is_some() {
            return None;
        }
        self.read_board();
        Some(Reason::Promoting)
    }

    /// Nothing but that second acceptance is missing: not to be waited for until the next refresh is due.
    pub(super) fn wants_word_behind_member_key(&mut self, record: &Record, probe: &Probe) -> bool {
        let state = self.state;
        let told = state.orders.pause.is_some() && state.catalog.stands_down_since.is_some();
        if !told || !record.paused || probe.guard.stood_down {
            return false;
        }
        if self.is_behind_member_key(state.hold.reading) {
            return false;
        }
        let ready = self.is_behind_member_key(state.instance.reading);
        if !ready && self.may_command_guard() {
            self.tell_guard(GuardCommand::Probe);
        }
        ready
    }

    /// Of a holder whose instance cannot serve: in a pause the lock is kept, and the instance waited for.
    pub(super) fn waits_in_pause(&mut self) -> Option<Reason> {
        let words = self.pause_words()?;
        self.look_at_board(LOOK_INTERVAL);
        let lacking = match &self.state.instance.link {
            Link::Up => self
                .unfit(self.state.settings.timing.healthcheck_timeout())
                .unwrap_or_else(|| self.instance_words()),
            Link::Unknown | Link::Down { .. } | Link::Dead { .. } | Link::Unsuitable { .. } => {
                self.instance_words()
            }
        };
        Some(Reason::MasterPaused {
            words,
            lacking: Some(lacking),
        })
    }

    /// R5 rests while nothing is to happen by itself and nobody can have taken the lock for the time that has passed.
    /// A guard that stands down and answers has not outlived anything: it gets a new lease when the pause ends.
    pub(super) fn spares_hung_instance(&self, gone: bool) -> bool {
        let state = self.state;
        let knows_no_pause = state.board.is_some() && state.orders.pause.is_none();
        let said_so = state
            .hold
            .record
            .as_ref()
            .is_some_and(|record| record.paused);
        if state.stands_down() {
            return !(gone && knows_no_pause && state.holds_lock());
        }
        state.orders.pause.is_some() && said_so && state.holds_lock()
    }

    /// An agent that is stopped in a pause leaves a master as it is: the guard stands down, the record says so, and
    /// the agent that comes next finds both. Read-only for a restart of the agent is what an operator pauses to avoid.
    pub(super) fn leaves_as_it_is(&mut self) -> Option<Reason> {
        let record = self.state.hold.record.as_ref()?;
        let stood_down = self
            .state
            .live_probe()
            .is_some_and(|probe| probe.guard.stood_down && probe.guard.term == record.term);
        let still_paused = self.state.board.is_none() || self.state.orders.pause.is_some();
        if !(record.paused && still_paused && self.state.holds_lock()) {
            return None;
        }
        if self.state.pending.command() == Some(GuardCommandKind::StandDown) {
            // It may stand down already, and its answer comes, or fails, in the time of one request.
            return Some(Reason::Stopping {
                waiting_for: "the guard to say that it stands down",
            });
        }
        if !stood_down {
            return None;
        }
        self.act(Action::Exit {
            how: Ending::Stopped,
        });
        Some(Reason::Stopping {
            waiting_for: "nothing: in a pause a master is left as it is, with its lock",
        })
    }
}
