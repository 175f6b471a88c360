//! How the guard takes the queue of synchronous transactions over, without an agent.

use tarsec_harness::{
    Instance, ReplicaSet, ReplicaSetOptions, Result, Value, Version, World, eventually, json,
    sources,
};

use crate::support::{SOON, world};
use crate::sync::SYNCHRONOUS;

const ATTACH: &str = "tarsec_guard.attach('story', false)";

/// `story_promote(term)` says why it was refused, if it was.
const TOOLS: &str = "
function story_promote(term)
    return tarsec_guard.promote('story', term, tarsec_guard.now() + 50 * 1000000000ULL, 0, 0).refused
end
";

async fn guarded(instance: &Instance) -> Result<()> {
    for source in sources::GUARD.into_iter().chain([TOOLS, ATTACH]) {
        instance.eval(source, &[]).await?;
    }
    Ok(())
}

async fn promote(instance: &Instance, term: u64) -> Result<()> {
    let refused = instance
        .eval("return story_promote(...)", &[json!(term)])
        .await?;
    assert_eq!(refused, [Value::Null], "{}", instance.name());
    Ok(())
}

/// Waits until Lua returns true.
async fn until(instance: &Instance, what: &str, lua: &str) -> Result<()> {
    eventually(SOON, what, async || {
        match instance.eval(lua, &[]).await.as_deref() {
            Ok([Value::Bool(true)]) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Three members with guards and a synchronous journal; the first one is master.
async fn three(world: &World) -> Result<ReplicaSet> {
    let options = ReplicaSetOptions::of(3).linked().extra_lua(SYNCHRONOUS);
    let set = world.replica_set_with(options).await?;
    for instance in set.iter() {
        guarded(instance).await?;
    }
    promote(&set[0], 1).await?;
    for instance in set.iter() {
        let ready = "return box.space.journal.is_sync";
        until(instance, "the synchronous journal", ready).await?;
    }
    Ok(set)
}

const SETTINGS: &str =
    "return box.cfg.replication_synchro_quorum, box.cfg.replication_synchro_timeout";

/// Versions whose queue has no owner yet, and is cleared by the guard.
fn clears_its_queue(version: Version) -> bool {
    version < Version::new(2, 10, 0)
}

const CLEARING: &str = "from 2.10 on the queue is claimed and not cleared";

#[tokio::test]
async fn rows_that_wait_in_the_queue_are_confirmed_not_rolled_back_with_nobody_else_there() {
    if Version::skips(
        "rows_that_wait_in_the_queue_are_confirmed_not_rolled_back_with_nobody_else_there",
        clears_its_queue,
        CLEARING,
    ) {
        return;
    }
    let story = async |world: &World| {
        let set = three(world).await?;
        // The third member has nothing, and the master waits for it: no confirmation is ever sent.
        set.cut_off(2).await?;
        let write = "
            box.cfg{replication_synchro_quorum = 3, replication_synchro_timeout = 60}
            require('fiber').create(function()
                for seq = 1, 3 do require('fiber').create(journal_write, 'w', seq) end
            end)";
        set[0].eval(write, &[]).await?;
        let here = "return box.space.journal:len() == 3";
        until(&set[1], "the rows at the second member", here).await?;
        set[0].kill().await?;

        promote(&set[1], 2).await?;
        assert_eq!(set[1].eval(here, &[]).await?, [json!(true)], "rolled back");
        assert_eq!(set[1].eval(SETTINGS, &[]).await?, [json!(2), json!(5)]);
        // The queue is free for rows of its own, and the other member gets all.
        set.let_catch_up(2).await?;
        set[1].eval("return journal_write('w', 4)", &[]).await?;
        until(&set[2], "every row", "return box.space.journal:len() == 4").await
    };
    world().story("sync-confirm", story).await;
}

#[tokio::test]
async fn rows_of_its_own_wait_on_when_a_master_is_promoted_again_in_its_term() {
    let story = async |world: &World| {
        let set = three(world).await?;
        set.cut_off(1).await?;
        set.cut_off(2).await?;
        let write = "
            story_done = 'waits'
            require('fiber').create(function() story_done = pcall(journal_write, 'w', 1) end)
            tarsec_guard.state.leased = false
            tarsec_guard.state.epoch = tarsec_guard.state.epoch + 1
            box.cfg{read_only = true}
            return story_promote(1), story_done, box.cfg.replication_synchro_quorum,
                box.cfg.replication_synchro_timeout";
        let answer = set[0].eval(write, &[]).await?;
        assert_eq!(answer, [Value::Null, json!("waits"), json!(2), json!(5)]);
        set.let_catch_up(1).await?;
        until(&set[0], "its quorum", "return story_done").await
    };
    world().story("sync-own", story).await;
}

#[tokio::test]
async fn a_queue_that_was_given_away_is_taken_again_with_the_next_grant() {
    let test = "a_queue_that_was_given_away_is_taken_again_with_the_next_grant";
    let has_owner = |version| !clears_its_queue(version);
    if Version::skips(test, has_owner, "its queue has no owner") {
        return;
    }
    let story = async |world: &World| {
        let set = three(world).await?;
        let grant = "
            box.ctl.demote()
            local refused = pcall(journal_write, 'w', 1)
            local deadline = tarsec_guard.now() + 50 * 1000000000ULL
            return box.info.synchro.queue.owner, refused, tarsec_guard.grant('story', 1, deadline).refused";
        let answer = set[0].eval(grant, &[]).await?;
        assert_eq!(answer, [json!(0), json!(false), Value::Null]);
        let owned = "return box.info.synchro.queue.owner == box.info.id";
        until(&set[0], "the queue", owned).await?;
        set[0].eval("return journal_write('w', 2)", &[]).await?;

        // The first synchronous space of a set leaves it without an owner, too.
        let first = "box.ctl.demote()
            box.space._space:update(box.space.journal.id, {{'=', 6, {is_sync = false}}})
            box.space._space:update(box.space.journal.id, {{'=', 6, {is_sync = true}}})
            return tarsec_guard.grant('story', 1, tarsec_guard.now() + 50 * 1000000000ULL).refused";
        assert_eq!(set[0].eval(first, &[]).await?, [Value::Null]);
        until(&set[0], "the queue", owned).await?;
        set[0]
            .eval("return journal_write('w', 3)", &[])
            .await
            .map(|_| ())
    };
    world().story("sync-demoted", story).await;
}

#[tokio::test]
async fn settings_are_restored_whatever_becomes_of_the_queue() {
    if Version::skips(
        "settings_are_restored_whatever_becomes_of_the_queue",
        clears_its_queue,
        CLEARING,
    ) {
        return;
    }
    let story = async |world: &World| {
        let set = three(world).await?;
        set.cut_off(2).await?;
        let write = "
            box.cfg{replication_synchro_quorum = 3, replication_synchro_timeout = 60}
            require('fiber').create(journal_write, 'w', 1)";
        set[0].eval(write, &[]).await?;
        let here = "return box.space.journal:len() == 1";
        until(&set[1], "the row at the second member", here).await?;
        set[0].kill().await?;
        let fails = "
            local clear = box.ctl.clear_synchro_queue
            local seen
            box.ctl.clear_synchro_queue = function()
                seen = {box.cfg.replication_synchro_quorum, box.cfg.replication_synchro_timeout}
                error('it fails')
            end
            local refused = story_promote(2)
            box.ctl.clear_synchro_queue = clear
            return refused, seen, box.info.ro";
        let answer = set[1].eval(fails, &[]).await?;
        let refused = answer[0].as_str().unwrap_or_default();
        assert!(
            refused.starts_with("could not take the synchronous queue: "),
            "{answer:?}"
        );
        assert!(refused.ends_with("it fails"), "{answer:?}");
        assert_eq!(answer[1..], [json!([1, 0.05]), json!(true)]);
        assert_eq!(set[1].eval(SETTINGS, &[]).await?, [json!(2), json!(5)]);
        // A change that somebody else makes in between stays.
        let changes = "
            local clear = box.ctl.clear_synchro_queue
            box.ctl.clear_synchro_queue = function()
                box.cfg{replication_synchro_timeout = 0.06}
                clear()
            end
            return story_promote(2)";
        assert_eq!(set[1].eval(changes, &[]).await?, [Value::Null]);
        assert_eq!(set[1].eval(SETTINGS, &[]).await?, [json!(2), json!(0.06)]);
        assert_eq!(set[1].eval(here, &[]).await?, [json!(true)]);
        Ok(())
    };
    world().story("sync-settings", story).await;
}

/// A Tarantool of 2.10 or later as far as the guard can see: the owner, whether a space is synchronous, what
/// `box.ctl.promote` does; `own()` in it makes the queue this instance's.
async fn promotions_later(world: &World, owner: u64, sync: bool, does: &str) -> Result<Vec<Value>> {
    let set = world.replica_set(1).await?;
    guarded(&set[0]).await?;
    let lua = "
        local owner, sync, does = ...
        local info, journal = box.info, box.space.journal
        story_promotions = 0
        local queue = {owner = owner, len = 0}
        rawset(box, 'info', setmetatable({synchro = {queue = queue}}, {__index = info}))
        own = function() queue.owner = info.id end
        rawset(journal, 'is_sync', sync)
        box.ctl.promote = function()
            story_promotions = story_promotions + 1
            return loadstring(does)()
        end
        local refused = story_promote(1)
        return refused, story_promotions, info.ro";
    let args = [json!(owner), json!(sync), json!(does)];
    set[0].eval(lua, &args).await
}

#[tokio::test]
async fn a_queue_of_another_owner_is_claimed_and_ones_own_is_not() {
    let story = async |world: &World| {
        for (owner, sync, promotions) in [(2, false, 1), (0, true, 1), (0, false, 0), (1, true, 0)]
        {
            let answer = promotions_later(world, owner, sync, "own()").await?;
            assert_eq!(
                answer,
                [Value::Null, json!(promotions), json!(false)],
                "owner {owner}, synchronous {sync}"
            );
        }
        Ok(())
    };
    world().story("sync-owner", story).await;
}

/// Since 3.7 `box.ctl.promote()` waits until the instance is writable, and answers that it timed out.
#[tokio::test]
async fn a_promotion_believes_the_queues_owner_and_not_what_the_claim_returns() {
    let story = async |world: &World| {
        for does in [
            "own() require('fiber').sleep(60)",
            "require('fiber').sleep(0.05) own() error('timed out', 0)",
        ] {
            let answer = promotions_later(world, 2, true, does).await?;
            assert_eq!(answer, [Value::Null, json!(1), json!(false)], "{does}");
        }
        Ok(())
    };
    world().story("sync-return", story).await;
}

#[tokio::test]
async fn without_the_quorum_of_the_queue_there_is_no_promotion() {
    let story = async |world: &World| {
        let fails = "error('quorum collection timed out', 0)";
        let answer = promotions_later(world, 2, true, fails).await?;
        let why = "could not take the synchronous queue: quorum collection timed out";
        assert_eq!(answer, [json!(why), json!(1), json!(true)]);
        let why = "could not take the synchronous queue: the queue still belongs to instance 2";
        // It waits for longer than a promotion may, or returns and has done nothing.
        for does in ["require('fiber').sleep(5)", ""] {
            let answer = promotions_later(world, 2, true, does).await?;
            assert_eq!(answer, [json!(why), json!(1), json!(true)], "{does}");
        }
        Ok(())
    };
    world().story("sync-no-quorum", story).await;
}
