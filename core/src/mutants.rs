//! The mutants: single deliberate breakages of the core, each of which the simulation must catch. `sound!` puts each of
//! them where it belongs.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of the one that is on; 0: none. One switch for the whole process.
static ON: AtomicUsize = AtomicUsize::new(0);

/// Whether this one is on.
#[inline]
pub(crate) fn on(mutant: Mutant) -> bool {
    ON.load(Ordering::Relaxed) == mutant.number()
}

/// Switches this one on, and any other off.
pub fn switch_to(mutant: Option<Mutant>) {
    ON.store(mutant.map_or(0, Mutant::number), Ordering::Relaxed);
}

impl Mutant {
    /// Its place in the order of all of them, from 1 on.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize + 1
    }
}

/// Each with the rule that it breaks and with what to call it.
macro_rules! mutants {
    ($($mutant:ident: $rule:literal, $name:literal;)*) => {
        /// One breakage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $name] $mutant,)*
        }

        impl Mutant {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$mutant),*];

            /// The rule that it breaks.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$mutant => $rule,)*
                }
            }

            /// What to call it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    LeaseOnAnyReading: "R1", "a lease rests on a reading that nothing has accepted";
    LeaseTwiceAsLong: "R1", "a lease is twice as long as agreed";
    ReadingFromBeforeProcess: "R1", "an accepted write carries a reading from before the present process";
    ReadingOutlivesProcess: "R1", "a reading outlives the process that it was taken from";
    ReleaseLeavesReading: "R1", "a release leaves the reading for a promotion behind it";
    GrantNotNoted: "R2", "a lease that is granted is not noted before it is sent";
    LeaseKeepsNoLock: "R2", "a lease that may run does not keep the lock";
    CommitsKeepNoLock: "R2", "commits in flight do not keep the lock";
    LeaseOnItsWayKeepsNoLock: "R2", "a lease on its way does not keep the lock";
    LeaseOverAtHalf: "R2", "a lease counts as over at half its time";
    ReleaseAlwaysFenced: "R2", "every release says fenced";
    UnrecordedAsksNobody: "R3", "without a record somebody is promoted without asking anybody";
    OutlivedAtHalf: "R3", "a record is outlived at half its lease";
    FreeWithoutWait: "R3", "a free lock is taken without a wait";
    UnreadTimeCounts: "R3", "time without Consul counts towards the wait";
    UnrecordedWithoutWait: "R3", "without a record there is nothing to wait for";
    WaitForgotten: "R3", "the wait that comes with a hold is forgotten";
    AdoptionForgetsWait: "R3", "an adopted hold forgets whoever was before it";
    AnothersTermIsOwn: "R3", "another's term counts as one's own";
    TermsNotRemembered: "R3", "terms of others' records are not remembered";
    LiveHolderTakenOver: "R4", "a master that refreshes is taken over";
    TakeOverUnread: "R4", "a take-over without a consistent read just before";
    GoneHolderStays: "R4", "a holder that is gone is never taken over";
    HungNeverKilled: "R5", "a hung instance is never killed";
    StallIsSilence: "R5", "an agent that stood still takes that for its instance's silence";
    HungKilledLater: "R5", "a hung instance is killed a lease later";
    OnePromiseIsEnough: "R6", "one promise is enough";
    AbsentNotAsked: "R6", "only those are asked that are there";
    PromisesEndEarly: "R6", "promises end before the lease that rests on them";
    PromisesForLaterReading: "R6", "promises carry a reading from after they were asked for";
    PromisesOnAnothersRecord: "R6", "promises are asked for on the record of the agent before";
    RestartedGuardTrusted: "R6", "a restarted guard need not have forgotten a promise";
    UnrecordedGuardTrusted: "R6", "a young guard is as good as any where no record is seen";
    PromiseBindsNobody: "R6", "a promise to another keeps nobody from being promoted";
    StandDownEndsLease: "pause", "a guard that stands down is one whose lease ends";
    RecordStopsSayingPaused: "pause", "the record stops to say paused while the guard stands down";
    PausedSucceeded: "pause", "a paused master is succeeded by time";
    StandsDownUnsaid: "pause", "a guard stands down before its member's key says so";
    StandsDownOnOldRecord: "pause", "a guard stands down on a record from before its member's key";
    KeySilentWithoutLock: "pause", "a member's key stops saying so with the lock";
    KeysUnaskedWithoutRecord: "pause", "where the record is gone nobody asks the members' keys";
    TargetLacksRows: "switchover", "a target without the last rows gets the lock";
    StalestFirst: "election", "the stalest goes first";
    NobodyWaitsForTurn: "election", "nobody waits for a turn";
    VotesNotCounted: "R7", "the votes are not counted";
    OneVoteFewer: "R7", "one vote fewer is enough";
    VotersRowsIgnored: "R7", "rows that a voter has do not matter";
    OldWordIsVote: "R7", "a word from before the lock was up for grabs is a vote";
    DoubtEndsWithWait: "R7", "a doubt ends with the wait for ballots";
    OfferedWithoutRows: "R7", "the lock is given to a member that lacks the holder's rows";
    AnyElectionsBallots: "R7", "ballots of another election count";
    NobodyHoldsBack: "election", "nobody holds back";
    NoBallotWaitedFor: "election", "no ballot is waited for";
    ReturnedNotWaitedFor: "election", "who came back behind the last word is not waited for";
    NeverMasterMayBe: "election", "who never is to be master may be";
    EntryOutlivesAgent: "catalog", "a master's entry outlives its agent";
    AnswerWithoutClock: "checks", "a master's check does not look at the clock";
    AnswerFromReply: "checks", "a master's check counts the lease from the guard's reply";
    AnswerWithoutDrift: "checks", "a master's check takes the instance's clock for the agent's";
    AnswerDespiteFence: "checks", "a master's check says yes while its agent fences";
}
