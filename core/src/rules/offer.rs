//! A holder whose guard does not promote its instance, since the synchronous queue finds no quorum, say, or the disk is full.
//! It keeps the lock, so that nobody with fewer rows gets it meanwhile, and gives it up for a member that has its rows.

use std::time::Duration;

use super::contest::Contest;
use super::planner::Planner;
use super::ranking::{LastMaster, compare, rows_lacked};
use crate::plan::Reason;
use crate::words::board::Ballot;
use crate::words::observed::Probe;
use crate::words::record::{Record, Status};
use crate::words::sight::KeySight;
use crate::words::timing::Tick;

/// How often the board is read for ballots while nobody is master.
const BALLOTS_POLL: Duration = Duration::from_millis(100);

impl Planner<'_> {
    /// Since when the guard has refused, if that is a lease ago.
    pub(super) fn is_not_promoted_since(&self) -> Option<Tick> {
        let lease = self.state.settings.timing.lease();
        let since = self.state.hold.refused_since?;
        (self.now >= since + lease).then_some(since)
    }

    /// `None`: nobody is there to give it to, so the guard is asked again.
    pub(super) fn hand_on(
        &mut self,
        record: &Record,
        probe: &Probe,
        since: Tick,
    ) -> Option<Reason> {
        if self.state.orders.pause.is_some() {
            // Nothing changes hands by itself.
            return None;
        }
        let timing = &self.state.settings.timing;
        let lease = timing.lease();
        let is_new = self.now < since + lease * 3;
        self.look_at_board(if is_new {
            BALLOTS_POLL
        } else {
            timing.healthcheck_interval()
        });
        let is_bound = self.refuses_loss() && self.quorum_to_ask(Some(record)).is_some();
        let may_lack_rows = !is_bound && self.now >= since + lease * 2;
        let Some(heir) = self.heir(record, probe, may_lack_rows).cloned() else {
            return self.gives_up_unheard(record, since);
        };
        let guard = self.state.instance.guard_refused.clone();
        let why = format!(
            "its guard does not promote it, {} is to try: {}",
            heir.name,
            guard.unwrap_or_default()
        );
        if self.state.may_be_writable(self.now) {
            self.fence(&why);
        } else {
            self.release_to(&why, Some(&heir.instance));
        }
        Some(Reason::Releasing { why })
    }

    /// Nobody answers: older agents do not, and may do better.
    fn gives_up_unheard(&mut self, record: &Record, since: Tick) -> Option<Reason> {
        let lease = self.state.settings.timing.lease();
        let (board, _) = self.state.board.as_ref()?;
        let answers = |it: &Ballot| it.term == record.term.next();
        let unheard = record.members.len() > 1 && !board.ballots.values().any(answers);
        let guard = self.state.instance.guard_refused.clone();
        let why = guard.unwrap_or_default();
        (unheard && self.now >= since + lease * 3)
            .then(|| self.give_up(&format!("its guard does not promote it: {why}")))
    }

    /// Nothing that was written under this record's term can have been acknowledged: this agent has had the lock from the
    /// term's begin, it heard what became of every promotion, and the guard knows of none.
    pub(super) fn was_surely_not_promoted(&self, record: &Record) -> bool {
        let probe = self.state.instance.probe.as_ref();
        let base = probe.filter(|it| it.guard.term == record.term);
        let served = base.is_some_and(|it| it.guard.base.is_some());
        let hold = &self.state.hold;
        hold.gained.is_some() && !hold.promotion_unheard && !record.was_promoted() && !served
    }

    /// The best of those whose ballots answer the offer; those first that were not tried yet.
    fn heir(&self, record: &Record, probe: &Probe, may_lack_rows: bool) -> Option<&Ballot> {
        let unpromoted = Record {
            refused: self.was_surely_not_promoted(record),
            ..record.clone()
        };
        let last = LastMaster::of(Some(&unpromoted), probe);
        let (board, _) = self.state.board.as_ref()?;
        let ballots = board.ballots.values();
        let fit = ballots.filter(|it| {
            let lacked = rows_lacked(&it.vclock, &probe.vclock, last.as_ref());
            let has_rows = sound!(lacked == 0; OfferedWithoutRows => true) || may_lack_rows;
            let answers = it.term == record.term.next() && it.excluded.is_none();
            answers && it.instance != probe.uuid && has_rows
        });
        let elector = self.state.settings.elector;
        fit.min_by(|a, b| {
            let tried = |it: &Ballot| record.tried.contains(&it.instance);
            let by_turn = tried(a).cmp(&tried(b));
            by_turn.then_with(|| compare(elector, last.as_ref(), a, b))
        })
    }

    /// Of a member: the holder offers the lock, so it says what it has.
    pub(super) fn answers_offer(&mut self, key: &KeySight) -> bool {
        let Ok(record) = &key.record else {
            return false;
        };
        let own = self.state.live_probe().map(|probe| probe.uuid.as_str());
        if !record.offered || record.status != Status::Promoting || own == Some(&record.instance) {
            return false;
        }
        let contest = Contest {
            index: key.modify_index,
            term: record.term.next(),
            record: Some(record),
            since: self.state.lock.stood_since,
            is_offered: true,
        };
        match self.excluded(Some(record), Duration::ZERO) {
            Some(why) => self.decline(&contest, &why),
            None if self.has_cast(&contest) => {}
            None => self.run(&contest),
        }
        true
    }
}
