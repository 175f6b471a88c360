//! What the commands say about themselves below their arguments, which `clap` lists by `cli`.

use std::fmt::Write as _;

use super::outcome::Outcome;

/// A command that has more to say than what its arguments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// `tarsec status`
    Status,
    /// `tarsec switchover`
    Switchover,
    /// `tarsec pause`
    Pause,
    /// `tarsec resume`
    Resume,
    /// `tarsec history`
    History,
    /// `tarsec forget`
    Forget,
}

/// What stands below the arguments in `tarsec COMMAND --help`; `clap` breaks its lines.
#[must_use]
pub fn below(topic: Topic) -> String {
    let mut out = body(topic).to_owned();
    if topic != Topic::History {
        out.push_str(SET);
    }
    out.push_str("\n\nExit codes:\n");
    for outcome in Outcome::ALL {
        if can_end(topic, outcome) {
            let _ = writeln!(out, "  {:>2}  {}", outcome.code(), outcome.meaning());
        }
    }
    out
}

/// Which exit codes a command may have.
fn can_end(topic: Topic, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Failed | Outcome::Usage | Outcome::NoMaster => true,
        Outcome::Unwell => topic == Topic::Status,
        Outcome::Undone => topic == Topic::Switchover,
        Outcome::Refused | Outcome::NotInTime | Outcome::Declined => {
            matches!(topic, Topic::Switchover | Topic::Pause | Topic::Resume)
                || (topic == Topic::Forget && outcome != Outcome::NotInTime)
        }
    }
}

const SET: &str = "\n\n\
    A replica set is named by its UUID or the beginning of it, or by the name of a member. Where the cluster has only \
    one it need not be named.";

fn body(topic: Topic) -> &'static str {
    match topic {
        Topic::Status => STATUS,
        Topic::Switchover => SWITCHOVER,
        Topic::Pause => PAUSE,
        Topic::Resume => RESUME,
        Topic::History => HISTORY,
        Topic::Forget => FORGET,
    }
}

const STATUS: &str = "\
    It looks at each lock until it sees its holder refresh it, which is every quarter of the lease, and says so where \
    that does not come in time. Times and ages are by the clocks that wrote them.\n\n\
    behind: rows that the master had at its last word and the member lacked when it was looked at after that, and how \
    late rows arrive, or for how long they have not; as of when its agent last wrote, up to MEMBER_INTERVAL ago. ?: \
    unknown.";

const SWITCHOVER: &str = "\
    The master becomes read-only, the target catches up and takes over. If it does not in time, the same master is \
    writable again and nothing is lost. A request that nobody takes notice of is withdrawn.";

const PAUSE: &str = "\
    Until tarsec resume no master is replaced by itself, and masters stay writable whatever becomes of their agents or \
    of Consul. While a master is paused, nothing bounds for how long it may be writable.";

const FORGET: &str = "\
    For a member that was taken out of the replica set, and for a key that no agent wrote. A member is refused while its \
    agent lives, while it holds the lock or held it last, and while the master's space _cluster names it: the refusal says \
    which line of Lua takes it out there. The highest term that an agent knows stays what it is.";

const RESUME: &str = "\
    --cluster ends the pause of the cluster; those of single replica sets stay.\n\n\
    --master-is-down is for a master that was lost with its machine while it was paused. It is refused where its agent \
    still refreshes the lock: then the agent knows better, and resume is enough.";

const HISTORY: &str = "\
    No writes for: from when the old master was last known to be writable until the new one was, as well as that is \
    known; the election is the last part of it. A machine that was lost or cut off is told from the other, and more is \
    known of its outage, when its agent is back.\n\n\
    Rows at risk: what the old master had at its last word and the new one lacked when it became master; unknown where \
    it may have written since. When it comes back, its agent counts what it alone had written.";
