//! What no plan may do.

use super::*;

/// What no plan may do, whatever was heard.
pub(super) fn sound(state: &State, plan: &Plan, now: Tick) -> Result<(), TestCaseError> {
    let mut places = BTreeMap::new();
    for action in &plan.actions {
        *places.entry(format!("{:?}", action.place())).or_insert(0) += 1;
        if let Action::Guard(
            GuardCommand::Promote {
                deadline, reading, ..
            }
            | GuardCommand::Grant {
                deadline, reading, ..
            },
        ) = action
        {
            prop_assert!(*deadline <= reading.t0 + LEASE, "{action:?}");
            let promised = matches!(action, Action::Guard(GuardCommand::Grant { .. }))
                && state.hold.promised == Some(*reading);
            prop_assert!(
                promised || state.holds_lock(),
                "{action:?} without the lock"
            );
            prop_assert!(state.hold.record.is_some(), "{action:?} without a record");
        }
        if matches!(action, Action::Guard(GuardCommand::Promote { .. })) {
            prop_assert!(
                state.hold.predecessor_over_at.is_none_or(|at| at <= now),
                "too early"
            );
        }
        if let Action::Release { record, .. } = action {
            prop_assert!(
                !state.may_be_writable(now),
                "released while it may be writable"
            );
            let predecessor_over = state.hold.predecessor_over_at.is_none_or(|at| at <= now);
            prop_assert!(record.status != Status::Fenced || predecessor_over);
        }
        if let Action::Kill = action {
            prop_assert!(state.may_hold_lease(), "killed without a lease");
            let due = state.instance.lease.is_none_or(|lease| lease.due_at <= now);
            prop_assert!(due, "killed within its lease");
        }
        if let Action::TakeOver { holder, index, .. } = action {
            let key = state
                .lock
                .sight
                .as_ref()
                .and_then(|sight| sight.key.as_ref());
            let seen = key.map(|key| (key.modify_index, key.session.as_ref()));
            prop_assert_eq!(seen, Some((*index, Some(holder))), "not what was seen");
            prop_assert!(!state.lock.unreadable && !state.lock.outdated);
            if let Some(known) = &state.lock.unchanged {
                let due_at = known.since + Timing::lease_and_margin(known.record.lease());
                prop_assert!(due_at <= now, "it may still be writable");
                let confirmed = state.lock.confirmed_at.is_some_and(|at| at >= due_at);
                prop_assert!(confirmed, "Consul was not asked");
            }
        }
        if let Action::Acquire { attempt, .. } | Action::TakeOver { attempt, .. } = action {
            let goes_on =
                state.serving_term().is_some() || attempt.record.term <= state.highest_term;
            let unpaused = state.board.as_ref().is_some_and(|(board, asked_at)| {
                board.pause.is_none() && *asked_at >= state.lock.stood_since
            });
            prop_assert!(goes_on || unpaused, "it may be paused");
        }
        if let Action::Acquire { attempt, .. }
        | Action::TakeOver { attempt, .. }
        | Action::Refresh { attempt, .. } = action
        {
            prop_assert!(
                attempt.record.refresh > state.hold.refresh_sent,
                "a counter repeats"
            );
            prop_assert!(
                now.since(attempt.reading.reply_at) <= LEASE / 40,
                "a stale reading"
            );
        }
        if let Action::Tell { entry, .. } = action {
            let master = entry.registered.role == Role::Master && entry.health == Health::Passing;
            prop_assert!(
                !master || (state.is_serving() && state.holds_lock()),
                "no such master"
            );
        }
    }
    prop_assert!(
        places.values().all(|count| *count == 1),
        "{:?}",
        plan.actions
    );
    prop_assert!(plan.wake_at.is_none_or(|at| at > now));
    Ok(())
}
