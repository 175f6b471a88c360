//! What to call members, so that two are never alike.

use std::collections::{BTreeMap, BTreeSet};

/// What to call each instance, given name and UUID of all: its name, with as much of its UUID as tells it from another
/// instance of that name.
#[must_use]
pub fn labels<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let all: BTreeSet<(&str, &str)> = all.into_iter().collect();
    let label = |name: &str, uuid: &str| {
        let twins = all
            .iter()
            .filter(|(other, instance)| *other == name && *instance != uuid);
        let shared = twins.map(|(_, instance)| common(uuid, instance)).max();
        match shared {
            None => name.to_owned(),
            Some(shared) => {
                let start: String = uuid.chars().take((shared + 1).max(LEAST_OF_UUID)).collect();
                format!("{name} ({start})")
            }
        }
    };
    let labels = all
        .iter()
        .map(|(name, uuid)| ((*uuid).to_owned(), label(name, uuid)));
    labels.collect()
}

/// The first group of a UUID.
const LEAST_OF_UUID: usize = 8;

/// How many characters two texts have in common at their beginning.
fn common(one: &str, other: &str) -> usize {
    let both = one.chars().zip(other.chars());
    both.take_while(|(one, other)| one == other).count()
}
