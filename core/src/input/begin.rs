//! What is being started is written down: from then on it may have been carried out.

use crate::event::LockStepKind;
use crate::plan::{Action, Attempt, GuardCommand};
use crate::state::hold::{Gained, Sent};
use crate::state::{Granted, State};
use crate::words::board::SwitchoverState;
use crate::words::record::Record;
use crate::words::timing::{InstanceTime, Reading, Tick, Timing};

impl State {
    /// Takes note of what is being begun, before it is: a call whose answer is lost may still have been carried out.
    pub fn begin(&mut self, action: &Action, now: Tick) {
        self.pending.begins(action, now);
        match action {
            Action::Guard(command) => self.begin_command(command, now),
            Action::Acquire { attempt, .. }
            | Action::TakeOver { attempt, .. }
            | Action::Refresh { attempt, .. } => {
                let step = match attempt.gain {
                    Some(_) => LockStepKind::Acquire,
                    None => LockStepKind::Refresh,
                };
                let gaining = self.gaining(action, now);
                self.begin_step(step, attempt, gaining);
            }
            Action::Release { record, .. } => self.begin_release(record),
            Action::Tell { entry, register } => {
                self.catalog.telling = Some(entry.clone());
                self.catalog.told_at = now;
                if *register {
                    self.catalog.registered_at = now;
                }
            }
            Action::Deregister => self.catalog.telling = None,
            Action::WriteMember { member } => {
                if !member.stands_down {
                    self.catalog.stands_down_since = None;
                }
                self.catalog.member_writing = Some((**member).clone());
                self.catalog.member_written_at = now;
            }
            Action::WriteBallot { ballot } => self.begin_ballot(ballot, now),
            Action::WriteSwitchover { switchover, to, .. } => {
                if switchover.state == SwitchoverState::Requested {
                    self.vshard.asked_at = Some(now);
                }
                self.begin_switchover(switchover, to.clone())
            }
            Action::WriteHistory { line, .. } => self.begin_history(line),
            Action::AskPromises {
                term,
                members,
                reading,
                for_all,
                ..
            } => self.begin_promises(*term, members, *reading, for_all.is_some()),
            Action::Vshard(action) => self.begin_vshard(action),
            Action::Kill
            | Action::CreateSession
            | Action::RenewSession { .. }
            | Action::DestroySession { .. }
            | Action::ReadLock
            | Action::ReadBoard
            | Action::ReadBallots { .. }
            | Action::ReadHistory
            | Action::Exit { .. } => {}
        }
    }

    fn begin_command(&mut self, command: &GuardCommand, now: Tick) {
        match command {
            GuardCommand::Promote {
                deadline, reading, ..
            }
            | GuardCommand::Grant {
                deadline, reading, ..
            } => sound!(self.lease_handed_over(*deadline, *reading, now); GrantNotNoted =>
            if matches!(command, GuardCommand::Promote { .. }) {
                self.lease_handed_over(*deadline, *reading, now);
            }),
            GuardCommand::Fence { .. } => {
                if let Some(handover) = &mut self.hold.handover {
                    handover.fencing_since = handover.fencing_since.or(Some(now));
                }
            }
            GuardCommand::StandDown { down } => {
                if *down {
                    self.instance.stood_down_at = Some(now);
                }
            }
            GuardCommand::Probe
            | GuardCommand::Follow { .. }
            | GuardCommand::Remember { .. }
            | GuardCommand::Observe { .. } => {}
        }
    }

    fn begin_step(&mut self, step: LockStepKind, attempt: &Attempt, gaining: Option<Gained>) {
        self.hold.refresh_sent = attempt.record.refresh;
        self.hold.attempted = Some(Sent {
            attempt: attempt.clone(),
            step,
            after: self.before(attempt.record.term),
            gaining,
        });
    }

    fn begin_release(&mut self, record: &Record) {
        self.hold.refresh_sent = record.refresh;
        // Should the lock stay ours after all, a promotion must have a new refresh behind it.
        sound!(self.hold.forgets_readings(); ReleaseLeavesReading => ());
        self.hold.asked = None;
        self.hold.attempted = None;
        if let Some(reading) = self.instance.reading {
            let attempt = Attempt {
                record: record.clone(),
                reading,
                gain: None,
            };
            self.begin_step(LockStepKind::Release, &attempt, None);
        }
    }

    fn lease_handed_over(&mut self, deadline: InstanceTime, reading: Reading, now: Tick) {
        let lease = self.settings.timing.lease();
        let earlier_over_at = self
            .instance
            .lease
            .map_or(Tick::default(), |earlier| earlier.over_at);
        let whole = (reading.reply_at + Timing::lease_and_margin(lease)).max(earlier_over_at);
        self.instance.lease = Some(Granted {
            deadline,
            over_at: sound!(whole; LeaseOverAtHalf => reading.reply_at + lease / 2),
            due_at: reading.reply_at + lease,
            handed_at: now,
        });
    }
}
