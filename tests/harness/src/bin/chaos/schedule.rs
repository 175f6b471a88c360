//! What is to go wrong and when: drawn from a seed before anything starts, and from nothing else.

use std::fmt;
use std::time::Duration;

/// How long faults are begun and ended in a round, before everything must be well again.
pub(crate) const ROUND: Duration = Duration::from_secs(30);
/// How many faults there may be at once: each lane has one after the other.
pub(crate) const LANES: usize = 2;
/// How many replica sets there are, and members in each.
pub(crate) const SETS: usize = 2;
pub(crate) const MEMBERS: usize = 3;

/// What goes wrong. There is one of a kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    KillInstance,
    FreezeInstance,
    KillAgent,
    FreezeAgent,
    KillMachine,
    FreezeMachine,
    AgentToConsul,
    AgentToInstance,
    InstanceToInstance,
    KillConsul,
    FreezeConsul,
    DestroySession,
    DeleteLock,
    OverwriteLock,
    WritableByHand,
    Switchover,
    Pause,
}

/// Each kind with its weight and how long it lasts, in milliseconds.
const KINDS: [(Kind, u64, (u64, u64)); 17] = [
    (Kind::KillInstance, 6, (200, 4000)),
    // From less than the lease, which changes nothing, to more than twice as much.
    (Kind::FreezeInstance, 5, (500, 7000)),
    (Kind::KillAgent, 4, (200, 6000)),
    (Kind::FreezeAgent, 4, (500, 7000)),
    (Kind::KillMachine, 4, (1000, 8000)),
    (Kind::FreezeMachine, 4, (1000, 8000)),
    (Kind::AgentToConsul, 5, (500, 8000)),
    (Kind::AgentToInstance, 4, (500, 8000)),
    (Kind::InstanceToInstance, 5, (500, 8000)),
    (Kind::KillConsul, 3, (1000, 6000)),
    (Kind::FreezeConsul, 3, (1000, 6000)),
    (Kind::DestroySession, 3, (1000, 2000)),
    (Kind::DeleteLock, 2, (1000, 2000)),
    (Kind::OverwriteLock, 2, (1500, 2500)),
    (Kind::WritableByHand, 3, (500, 1000)),
    (Kind::Switchover, 5, (3000, 5000)),
    (Kind::Pause, 2, (3000, 8000)),
];

/// The member that the fault hits, among those of a replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The member that is writable then, or the first member where none is.
    Master,
    Member(usize),
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    All,
    /// Nothing but processes that stand still and go on.
    Stalls,
}

/// From less than an agent would notice to four leases.
const STALLS: [(Kind, u64, (u64, u64)); 3] = [
    (Kind::FreezeInstance, 1, (200, 7000)),
    (Kind::FreezeAgent, 1, (200, 9000)),
    (Kind::FreezeMachine, 2, (200, 13_000)),
];

impl Mode {
    fn kinds(self) -> &'static [(Kind, u64, (u64, u64))] {
        match self {
            Self::All => &KINDS,
            Self::Stalls => &STALLS,
        }
    }
}

/// What is done to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    Cut,
    BlackHole,
    Delay(Duration),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strike {
    /// Since the round's begin.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: Kind,
    pub(crate) set: usize,
    pub(crate) target: Target,
    pub(crate) harm: Harm,
    /// The larger of two variants: a machine whose instance stands still before its agent does and goes on after it, all
    /// links of a member instead of one, Consul's leader instead of a follower, an old
    /// record instead of garbage, a switchover to a named member instead of the best.
    pub(crate) large: bool,
}

/// The faults of one round: for each lane, one after the other.
pub(crate) fn draw(mode: Mode, seed: u64, round: u64) -> [Vec<Strike>; LANES] {
    let mut dice = Dice::new(seed, round);
    let mut lanes: [Vec<Strike>; LANES] = Default::default();
    let mut free_at = [Duration::ZERO; LANES];
    loop {
        let lane = usize::from(free_at[1] < free_at[0]);
        let at = free_at[lane] + dice.millis((300, 2500));
        if at + Duration::from_secs(1) > ROUND {
            return lanes;
        }
        let other = lanes[1 - lane].last();
        let busy = other.filter(|strike| strike.at + strike.lasts > at);
        let strike = draw_one(mode, &mut dice, at, busy.map(|strike| strike.kind));
        free_at[lane] = at + strike.lasts;
        lanes[lane].push(strike);
    }
}

fn draw_one(mode: Mode, dice: &mut Dice, at: Duration, busy: Option<Kind>) -> Strike {
    let open = || {
        let kinds = mode.kinds().iter().copied();
        kinds.filter(move |(kind, _, _)| Some(*kind) != busy)
    };
    let mut ticket = dice.below(open().map(|(_, weight, _)| weight).sum());
    let mut drawn = mode.kinds()[0];
    for entry in open() {
        drawn = entry;
        if ticket < entry.1 {
            break;
        }
        ticket -= entry.1;
    }
    let (kind, _, lasts) = drawn;
    let target = match dice.below(2) {
        0 => Target::Master,
        _ => Target::Member(dice.index(MEMBERS)),
    };
    let harm = match dice.below(3) {
        0 => Harm::Cut,
        1 => Harm::BlackHole,
        _ => Harm::Delay(dice.millis((20, 600))),
    };
    Strike {
        at,
        lasts: dice.millis(lasts).min(ROUND - at),
        kind,
        set: dice.index(SETS),
        target,
        harm,
        large: dice.below(2) == 0,
    }
}

impl Strike {
    /// The line of the table that counts it.
    pub(crate) fn label(&self) -> String {
        let harm = match self.harm {
            Harm::Cut => "cut",
            Harm::BlackHole => "black-hole",
            Harm::Delay(_) => "delay",
        };
        match self.kind {
            Kind::AgentToConsul => format!("{harm} agent to Consul"),
            Kind::AgentToInstance => format!("{harm} agent to instance"),
            Kind::InstanceToInstance => format!("{harm} instance to instance"),
            Kind::KillConsul | Kind::FreezeConsul => {
                let role = if self.large { "leader" } else { "follower" };
                format!("{} {role}", self.kind)
            }
            Kind::KillInstance
            | Kind::FreezeInstance
            | Kind::KillAgent
            | Kind::FreezeAgent
            | Kind::KillMachine
            | Kind::FreezeMachine
            | Kind::DestroySession
            | Kind::DeleteLock
            | Kind::OverwriteLock
            | Kind::WritableByHand
            | Kind::Switchover
            | Kind::Pause => self.kind.to_string(),
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = super::stage::letter(self.set);
        let target = match self.target {
            Target::Master => "master".to_owned(),
            Target::Member(index) => format!("{set}{index}"),
        };
        let is_link = [
            Kind::AgentToConsul,
            Kind::AgentToInstance,
            Kind::InstanceToInstance,
        ]
        .contains(&self.kind);
        let harm = match self.harm {
            Harm::Delay(each_way) if is_link => format!(" by {each_way:?}"),
            Harm::Cut | Harm::BlackHole | Harm::Delay(_) => String::new(),
        };
        let has_variants = [
            Kind::FreezeMachine,
            Kind::AgentToInstance,
            Kind::InstanceToInstance,
            Kind::OverwriteLock,
            Kind::Switchover,
        ]
        .contains(&self.kind);
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        let label = self.label();
        let large = if self.large && has_variants {
            ", large"
        } else {
            ""
        };
        write!(
            f,
            "{at:>6.3} s for {lasts:.3} s: {label}, set {set}, {target}{large}{harm}"
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillInstance => "kill instance",
            Self::FreezeInstance => "freeze instance",
            Self::KillAgent => "kill agent",
            Self::FreezeAgent => "freeze agent",
            Self::KillMachine => "kill machine",
            Self::FreezeMachine => "freeze machine",
            Self::AgentToConsul => "agent to Consul",
            Self::AgentToInstance => "agent to instance",
            Self::InstanceToInstance => "instance to instance",
            Self::KillConsul => "kill Consul",
            Self::FreezeConsul => "freeze Consul",
            Self::DestroySession => "destroy session",
            Self::DeleteLock => "delete lock key",
            Self::OverwriteLock => "overwrite lock key",
            Self::WritableByHand => "writable by hand",
            Self::Switchover => "tarsec switchover",
            Self::Pause => "tarsec pause, resume",
        })
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, round: u64) -> Self {
        let mut dice = Self(seed ^ round.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    fn millis(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(low + self.below(high - low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_the_same_faults_again_and_another_one_others() {
        assert_eq!(draw(Mode::All, 7, 3), draw(Mode::All, 7, 3));
        assert_ne!(draw(Mode::All, 7, 3), draw(Mode::All, 7, 4));
        assert_ne!(draw(Mode::All, 7, 3), draw(Mode::All, 8, 3));
    }

    #[test]
    fn faults_end_before_the_round_does_and_before_the_next_of_their_lane_or_kind() {
        for seed in 0..500 {
            let lanes = draw(Mode::All, seed, 0);
            for lane in &lanes {
                assert!(lane.len() > 2, "seed {seed}");
                for pair in lane.windows(2) {
                    assert!(pair[0].at + pair[0].lasts <= pair[1].at, "seed {seed}");
                }
                assert!(
                    lane.iter().all(|one| one.at + one.lasts <= ROUND),
                    "seed {seed}"
                );
            }
            for (one, other) in lanes[0]
                .iter()
                .flat_map(|one| lanes[1].iter().map(move |other| (one, other)))
            {
                let apart = one.at + one.lasts <= other.at || other.at + other.lasts <= one.at;
                assert!(apart || one.kind != other.kind, "seed {seed}");
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let all = (0..50)
            .flat_map(|seed| draw(Mode::All, seed, 0))
            .flatten()
            .map(|one| one.kind);
        assert_eq!(all.collect::<BTreeSet<_>>().len(), KINDS.len());
        let stalls = (0..5)
            .flat_map(|seed| draw(Mode::Stalls, seed, 0))
            .flatten();
        let stalls: BTreeSet<_> = stalls.map(|one| one.kind).collect();
        assert_eq!(stalls.len(), STALLS.len());
    }
}
