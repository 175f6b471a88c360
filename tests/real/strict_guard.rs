//! `GUARD=strict` inside an instance: what its triggers refuse, what they let through, and when they kill.

use std::os::unix::process::ExitStatusExt;

use tarsec_harness::{Instance, ReplicaSet, Result, Value, World, eventually, json, sources};

use crate::support::{SOON, world};

/// What the tests' Lua shares. `stall` is a process that stands still: no fiber gets the processor.
const TOOLS: &str = "
function story_lease(seconds)
    local deadline = tarsec_guard.now() + seconds * 1000000000ULL
    local answer = tarsec_guard.promote('story', tarsec_guard.state.term + 1, deadline, 0, 0)
    return answer.refused
end
function story_stall()
    while tarsec_guard.now() < tarsec_guard.deadline() do end
end
";

/// Spaces of every kind, before the guard is strict.
const SPACES: &str = "
box.schema.space.create('memtx'):create_index('primary')
box.schema.space.create('vinyl', {engine = 'vinyl'}):create_index('primary')
box.schema.space.create('counted'):create_index('primary', {sequence = true})
box.schema.space.create('temporary', {temporary = true}):create_index('primary')
box.schema.space.create('local', {is_local = true}):create_index('primary')
box.schema.sequence.create('numbers')
for _, name in pairs{'memtx', 'vinyl'} do box.space[name]:insert{1, 1} end
";

/// A guard as an agent would install it, without an agent.
async fn guarded(instance: &Instance) -> Result<()> {
    let guard = sources::GUARD.into_iter();
    for source in guard.chain([sources::STRICT, TOOLS]) {
        instance.eval(source, &[]).await?;
    }
    let attach = "return tarsec_guard.attach('story', true)";
    instance.eval(attach, &[]).await.map(|_| ())
}

/// A strict guard over spaces of every kind; no lease runs.
async fn alone(world: &World) -> Result<ReplicaSet> {
    let set = world.replica_set(1).await?;
    let by_admin = format!(
        "box.cfg{{read_only = false}} box.session.su('admin', function() {SPACES} end) box.cfg{{read_only = true}}"
    );
    set[0].eval(&by_admin, &[]).await?;
    guarded(&set[0]).await?;
    set[0].eval("assert(story_lease(20) == nil)", &[]).await?;
    let fence = "tarsec_guard.fence('story', 'the story begins')";
    set[0].eval(fence, &[]).await?;
    Ok(set)
}

/// Every statement that can be acknowledged, by name.
const WRITES: &str = "
return {
    {'insert', function() box.space.memtx:insert{10, 1} end},
    {'replace', function() box.space.memtx:replace{1, 2} end},
    {'update', function() box.space.memtx:update(1, {{'=', 2, 2}}) end},
    {'upsert', function() box.space.memtx:upsert({1, 2}, {{'=', 2, 2}}) end},
    {'delete', function() box.space.memtx:delete(1) end},
    {'vinyl insert', function() box.space.vinyl:insert{10, 1} end},
    {'vinyl replace', function() box.space.vinyl:replace{1, 2} end},
    {'vinyl upsert', function() box.space.vinyl:upsert({1, 2}, {{'=', 2, 2}}) end},
    {'vinyl delete', function() box.space.vinyl:delete(1) end},
    {'sql', function() 
        local ok, err = box.execute([[INSERT INTO \"by_sql\" VALUES (11)]])
        if not ok then error(err) end
    end},
    {'auto-increment', function() box.space.counted:insert{box.NULL} end},
    {'sequence', function() box.sequence.numbers:next() end},
    {'truncate', function() box.space.memtx:truncate() end},
    {'new space', function() box.schema.space.create('late') end},
    {'new index', function() box.space.memtx:create_index('late', {parts = {2, 'unsigned'}}) end},
    {'new user', function() box.schema.user.create('late') end},
    {'younger', function() box.space.younger:insert{10} end},
    {'altered', function() box.space.altered:insert{10, 1} end},
    {'truncated', function() box.space.truncated:insert{10} end},
    {'made in one transaction', function() box.space.atomic:insert{10} end},
    {'drop', function() box.space.younger:drop() end},
}
";

/// Spaces that come, change and are emptied under a strict guard.
const LATER_SPACES: &str = "
box.session.su('admin', function()
    box.schema.space.create('younger'):create_index('primary')
    local altered = box.schema.space.create('altered')
    altered:create_index('primary')
    altered:format{{'id', 'unsigned'}, {'more', 'unsigned'}}
    altered:create_index('more', {parts = {2, 'unsigned'}})
    altered:rename('other')
    altered:rename('altered')
    altered.index.more:drop()
    local truncated = box.schema.space.create('truncated')
    truncated:create_index('primary')
    truncated:insert{1}
    truncated:truncate()
    assert(box.execute([[CREATE TABLE \"by_sql\" (id INTEGER PRIMARY KEY)]]))
    box.begin()
    local atomic = box.schema.space.create('atomic')
    atomic:create_index('primary')
    atomic:insert{1}
    box.commit()
end)
";

#[tokio::test]
async fn nothing_that_begins_past_the_deadline_is_accepted() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        set[0].eval("return story_lease(20)", &[]).await?;
        set[0].eval(LATER_SPACES, &[]).await?;
        let tried = format!(
            "local writes = (function() {WRITES} end)()
             local before = box.info.lsn
             local refused, failed = 0, setmetatable({{}}, {{__serialize = 'seq'}})
             assert(story_lease(1) == nil)
             story_stall()
             assert(not box.info.ro, 'no fiber has had the processor')
             box.session.su('admin', function()
                 for _, write in ipairs(writes) do
                     local ok, err = pcall(write[2])
                     if not ok and err.code == box.error.READONLY then
                         -- A drop begins with deletions of nothing, which no trigger sees. They yield, and it is fenced.
                         local ours = err.message:find('tarsec: its lease ended')
                         refused = refused + ((ours or write[1] == 'drop') and 1 or 0)
                     end
                     if box.info.lsn ~= before and write[1] ~= 'drop' then
                         table.insert(failed, write[1] .. ': a row in the WAL')
                         before = box.info.lsn
                     elseif ok or err.code ~= box.error.READONLY then
                         table.insert(failed, write[1] .. ': ' .. tostring(err))
                     end
                 end
             end)
             return failed, refused"
        );
        let answer = set[0].eval(&tried, &[]).await?;
        let [failed, refused] = answer.as_slice() else {
            panic!("{answer:?}");
        };
        assert_eq!(*failed, json!([]), "of {refused} that were refused");
        assert_eq!(*refused, 21);
        Ok(())
    };
    world().story("strict-refuses", story).await;
}

#[tokio::test]
async fn without_a_lease_nothing_is_accepted_even_by_a_writable_instance() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        let by_hand = "
            box.cfg{read_only = false}
            local ok, err = pcall(box.space.memtx.insert, box.space.memtx, {10, 1})
            return ok, err.code, err.message, box.info.ro";
        let answer = set[0].eval(by_hand, &[]).await?;
        let words = "Can't modify data because this instance is in read-only mode. tarsec: no lease is running";
        assert_eq!(answer, [json!(false), json!(7), json!(words), json!(false)]);
        Ok(())
    };
    world().story("strict-unleased", story).await;
}

#[tokio::test]
async fn temporary_and_local_spaces_stay_writable_without_a_lease() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        let write = "
            assert(box.info.ro)
            box.session.su('admin', function()
                box.space.temporary:insert{1}
                box.space['local']:insert{1}
            end)
            return true";
        assert_eq!(set[0].eval(write, &[]).await?, [json!(true)]);
        Ok(())
    };
    world().story("strict-local", story).await;
}

/// A write that begins in time and lands past the deadline, and so is never acknowledged.
async fn late_commit(name: &str, write: &str) {
    let story = async |world: &World| {
        let set = alone(world).await?;
        let late = format!(
            "assert(story_lease(1) == nil)
             box.session.su('admin', function()
                 {write}
             end)
             return 'acknowledged'"
        );
        let answer = set[0].eval(&late, &[]).await;
        assert!(answer.is_err(), "{answer:?}");
        let status = set[0].process().wait(SOON).await?;
        assert_eq!(status.signal(), Some(9), "{status}");
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn a_late_commit_kills_the_process() {
    let write = "box.begin() box.space.memtx:insert{10, 1} story_stall() box.commit()";
    late_commit("strict-late-memtx", write).await;
}

#[tokio::test]
async fn a_late_commit_in_vinyl_kills_the_process() {
    let write = "box.begin() box.space.vinyl:insert{10, 1} story_stall() box.commit()";
    late_commit("strict-late-vinyl", write).await;
}

#[tokio::test]
async fn a_write_that_is_in_the_wal_while_the_process_stalls_kills_it() {
    // The fiber that writes stands in the WAL's queue while the next one stalls everything.
    let write = "
        local fiber = require('fiber')
        local done = fiber.channel(1)
        fiber.create(function() box.space.memtx:insert{10, 1} done:put(true) end)
        story_stall()
        done:get()";
    late_commit("strict-late-wal", write).await;
}

#[tokio::test]
async fn a_commit_that_lands_in_a_pause_kills_nothing_though_it_began_under_a_lease() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        let late = "
            assert(story_lease(1) == nil)
            box.session.su('admin', function()
                box.begin()
                box.space.memtx:insert{10, 1}
                assert(tarsec_guard.stand_down('story', true).refused == nil)
                story_stall()
                box.commit()
            end)
            return 'acknowledged'";
        assert_eq!(set[0].eval(late, &[]).await?, [json!("acknowledged")]);
        Ok(())
    };
    world().story("strict-pause-commit", story).await;
}

#[tokio::test]
async fn a_late_commit_of_a_changed_schema_kills_the_process() {
    let write = "
        box.begin()
        box.schema.space.create('late'):create_index('primary')
        box.space.late:insert{1}
        story_stall()
        box.commit()";
    late_commit("strict-late-ddl", write).await;
}

#[tokio::test]
async fn a_commit_that_lands_within_its_lease_counts_though_the_instance_was_fenced_meanwhile() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        let fenced = "
            assert(story_lease(20) == nil)
            box.begin()
            box.space.memtx:insert{10, 1}
            tarsec_guard.state.leased = false
            tarsec_guard.state.epoch = tarsec_guard.state.epoch + 1
            tarsec_guard.state.times.deadline = 0ULL
            box.commit()
            return box.space.memtx:get(10)";
        assert_eq!(set[0].eval(fenced, &[]).await?, [json!([10, 1])]);
        Ok(())
    };
    world().story("strict-fenced", story).await;
}

#[tokio::test]
async fn a_commit_counts_by_the_lease_under_which_it_began_not_by_the_next_one() {
    let write = "
        box.begin()
        box.space.memtx:insert{10, 1}
        story_stall()
        local state = tarsec_guard.state
        state.epoch = state.epoch + 1
        state.times.deadline = state.times.deadline + 20 * 1000000000ULL
        box.commit()";
    late_commit("strict-next-lease", write).await;
}

#[tokio::test]
async fn rows_from_elsewhere_are_not_checked() {
    let story = async |world: &World| {
        let set = world.replica_set(2).await?;
        for instance in set.iter() {
            guarded(instance).await?;
        }
        let write = "
            assert(story_lease(20) == nil)
            box.session.su('admin', function()
                box.schema.space.create('younger'):create_index('primary')
                box.space.younger:insert{1}
            end)
            return journal_write('w', 1)";
        set[0].eval(write, &[]).await?;
        let rows = "return box.space.journal:len(), box.space.younger and box.space.younger:len(),
            box.space.younger and #box.space.younger:on_replace()";
        eventually(SOON, "the rows at the replica", async || {
            match set[1].eval(rows, &[]).await.as_deref() {
                Ok([journal, younger, triggers])
                    if [journal, younger, triggers] == [&json!(1), &json!(1), &json!(1)] =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    world().story("strict-applier", story).await;
}

/// How many spaces have triggers, and how many.
const TRIGGERS: &str = "
local spaces, triggers = 0, 0
for id, space in pairs(box.space) do
    if type(id) == 'number' and #space:on_replace() > 0 then
        spaces, triggers = spaces + 1, triggers + #space:on_replace()
    end
end
return spaces, triggers";

async fn triggers(instance: &Instance) -> Result<(u64, u64)> {
    let counts = instance.eval(TRIGGERS, &[]).await?;
    let count = |place: usize| counts.get(place).and_then(Value::as_u64).unwrap_or(99);
    Ok((count(0), count(1)))
}

#[tokio::test]
async fn it_is_switched_on_and_off_by_whoever_attaches() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        let (spaces, all) = triggers(&set[0]).await?;
        assert!(spaces > 10);
        assert_eq!(all, spaces + 1, "one for each, and one that notes new ones");
        guarded(&set[0]).await?;
        assert_eq!(triggers(&set[0]).await?, (spaces, all), "attached again");
        let off = "tarsec_guard.attach('story', false)";
        set[0].eval(off, &[]).await?;
        assert_eq!(triggers(&set[0]).await?, (0, 0));
        // Late, and nobody minds.
        let late = "assert(story_lease(1) == nil)
            box.begin() box.space.memtx:insert{10, 1} story_stall() box.commit()
            return box.space.memtx:len()";
        assert_eq!(set[0].eval(late, &[]).await?, [json!(2)]);
        guarded(&set[0]).await?;
        assert_eq!(triggers(&set[0]).await?, (spaces, all));
        Ok(())
    };
    world().story("strict-switch", story).await;
}

#[tokio::test]
async fn a_guard_that_was_replaced_neither_refuses_nor_kills() {
    let story = async |world: &World| {
        let set = alone(world).await?;
        // An operator removed the global: the next guard knows nothing of the triggers of the guard before. The code in
        // front of it yields, and a guard whose global is gone puts it back in its next turn.
        let run = |sources: &[&str]| {
            let run = |source: &&str| format!("assert(loadstring([==[{source}]==]))()\n");
            sources.iter().map(run).collect::<String>()
        };
        let (first, guard) = sources::GUARD.split_at(6);
        let (first, guard) = (run(first), run(guard));
        let replaced = format!(
            "{first}
             assert(story_lease(1) == nil)
             story_before = tarsec_guard
             tarsec_guard = nil
             {guard}
             tarsec_guard.attach('story')
             while tarsec_guard.now() < story_before.deadline() do end
             assert(#box.space.memtx:on_replace() == 1)
             assert(story_lease(20) == nil)
             box.space.memtx:insert{{10, 1}}
             return box.space.memtx:len()"
        );
        assert_eq!(set[0].eval(&replaced, &[]).await?, [json!(2)]);
        Ok(())
    };
    world().story("strict-replaced", story).await;
}
