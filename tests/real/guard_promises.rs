//! The guard's own part in R6, asked word by word in a real instance, without any agent.

use tarsec_harness::{Instance, Result, Value, eventually, json, sources};

use crate::support::{SOON, world};

const AGENT: &str = "agent";
const OTHER: &str = "00000000-0000-4000-8000-00000000000a";
const THIRD: &str = "00000000-0000-4000-8000-00000000000b";
/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The guard in one instance.
struct Guard<'a>(&'a Instance);

impl Guard<'_> {
    async fn value(&self, lua: &str, args: &[Value]) -> Result<Value> {
        let values = self.0.eval(lua, args).await?;
        Ok(values.into_iter().next().unwrap_or(Value::Null))
    }

    async fn promise(&self, to: &str, term: u64, lasting_ns: u64) -> Result<Value> {
        let args = [json!(to), json!(term), json!(lasting_ns)];
        self.value("return tarsec_guard.promise(...)", &args).await
    }

    /// `Null`, or why not.
    async fn promote(&self, term: u64, fenced_term: u64, age_ns: u64) -> Result<Value> {
        let lua = "local term, fenced, age = ...
            local t0 = tarsec_guard.now()
            return tarsec_guard.promote('agent', term, t0 + 30000000000ULL, fenced, age, t0).refused";
        let args = [json!(term), json!(fenced_term), json!(age_ns)];
        self.value(lua, &args).await
    }

    async fn fence(&self) -> Result<()> {
        self.value("tarsec_guard.fence('agent', 'a test')", &[])
            .await
            .map(|_| ())
    }

    /// Waits until no commit of before the guard can land any more.
    async fn lands(&self) -> Result<()> {
        let wait = "local probe = tarsec_guard.probe
            while not probe('agent').probe.guard.landed do tarsec_guard.changed:wait(0.05) end";
        self.value(wait, &[]).await.map(|_| ())
    }

    async fn probe(&self) -> Result<Value> {
        self.value("return tarsec_guard.probe('agent').probe.guard", &[])
            .await
    }
}

/// As an agent does it at every attach.
async fn install(instance: &Instance) -> Result<()> {
    for source in sources::GUARD {
        instance.eval(source, &[]).await?;
    }
    Ok(())
}

async fn attach(instance: &Instance) -> Result<()> {
    let attach = "return tarsec_guard.attach(...) ~= nil";
    instance.eval(attach, &[json!(AGENT)]).await.map(|_| ())
}

/// A guard that an agent has attached to, in an instance alone.
async fn guarded(name: &str, story: impl AsyncFn(Guard<'_>) -> Result<()>) {
    world()
        .story(name, async |world| {
            let set = world.replica_set(1).await?;
            install(&set[0]).await?;
            attach(&set[0]).await?;
            story(Guard(&set[0])).await
        })
        .await;
}

fn assert_says(refused: &Value, words: &str) {
    assert!(
        refused.as_str().is_some_and(|said| said.contains(words)),
        "{refused}"
    );
}

#[tokio::test]
async fn a_promise_keeps_it_from_being_promoted_until_it_runs_out() {
    guarded("guard-promise", async |guard| {
        let uuid = guard.0.uuid();
        assert_eq!(
            guard.promise(OTHER, 5, SECOND).await?,
            json!({"uuid": uuid, "promised": true})
        );
        assert_says(&guard.promote(6, 0, 0).await?, "it has promised");
        assert_says(&guard.promote(6, 4, 0).await?, "master of term 5");
        let probe = guard.probe().await?;
        assert_eq!(probe["promise"]["to"], OTHER);
        assert_eq!(probe["promise"]["term"], 5);
        assert_eq!(probe["term"], 5);
        let left_ns = probe["promise"]["left_ns"].as_u64().unwrap_or(0);
        assert!(left_ns > 0 && left_ns <= SECOND, "{left_ns}");
        let wait = "require('fiber').sleep(...)";
        let left = json!(left_ns as f64 / 1e9);
        guard.value(wait, &[left]).await?;
        assert_eq!(guard.promote(6, 0, 0).await?, Value::Null);
        assert_eq!(guard.probe().await?["promise"], Value::Null);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_promise_to_a_master_whose_record_says_fenced_is_void() {
    guarded("guard-void", async |guard| {
        guard.promise(OTHER, 5, 30 * SECOND).await?;
        assert_eq!(guard.promote(6, 5, 0).await?, Value::Null);
        // The promise is gone for good, not only for that promotion.
        guard.fence().await?;
        assert_eq!(guard.promote(6, 0, 0).await?, Value::Null);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn whoever_is_writable_or_knows_a_higher_term_promises_nothing() {
    guarded("guard-refuses", async |guard| {
        let refused = guard.promise(guard.0.uuid(), 5, SECOND).await?;
        assert_says(&refused["refused"], "the one that asks");
        let refused = guard.promise(OTHER, 5, 65 * SECOND).await?;
        assert_says(&refused["refused"], "no lease is that long");
        guard.promise(OTHER, 5, 30 * SECOND).await?;
        let refused = guard.promise(THIRD, 4, SECOND).await?;
        assert_says(&refused["refused"], "term 4 is over");
        let refused = guard.promise(THIRD, 5, SECOND).await?;
        assert_says(&refused["refused"], "it has promised that to");
        // A shorter promise does not take back a longer one.
        guard.promise(OTHER, 5, SECOND).await?;
        let left_ns = guard.probe().await?["promise"]["left_ns"].as_u64();
        assert!(left_ns > Some(20 * SECOND), "{left_ns:?}");
        // The master of a higher term has a right to it.
        assert_eq!(guard.promise(THIRD, 6, SECOND).await?["promised"], true);

        assert_eq!(guard.promote(7, 6, 0).await?, Value::Null);
        let refused = guard.promise(OTHER, 8, SECOND).await?;
        assert_says(&refused["refused"], "writable itself");
        assert_eq!(refused["promised"], false);
        Ok(())
    })
    .await;
}

/// Whoever may ask for a promise may ask for anything. What is believed stays in the guard, where its agent and every later
/// promotion read it.
#[tokio::test]
async fn a_question_that_makes_no_sense_leaves_no_trace() {
    guarded("guard-senseless", async |guard| {
        guard.promise(OTHER, 5, SECOND).await?;
        let before = guard.probe().await?;
        let long = "x".repeat(100_000);
        let ask = "return tarsec_guard.promise(...)";
        let (term, second) = (json!(6), json!(SECOND));
        for (question, words) in [
            ([json!(long), term.clone(), second.clone()], "no UUID"),
            ([json!([OTHER]), term.clone(), second.clone()], "no UUID"),
            ([json!(THIRD), json!(6.5), second.clone()], "whole numbers"),
            ([json!(THIRD), json!("6"), second.clone()], "whole numbers"),
            ([json!(THIRD), json!(-6), second.clone()], "whole numbers"),
            (
                [json!(THIRD), json!(1_u64 << 53), second.clone()],
                "whole numbers",
            ),
            (
                [json!(THIRD), json!(u64::MAX), second.clone()],
                "whole numbers",
            ),
            ([json!(THIRD), term.clone(), json!(-1)], "whole numbers"),
            ([json!(THIRD), term.clone(), json!(1e300)], "whole numbers"),
            (
                [json!(THIRD), json!((1_u64 << 53) - 1), second.clone()],
                "counted to term",
            ),
            (
                [json!(THIRD), json!((1_u64 << 32) + 1), second.clone()],
                "counted to term",
            ),
        ] {
            let answer = guard.value(ask, &question).await?;
            assert_says(&answer["refused"], words);
            assert_eq!(answer["promised"], false);
        }
        let after = guard.probe().await?;
        assert_eq!(
            (&after["term"], &after["promise"]["to"]),
            (&before["term"], &before["promise"]["to"])
        );
        // The furthest that is believed leaves room, and is as far as it goes: the instance's agent believes no other.
        let furthest = 1_u64 << 32;
        let promised = guard.promise(OTHER, furthest, SECOND).await?;
        assert_eq!(promised["promised"], true, "{promised}");
        let again = guard.promise(OTHER, furthest + 1, SECOND).await?;
        assert_says(&again["refused"], "counted to term");
        assert_eq!(guard.promote(furthest + 1, furthest, 0).await?, Value::Null);
        Ok(())
    })
    .await;
}

/// Integers from 10^14 on are no numbers of Lua's own, and numbers from there on no integers on the wire.
#[tokio::test]
async fn long_terms_are_terms() {
    guarded("guard-long-terms", async |guard| {
        let long = (1_u64 << 52) + 1;
        let observe = "return tarsec_guard.observe('agent', ...).refused";
        guard.value(observe, &[json!(long)]).await?;
        assert_eq!(guard.probe().await?["term"], long);
        let promised = guard.promise(OTHER, long + 1, SECOND).await?;
        assert_eq!(promised["promised"], true, "{promised}");
        let probe = guard.probe().await?;
        assert_eq!(probe["term"], long + 1);
        assert_eq!(probe["promise"]["term"], long + 1);
        assert_says(&guard.promote(long, 0, 0).await?, "is over");
        assert_eq!(guard.promote(long + 2, long + 1, 0).await?, Value::Null);
        assert_eq!(guard.probe().await?["term"], long + 2);
        let grant = "local t0 = tarsec_guard.now()
            return tarsec_guard.grant('agent', ..., t0 + 30000000000ULL).refused";
        let granted = guard.value(grant, &[json!(long + 2)]).await?;
        assert_eq!(granted, Value::Null);
        assert_says(&guard.value(grant, &[json!(long)]).await?, "at term");
        guard.fence().await
    })
    .await;
}

#[tokio::test]
async fn a_young_guard_is_not_promoted_where_it_may_have_forgotten_a_promise() {
    guarded("guard-age", async |guard| {
        assert_says(&guard.promote(6, 0, 60 * SECOND).await?, "its guard is");
        let age_ns = guard.probe().await?["age_ns"].as_u64().unwrap_or(0);
        assert!(age_ns > 0 && age_ns < 60 * SECOND, "{age_ns}");
        // The same guard, found by another agent, keeps its age and its promises; a later version inherits them.
        guard.promise(OTHER, 5, 30 * SECOND).await?;
        install(guard.0).await?;
        guard.0.eval("tarsec_guard.version = 0", &[]).await?;
        install(guard.0).await?;
        assert!(guard.probe().await?["age_ns"].as_u64() > Some(age_ns));
        assert_says(&guard.promote(6, 0, 0).await?, "it has promised");
        assert_eq!(guard.promote(6, 5, age_ns).await?, Value::Null);
        Ok(())
    })
    .await;
}

/// A guard of an earlier version knows of no promises that it made.
#[tokio::test]
async fn a_guard_that_comes_after_one_that_kept_no_age_counts_as_new() {
    guarded("guard-upgrade", async |guard| {
        let forget = "tarsec_guard.version = 0 tarsec_guard.state.times = nil";
        guard.value("require('fiber').sleep(0.3)", &[]).await?;
        guard.0.eval(forget, &[]).await?;
        install(guard.0).await?;
        attach(guard.0).await?;
        assert!(guard.probe().await?["age_ns"].as_u64() < Some(SECOND * 3 / 10));
        Ok(())
    })
    .await;
}

/// What a guard of version 11 kept, by a clock that is behind: the machine was suspended for half of its time.
const OLD_GUARD: &str = "
    local clock = require('clock')
    story_clock = clock.monotonic64
    local behind = story_clock() / 2
    clock.monotonic64 = function() return story_clock() - behind end
    local other, now = ..., clock.monotonic64()
    local state = tarsec_guard.state
    state.times = nil
    state.owner, state.deadline = 'old#1', now + 20 * 1000000000ULL
    state.born, state.promised_at = now - 5 * 1000000000ULL, now
    state.promise = {to = other, term = 5, until_ns = now + 20 * 1000000000ULL}
    state.term = 5
    tarsec_guard.version = 11";

#[tokio::test]
async fn what_an_older_guard_promised_by_a_clock_that_was_behind_does_not_end_earlier() {
    guarded("guard-clock-forward", async |guard| {
        let t0 = guard.value("return tarsec_guard.now()", &[]).await?;
        guard.0.eval(OLD_GUARD, &[json!(OTHER)]).await?;
        install(guard.0).await?;
        let unowned = guard.value("return tarsec_guard.probe('old#1')", &[]).await;
        assert!(unowned.is_err(), "no agent has attached to it: {unowned:?}");
        attach(guard.0).await?;

        let probe = guard.probe().await?;
        assert_eq!(probe["clock"], "boottime");
        let left_ns = probe["promise"]["left_ns"].as_u64().unwrap_or(0);
        assert!((15 * SECOND..=20 * SECOND).contains(&left_ns), "{left_ns}");
        let age_ns = probe["age_ns"].as_u64().unwrap_or(0);
        assert!((5 * SECOND..=15 * SECOND).contains(&age_ns), "{age_ns}");
        assert_says(&guard.promote(6, 0, 0).await?, "it has promised");
        assert_says(&guard.promote(6, 5, 60 * SECOND).await?, "its guard is");
        let lua = "local t0 = ...
            return tarsec_guard.promote('agent', 6, tarsec_guard.now() + 30000000000ULL, 5, 0, t0).refused";
        assert_says(&guard.value(lua, &[t0]).await?, "a reading from before");
        assert_eq!(guard.promote(6, 5, 0).await?, Value::Null);
        Ok(())
    })
    .await;
}

/// By the clock that is ahead such a lease looks as if it were over: nobody knows whether the machine was suspended while
/// it ran.
#[tokio::test]
async fn a_lease_of_an_older_guard_on_a_machine_that_was_suspended_once_counts_as_over() {
    guarded("guard-clock-lease", async |guard| {
        assert_eq!(guard.promote(4, 0, 0).await?, Value::Null);
        guard.0.eval(OLD_GUARD, &[json!(OTHER)]).await?;
        install(guard.0).await?;
        eventually(SOON, "the new guard's fence", async || {
            let said = guard
                .value("return box.info.ro and tarsec_guard.state.last_fence", &[])
                .await;
            match said {
                Ok(Value::String(why)) if why == "its lease ended" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    })
    .await;
}

/// A guard of version 11 reads `owner`, `deadline`, `born`, `promise` and `promised_at` in the state, by a clock that may be
/// behind: times of this guard would let it allow too much.
#[tokio::test]
async fn an_older_guard_that_comes_after_this_one_finds_itself_newly_born_and_without_a_lease() {
    guarded("guard-clock-back", async |guard| {
        let found = "local s = tarsec_guard.state
            local bounds = s.deadline > require('clock').monotonic64()
            return {bounds, s.owner ~= nil, s.born ~= nil, s.promise ~= nil, s.promised_at ~= nil}";
        let nothing = json!([false, false, false, false, false]);
        guard.promise(OTHER, 5, 30 * SECOND).await?;
        assert_eq!(guard.value(found, &[]).await?, nothing);
        assert_eq!(guard.promote(6, 5, 0).await?, Value::Null);
        assert_eq!(guard.value(found, &[]).await?, nothing);

        // What that guard promises in between counts, and nothing of before.
        guard.fence().await?;
        let between = "local s, now = tarsec_guard.state, require('clock').monotonic64()
            s.owner, s.born = 'old#1', now
            s.promise = {to = ..., term = 6, until_ns = now + 20 * 1000000000ULL}
            tarsec_guard.version = 11";
        guard.0.eval(between, &[json!(THIRD)]).await?;
        install(guard.0).await?;
        attach(guard.0).await?;
        let probe = guard.probe().await?;
        assert_eq!(probe["promise"]["to"], THIRD);
        assert!(probe["age_ns"].as_u64() < Some(10 * SECOND), "{probe}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_guard_without_a_clock_that_counts_suspensions_says_so() {
    guarded("guard-clock-none", async |guard| {
        assert_eq!(guard.promote(4, 0, 0).await?, Value::Null);
        let other_system = "tarsec_guard.version = 11 require('ffi').os = 'Other'";
        guard.0.eval(other_system, &[]).await?;
        install(guard.0).await?;
        attach(guard.0).await?;
        let probe = guard.probe().await?;
        assert_eq!(probe["clock"], "monotonic");
        // Times of another clock are none of its own.
        eventually(SOON, "its fence", async || {
            let probe = guard.probe().await.map_err(|error| error.to_string())?;
            if probe["leased"] == false {
                Ok(())
            } else {
                Err(probe.to_string())
            }
        })
        .await?;
        assert!(guard.probe().await?["age_ns"].as_u64() < Some(10 * SECOND));
        assert_eq!(guard.promote(5, 0, 0).await?, Value::Null);
        Ok(())
    })
    .await;
}

/// R3: no other instance may be master, for all that this one knows.
#[tokio::test]
async fn whoever_stands_for_all_knows_nobody_that_was_not_asked_and_has_landed() {
    guarded("guard-for-all", async |guard| {
        let asked = async |term: u64, uuids: &[&str]| {
            let args = [json!(OTHER), json!(term), json!(SECOND), json!(uuids)];
            guard.value("return tarsec_guard.promise(...)", &args).await
        };
        guard.lands().await?;
        let answer = asked(5, &[guard.0.uuid()]).await?;
        assert_eq!(
            (&answer["promised"], &answer["for_all"]),
            (&json!(true), &json!(true))
        );
        let refused = asked(6, &[THIRD]).await?;
        assert_says(&refused["refused"], "it knows a member that was not asked");
        assert_eq!(refused["promised"], false);

        let unlanded = "tarsec_guard.write_nothing = function() return false, 'no memory' end";
        guard.0.eval(unlanded, &[]).await?;
        assert_eq!(guard.promote(6, 5, 0).await?, Value::Null);
        guard.fence().await?;
        let refused = asked(7, &[guard.0.uuid()]).await?;
        assert_says(&refused["refused"], "its last commits may still land");
        Ok(())
    })
    .await;
}

/// R3: an instance that is promoted without such rows might never get them, though a quorum has acknowledged them.
#[tokio::test]
async fn whoever_stands_for_all_has_no_row_that_the_asking_one_lacks() {
    guarded("guard-rows", async |guard| {
        let own = guard.0.uuid();
        let lua = "local to, term, uuid, behind = ...
            local vclock = {}
            for id, lsn in pairs(box.info.vclock) do vclock[tostring(id)] = lsn - behind end
            return tarsec_guard.promise(to, term, 1000000000, {uuid}, vclock)";
        let asked = async |term: u64, behind: u64| {
            let args = [json!(OTHER), json!(term), json!(own), json!(behind)];
            guard.value(lua, &args).await
        };
        guard.lands().await?;
        let refused = asked(5, 1).await?;
        assert_says(&refused["refused"], "it has rows of member 1 that");
        assert_eq!(refused["promised"], false);
        assert_eq!(asked(5, 0).await?["for_all"], true);
        Ok(())
    })
    .await;
}

/// R3: what its agent was allowed before another instance's agent asked says nothing of what has happened since.
#[tokio::test]
async fn a_promotion_that_rests_on_a_reading_from_before_a_promise_is_refused() {
    guarded("guard-old-reading", async |guard| {
        let lua = "local fenced, uuid = ...
            local t0 = tarsec_guard.now()
            assert(tarsec_guard.promise(uuid, 1, 1000000).promised)
            require('fiber').sleep(0.01)
            return tarsec_guard.promote('agent', 7, t0 + 30000000000ULL, fenced, 0, t0).refused";
        // A record of a later term that says fenced makes the promise void, and the reading no newer.
        for fenced in [0, 6] {
            let refused = guard.value(lua, &[json!(fenced), json!(OTHER)]).await?;
            assert_says(
                &refused,
                "a reading from before this guard promised another",
            );
        }
        assert_eq!(guard.promote(7, 6, 0).await?, Value::Null);
        Ok(())
    })
    .await;
}
