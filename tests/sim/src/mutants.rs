//! The switch of the mutants. At most one is on, in the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

pub use crate::table::{MUTANTS, Mutant, ONLY_KEPT};

static ON: AtomicUsize = AtomicUsize::new(0);

/// Whether the mutant with this number is on; the copy of the core asks.
#[inline]
pub(crate) fn on(number: usize) -> bool {
    ON.load(Ordering::Relaxed) == number
}

/// Switches to the mutant with this number; 0 to none.
pub fn switch_to(number: usize) {
    ON.store(number, Ordering::Relaxed);
}
