//! What can go wrong, and what operators do. Drawn before the run as a list, so that a failing one can be made shorter.

use serde::{Deserialize, Serialize};

use crate::params::{FAULT_MAX, SetParams};
use crate::rng::Rng;
use crate::stories;
use crate::time::{MS, SEC, Time};

/// Whom a fault strikes; found when it does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Who {
    /// Whose instance is writable, or has the lock, in this set.
    Master(usize),
    /// Whom the lock's record names.
    Holder(usize),
    /// Any other of this set.
    Replica(usize, usize),
    /// Whoever has this number in this set.
    Nth(usize, usize),
}

/// How a way is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cut {
    /// Everything is refused or reset at once.
    Refused,
    /// Everything disappears.
    Swallowed,
    /// Requests arrive, nothing comes back.
    RepliesSwallowed,
}

/// What goes wrong. Times are how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Fault {
    KillInstance {
        who: Who,
        restarts_after: Time,
        new_clock: bool,
    },
    KillAgent {
        who: Who,
        restarts_after: Time,
    },
    StopAgent {
        who: Who,
        restarts_after: Time,
    },
    /// Another agent is started beside one that is asleep or alive.
    SecondAgent {
        who: Who,
    },
    PauseAgent {
        who: Who,
        time: Time,
    },
    FreezeInstance {
        who: Who,
        time: Time,
    },
    PauseMachine {
        who: Who,
        time: Time,
    },
    LoseMachine {
        who: Who,
        time: Time,
    },
    CutConsul {
        who: Who,
        how: Cut,
        time: Time,
    },
    CutConsulForAll {
        how: Cut,
        time: Time,
    },
    ConsulAgentRestarts {
        who: Who,
        time: Time,
    },
    LeaderLost {
        time: Time,
    },
    CutLink {
        who: Who,
        how: Cut,
        time: Time,
    },
    /// Between instances (and the other members' agents), in one direction or both.
    CutPeers {
        who: Who,
        other: usize,
        both: bool,
        time: Time,
    },
    /// Rows no longer get there, by whatever way.
    CutReplication {
        who: Who,
        time: Time,
    },
    /// The machine reaches nobody, and nobody reaches it; what runs on it runs on.
    Isolate {
        who: Who,
        time: Time,
    },
    SlowDisk {
        who: Who,
        time: Time,
    },
    SlowQueue {
        who: Who,
        time: Time,
    },
    /// A barrier comes back before it has reached the WAL: no memory, or rows of another that wait.
    NoBarrier {
        who: Who,
        time: Time,
    },
    Denied {
        who: Who,
        time: Time,
    },
    EndSession {
        set: usize,
    },
    DeleteKey {
        set: usize,
    },
    Overwrite {
        set: usize,
        other_version: bool,
    },
    /// `box.cfg{read_only = false}` by hand.
    ByHand {
        who: Who,
    },
    Switchover {
        set: usize,
        target: Option<usize>,
        catch_up_ms: u64,
    },
    Pause {
        set: usize,
        cluster: bool,
        time: Time,
    },
}

/// The list for one run, and the moment from which on all is well.
pub(crate) fn draw(rng: &mut Rng, sets: &[SetParams]) -> (Vec<(Time, Fault)>, Time) {
    let longest = sets.iter().map(lease_of).max();
    let lease = longest.unwrap_or(SEC);
    let mut at = if rng.percent(15) {
        0
    } else {
        lease + lease / 4 + SEC
    };
    let mut calm_from = at;
    let mut faults = Vec::new();
    for _ in 0..rng.between(1, 9) {
        at += if rng.percent(50) {
            rng.below(600) * MS
        } else {
            rng.below(lease * 2)
        };
        let set = rng.index(sets.len());
        let time = if rng.percent(50) {
            rng.below(lease * 5 / 2)
        } else {
            rng.below(lease)
        };
        let time = time.clamp(5 * MS, FAULT_MAX);
        faults.push((at, draw_one(rng, sets, set, time)));
        calm_from = calm_from.max(at + time);
    }
    if rng.percent(35) {
        let set = rng.index(sets.len());
        for (at, time, fault) in stories::draw(rng, set, at, lease_of(&sets[set])) {
            calm_from = calm_from.max(at + time);
            faults.push((at, fault));
        }
    }
    (faults, calm_from + SEC)
}

fn lease_of(set: &SetParams) -> Time {
    crate::time::ns(set.timing.lease())
}

fn draw_who(rng: &mut Rng, set: usize, size: usize) -> Who {
    match rng.below(10) {
        0..5 => Who::Master(set),
        5..8 => Who::Replica(set, rng.index(size)),
        _ => Who::Nth(set, rng.index(size)),
    }
}

fn draw_one(rng: &mut Rng, sets: &[SetParams], set: usize, time: Time) -> Fault {
    let size = sets[set].size;
    let who = draw_who(rng, set, size);
    let how = rng.one_of(&[
        Cut::Refused,
        Cut::Swallowed,
        Cut::Swallowed,
        Cut::RepliesSwallowed,
    ]);
    match rng.below(100) {
        0..9 => Fault::KillInstance {
            who,
            restarts_after: if rng.percent(40) {
                rng.below(300) * MS
            } else {
                time.min(4 * SEC)
            },
            new_clock: rng.percent(50),
        },
        9..15 => Fault::KillAgent {
            who,
            restarts_after: time,
        },
        15..20 => Fault::StopAgent {
            who,
            restarts_after: time,
        },
        20..22 => Fault::SecondAgent { who },
        22..28 => Fault::PauseAgent { who, time },
        28..36 => Fault::FreezeInstance { who, time },
        36..41 => Fault::PauseMachine { who, time },
        41..44 => Fault::LoseMachine { who, time },
        44..52 => Fault::CutConsul { who, how, time },
        52..57 => Fault::CutConsulForAll { how, time },
        57..59 => Fault::ConsulAgentRestarts {
            who,
            time: time.min(2 * SEC),
        },
        59..63 => Fault::LeaderLost { time },
        63..67 => Fault::CutLink { who, how, time },
        67..72 => Fault::CutPeers {
            who,
            other: rng.index(size),
            both: rng.percent(50),
            time,
        },
        72..76 => Fault::Isolate { who, time },
        76..79 => Fault::SlowDisk { who, time },
        79..80 => Fault::SlowQueue { who, time },
        80..81 => Fault::NoBarrier { who, time },
        81..82 => Fault::Denied { who, time },
        82..86 => Fault::EndSession { set },
        86..88 => Fault::DeleteKey { set },
        88..89 => Fault::Overwrite {
            set,
            other_version: rng.percent(30),
        },
        89..90 => Fault::ByHand { who },
        90..96 => Fault::Switchover {
            set,
            target: rng.percent(60).then(|| rng.index(size)),
            catch_up_ms: rng.one_of(&[0, 50, 500]),
        },
        _ => Fault::Pause {
            set,
            cluster: rng.percent(20),
            time,
        },
    }
}
