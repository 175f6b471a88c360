//! The session that holds the lock, or is to.

use super::planner::Planner;
use crate::plan::Action;
use crate::state::slots::Place;

impl Planner<'_> {
    /// A session is renewed while it holds or is to take the lock, asked after when in doubt, and removed otherwise.
    pub(crate) fn keep_session(&mut self) {
        let Some(id) = self.state.session.id.clone() else {
            return;
        };
        let renew_at =
            self.state.session.renewed_at + self.state.settings.timing.session_renew_interval();
        if self.state.session.doubted || (self.state.holds_lock() && renew_at <= self.now) {
            if self.may_call(Place::Session) {
                self.act(Action::RenewSession { session: id });
            }
        } else if self.state.holds_lock() {
            self.wake(renew_at);
        }
    }

    /// A session that does not hold the lock and is not about to take it.
    pub(super) fn forget_session(&mut self) {
        if let Some(id) = self.state.session.id.clone()
            && !self.state.pending.is_busy(Place::Lock)
            && !self.stays_quiet()
            && self.may_call(Place::Session)
        {
            self.act(Action::DestroySession { session: id });
        }
    }
}
