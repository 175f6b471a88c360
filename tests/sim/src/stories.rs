//! Faults that chance alone would hardly put together: what several rules guard against at once needs several things
//! to go wrong in one order. A story comes behind the faults that a seed draws anyway.

use crate::faults::{Cut, Fault, Who};
use crate::rng::Rng;
use crate::time::{MS, Time};

/// When, for how long, and what.
type Step = (Time, Time, Fault);

/// One of them, for this set, some time after `at`.
pub(crate) fn draw(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let at = at + 2 * lease;
    match rng.below(100) {
        0..12 => left_behind(rng, set, at, lease),
        12..30 => last_rows(rng, set, at, lease),
        30..46 => alone(rng, set, at, lease),
        46..57 => adopted(rng, set, at, lease),
        57..65 => boots(rng, set, at, lease),
        65..72 => hangs_midway(rng, set, at, lease),
        72..81 => paused_unseen(rng, set, at, lease),
        81..90 => two_runs(rng, set, at, lease),
        _ => forgets_a_promise(rng, set, at, lease),
    }
}

/// Before a lease could end.
fn soon(rng: &mut Rng) -> Time {
    rng.below(300) * MS
}

fn dies(who: Who, at: Time, restarts_after: Time) -> Step {
    let fault = Fault::KillInstance {
        who,
        restarts_after,
        new_clock: false,
    };
    (at, restarts_after, fault)
}

fn agent_dies(who: Who, at: Time, restarts_after: Time) -> Step {
    let fault = Fault::KillAgent {
        who,
        restarts_after,
    };
    (at, restarts_after, fault)
}

fn cut(who: Who, how: Cut, at: Time, time: Time) -> Step {
    (at, time, Fault::CutConsul { who, how, time })
}

/// One replica falls behind while nothing else is wrong, and then the master is gone.
fn left_behind(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let who = Who::Replica(set, rng.index(3));
    let time = lease * 9;
    let falls_at = at + 5 * lease + rng.below(lease);
    vec![
        (at, time, Fault::CutReplication { who, time }),
        dies(Who::Master(set), falls_at, lease),
    ]
}

/// One replica falls behind, and the master is lost while the other one, which has what a quorum acknowledged, is away for
/// a moment, by itself, its agent, or on the way to Consul.
fn last_rows(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let behind = rng.index(2);
    let (who, other) = (Who::Replica(set, behind), Who::Replica(set, 1 - behind));
    let falls_at = at + lease + rng.below(lease);
    let time = falls_at - at + rng.below(lease * 3);
    let mut story = vec![(at, time, Fault::CutReplication { who, time })];
    let from = falls_at + rng.below(200) * MS - 100 * MS;
    let time = rng.below(lease * 3);
    story.push(match rng.below(5) {
        0 => dies(other, from, time),
        1 => agent_dies(other, from, time),
        2 => (from, time, Fault::PauseAgent { who: other, time }),
        3 => (from, time, Fault::FreezeInstance { who: other, time }),
        _ => cut(other, Cut::Swallowed, from, time),
    });
    let (who, time) = (Who::Master(set), lease + rng.below(lease * 5));
    story.push(match rng.below(3) {
        0 => (falls_at, time, Fault::FreezeInstance { who, time }),
        _ => dies(who, falls_at, time),
    });
    if rng.percent(40) {
        story.push(agent_dies(who, falls_at, time));
    }
    // What was said of the target, or under a promise, is older than what the master acknowledges last.
    match rng.below(4) {
        0 => {
            let target = None;
            let order = Fault::Switchover {
                set,
                target,
                catch_up_ms: 500,
            };
            story.push((falls_at - rng.below(150) * MS, 0, order));
        }
        1 => story.push(cut(who, Cut::Swallowed, falls_at - lease / 2, time)),
        _ => {}
    }
    story
}

/// A master that Consul does not hear any more lives on promises, or until its lease ends, while its record is deleted,
/// or a promise forgotten, or a successor falls.
fn alone(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let time = lease * 3;
    let mut story = vec![cut(Who::Master(set), Cut::Swallowed, at, time)];
    if rng.percent(60) {
        let later = at + rng.below(lease);
        story.push((later, 0, Fault::DeleteKey { set }));
        let restarts_after = soon(rng);
        let falls_at = later + 100 * MS + rng.below(lease);
        let who = Who::Holder(set);
        story.push(match rng.below(4) {
            0 => dies(who, falls_at, restarts_after),
            1 => agent_dies(who, falls_at, restarts_after),
            2 => (
                falls_at,
                restarts_after,
                Fault::StopAgent {
                    who,
                    restarts_after,
                },
            ),
            _ => (falls_at, 0, Fault::EndSession { set }),
        });
    }
    for _ in 0..rng.below(3) {
        let who = Who::Replica(set, rng.index(2));
        let restarts_after = soon(rng);
        story.push(dies(who, at + rng.below(time), restarts_after));
    }
    story
}

/// The same master, whose record is deleted. A replica's agent that comes then has never seen it, and takes the lock;
/// and before it may be promoted it is followed by another agent, which finds the lock in its hands.
fn adopted(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let who = Who::Replica(set, rng.index(2));
    let comes_after = rng.below(200) * MS;
    let mut story = vec![
        cut(Who::Master(set), Cut::Swallowed, at, lease * 3),
        (at + rng.below(100) * MS, 0, Fault::DeleteKey { set }),
        agent_dies(who, at + rng.below(100) * MS, comes_after),
    ];
    for _ in 0..2 {
        let restarts_after = rng.below(200) * MS;
        let falls_at = at + comes_after + 150 * MS + rng.below(lease * 3 / 4);
        story.push(agent_dies(Who::Holder(set), falls_at, restarts_after));
    }
    story
}

/// The master's machine starts anew while its last refresh is on its way: what Consul accepts then rests on a clock that
/// is no more.
fn boots(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let who = Who::Master(set);
    let time = lease / 4 + rng.below(lease / 3);
    let away = if rng.percent(50) {
        (at, time, Fault::LeaderLost { time })
    } else {
        cut(who, Cut::RepliesSwallowed, at, time)
    };
    let restarts_after = rng.below(150) * MS;
    let falls_at = at + rng.below(time);
    let fault = Fault::KillInstance {
        who,
        restarts_after,
        new_clock: true,
    };
    vec![away, (falls_at, restarts_after, fault)]
}

/// Whoever is to be master next hangs while it takes the synchronous queue, for part of its lease.
fn hangs_midway(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let time = lease;
    let mut story: Vec<Step> = (0..3)
        .map(|n| {
            let who = Who::Replica(set, n);
            (at, time, Fault::SlowQueue { who, time })
        })
        .collect();
    story.push(dies(Who::Master(set), at, lease));
    let time = lease / 4 + rng.below(lease / 2);
    let hangs_at = at + 20 * MS + rng.below(700) * MS;
    let who = Who::Holder(set);
    story.push((hangs_at, time, Fault::FreezeInstance { who, time }));
    story
}

/// A master lives on promises, and its record is deleted. A member whose machine starts anew, out of its reach, knows
/// neither the record nor its promise and takes the lock; it promises again, and forgets that in another restart, from
/// which on the master does not reach it.
fn forgets_a_promise(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let who = Who::Replica(set, rng.index(2));
    let deleted_at = at + lease / 4 + rng.below(lease / 2);
    let restarts_after = rng.below(50) * MS;
    let time = 300 * MS + rng.below(400) * MS;
    let mut story = vec![
        cut(Who::Master(set), Cut::Swallowed, at, lease * 4),
        (deleted_at, 0, Fault::DeleteKey { set }),
        (deleted_at, time, Fault::CutReplication { who, time }),
        agent_dies(who, deleted_at, restarts_after),
        dies(who, deleted_at, restarts_after),
    ];
    let forgets_at = deleted_at + 700 * MS + rng.below(lease);
    let (who, time) = (Who::Holder(set), lease * 3);
    let away = 300 * MS + rng.below(lease / 4);
    let restarts_after = rng.below(100) * MS;
    story.push((forgets_at, time, Fault::CutReplication { who, time }));
    story.push(cut(who, Cut::Swallowed, forgets_at, away));
    story.push(dies(who, forgets_at, restarts_after));
    story
}

/// A pause begins, and the record is deleted while word of it goes round. Whoever comes then has seen nothing of it.
fn paused_unseen(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let time = lease * 3;
    let cluster = rng.percent(20);
    let pause = Fault::Pause { set, cluster, time };
    let deleted_at = at + rng.below(lease / 2);
    let mut story = vec![(at, time, pause), (deleted_at, 0, Fault::DeleteKey { set })];
    for n in 0..2 {
        let who = Who::Replica(set, n);
        let falls_at = deleted_at.saturating_sub(rng.below(lease / 4));
        story.push(agent_dies(who, falls_at, soon(rng)));
    }
    let who = Who::Master(set);
    let how = rng.one_of(&[Cut::Refused, Cut::Swallowed, Cut::RepliesSwallowed]);
    let from = at + rng.below(lease / 2);
    match rng.below(4) {
        0 => story.push(cut(who, how, from, soon(rng))),
        1 => story.push(cut(who, how, from, rng.below(time))),
        2 => story.push(agent_dies(who, from, soon(rng))),
        _ => {}
    }
    story
}

/// Two agents look after the master, maybe in a pause, one of which sleeps now and then, while the lock is handed over,
/// lost or deleted.
fn two_runs(rng: &mut Rng, set: usize, at: Time, lease: Time) -> Vec<Step> {
    let who = Who::Master(set);
    let time = rng.below(lease / 2);
    let mut story = vec![
        (at, time, Fault::PauseAgent { who, time }),
        (at + soon(rng), 0, Fault::SecondAgent { who }),
    ];
    if rng.percent(50) {
        let (from, time) = (at - rng.below(lease), lease * 4);
        let cluster = false;
        story.push((from, time, Fault::Pause { set, cluster, time }));
    }
    for _ in 0..rng.between(1, 3) {
        let next = at + rng.below(lease);
        let time = rng.below(lease / 2);
        story.push(match rng.below(6) {
            0 => (next, 0, Fault::EndSession { set }),
            1 => (next, 0, Fault::DeleteKey { set }),
            2 => dies(who, next, time),
            3 => cut(who, Cut::RepliesSwallowed, next, time),
            4 => (next, time, Fault::FreezeInstance { who, time }),
            _ => {
                let order = Fault::Switchover {
                    set,
                    target: None,
                    catch_up_ms: 50,
                };
                (next, 0, order)
            }
        });
    }
    story
}
