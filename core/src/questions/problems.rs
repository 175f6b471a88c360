//! What is not as it should be in a replica set, as the words of its members show it together.
//!
//! The one place for it: [`of`] is pure, members' keys and the record in, sentences out. `tarsec status` shows them (exit
//! code 10). The holder of the lock reads the members' keys with each refresh, so it asks here each time and writes the
//! answer into its record; the other agents have that from the watch they keep anyway ([`State::problems`]). Each agent
//! says them in its check and, once, as a WARN.
//!
//! A problem of a replica set that is not known here yet is one more function beside `settings_that_differ` and a line in
//! [`of`]. What a single agent finds at its own place goes into its key as [`Member::problems`], and is said by all from here.
//! No problem makes a check anything but what it is: readers that want passing services alone would lose a master that
//! serves, over something that an operator has to look at and no reader can avoid.

use std::collections::BTreeMap;

use super::feed::SPLIT_OFF;
use crate::state::State;
use crate::words::board::Member;
use crate::words::limits::with_room;
use crate::words::names::labels;
use crate::words::observed::GuardClock;
use crate::words::record::Record;
use crate::words::settings::Settings;

/// As many failures in a row are told; fewer pass by themselves.
const FAILURES: u32 = 3;

impl State {
    /// What our agent finds by itself that is not as it should be and concerns the whole replica set, in words.
    pub(crate) fn own_problems(&self) -> Vec<String> {
        let Some(probe) = &self.instance.probe else {
            return Vec::new();
        };
        let own = &probe.replicaset_uuid;
        let neighbours = self.catalog.neighbours.as_ref();
        let foreign = neighbours.and_then(|it| it.about_master(own, probe.vshard.is_some()));
        let other = self.others_record().map(|record| {
            format!(
                "the lock of this replica set is {}'s, of replica set {}: CONSUL_LOCK_KEY is the same for both, and only one \
                 of them can have a master",
                record.name, record.replicaset
            )
        });
        let unguarded = self.unguarded_words();
        let own = foreign.into_iter().chain(other).chain(unguarded);
        own.chain(self.unvouched())
            .chain(self.unread_words())
            .chain(self.guard_clock_words())
            .collect()
    }

    /// What its holder cannot read beside the lock: orders may be there, too. One failure is none yet.
    fn unread_words(&self) -> Vec<String> {
        if !self.holds_lock() {
            return Vec::new();
        }
        let fault = self.unread.board.as_ref();
        let fault = fault.filter(|_| self.unread.failures >= FAILURES);
        let fault = fault.map(|fault| format!("members and orders are not seen: {}", fault.why));
        let board = self.board.as_ref();
        let too_much = board.map(|(board, _)| board.unread.clone());
        fault
            .into_iter()
            .chain(too_much.into_iter().flatten())
            .collect()
    }

    /// Its leases do not run out while its machine is suspended.
    fn guard_clock_words(&self) -> Option<String> {
        let probe = self.instance.probe.as_ref()?;
        (probe.guard.clock == GuardClock::Monotonic).then(|| {
            format!(
                "the guard of {} cannot read CLOCK_BOOTTIME: a lease there stands still while its machine is suspended, \
                 and writes that come too late afterwards are acknowledged, with GUARD=strict as well",
                self.name()
            )
        })
    }

    /// The record in the lock key, if it is another replica set's.
    pub(crate) fn others_record(&self) -> Option<&Record> {
        let own = &self.instance.probe.as_ref()?.replicaset_uuid;
        let record = self.seen_record()?;
        let is_others = !record.replicaset.is_empty() && record.replicaset != *own;
        is_others.then_some(record)
    }
}

/// More at once are said by the first of them; a record stays small.
const MOST: usize = 8;

/// What stands for the replica set's UUID in a setting's value.
pub const REPLICASET: &str = "<replica-set UUID>";

/// The longest sentence in characters: two values and the names of some members fit.
const LONGEST: usize = 400;

/// What is not as it should be, in words; names that two members share are told apart.
#[must_use]
pub fn of<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    record: Option<&Record>,
) -> Vec<String> {
    let members: Vec<&Member> = members.into_iter().collect();
    let living = living(&members, record);
    let mut problems = names_that_are_shared(&living);
    problems.extend(settings_that_differ(&living));
    problems.extend(nobody_follows(&living, record));
    problems.extend(split_off(&members, record));
    let own = living.iter().flat_map(|member| member.problems.clone());
    for problem in own {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems.truncate(MOST);
    problems.iter().map(|problem| shortened(problem)).collect()
}

/// The members whose keys are of today: the holder and whoever replicates from it. A key outlives its instance, and one
/// that was set up anew has another UUID at the same address.
fn living<'a>(members: &[&'a Member], record: Option<&Record>) -> Vec<&'a Member> {
    let lives = |member: &&&Member| {
        record.is_none_or(|record| {
            record.instance == member.instance || record.following.contains(&member.instance)
        })
    };
    members.iter().filter(lives).copied().collect()
}

fn names_that_are_shared(members: &[&Member]) -> Vec<String> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for member in members {
        let named = by_name.entry(&member.uri).or_default();
        named.push(&member.instance);
    }
    let shared = by_name.iter().filter(|(_, instances)| instances.len() > 1);
    shared
        .map(|(name, instances)| {
            format!(
                "{} members announce the same address, {name} (instances {}): clients and replicas that go there reach \
                 only one of them, give each its own ANNOUNCE_ADDR",
                instances.len(),
                instances.join(", ")
            )
        })
        .collect()
}

/// Settings that do what they promise only where all members have the same.
fn settings_that_differ(members: &[&Member]) -> Vec<String> {
    let name = labels(
        members
            .iter()
            .map(|member| (&*member.name, &*member.instance)),
    );
    let mut found: BTreeMap<&str, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    for member in members {
        let lease = (member.lease_ms > 0).then(|| ("MASTER_LEASE", time(member.lease_ms)));
        let shared = member.shared.iter();
        let settings = shared.map(|(setting, value)| (&**setting, value.clone()));
        for (setting, value) in settings.chain(lease) {
            let by_value = found.entry(setting).or_default();
            let named = name.get(&*member.instance).map_or("", String::as_str);
            by_value.entry(value).or_default().push(named);
        }
    }
    let differ = found.iter().filter(|(_, by_value)| by_value.len() > 1);
    differ
        .map(|(setting, by_value)| {
            let sides = by_value
                .iter()
                .map(|(value, names)| format!("{value} at {}", names.join(", ")));
            let sides: Vec<String> = sides.collect();
            format!("{setting} differs: {}", sides.join("; "))
        })
        .collect()
}

/// Members that may become master, or are, and from whom nobody replicates: what is written there exists once. Both its
/// own instance and those of the others say so; an agent that does not say its `REPLICATION` leaves it open.
fn nobody_follows(members: &[&Member], record: Option<&Record>) -> Vec<String> {
    let names = members.iter().map(|it| (&*it.name, &*it.instance));
    let name = labels(names);
    let unfollowed = members
        .iter()
        .filter(|member| member.unfollowed && member.priority >= 0);
    let words = unfollowed.filter_map(|member| {
        let name = name.get(&member.instance)?;
        if record.is_some_and(|record| record.instance == member.instance) {
            return Some(format!(
                "nobody replicates from the master, {name}: what is written exists once"
            ));
        }
        let mut others = members.iter().filter(|it| it.instance != member.instance);
        let known = others.clone().next().is_some();
        let nobody = known && !others.any(|it| it.may_follow(&member.instance));
        nobody.then(|| {
            format!(
                "nobody replicates from {name}: were it master, what is written would exist once. Put it into \
                 box.cfg.replication of the others, or give it a negative PRIORITY"
            )
        })
    });
    words.collect()
}

/// Members whose rows the master refuses for good.
fn split_off(members: &[&Member], record: Option<&Record>) -> Vec<String> {
    let names = members.iter().map(|it| (&*it.name, &*it.instance));
    let name = labels(names);
    let split_off = record.into_iter().flat_map(|record| &record.split_off);
    split_off
        .map(|uuid| {
            let name = name.get(uuid).unwrap_or(uuid);
            format!("the master refuses the rows of {name}, which never becomes master itself: {SPLIT_OFF}")
        })
        .collect()
}

fn time(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        format!("{}s", ms / 1_000)
    } else {
        format!("{ms}ms")
    }
}

fn shortened(problem: &str) -> String {
    if problem.chars().count() <= LONGEST {
        return problem.to_owned();
    }
    let kept: String = problem.chars().take(LONGEST - 1).collect();
    format!("{kept}…")
}

impl Settings {
    /// As it is written into the member's key: a lock key that was spelt out is the same as one that was derived.
    pub(crate) fn shared_in(&self, replicaset: &str) -> BTreeMap<String, String> {
        let shared = self.shared.iter();
        let named = |value: &String| value.replace(REPLICASET, replicaset);
        shared
            .map(|(setting, value)| (setting.clone(), named(value)))
            .collect()
    }
}

impl State {
    /// What is not as it should be in our replica set: what we found ourselves, and what the holder of the lock has from
    /// all members' keys; seen by ourselves while we hold it, else as its record has it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems_of_all();
        for own in self.own_problems() {
            if !problems.contains(&own) {
                problems.push(own);
            }
        }
        with_room(problems)
    }

    fn problems_of_all(&self) -> Vec<String> {
        if self.others_record().is_some() {
            return Vec::new();
        }
        let seen = self.seen_record();
        if self.holds_lock()
            && let Some((board, _)) = &self.board
        {
            let record = self.hold.record.as_ref();
            return of(board.members.values(), record.or(seen));
        }
        seen.map(|record| record.problems.clone())
            .unwrap_or_default()
    }
}
