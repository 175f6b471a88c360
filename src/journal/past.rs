//! Changes of hands, and what an ex-master brings back.

use tracing::{info, warn};

use super::{Said, Topic};
use crate::decide::board::HistoryLine;
use crate::decide::ending::{How, Known};
use crate::decide::interruption::Interruption;
use crate::decide::state::State;

/// A change of hands, and what came back of it, once each.
pub(super) fn history(said: &mut Said, line: &HistoryLine, over: bool) {
    let back = line.returned.as_ref();
    let words = format!("{} {:?}", line.term, back.map(|back| back.rows));
    if !said.is_news(Topic::HistoryLine, &words) {
        return;
    }
    // The master's own agent adds to its line, and has told its log of that already.
    let newest = line.interruptions.last().map(words_of);
    if newest.is_some() && newest.as_ref() == said.last.get(&Topic::Interruption) {
        return;
    }
    let (term, to) = (line.term.get(), line.to.name.as_str());
    match back {
        None => change_of_hands(line, over),
        Some(back) if back.rows > 0 && back.known == Some(Known::AtMost) => warn!(
            term,
            to,
            at_most_rows = back.rows,
            "this ex-master is back, perhaps WITH ROWS that its successor did not have when it became master: terms since have no line in the history"
        ),
        Some(back) if back.rows > 0 => warn!(
            term,
            to,
            rows = back.rows,
            "this ex-master is back WITH ROWS that its successor did not have when it became master"
        ),
        Some(_) => info!(
            term,
            to,
            rows = 0,
            "this ex-master is back and its successor had all its rows"
        ),
    }
}

fn words_of(interruption: &Interruption) -> String {
    format!("{} {}", interruption.at_ms, interruption.why)
}

/// Times within the term in which the master here was read-only, once each.
pub(crate) fn interruptions(said: &mut Said, state: &State) {
    let Some(last) = state.hold.interruptions.last() else {
        return;
    };
    if said.is_news(Topic::Interruption, &words_of(last)) {
        warn!(
            why = last.why,
            read_only_for = %last.outage,
            "the master here was read-only for a while, and is writable again in the same term"
        );
    }
}

/// A change of hands with all that is known of it.
macro_rules! change_of_hands {
    ($say:ident, $line:ident, $message:literal, $here:expr) => {
        $say!(
            term = $line.term.get(),
            ended = $line.ended.map_or("", How::words),
            by = $line.by.as_deref(),
            reason = $line.reason,
            from = $line.from.as_ref().map(|from| from.name.as_str()),
            to = $line.to.name,
            outage = $line.outage.map(|outage| outage.to_string()),
            rows_at_risk = $line.rows_at_risk,
            exact = $line.risk_known == Some(Known::Exact),
            perhaps_more = $line.estimate_rows(),
            $message,
            $here
        )
    };
}

/// `over`: the term was over before Consul had its line.
fn change_of_hands(line: &HistoryLine, over: bool) {
    let here = if over {
        "was master here for a moment"
    } else {
        "master here now"
    };
    if line.rows_at_risk > 0 {
        change_of_hands!(
            warn,
            line,
            "{}, WITHOUT ROWS that the one before had written",
            here
        );
    } else if line.estimate_rows() > Some(0) {
        change_of_hands!(
            warn,
            line,
            "{}; rows that the one before wrote after its last word MAY BE MISSING until it is back",
            here
        );
    } else {
        change_of_hands!(info, line, "{}", here);
    }
}
