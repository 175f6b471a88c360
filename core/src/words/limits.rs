//! What an agent writes to Consul can be read there: what it takes over from others, names, lists and words, has an end.

use serde::{Deserialize, Deserializer};

/// More members than a replica set has, those that have left among them.
pub(super) const NAMES_MAX: usize = 64;

/// A UUID has 36.
pub(crate) const UUID_MAX: usize = 64;

/// In characters: a host's name has 253, and a port comes behind it.
const NAME_MAX: usize = 300;

/// In characters. The worst of them takes six bytes in JSON, so that a record with all of them is well below its limit.
const PROBLEMS_MAX: usize = 6_000;

/// Reads what an operator calls a member, or where it is reached.
///
/// # Errors
/// It is longer than any of these.
pub(crate) fn a_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    if name.chars().count() <= NAME_MAX {
        Ok(name)
    } else {
        let why = format!("a name or an address of more than {NAME_MAX} characters");
        Err(serde::de::Error::custom(why))
    }
}

/// Problems as they are told to others: those that find room, the first ones first. Others stand in their own members' keys.
pub(crate) fn with_room(problems: Vec<String>) -> Vec<String> {
    let mut left = PROBLEMS_MAX;
    let mut fits = |problem: &String| {
        let length = problem.chars().count();
        let has_room = length <= left;
        left -= if has_room { length } else { 0 };
        has_room
    };
    problems.into_iter().filter(|it| fits(it)).collect()
}

/// So many UUIDs as a replica set has members, or a vclock components.
pub(crate) fn are_few<'n>(mut names: impl ExactSizeIterator<Item = &'n String>) -> bool {
    names.len() <= NAMES_MAX && names.all(|name| name.len() <= UUID_MAX)
}
