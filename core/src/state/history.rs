//! What an agent knows of changes of hands.

use std::collections::VecDeque;

use serde::Serialize;

use crate::words::board::HistoryLine;
use crate::words::term::Term;
use crate::words::timing::Tick;

/// What is known of changes of hands.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Past {
    /// The instance may have been master before: whether it has rows that nobody else has is to be looked up.
    pub returning: bool,
    /// The history as read for that.
    #[serde(skip)]
    pub lines: Option<Vec<HistoryLine>>,
    /// How often it was read.
    pub reads: u32,
    /// What is being written there.
    #[serde(skip)]
    pub writing: Option<HistoryLine>,
    /// No look at it before then.
    pub read_again_at: Option<Tick>,
    /// Lines of terms that were over before Consul had them, the oldest first.
    pub untold: VecDeque<HistoryLine>,
    /// Consul denied the last call for want of rights.
    pub denied: bool,
    /// The last term in which the instance was promoted, as far as this agent knows, and which is over.
    pub reigned: Term,
    /// Its newest line.
    pub last: Option<HistoryLine>,
    /// The last hold that another one ended by taking the lock.
    pub lost: Option<LostHold>,
    /// The change of hands that this instance came back from, with what it brought.
    pub returned: Option<HistoryLine>,
}

/// A hold that another one ended by taking the lock, while this agent lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LostHold {
    /// Its term.
    pub term: Term,
    /// Which refresh its last word was.
    pub refresh: u64,
    /// The clock was read then, before that was sent.
    pub begun_at: Tick,
    /// When that was accepted.
    pub accepted_at: Tick,
}
