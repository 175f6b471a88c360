//! What arrives of the master's rows.

use serde::Serialize;

use super::lag::Lag;
use crate::words::timing::Tick;

/// What arrives of the master's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feed {
    /// The master: instance UUID.
    pub from: String,
    /// Since when its rows do not arrive; `None`: they do, or all have arrived.
    pub failing_since: Option<Tick>,
    /// What is not as it should be between the two, in words that stand still while it does not change.
    pub fault: Option<String>,
    /// They did not arrive for longer than `REPLICA_MAX_IDLE`, while the master was heard of.
    pub broken: bool,
    /// How far behind the instance is.
    #[serde(skip)]
    pub(crate) lag: Lag,
}
