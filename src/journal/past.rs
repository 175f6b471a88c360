//! Changes of hands, and what an ex-master brings back.

use tracing::{info, warn};

use super::{Said, Topic};
use crate::decide::board::HistoryLine;
use crate::decide::ending::{How, Known};
use crate::decide::interruption::Interruption;
use crate::decide::state::State;

/// A change of hands, and what came back of it, once each.
pub(super) fn history(said: &mut Said, line: &HistoryLine) {
    let back = line.returned.as_ref();
    let words = format!("{} {:?}", line.term, back.map(|back| back.rows));
    if !said.is_news(Topic::HistoryLine, &words) {
        return;
    }
    // The master's own agent adds to its line, and has said so.
    let newest = line.interruptions.last().map(words_of);
    if newest.is_some() && newest.as_ref() == said.last.get(&Topic::Interruption) {
        return;
    }
    let (term, to) = (line.term, line.to.name.as_str());
    match back {
        None => began(line),
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

fn began(line: &HistoryLine) {
    let from = line.from.as_ref().map(|from| from.name.as_str());
    let (term, to) = (line.term, line.to.name.as_str());
    let (rows_at_risk, perhaps_more) = (line.rows_at_risk, line.estimate_rows());
    let ended = line.ended.map_or("", How::words);
    let by = line.by.as_deref();
    let outage = line.outage.map(|outage| outage.to_string());
    let exact = line.risk_known == Some(Known::Exact);
    let reason = line.reason.as_str();
    if rows_at_risk > 0 {
        warn!(
            term,
            ended,
            by,
            reason,
            from,
            to,
            outage,
            rows_at_risk,
            exact,
            perhaps_more,
            "master here now, WITHOUT ROWS that the one before had written"
        );
    } else if perhaps_more > Some(0) {
        warn!(
            term,
            ended,
            by,
            reason,
            from,
            to,
            outage,
            rows_at_risk,
            exact,
            perhaps_more,
            "master here now; rows that the one before wrote after its last word MAY BE MISSING until it is back"
        );
    } else {
        info!(
            term,
            ended, by, reason, from, to, outage, rows_at_risk, exact, "master here now"
        );
    }
}
