//! The guard: `src/tarantool/guard.lua` in a real instance, and `tests/sim/src/guard.rs`.

use std::collections::BTreeSet;
use std::time::Duration;
use tarsec::decide::term::Term;

use serde::Deserialize;
use tarsec_harness::{Instance, Result, Value, World, json, sources};

use crate::decide::observed::GuardState;
use crate::decide::plan::Before;
use crate::decide::timing::InstanceTime;
use crate::decide::vclock::Vclock;
use crate::guard::{Guard, Promotion};
use crate::rng::Rng;
use crate::time::{MS, SEC, Time};

const PLAYER: &str = include_str!("guard.lua");

/// What the instance's clock shows at first.
const BORN: Time = 1_000 * SEC;
const AGENTS: [&str; 2] = ["agent#1", "agent#2"];
const OTHERS: [&str; 2] = [
    "00000000-0000-4000-8000-00000000000a",
    "00000000-0000-4000-8000-00000000000b",
];
/// Each seed has an instance of its own.
const SEEDS: u64 = 3;
/// Words to each instance, in so many calls.
const CALLS: usize = 8;
const WORDS: usize = 60;
/// For a machine that is busy with something else besides.
const PATIENCE: Duration = Duration::from_secs(60);

/// Evaluated behind `time.lua` and before the guard, so that it was born then. The queue is taken at once but for
/// promotions that are to wait.
const SURROUNDINGS: &str = "
    story = {now = 0ULL + ...}
    require('tarsec.time').now = function() return story.now end";
const QUEUE: &str = "
    tarsec_guard.take_synchro_queue = function()
        if story.gate ~= nil then story.gate:get() end
    end";

/// One word, as both hear it.
#[derive(Debug, Clone)]
enum Word {
    Attach(usize),
    Probe(usize),
    Remember(usize, String),
    Promote(usize, Wish),
    BeginPromotion(usize, Wish),
    EndPromotion,
    Grant(usize, Term, u64),
    Fence(usize),
    Observe(usize, Term),
    StandDown(usize, bool),
    /// The instance that asks, its term, and for how long; and all members that are asked, where the guard is to say
    /// that it knows no other.
    Promise(String, Term, u64, Option<Vec<String>>),
    ByHand,
    /// Whether a barrier comes back before it has reached the WAL.
    Memory(bool),
    Advance(Time),
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    term: Term,
    deadline_ns: u64,
    t0_ns: u64,
    before: Before,
}

impl Word {
    fn json(&self) -> Value {
        let promotion = |word: &str, agent: usize, wish: &Wish| {
            let age_ns = u64::try_from(wish.before.guard_age.as_nanos()).unwrap();
            json!({"word": word, "agent": AGENTS[agent], "term": wish.term, "deadline": wish.deadline_ns,
                "t0": wish.t0_ns, "fenced_term": wish.before.fenced_term, "guard_age": age_ns})
        };
        match self {
            Self::Attach(agent) => json!({"word": "attach", "agent": AGENTS[*agent]}),
            Self::Probe(agent) => json!({"word": "probe", "agent": AGENTS[*agent]}),
            Self::Remember(agent, session) => {
                json!({"word": "remember", "agent": AGENTS[*agent], "session": session})
            }
            Self::Promote(agent, wish) => promotion("promote", *agent, wish),
            Self::BeginPromotion(agent, wish) => promotion("begin_promotion", *agent, wish),
            Self::EndPromotion => json!({"word": "end_promotion"}),
            Self::Grant(agent, term, deadline_ns) => {
                json!({"word": "grant", "agent": AGENTS[*agent], "term": term, "deadline": deadline_ns})
            }
            Self::Fence(agent) => json!({"word": "fence", "agent": AGENTS[*agent]}),
            Self::Observe(agent, term) => {
                json!({"word": "observe", "agent": AGENTS[*agent], "term": term})
            }
            Self::StandDown(agent, down) => {
                json!({"word": "stand_down", "agent": AGENTS[*agent], "down": down})
            }
            Self::Promise(to, term, lasting_ns, asked) => {
                json!({"word": "promise", "to": to, "term": term, "lasting": lasting_ns, "asked": asked})
            }
            Self::ByHand => json!({"word": "by_hand"}),
            Self::Memory(full) => json!({"word": "memory", "full": full}),
            Self::Advance(ns) => json!({"word": "advance", "ns": ns}),
        }
    }
}

/// What came of a word.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Answer {
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    superseded_by: Option<String>,
    #[serde(default)]
    waits: bool,
    read_only: bool,
    guard: GuardState,
}

impl Answer {
    /// Refusals by their kind: the model does not say how long and which term. The vclock at the promotion is the
    /// instance's own business, and so are the words for a barrier that cannot be written.
    fn comparable(mut self) -> Self {
        self.refused = self.refused.map(|why| kind(&why).to_owned());
        self.guard.base = self.guard.base.map(|_| Vclock::default());
        // For people alone: the model keeps no account of it.
        self.guard.fenced_ago_ns = None;
        self.guard.writable_ago_ns = None;
        self.guard.barrier_failure = self.guard.barrier_failure.map(|_| String::new());
        self
    }
}

/// Words of a refusal that tell its kind, in both writings. The first that fits counts.
const KINDS: [&str; 18] = [
    "its deadline comes from another clock",
    "no lease is that long",
    "ended before word of it arrived",
    "from before this guard promised",
    "may still land",
    "that was not asked",
    "it has promised that to",
    "it has promised",
    "its guard is",
    "still being taken",
    "another word came",
    "the lease ended while",
    "no lease is running here",
    "the lease is for",
    "the one that asks",
    "it is writable itself",
    "it is not master here",
    "is over",
];

fn kind(why: &str) -> &'static str {
    let known = KINDS.iter().find(|part| why.contains(**part));
    known.unwrap_or_else(|| panic!("a refusal of no known kind: {why}"))
}

/// The model with what surrounds it in an instance: the clock, `read_only`, and the agent whose turn is next.
struct Twin {
    own: String,
    now_ns: u64,
    guard: Guard,
    read_only: bool,
    full: bool,
    /// A promotion that waits for the queue.
    waiting: Option<Promotion>,
}

/// An owner as the model numbers it.
fn owner(agent: usize) -> (usize, u32) {
    (agent + 1, 1)
}

impl Twin {
    fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            now_ns: BORN,
            guard: Guard::new(BORN),
            read_only: true,
            full: false,
            waiting: None,
        }
    }

    fn hear(&mut self, word: &Word) -> Answer {
        let (refused, waits, superseded_by) = match self.superseded(word) {
            Some(by) => (None, false, Some(by)),
            None => {
                let (refused, waits) = self.obey(word);
                (refused, waits, None)
            }
        };
        self.settle();
        Answer {
            refused,
            superseded_by,
            waits,
            read_only: self.read_only,
            guard: self.guard.state(self.now_ns),
        }
    }

    fn superseded(&self, word: &Word) -> Option<String> {
        let agent = match word {
            Word::Probe(agent)
            | Word::Remember(agent, _)
            | Word::Promote(agent, _)
            | Word::BeginPromotion(agent, _)
            | Word::Grant(agent, _, _)
            | Word::Fence(agent)
            | Word::Observe(agent, _)
            | Word::StandDown(agent, _) => *agent,
            Word::Attach(_)
            | Word::EndPromotion
            | Word::Promise(..)
            | Word::ByHand
            | Word::Memory(_)
            | Word::Advance(_) => return None,
        };
        let by = self.guard.owner.0 - 1;
        (by != agent).then(|| AGENTS[by].to_owned())
    }

    /// Why the word is refused, if it is, and whether its answer has to wait.
    fn obey(&mut self, word: &Word) -> (Option<String>, bool) {
        let result = match word {
            Word::Attach(agent) => {
                self.guard.owner = owner(*agent);
                Ok(())
            }
            Word::Probe(_) => Ok(()),
            Word::Remember(_, session) => {
                self.guard.session = Some(session.clone());
                Ok(())
            }
            Word::Promote(agent, wish) => {
                let waits = self.begin_promotion(*agent, wish);
                waits.and_then(|waits| if waits { self.end_promotion() } else { Ok(()) })
            }
            Word::BeginPromotion(agent, wish) => match self.begin_promotion(*agent, wish) {
                Ok(waits) => return (None, waits),
                Err(why) => Err(why),
            },
            Word::EndPromotion => self.end_promotion(),
            Word::Grant(_, term, deadline_ns) => {
                let deadline = InstanceTime {
                    monotonic_ns: *deadline_ns,
                };
                self.guard.grant(*term, deadline, self.now_ns)
            }
            Word::Fence(_) => {
                self.fence("its agent said so");
                Ok(())
            }
            Word::Observe(_, term) => {
                self.guard.observe(*term);
                Ok(())
            }
            Word::StandDown(_, down) => match self.guard.stand_down(*down, self.now_ns) {
                Ok(Some(why)) => {
                    self.fence(why);
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(why) => Err(why),
            },
            Word::Promise(to, term, lasting_ns, all) => {
                let asked = (to.as_str(), *term, *lasting_ns);
                let for_all = all.as_ref().map_or(Ok(()), |all| {
                    let knows_more = *to != self.own && !all.contains(&self.own);
                    self.guard.stand_for_all(knows_more)
                });
                let guard = &mut self.guard;
                guard.promise(&self.own, self.read_only, asked, self.now_ns, for_all)
            }
            Word::ByHand => {
                self.read_only = false;
                Ok(())
            }
            Word::Memory(full) => {
                self.full = *full;
                Ok(())
            }
            Word::Advance(ns) => {
                self.now_ns += ns;
                Ok(())
            }
        };
        (result.err(), false)
    }

    /// Begins it as the simulation's world does.
    fn begin_promotion(&mut self, agent: usize, wish: &Wish) -> std::result::Result<bool, String> {
        let leased = self.guard.leased && !self.read_only;
        let promotion = Promotion {
            term: wish.term,
            deadline: InstanceTime {
                monotonic_ns: wish.deadline_ns,
            },
            t0: InstanceTime {
                monotonic_ns: wish.t0_ns,
            },
            owner: owner(agent),
            epoch: (!leased).then_some(self.guard.epoch),
        };
        self.guard
            .may_promote(&self.own, &promotion, wish.before, self.now_ns)?;
        if leased {
            self.finish(&promotion)?;
            return Ok(false);
        }
        self.guard.promoting += 1;
        self.guard.taking = true;
        self.waiting = Some(promotion);
        Ok(true)
    }

    fn end_promotion(&mut self) -> std::result::Result<(), String> {
        let promotion = self.waiting.take().unwrap();
        self.guard.promoting -= 1;
        self.guard.taking = false;
        self.finish(&promotion)
    }

    fn finish(&mut self, promotion: &Promotion) -> std::result::Result<(), String> {
        self.guard
            .promote(promotion, &Vclock::default(), self.now_ns)?;
        self.read_only = false;
        Ok(())
    }

    fn fence(&mut self, why: &'static str) {
        self.guard.fence(self.read_only, why);
        self.read_only = true;
    }

    /// What goes on by itself comes to rest: the fencing fiber, and a barrier on a disk that works.
    fn settle(&mut self) {
        if let Some(why) = self.guard.must_fence(self.read_only, self.now_ns) {
            self.fence(why);
        }
        if self.guard.needs_barrier() {
            let epoch = self.guard.epoch;
            if self.full {
                self.guard.failed_epoch = Some(epoch);
            } else {
                self.guard.passed(epoch, self.read_only);
            }
        }
    }

    /// Something that is worth being said in this state.
    fn draw(&self, rng: &mut Rng) -> Word {
        if self.waiting.is_some() && rng.percent(35) {
            return Word::EndPromotion;
        }
        if self.waiting.is_some() && rng.percent(20) {
            // The lease may end meanwhile.
            return Word::Advance(20 * SEC);
        }
        let owns = self.guard.owner.0 - 1;
        let agent = if rng.percent(90) { owns } else { 1 - owns };
        match rng.below(100) {
            0..6 => Word::Attach(rng.index(2)),
            6..10 => Word::Probe(agent),
            10..13 => Word::Remember(agent, format!("session-{}", rng.below(100))),
            13..28 => Word::Promote(agent, self.draw_wish(rng)),
            28..33 if self.waiting.is_none() => Word::BeginPromotion(agent, self.draw_wish(rng)),
            33..45 => Word::Grant(agent, self.draw_term(rng), self.draw_deadline(rng)),
            45..53 => Word::Fence(agent),
            53..58 => Word::Observe(agent, self.draw_term(rng)),
            58..66 => Word::StandDown(agent, rng.percent(50)),
            66..80 => {
                let to = rng.one_of(&[self.own.as_str(), OTHERS[0], OTHERS[0], OTHERS[1]]);
                let lasting = rng.one_of(&[MS, 3 * SEC, 10 * SEC, 64 * SEC, 65 * SEC]);
                let asked = rng.one_of(&[None, None, Some(true), Some(false)]);
                let asked = asked.map(|own| {
                    let own = own.then(|| self.own.clone());
                    own.into_iter().chain([OTHERS[0].to_owned()]).collect()
                });
                Word::Promise(to.to_owned(), self.draw_term(rng), lasting, asked)
            }
            80..84 => Word::ByHand,
            84..87 => Word::Memory(rng.percent(60)),
            _ => Word::Advance(rng.one_of(&[1, MS, SEC, 4 * SEC, 20 * SEC])),
        }
    }

    fn draw_wish(&self, rng: &mut Rng) -> Wish {
        let age = Duration::from_nanos(self.now_ns - BORN);
        let ages = [
            Duration::ZERO,
            Duration::ZERO,
            age,
            age + Duration::from_nanos(1),
        ];
        Wish {
            term: self.draw_term(rng),
            deadline_ns: self.draw_deadline(rng),
            t0_ns: self.now_ns - rng.one_of(&[0, 0, 0, 0, 0, MS, 4 * SEC]),
            before: Before {
                fenced_term: rng.one_of(&[
                    Term::NONE,
                    Term::NONE,
                    self.guard.term.before(1).unwrap_or_default(),
                    self.guard.term,
                ]),
                guard_age: rng.one_of(&ages),
            },
        }
    }

    /// Mostly the term that is served or the next.
    fn draw_term(&self, rng: &mut Rng) -> Term {
        let known = self.guard.term;
        rng.one_of(&[
            known,
            known,
            known.next(),
            known.next(),
            known.next().next().next(),
            known.before(1).unwrap_or_default(),
        ])
    }

    /// Mostly a deadline that can be; around the edges, too.
    fn draw_deadline(&self, rng: &mut Rng) -> u64 {
        let in_ns = [
            0,
            1,
            2 * SEC,
            5 * SEC,
            10 * SEC,
            30 * SEC,
            61 * SEC,
            61 * SEC + 1,
        ];
        self.now_ns + rng.one_of(&in_ns) - u64::from(rng.percent(5))
    }
}

async fn play(instance: &Instance, seed: u64, refusals: &mut BTreeSet<&'static str>) -> Result<()> {
    let mut connection = instance.connect().await?;
    let mut eval = async |lua: &str, args: &[Value]| connection.eval(lua, args, PATIENCE).await;
    for source in sources::GUARD.into_iter().chain([QUEUE]) {
        eval(source, &[]).await?;
        if source == sources::TIME {
            eval(SURROUNDINGS, &[json!(BORN)]).await?;
        }
    }
    let mut twin = Twin::new(instance.uuid());
    let mut rng = Rng::new(seed, 3);
    let mut said = Vec::new();
    for call in 0..CALLS {
        let mut words = Vec::new();
        let mut expected = Vec::new();
        while words.len() < WORDS || twin.waiting.is_some() {
            let word = match (call, words.len()) {
                (0, 0) => Word::Attach(0),
                // A promotion waits within one call only: the real guard has half a second.
                (_, len) if len >= WORDS => Word::EndPromotion,
                _ => twin.draw(&mut rng),
            };
            expected.push(twin.hear(&word));
            words.push(word);
        }
        let list: Vec<Value> = words.iter().map(Word::json).collect();
        let answers = eval(PLAYER, &[json!(list)]).await?;
        let answers: Vec<Answer> = serde_json::from_value(answers[0].clone()).unwrap();
        assert_eq!(answers.len(), expected.len());
        for ((word, real), expected) in words.iter().zip(answers).zip(expected) {
            said.push(word.clone());
            let (real, expected) = (real.comparable(), expected.comparable());
            let last = &said[said.len().saturating_sub(12)..];
            assert_eq!(
                real, expected,
                "seed {seed}: the guard (left) and its model after {last:#?}"
            );
            if let Some(why) = &real.refused {
                refusals.insert(kind(why));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_simulations_guard_answers_as_the_one_in_an_instance() {
    let story = async |world: &World| {
        let mut refusals = BTreeSet::new();
        for seed in 1..=SEEDS {
            // An instance alone: a barrier's space that comes from another one is another beginning.
            let set = world.replica_set(1).await?;
            play(&set[0], seed, &mut refusals).await?;
        }
        // Nothing was left out by chance.
        let all: BTreeSet<&str> = KINDS.into();
        assert_eq!(refusals, all);
        Ok(())
    };
    World::builder().story("guard-conformance", story).await;
}
