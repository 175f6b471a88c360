//! What the oracle says in the end, with the one thing that docs/PROOF.md exempts.

use tarsec_harness::{Result, Verdict, Violation};

use super::journal::Journal;
use super::stage::{Stage, letter};

/// Stops the writers and judges what they saw.
pub(crate) async fn judge(stage: Stage<'_>, journal: &Journal) -> Result<()> {
    for (index, side) in stage.sides.into_iter().enumerate() {
        let set = letter(index);
        let kind = if side.synchronous {
            "synchronous, quorum 2"
        } else {
            "asynchronous"
        };
        let verdict = side.writers.verdict().await?;
        let touched = side.lock_touched.get();
        journal.print(&format!("\nreplica set {set} ({kind})"));
        report(journal, &verdict);
        for (violation, words) in violations(&verdict) {
            if touched && is_served_again(&verdict, &violation) {
                journal.known(format!("{words}, one after the other (docs/PROOF.md)"));
            } else {
                journal.violation(words);
            }
        }
        if verdict.accepted() == 0 {
            journal.violation(format!("replica set {set} accepted nothing"));
        }
    }
    Ok(())
}

fn report(journal: &Journal, verdict: &Verdict) {
    let gap = verdict.longest_gap.map(|gap| gap.duration());
    let gap = gap.unwrap_or_default().as_secs_f64();
    journal.print(&format!(
        "{:<36} {:>6}",
        "changes of hands",
        verdict.changes.len()
    ));
    journal.print(&format!(
        "{:<36} {:>6}",
        "writes accepted",
        verdict.accepted()
    ));
    journal.print(&format!(
        "{:<36} {:>6}",
        "writes without an answer", verdict.unanswered
    ));
    journal.print(&format!("{:<36} {gap:>6.1} s", "longest gap between them"));
    for (what, late) in [
        ("committed past a lease", verdict.past_deadline),
        ("of these begun past it", verdict.begun_past),
        ("committed beside a higher term", verdict.committed_late),
    ] {
        let worst = late.worst.as_secs_f64() * 1000.0;
        let worst = if late.writes == 0 {
            String::new()
        } else {
            format!(", by up to {worst:.0} ms")
        };
        journal.print(&format!("{what:<36} {:>6}{worst}", late.writes));
    }
    for line in verdict.to_string().lines() {
        journal.keep(line);
    }
}

/// Each violation with the oracle's words for it, which come in the same order.
fn violations(verdict: &Verdict) -> Vec<(Violation, String)> {
    let text = verdict.to_string();
    let words = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("VIOLATION: "))
        .map(str::to_owned);
    verdict.violations.iter().copied().zip(words).collect()
}

/// "A term may be served twice after somebody deleted or overwrote the lock key": by one after the other.
fn is_served_again(verdict: &Verdict, violation: &Violation) -> bool {
    let Violation::SharedTerm { term, .. } = violation else {
        return false;
    };
    let mut shares: Vec<_> = verdict
        .shares
        .iter()
        .filter(|share| share.tenure.term == *term)
        .collect();
    shares.sort_by_key(|share| share.first_began);
    shares
        .windows(2)
        .all(|pair| pair[0].last_answered < pair[1].first_began)
}
