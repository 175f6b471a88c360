//! What happened is written down.

use crate::event::Event;
use crate::state::slots::Place;
use crate::state::{Link, Session, State};
use crate::words::timing::Tick;

impl State {
    /// Takes note of what happened.
    pub fn apply(&mut self, event: Event, now: Tick) {
        match event {
            Event::Attached { probe, process } => self.attached(*probe, process.err(), now),
            Event::Unreachable { why } => self.unreachable(why, now),
            Event::FellSilent => {
                self.instance.silent_since = self.instance.silent_since.or(Some(now))
            }
            Event::SpokeAgain => self.instance.silent_since = None,
            Event::Died { proof } => {
                self.instance.link = Link::Dead {
                    proof,
                    since: now,
                    newest: None,
                }
            }
            Event::Unsuitable { why } => self.instance.link = Link::Unsuitable { why },
            Event::Superseded { by } => {
                self.pending.ends(Place::Process);
                self.superseded = Some(by);
            }
            Event::GuardAnswered {
                command,
                probe,
                refused,
            } => self.guard_answered(command, *probe, refused, now),
            Event::GuardFailed { command, why } => self.guard_failed(command, why, now),
            Event::KillEnded { result } => self.kill_ended(result, now),
            Event::SessionCreated { result } => self.session_created(result, now),
            Event::SessionRenewed { session, result } => {
                self.session_renewed(&session, result, now)
            }
            Event::SessionDestroyed => {
                self.pending.ends(Place::Session);
                self.session = Session::default();
            }
            Event::LockRead {
                asked_at,
                by_watch,
                result,
            } => self.lock_read(asked_at, by_watch, result, now),
            Event::LockStepEnded { step, result } => self.lock_step_ended(step, result, now),
            Event::CatalogEnded { result } => self.catalog_ended(result, now),
            Event::MemberEnded { result } => self.member_ended(result, now),
            Event::BoardRead { result } => self.board_read(result, now),
            Event::BoardSeen { asked_at, result } => self.board_seen_beside(asked_at, result),
            Event::BallotWritten { index, result } => self.ballot_written(index, result, now),
            Event::BallotsRead { result } => self.ballots_read(result, now),
            Event::SwitchoverSeen { index, switchover } => {
                self.switchover_seen(Some((index, switchover)), now);
            }
            Event::SwitchoverWritten { result } => self.switchover_written(result, now),
            Event::HistoryRead { result } => self.history_read(result, now),
            Event::HistoryWritten { term, result } => self.history_written(term, result, now),
            Event::PromisesAnswered {
                reading,
                answers,
                unguarded,
            } => self.promises_answered(reading, &answers, unguarded, now),
            Event::Vshard(event) => self.vshard_happened(event, now),
            Event::StopRequested { signal } => {
                self.stopping = self.stopping.or(Some((signal, now)))
            }
            Event::NeighboursSeen(seen) => self.catalog.neighbours = Some(seen),
            Event::MembersSeen(announced) => self.announced = announced,
            Event::Woke => {}
            Event::Overslept { ran_until } => self.overslept(ran_until, now),
        }
    }
}
