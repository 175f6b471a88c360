//! Changes of hands in words: nothing is said more exactly than it is known.

use super::paper::Paper;
use super::view::{RowsAtRisk, SetView};
use super::words::{ago, clean, exact_moment, rows, wrapped};
use crate::decide::board::{HISTORY_LINES, HistoryLine, Returned};
use crate::decide::ending::{How, Known};
use crate::decide::record::Cause;
use crate::decide::timing::moment_ms;

/// Where the words about a change of hands begin.
const INDENT: usize = 10;

/// Changes of hands with rows at risk that are shown.
const AT_RISK_SHOWN: usize = 3;

/// Changes of hands that may have cost rows, of a history that begins with the newest.
pub(super) fn rows_at_risk(history: &[HistoryLine]) -> Vec<RowsAtRisk> {
    let returned = |line: &HistoryLine| line.returned.as_ref().map_or(0, |returned| returned.rows);
    history
        .iter()
        .filter(|line| {
            line.rows_at_risk > 0 || returned(line) > 0 || line.estimate_rows() > Some(0)
        })
        .take(AT_RISK_SHOWN)
        .map(|line| RowsAtRisk {
            term: line.term,
            at: line.at,
            at_ms: moment_ms(line.at_ms, line.at),
            from: line.from.clone(),
            rows: line.rows_at_risk,
            known: line.risk_known,
            estimate_rows: line.estimate_rows(),
            returned: line.returned.clone(),
            same_master: line.is_same_master(),
        })
        .collect()
}

/// Why the term began, as `tarsec status` has it.
pub(super) fn about_why(set: &SetView, reason: &str) -> String {
    let cause = match set.ended {
        Some(how) => about_end(how, set.by.as_deref()),
        None => set.cause.map_or("", about_cause).to_owned(),
    };
    match &set.outage {
        Some(outage) => format!("{cause}: {reason}; no writes before it for {outage}"),
        None => format!("{cause}: {reason}"),
    }
}

fn about_end(how: How, by: Option<&str>) -> String {
    match by {
        Some(by) if !by.is_empty() => format!("{} by {by}", how.words()),
        Some(_) | None => how.words().to_owned(),
    }
}

/// The words for a cause alone, where the agent wrote no more than that.
fn about_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "first",
        Cause::Released => "released",
        Cause::TakenOver => "taken over",
        Cause::Switchover => "switchover",
    }
}

/// The words of `tarsec status`.
pub(super) fn about_risk(risk: &RowsAtRisk, at_ms: u64) -> String {
    let name = risk.from.as_ref().map_or("?", |from| &from.name);
    let when = ago(moment_ms(risk.at_ms, risk.at), at_ms);
    let lacked = match (risk.known, &risk.returned) {
        (Some(Known::Exact), _) | (_, Some(_)) => rows(risk.rows),
        (_, None) => format!("at least {}", rows(risk.rows)),
    };
    let more = match (risk.estimate_rows, &risk.returned) {
        (Some(more), None) => format!(", and by its last rate about {more} more"),
        (_, _) => String::new(),
    };
    let lacked = format!(
        "{lacked} of {name} when term {} began{more}, {when}",
        risk.term
    );
    match &risk.returned {
        None if risk.same_master => format!("{lacked}; it came back without them"),
        None => format!("{lacked}; it has not come back yet"),
        Some(back) => format!("{lacked}; it {}", about_return(back, at_ms)),
    }
}

fn about_return(back: &Returned, at_ms: u64) -> String {
    let at_most = match back.known {
        Some(Known::AtMost) => "at most ",
        Some(_) | None => "",
    };
    format!(
        "came back {} with {at_most}{} that its successor lacked",
        ago(moment_ms(back.at_ms, back.at), at_ms),
        rows(back.rows)
    )
}

/// The words of `tarsec history`.
pub(super) fn history_line(paper: Paper, line: &HistoryLine, at_ms: u64) -> String {
    let from = line.from.as_ref().map_or("nobody", |from| &from.name);
    let hands = format!("{} -> {}", clean(from), clean(&line.to.name));
    let first = format!("  {:>6}  ", line.term);
    let indent = first.chars().count().max(INDENT);
    let text = format!("{}  {hands}", exact_moment(line.at_ms, line.at));
    let mut out = wrapped(&first, indent, &text, paper.width());
    let mut say = |text: &str| out.push_str(&wrapped("", INDENT, text, paper.width()));
    let cause = match line.ended {
        Some(how) => about_end(how, line.by.as_deref()),
        None => about_cause(line.cause).to_owned(),
    };
    say(&format!("{cause}: {}", line.reason));
    if let Some(outage) = &line.outage {
        say(&format!("no writes for {outage}"));
    }
    let stages = &line.stages_ms;
    // The last part of that time, since the new holder found the lock up for grabs.
    say(&format!(
        "election {} ms, with the lock {} ms, with the promotion {} ms",
        stages.elected, stages.acquired, stages.promoted
    ));
    if line.from.is_some() {
        say(&line_risk(line, at_ms));
    }
    for it in &line.interruptions {
        let when = exact_moment(it.at_ms, 0);
        say(&format!(
            "{when}: had been read-only for {}: {}",
            it.outage, it.why
        ));
    }
    out
}

/// What of the history is not shown.
pub(super) fn left_out(set: &SetView) -> Option<String> {
    let shown = set.history.len();
    let more = match set.history_left_out {
        0 => return None,
        1 => "1 more key is".to_owned(),
        keys => format!("{keys} more keys are"),
    };
    Some(format!(
        "{more} left out: the newest {shown} changes of hands are shown. Agents keep {HISTORY_LINES}; what else stands there may be \
         removed."
    ))
}

fn line_risk(line: &HistoryLine, at_ms: u64) -> String {
    let known = match (line.risk_known, &line.returned) {
        (Some(Known::Exact), _) => format!("{} at risk", rows(line.rows_at_risk)),
        (_, Some(_)) => format!("{} at risk by its last word", rows(line.rows_at_risk)),
        (_, None) => format!(
            "rows at risk unknown: at least {}{}",
            rows(line.rows_at_risk),
            about_last_word(line)
        ),
    };
    let back = line.returned.as_ref().zip(line.from.as_ref());
    match back {
        Some((back, from)) => format!("{known}; {} {}", from.name, about_return(back, at_ms)),
        None => known,
    }
}

fn about_last_word(line: &HistoryLine) -> String {
    let Some(age_ms) = line.last_word_age_ms else {
        return String::new();
    };
    let seconds = age_ms / 1000;
    let tenths = age_ms % 1000 / 100;
    let age = format!("; it may have written for {seconds}.{tenths} s after its last word");
    match (line.rate_rows_per_s, line.estimate_rows()) {
        (Some(rate), Some(more)) => format!("{age}, at its last {rate} rows/s about {more} more"),
        (Some(0), None) => format!("{age}, though it wrote nothing before that word"),
        (_, _) => age,
    }
}
