//! What the lock makes of each member.

use serde::Serialize;

use super::view::LockSight;
use crate::decide::board::Member;
use crate::decide::record::{Record, Status};

/// What the lock makes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MemberRole {
    /// It holds the lock and is active.
    Master,
    /// It holds the lock and is not writable yet.
    Promoting,
    /// It held the lock last.
    Former,
    /// None of these.
    Replica,
    /// The same, and the others do not know it: it never becomes master.
    Anonymous,
}

/// The role of the instance `uuid`; `member` is its agent's key, where there is one.
pub(super) fn of(sight: &LockSight, uuid: &str, member: Option<&Member>) -> MemberRole {
    let holder = sight.record.as_ref();
    let Some(record) = holder.filter(|record| record.instance == uuid) else {
        return match member {
            Some(member) if member.anonymous => MemberRole::Anonymous,
            _ => MemberRole::Replica,
        };
    };
    match (record.status, &sight.session) {
        (Status::Active, Some(_)) => MemberRole::Master,
        (Status::Promoting, Some(_)) => MemberRole::Promoting,
        (Status::Fenced, Some(_)) | (_, None) => MemberRole::Former,
    }
}

/// Whether the member follows the holder, in the words of an anonymous replica's own agent; the holder does not know
/// it.
pub(super) fn follows(member: &Member, record: &Record) -> Option<bool> {
    let status = member.upstreams.get(&record.instance)?;
    Some(status == "follow")
}
