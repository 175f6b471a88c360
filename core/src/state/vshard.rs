//! What an agent knows of vshard.

use serde::Serialize;

use crate::words::timing::Tick;
use crate::words::vshard::{Look, Master, Masters, Wanted};

/// What an agent knows of vshard.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Vshard {
    /// `None`: not read yet.
    pub masters: Option<Masters>,
    /// The central configuration's `ModifyIndex`.
    pub config: Option<u64>,
    /// What the instance's configuration says since the last time it was told.
    pub applied: Option<Wanted>,
    /// What it is being told.
    #[serde(skip)]
    pub applying: Option<Wanted>,
    /// How often it was told.
    pub sequence: u64,
    /// A router could not reach a master, and is told of it again.
    pub left_out: Vec<String>,
    /// Why the last try failed.
    pub fault: Option<String>,
    /// Not before then.
    pub retry_at: Option<Tick>,
    /// The same not again before then, whoever configures it again and again.
    pub again_at: Option<Tick>,
    /// What is being written.
    #[serde(skip)]
    pub writing: Option<Master>,
    /// Not before then.
    pub write_retry_at: Option<Tick>,
    /// A switchover to ourselves was asked for then.
    pub asked_at: Option<Tick>,
}

/// Whether an instance is to be told what its configuration is to say.
pub(crate) enum Due {
    /// It has been.
    Never,
    /// As soon as that is past.
    At(Option<Tick>),
}

impl Vshard {
    /// What the masters' keys say of that replica set.
    #[must_use]
    pub fn master_of(&self, replicaset: &str) -> Option<&(u64, Master)> {
        self.masters.as_ref()?.get(replicaset)
    }

    /// When the instance is to be told that, if it is.
    pub(crate) fn due(&self, look: Option<&Look>, wanted: &Wanted) -> Due {
        let is_stale = look.is_some_and(|look| look.foreign);
        let told = self.applied.as_ref() == Some(wanted);
        if told && !is_stale && self.left_out.is_empty() {
            return Due::Never;
        }
        let again_at = self.again_at.filter(|_| told);
        Due::At(self.retry_at.max(again_at))
    }

    /// Everything that is not as it should be, in words.
    #[must_use]
    pub fn problem(&self, look: Option<&Look>) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        let refused = look
            .and_then(|look| look.config.as_ref())
            .and_then(|config| config.refused.as_ref());
        words.extend(refused.map(|why| format!("the central configuration is refused: {why}")));
        words.extend(self.fault.clone());
        let report = look.and_then(|look| look.last.as_ref());
        words.extend(report.into_iter().flat_map(|last| last.problems.clone()));
        (!words.is_empty()).then(|| words.join("; "))
    }
}
