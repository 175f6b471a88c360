//! The last thing that went wrong, for the dumps: it may have been said long ago, or to nobody.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock;

/// More would not be read on a screen, in characters.
const LENGTH: usize = 400;

/// A warning or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it was logged, in milliseconds since the epoch by the wall clock.
    pub at_ms: u64,
    /// Its message and its fields, as the log has them.
    pub words: String,
}

/// Remembers the last warning or error; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LastFault(Arc<Mutex<Option<Fault>>>);

impl LastFault {
    pub(super) fn get(&self) -> Option<Fault> {
        let last = self.0.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The caller filters: this layer takes every event that it gets for a fault.
impl<S: Subscriber> Layer<S> for LastFault {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let text = words.message + &words.fields;
        let fault = Fault {
            at_ms: clock::wall_ms(),
            words: text.chars().take(LENGTH).collect(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Without the quotes that programs need.
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "; {name}: {value:?}"),
        };
    }
}
