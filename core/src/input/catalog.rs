//! What became of writes to the catalog and to the member key, written down.

use std::time::Duration;

use crate::plan::CatalogEntry;
use crate::state::State;
use crate::state::slots::Place;
use crate::words::sight::ConsulFault;
use crate::words::timing::Tick;

/// After a failed catalog or member write: nobody's safety depends on it.
const CATALOG_RETRY: Duration = Duration::from_secs(1);

/// A call without an answer may be carried out later, but hardly that late: whatever held it up has held up others.
const LOST_CALL: Duration = Duration::from_secs(30);

impl State {
    pub(super) fn member_ended(&mut self, result: Result<(), ConsulFault>, now: Tick) {
        self.pending.ends(Place::Member);
        let catalog = &mut self.catalog;
        let written = catalog.member_writing.take();
        match result {
            Ok(()) => {
                let says_so = written.as_ref().is_some_and(|member| member.stands_down);
                let since = catalog.stands_down_since.unwrap_or(now);
                catalog.stands_down_since =
                    sound!(says_so.then_some(since); StandsDownUnsaid => Some(since));
                catalog.member = written;
                catalog.member_fault = None;
                self.pending.retries(Place::Member, None);
            }
            Err(fault) => {
                // Either may stand there now: the next write is not spared, whatever it says.
                catalog.forgets_member();
                self.pending
                    .retries(Place::Member, Some(now + CATALOG_RETRY));
                catalog.member_fault = Some(fault.why);
            }
        }
    }

    pub(super) fn catalog_ended(&mut self, result: Result<bool, ConsulFault>, now: Tick) {
        self.pending.ends(Place::Catalog);
        let telling: Option<CatalogEntry> = self.catalog.telling.take();
        match (result, telling) {
            (Ok(true), Some(entry)) => {
                self.catalog.told = Some(entry);
                self.catalog.lost = false;
                self.pending.retries(Place::Catalog, None);
                self.catalog.fault = None;
            }
            (Ok(_), None) => self.catalog.removed = true,
            (Ok(false), Some(_)) => self.catalog.lost = true,
            (Err(fault), _) => {
                self.pending
                    .retries(Place::Catalog, Some(now + CATALOG_RETRY));
                self.catalog.doubted_until = Some(now + LOST_CALL);
                self.catalog.fault = Some(fault.why);
            }
        }
    }
}
