//! How far behind the master a replica is, as its member key has it.

use serde::{Deserialize, Serialize};

/// How far behind the master a replica is, in one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The master: instance UUID.
    pub of: String,
    /// Rows that the master had at its last word and the replica lacked when it was looked at after that.
    pub rows: u64,
    /// For how long they have been missing, or how late the last ones came; where rows do not arrive, for how long.
    pub ms: u64,
    /// Whether rows arrive.
    pub arrival: Arrival,
}

/// Whether the master's rows arrive at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// They do, or there are none.
    Arriving,
    /// There is a connection, and rows that the master has do not arrive.
    Stalled,
    /// Replication has stopped with an error.
    Stopped,
    /// There is no connection by which they could.
    Disconnected,
    /// The instance does not answer, so what it has now is not known: the rows are those that it lacked of the last word
    /// when it last answered.
    Silent,
}
