//! What was read of the lock in Consul, and why something could not be.

use serde::Serialize;

use super::ids::SessionId;
use super::record::{Record, RecordError};

/// A call to Consul that did not bring an answer we can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsulFault {
    /// The error and its causes, in one line.
    pub why: String,
    /// Consul answered, and the token does not allow it.
    pub denied: bool,
}

/// The lock key as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockSight {
    /// The index of the whole answer: of the key's last change, or of the store's where there is no key.
    pub index: u64,
    /// The key, if it exists.
    pub key: Option<KeySight>,
}

/// An existing lock key as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySight {
    /// Of the key's last change.
    pub modify_index: u64,
    /// Who holds it.
    pub session: Option<SessionId>,
    /// The record, or why it is none.
    pub record: Result<Record, RecordError>,
}
