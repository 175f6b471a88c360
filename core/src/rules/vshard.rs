//! vshard: whose master flags this instance's own configuration is to carry, and when that is seen to.
//!
//! Nothing here is about safety: flags say who is asked, the lease says who answers. The order is kept all the same:
//! promotion first and flags second at the new master, fence first and flags second at the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::planner::Planner;
use crate::event::GuardCommandKind;
use crate::plan::{Action, GuardCommand};
use crate::state::slots::Place;
use crate::state::vshard::Due;
use crate::words::board::{self, Switchover, SwitchoverState};
use crate::words::observed::Probe;
use crate::words::record::Status;
use crate::words::term::Term;
use crate::words::timing::Tick;
use crate::words::vshard::{Master, Named, VshardAction, Wanted};

/// After a switchover that was asked for because of `master_weight`, until it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// No `switchover_delay` is longer.
const DELAY_MAX: Duration = Duration::from_secs(86_400);

impl Planner<'_> {
    /// Whatever is to be done about vshard; nothing where there is none.
    pub(crate) fn keep_vshard(&mut self) {
        let state = self.state;
        let Some(probe) = state.live_probe() else {
            return;
        };
        let has_vshard = probe.vshard.is_some() || state.vshard.config.is_some();
        if !has_vshard || state.superseded.is_some() || state.stopping.is_some() {
            return;
        }
        self.write_master(probe);
        self.apply_vshard(probe);
        self.prefer_itself(probe);
    }

    /// The term in which we serve, or are being promoted at this moment: whoever was before is over by then, and what
    /// routers and other storages do with our name takes longer than the promotion.
    fn term_to_name(&self) -> Option<Term> {
        let state = self.state;
        let record = state.hold.record.as_ref().filter(|_| state.holds_lock())?;
        let promotes =
            |action: &Action| matches!(action, Action::Guard(GuardCommand::Promote { .. }));
        let is_promoted = state.pending.command() == Some(GuardCommandKind::Promote)
            || self.actions.iter().any(promotes);
        (state.is_serving() || is_promoted).then_some(record.term)
    }

    /// Once in each term.
    fn write_master(&mut self, probe: &Probe) {
        let vshard = &self.state.vshard;
        let (Some(look), Some(_)) = (&probe.vshard, &vshard.masters) else {
            return;
        };
        let Some(term) = self.term_to_name().filter(|_| look.storage) else {
            return;
        };
        let master = Master {
            v: board::VERSION,
            term,
            instance: probe.uuid.clone(),
            replicaset: probe.replicaset_uuid.clone(),
            name: self.state.name().to_owned(),
            priority: self.state.priority(),
            instance_name: look.instance_name.clone(),
            replicaset_name: look.replicaset_name.clone(),
        };
        let known = vshard.master_of(&probe.replicaset_uuid);
        let index = match known {
            Some((_, known)) if *known == master || known.term > master.term => return,
            Some((index, _)) => *index,
            None => 0,
        };
        if vshard.writing.is_none() && self.is_due(vshard.write_retry_at) {
            self.act(Action::Vshard(VshardAction::WriteMaster { index, master }));
        }
    }

    /// Whoever else is master as the keys say it; we ourselves while we serve, and only then.
    fn wanted(&self, probe: &Probe) -> Option<Wanted> {
        let vshard = &self.state.vshard;
        let mut masters: BTreeMap<String, Named> = vshard
            .masters
            .as_ref()?
            .iter()
            .filter(|(_, (_, master))| master.is_somebody())
            .map(|(replicaset, (_, master))| (replicaset.clone(), Named::from(master)))
            .collect();
        let own = &probe.replicaset_uuid;
        if self.state.is_serving() {
            let look = probe.vshard.clone().unwrap_or_default();
            let named = Named {
                instance: probe.uuid.clone(),
                instance_name: look.instance_name,
                replicaset_name: look.replicaset_name,
            };
            masters.insert(own.clone(), named);
        } else if masters
            .get(own)
            .is_some_and(|named| named.instance == probe.uuid)
        {
            // We are not it any more, or not yet again; flags stay what they are until somebody is.
            masters.remove(own);
        }
        Some(Wanted {
            masters,
            config: vshard.config,
        })
    }

    fn apply_vshard(&mut self, probe: &Probe) {
        let state = self.state;
        let vshard = &state.vshard;
        // Between gaining the lock and serving, and between a fence and the release, the instance has better things to
        // do: vshard may wait for others.
        let between =
            (state.holds_lock() && !state.is_serving()) || state.pending.is_busy(Place::Fence);
        if between || state.hold.handover.is_some() {
            return;
        }
        let Some(wanted) = self.wanted(probe) else {
            return;
        };
        let look = probe.vshard.as_ref();
        let others = wanted.masters.get(&probe.replicaset_uuid);
        let is_other = others.is_some_and(|named| named.instance != probe.uuid);
        if is_other && look.is_some_and(|look| look.flagged) && !state.is_fenced() {
            return;
        }
        match vshard.due(look, &wanted) {
            Due::Never => {}
            Due::At(at) => {
                if vshard.applying.is_none() && self.is_due(at) {
                    let sequence = vshard.sequence + 1;
                    self.act(Action::Vshard(VshardAction::Apply { sequence, wanted }));
                }
            }
        }
    }

    /// `master_weight` and `switchover_delay` of the central configuration: asks for a switchover to itself once it has
    /// been there long enough beside a master that is preferred less.
    fn prefer_itself(&mut self, probe: &Probe) {
        let state = self.state;
        let config = probe.vshard.as_ref().and_then(|look| look.config.as_ref());
        let Some(config) = config.filter(|config| config.weight.is_some()) else {
            return;
        };
        let Some((_, master)) = state.vshard.master_of(&probe.replicaset_uuid) else {
            return;
        };
        let is_active = state.seen_record().is_some_and(|record| {
            record.instance == master.instance && record.status == Status::Active
        });
        let follows = probe.replication.iter().any(|peer| {
            let upstream = peer.upstream.as_ref();
            peer.uuid == master.instance && upstream.is_some_and(|up| up.status == "follow")
        });
        let patience = state.settings.timing.healthcheck_timeout();
        let is_behind =
            config.priority_of(master) >= state.priority() || master.instance == probe.uuid;
        if is_behind || !is_active || !follows || self.unfit(patience).is_some() {
            return;
        }
        let delay = Duration::try_from_secs_f64(config.delay_s.unwrap_or(0.0));
        let delay = delay.unwrap_or(ASK_AGAIN).min(DELAY_MAX);
        let began = state.lock.term_seen.map_or(Tick::default(), |(_, at)| at);
        let mut ready_at = state.instance.attached_at.max(began) + delay;
        if let Some(asked_at) = state.vshard.asked_at {
            ready_at = ready_at.max(asked_at + ASK_AGAIN);
        }
        if ready_at > self.now {
            self.wake(ready_at);
            return;
        }
        let Some((index, order)) = &state.orders.switchover else {
            return;
        };
        let is_open = matches!(
            order.state,
            SwitchoverState::Requested | SwitchoverState::Running
        );
        if !is_open && self.may_call(Place::Switchover) {
            let at_ms = state.wall_ms;
            let switchover = Switchover {
                id: format!("{}-{}-{at_ms}", state.settings.agent, master.term),
                target: Some(probe.uuid.clone()),
                by: "master_weight".to_owned(),
                at: at_ms / 1000,
                at_ms,
                state: SwitchoverState::Requested,
                ..Switchover::nothing()
            };
            self.act(Action::WriteSwitchover {
                index: *index,
                switchover: Box::new(switchover),
                to: None,
            });
        }
    }
}
