//! What is logged of the master's rows that do not arrive.

use tracing::{info, warn};

use super::{Said, Topic};
use crate::decide::state::Feed;

/// Says that nothing arrives for too long, once, and when that is over.
pub(crate) fn say(said: &mut Said, feed: Option<&Feed>) {
    match feed {
        Some(feed) if feed.broken => {
            let why = feed.fault.as_deref().unwrap_or_default();
            if said.is_news(Topic::Feed, why) {
                warn!(
                    why,
                    "the master's rows do not arrive: critical until they do"
                );
            }
        }
        Some(_) if said.last.contains_key(&Topic::Feed) => {
            said.forget(&[Topic::Feed]);
            info!("the master's rows arrive again");
        }
        Some(_) => {}
        // No other instance is master, so there is nothing to arrive.
        None => said.forget(&[Topic::Feed]),
    }
}
