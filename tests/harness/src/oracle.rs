//! The oracle: whether a history of writes could have come from one master at a time.
//!
//! All times are since the start of the history, on the host's clock. Writers and
//! instances share that clock, so a write's begin inside an instance can be compared with
//! another's. A write that was accepted without a guard counts as term 0.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Everything that the writers saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The instances' names; writes carry their index.
    pub instances: Vec<String>,
    /// The writers' names in the journal, in the same order.
    pub writers: Vec<String>,
    /// Every attempt to write.
    pub writes: Vec<Write>,
    /// From the writers' start to their end.
    pub length: Duration,
}

/// One attempt to write.
#[derive(Debug, Clone)]
pub struct Write {
    /// Index of the instance.
    pub instance: usize,
    /// The writer's own count.
    pub seq: u64,
    /// When the writer began to send it.
    pub sent: Duration,
    /// When the writer read the answer.
    pub answered: Option<Duration>,
    /// The answer, or what came instead.
    pub outcome: Outcome,
}

/// What became of a write.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Committed and acknowledged.
    Accepted(Accepted),
    /// Refused because the instance was read-only.
    ReadOnly,
    /// Refused for another reason.
    Failed(String),
    /// The connection ended, or the writers were stopped, before an answer came.
    NoReply,
}

/// What an instance says of a write that it accepted.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// The guard's term when the write began; 0 without a guard.
    pub term: u64,
    /// When the instance decided that it is not read-only.
    pub began: Duration,
    /// When the instance had committed it.
    pub ended: Duration,
    /// What was left of the lease then; negative when it was over. `None` where no lease bounds the write: without a
    /// guard, or while the guard stands down for a pause.
    pub lease_left_ns: Option<i64>,
}

/// An instance that accepted writes, at a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure {
    /// Index of the instance.
    pub instance: usize,
    /// The term of the accepted writes.
    pub term: u64,
}

/// What one instance accepted at one term.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The instance and the term.
    pub tenure: Tenure,
    /// How many writes.
    pub writes: usize,
    /// The first write's begin inside the instance.
    pub first_began: Duration,
    /// The first acknowledgement that a writer read.
    pub first_answered: Duration,
    /// The last acknowledgement that a writer read.
    pub last_answered: Duration,
}

/// A proof that there was more than one master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Writes that were sent after a higher term's write had been acknowledged, and were accepted
    /// at the lower one.
    Stale {
        /// The tenure that accepted them.
        low: Tenure,
        /// The tenure that had accepted before.
        high: Tenure,
        /// How many such writes there were.
        writes: usize,
        /// How long after that acknowledgement the last of them was sent.
        worst: Duration,
    },
    /// Writes that began inside an instance after a write had begun inside another one at a higher
    /// term: both were writable.
    Overlap {
        /// The tenure that accepted them.
        low: Tenure,
        /// The tenure that had accepted before.
        high: Tenure,
        /// How many such writes there were.
        writes: usize,
        /// How long after that write's begin the last of them began.
        worst: Duration,
    },
    /// Two instances accepted writes at one term.
    SharedTerm {
        /// The term at which both accepted.
        term: u64,
        /// Two instances that did.
        instances: (usize, usize),
    },
}

/// A time without accepted writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last acknowledgement before it.
    pub from: Duration,
    /// The first one after it.
    pub to: Duration,
    /// When the last write before it began inside its instance, which was writable then.
    pub last_began: Duration,
    /// When the first one after it began inside its own.
    pub first_began: Duration,
    /// The tenure that gave the acknowledgement before it.
    pub before: Tenure,
    /// The tenure that gave the acknowledgement after it.
    pub after: Tenure,
}

/// The role changed hands: the gap around it.
pub type Change = Gap;

/// Writes that were late, without proving two masters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrun {
    /// How many writes were late.
    pub writes: usize,
    /// By how much the worst one was late.
    pub worst: Duration,
}

/// What the oracle found.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The instances' names.
    pub instances: Vec<String>,
    /// Every proof of more than one master; empty is good.
    pub violations: Vec<Violation>,
    /// How much each tenure accepted, in the order of the first acknowledgement.
    pub shares: Vec<Share>,
    /// The longest time between two acknowledgements in a row, by any instance.
    pub longest_gap: Option<Gap>,
    /// Each change of hands, in order.
    pub changes: Vec<Change>,
    /// Writes that were committed after their own instance's lease had ended.
    pub past_deadline: Overrun,
    /// Those of them that had also begun after it.
    pub begun_past: Overrun,
    /// Writes that began in time but were committed after a higher term's first write had begun
    /// on another instance.
    pub committed_late: Overrun,
    /// Writes refused as read-only.
    pub read_only: usize,
    /// Writes refused for other reasons.
    pub failed: usize,
    /// Writes without an answer.
    pub unanswered: usize,
    /// Why writes failed, with counts.
    pub failures: BTreeMap<String, usize>,
    /// From the writers' start to their end.
    pub length: Duration,
}

/// An accepted write, flattened.
#[derive(Clone, Copy)]
struct Fact {
    tenure: Tenure,
    sent: Duration,
    answered: Duration,
    accepted: Accepted,
}

impl History {
    /// The oracle's verdict on it.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        let mut facts: Vec<Fact> = self.writes.iter().filter_map(Write::fact).collect();
        facts.sort_by_key(|fact| fact.answered);
        let shares = shares(&facts);
        let (changes, longest_gap) = gaps(&facts, &shares);
        let mut violations = shared_terms(&shares);
        violations.extend(tardy(&facts, &shares));
        let mut verdict = Verdict {
            instances: self.instances.clone(),
            violations,
            longest_gap,
            changes,
            past_deadline: past_deadline(&facts, |_| Duration::ZERO),
            begun_past: past_deadline(&facts, |it| it.ended.saturating_sub(it.began)),
            committed_late: committed_late(&facts, &shares),
            shares,
            read_only: 0,
            failed: 0,
            unanswered: 0,
            failures: BTreeMap::new(),
            length: self.length,
        };
        for write in &self.writes {
            match &write.outcome {
                Outcome::Accepted(_) => {}
                Outcome::ReadOnly => verdict.read_only += 1,
                Outcome::NoReply => verdict.unanswered += 1,
                Outcome::Failed(reason) => {
                    verdict.failed += 1;
                    *verdict.failures.entry(reason.clone()).or_default() += 1;
                }
            }
        }
        verdict
    }
}

impl Write {
    /// Whether the write was acknowledged.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(self.outcome, Outcome::Accepted(_))
    }

    fn fact(&self) -> Option<Fact> {
        let (Outcome::Accepted(accepted), Some(answered)) = (&self.outcome, self.answered) else {
            return None;
        };
        let tenure = Tenure {
            instance: self.instance,
            term: accepted.term,
        };
        Some(Fact {
            tenure,
            sent: self.sent,
            answered,
            accepted: *accepted,
        })
    }
}

fn shares(facts: &[Fact]) -> Vec<Share> {
    let mut shares: BTreeMap<Tenure, Share> = BTreeMap::new();
    for fact in facts {
        let share = shares.entry(fact.tenure).or_insert(Share {
            tenure: fact.tenure,
            writes: 0,
            first_began: fact.accepted.began,
            first_answered: fact.answered,
            last_answered: fact.answered,
        });
        share.writes += 1;
        share.first_began = share.first_began.min(fact.accepted.began);
        share.last_answered = fact.answered;
    }
    let mut shares: Vec<Share> = shares.into_values().collect();
    shares.sort_by_key(|share| share.first_answered);
    shares
}

fn shared_terms(shares: &[Share]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (place, one) in shares.iter().enumerate() {
        let twin = shares[..place]
            .iter()
            .find(|other| other.tenure.term == one.tenure.term);
        if let Some(twin) = twin {
            let instances = (twin.tenure.instance, one.tenure.instance);
            found.push(Violation::SharedTerm {
                term: one.tenure.term,
                instances,
            });
        }
    }
    found
}

/// The earliest share, by `when`, of a term above the fact's, held by another instance.
fn rival(fact: &Fact, shares: &[Share], when: impl Fn(&Share) -> Duration) -> Option<Share> {
    let above = |share: &&Share| {
        share.tenure.term > fact.tenure.term && share.tenure.instance != fact.tenure.instance
    };
    shares
        .iter()
        .filter(above)
        .min_by_key(|share| when(share))
        .copied()
}

fn tardy(facts: &[Fact], shares: &[Share]) -> Vec<Violation> {
    let mut stale: BTreeMap<(Tenure, Tenure), Overrun> = BTreeMap::new();
    let mut overlap = stale.clone();
    for fact in facts {
        let high = rival(fact, shares, |share| share.first_answered);
        if let Some((high, late)) =
            high.and_then(|high| Some((high, after(fact.sent, high.first_answered)?)))
        {
            stale
                .entry((fact.tenure, high.tenure))
                .or_default()
                .add(late);
        }
        let high = rival(fact, shares, |share| share.first_began);
        if let Some((high, late)) =
            high.and_then(|high| Some((high, after(fact.accepted.began, high.first_began)?)))
        {
            overlap
                .entry((fact.tenure, high.tenure))
                .or_default()
                .add(late);
        }
    }
    let stale = stale
        .into_iter()
        .map(|((low, high), found)| Violation::Stale {
            low,
            high,
            writes: found.writes,
            worst: found.worst,
        });
    let overlap = overlap
        .into_iter()
        .map(|((low, high), found)| Violation::Overlap {
            low,
            high,
            writes: found.writes,
            worst: found.worst,
        });
    stale.chain(overlap).collect()
}

fn committed_late(facts: &[Fact], shares: &[Share]) -> Overrun {
    let mut found = Overrun::default();
    for fact in facts {
        let Some(high) = rival(fact, shares, |share| share.first_began) else {
            continue;
        };
        let in_time = after(fact.accepted.began, high.first_began).is_none();
        if let (true, Some(late)) = (in_time, after(fact.accepted.ended, high.first_began)) {
            found.add(late);
        }
    }
    found
}

/// By how much the writes were past their lease, `sooner` than their commit.
fn past_deadline(facts: &[Fact], sooner: impl Fn(&Accepted) -> Duration) -> Overrun {
    let mut found = Overrun::default();
    for accepted in facts.iter().map(|fact| &fact.accepted) {
        let Some(left) = accepted.lease_left_ns.filter(|left| *left < 0) else {
            continue;
        };
        let late = Duration::from_nanos(left.unsigned_abs()).checked_sub(sooner(accepted));
        if let Some(late) = late.filter(|late| !late.is_zero()) {
            found.add(late);
        }
    }
    found
}

/// The changes of hands and the longest gap.
fn gaps(facts: &[Fact], shares: &[Share]) -> (Vec<Change>, Option<Gap>) {
    let gap = |before: &Fact, after: &Fact| Gap {
        from: before.answered,
        to: after.answered,
        last_began: before.accepted.began,
        first_began: after.accepted.began,
        before: before.tenure,
        after: after.tenure,
    };
    let all = facts.windows(2).map(|pair| gap(&pair[0], &pair[1]));
    let longest = all.clone().max_by_key(Gap::duration);
    let opens = |gap: &Gap| {
        let share = shares.iter().find(|share| share.tenure == gap.after);
        gap.before != gap.after && share.is_some_and(|share| share.first_answered == gap.to)
    };
    (all.filter(opens).collect(), longest)
}

/// By how much `late` is after `early`.
fn after(late: Duration, early: Duration) -> Option<Duration> {
    late.checked_sub(early).filter(|by| !by.is_zero())
}

impl Overrun {
    fn add(&mut self, late: Duration) {
        self.writes += 1;
        self.worst = self.worst.max(late);
    }
}

impl Gap {
    /// How long it lasted.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// The same inside the instances: no time of not being writable between the two writes was longer.
    #[must_use]
    pub fn inside(&self) -> Duration {
        self.first_began.saturating_sub(self.last_began)
    }
}

impl Verdict {
    /// Whether there was one master at a time.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.violations.is_empty()
    }

    /// How many writes were accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shares.iter().map(|share| share.writes).sum()
    }

    /// The end of an honest test.
    ///
    /// # Panics
    /// When there was more than one master, or when nothing was accepted at all, which proves
    /// nothing; with the whole verdict.
    pub fn assert_safe(&self) {
        assert!(
            self.accepted() > 0,
            "no write was accepted, so nothing was tested:\n{self}"
        );
        assert!(self.is_safe(), "more than one master:\n{self}");
    }

    fn name(&self, tenure: Tenure) -> String {
        let name = self
            .instances
            .get(tenure.instance)
            .map_or("?", String::as_str);
        format!("{name} at term {}", tenure.term)
    }
}

impl Verdict {
    fn describe(&self, violation: &Violation) -> String {
        match violation {
            Violation::Stale {
                low,
                high,
                writes,
                worst,
            } => {
                let (low, high) = (self.name(*low), self.name(*high));
                format!(
                    "{low} accepted {writes} writes sent up to {worst:.3?} after {high} had acknowledged one"
                )
            }
            Violation::Overlap {
                low,
                high,
                writes,
                worst,
            } => {
                let (low, high) = (self.name(*low), self.name(*high));
                format!("{low} began {writes} writes up to {worst:.3?} after {high} had begun one")
            }
            Violation::SharedTerm { term, instances } => {
                let [one, other] = [instances.0, instances.1].map(|instance| Tenure {
                    instance,
                    term: *term,
                });
                format!(
                    "{} and {} both accepted writes",
                    self.name(one),
                    self.name(other)
                )
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_safe() { "safe" } else { "UNSAFE" };
        writeln!(
            f,
            "{word}: {} writes accepted in {:.3?}",
            self.accepted(),
            self.length
        )?;
        for violation in &self.violations {
            writeln!(f, "  VIOLATION: {}", self.describe(violation))?;
        }
        for share in &self.shares {
            let (from, to) = (share.first_answered, share.last_answered);
            writeln!(
                f,
                "  {}: {} writes, {from:.3?} to {to:.3?}",
                self.name(share.tenure),
                share.writes
            )?;
        }
        for change in &self.changes {
            let (before, after) = (self.name(change.before), self.name(change.after));
            writeln!(
                f,
                "  change of hands: {before} to {after}, {:.3?} without writes",
                change.duration()
            )?;
        }
        if let Some(gap) = &self.longest_gap {
            writeln!(
                f,
                "  longest gap: {:.3?}, from {:.3?} to {:.3?}",
                gap.duration(),
                gap.from,
                gap.to
            )?;
        }
        for (what, late) in [
            ("past the lease", self.past_deadline),
            (
                "past the lease behind which they had begun",
                self.begun_past,
            ),
            ("late", self.committed_late),
        ] {
            if late.writes > 0 {
                writeln!(
                    f,
                    "  {} writes committed {what}, by up to {:.3?}",
                    late.writes, late.worst
                )?;
            }
        }
        let (read_only, failed, unanswered) = (self.read_only, self.failed, self.unanswered);
        write!(
            f,
            "  {read_only} refused as read-only, {failed} failed, {unanswered} unanswered"
        )?;
        self.failures
            .iter()
            .try_for_each(|(reason, count)| write!(f, "\n    {count} × {reason}"))
    }
}
