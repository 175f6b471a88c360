//! The term: how often the lock of a replica set has changed hands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One higher each time the lock changes hands. 0: nobody is known to have held it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u64")]
pub struct Term(u64);

/// No term is that high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("term is {found}, at most {} is allowed", Term::MAX)]
pub struct TermTooHigh {
    found: u64,
}

impl Term {
    /// Nobody is known to have held the lock.
    pub const NONE: Self = Self(0);
    /// The first holder's.
    pub const FIRST: Self = Self(1);
    /// The highest that can be written: what a number of Lua and a reader of JSON hold exactly ends here.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// How far a term that is believed may be ahead of the highest one known. Nobody counts that far unheard; and what a hand
    /// wrote may be exceeded as often again.
    pub const MAX_AHEAD: u64 = 1 << 32;
    /// The highest that an agent that knows none yet believes of a member's key. It leaves as many to the lock, whose record is
    /// believed beyond it: whatever was written into a member's key, whoever starts later believes the terms that were counted
    /// from there.
    pub const MAX_FIRST: Self = Self(1 << 52);
    /// The highest that is ever believed: the lock can change hands another four thousand million times.
    pub const MAX_BELIEVED: Self = Self(Self::MAX.0 - Self::MAX_AHEAD);

    /// The holder's that comes after it. It is above [`Self::MAX_BELIEVED`] only where as many changes of hands were
    /// counted; at [`Self::MAX`] it stays.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1).min(Self::MAX.0))
    }

    /// So many terms before; `None`: there was none yet.
    #[must_use]
    pub fn before(self, terms: u64) -> Option<Self> {
        self.0.checked_sub(terms).map(Self)
    }

    /// The terms between this one and that one, without either.
    pub fn until(self, end: Self) -> impl Iterator<Item = Self> {
        (self.0 + 1..end.0).map(Self)
    }

    /// Whether an agent that knows no higher term than `known` may believe that this one was reached by counting. It may have been
    /// written by anybody who may write a key.
    #[must_use]
    pub fn is_believable_after(self, known: Self, said_by: SaidBy) -> bool {
        match (known, said_by) {
            (Self::NONE, SaidBy::Member) => self <= Self::MAX_FIRST,
            (Self::NONE, SaidBy::Lock | SaidBy::Guard) => self <= Self::MAX_BELIEVED,
            (known, _) => self.is_within_reach_of(known),
        }
    }

    /// Whether it may have been counted to from that one. One term after the other always is; a guard knows this rule alone
    /// (`promises.lua`).
    #[must_use]
    pub fn is_within_reach_of(self, known: Self) -> bool {
        let limit = Self(known.0.saturating_add(Self::MAX_AHEAD)).min(Self::MAX_BELIEVED);
        self <= limit.max(known.next())
    }
}

/// Where a term was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// The record in the lock.
    Lock,
    /// The guard of the agent's own instance.
    Guard,
    /// A member's key, which nothing protects.
    Member,
}

impl Term {
    /// As a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Term {
    type Error = TermTooHigh;

    fn try_from(found: u64) -> Result<Self, TermTooHigh> {
        let term = Self(found);
        if term <= Self::MAX {
            Ok(term)
        } else {
            Err(TermTooHigh { found })
        }
    }
}

impl From<u32> for Term {
    fn from(term: u32) -> Self {
        Self(u64::from(term))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
