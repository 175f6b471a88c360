//! Transactions that are open when their master is fenced: none of them commits afterwards.

use std::time::Duration;

use tarsec_harness::{
    Agent, ReplicaSet, ReplicaSetOptions, Result, Value, Version, World, eventually, json, sources,
};

use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

/// Spaces of both engines, and transactions in them that commit when they are told to.
const TRANSACTIONS: &str = "
local fiber = require('fiber')
local netbox = require('net.box')
story = {}

-- What begins a transaction of each kind; each has written `key` and waits to be told to commit.
local function begin_and_wait(space, key, isolation, gate)
    box.begin(isolation and {txn_isolation = isolation})
    box.space[space]:replace{key}
    gate:get()
    box.commit()
end

local kinds = {}
function kinds.fiber(space, key, gate)
    begin_and_wait(space, key, nil, gate)
end
function kinds.atomic(space, key, gate)
    box.atomic(function()
        box.space[space]:replace{key}
        gate:get()
    end)
end
if os.getenv('HAS_STREAMS') == 'true' then
    for _, isolation in pairs{'read-committed', 'read-confirmed', 'best-effort'} do
        kinds[isolation] = function(space, key, gate)
            begin_and_wait(space, key, isolation, gate)
        end
    end
    -- A user without a right to anything but these spaces, over iproto.
    function kinds.stream(space, key, gate)
        local stream = netbox.connect('client:client@' .. box.cfg.listen):new_stream()
        stream:begin()
        stream.space[space]:replace{key}
        gate:get()
        stream:commit()
    end
end

function story_open(key)
    story = {}
    for name, begin in pairs(kinds) do
        for _, space in pairs{'rows_memtx', 'rows_vinyl'} do
            local gate, done = fiber.channel(1), fiber.channel(1)
            local own_key = ('%s %s'):format(key, name)
            fiber.create(function()
                local ok, err = pcall(begin, space, own_key, gate)
                done:put({committed = ok, err = ok and '' or tostring(err)})
            end)
            table.insert(story, {space = space, key = own_key, gate = gate, done = done})
        end
    end
    fiber.sleep(0.2)
end

-- By kind and space: what a commit now comes to, and whether the row is there.
function story_commit()
    local outcome = setmetatable({}, {__serialize = 'seq'})
    for _, open in ipairs(story) do
        open.gate:put(true)
        local result = open.done:get(10)
        table.insert(outcome, {open.space .. ' ' .. open.key, result and result.committed, result and result.err,
            box.space[open.space]:get(open.key) ~= nil})
    end
    return outcome
end
";

const SPACES: &str = "
for _, engine in pairs{'memtx', 'vinyl'} do
    local space = box.schema.space.create('rows_' .. engine, {engine = engine})
    space:create_index('primary', {parts = {{1, 'string'}}})
end
box.schema.user.create('client', {password = 'client'})
for _, name in pairs{'rows_memtx', 'rows_vinyl'} do
    box.schema.user.grant('client', 'read,write', 'space', name)
end";

struct Scene {
    /// Memtx has its transaction manager.
    mvcc: bool,
    consul: tarsec_harness::Consul,
    set: ReplicaSet,
    agents: Vec<Agent>,
}

impl Scene {
    async fn start(world: &World, mvcc: bool) -> Result<Self> {
        let consul = world
            .consul_with(tarsec_harness::ConsulOptions::default())
            .await?;
        let options = ReplicaSetOptions::of(2)
            .env("MEMTX_MVCC", &mvcc.to_string())
            .env("HAS_STREAMS", &has_streams().to_string())
            .extra_lua(TRANSACTIONS);
        let set = world.replica_set_with(options).await?;
        let agents = world.agents_with(&set, &consul, |_, agent| agent).await?;
        let scene = Self {
            mvcc,
            consul,
            set,
            agents,
        };
        let master = scene.master(None).await?;
        scene.admin(master, SPACES).await?;
        Ok(scene)
    }

    async fn admin(&self, instance: usize, lua: &str) -> Result<Vec<Value>> {
        let lua = format!("return box.session.su('admin', function() {lua} end)");
        self.set[instance].eval(&lua, &[]).await
    }

    /// The one writable instance, once it is another than `before`.
    async fn master(&self, before: Option<usize>) -> Result<usize> {
        eventually(SOON, "a master", async || {
            match self.set.writable().await.as_slice() {
                [instance] if Some(*instance) != before => Ok(*instance),
                other => Err(format!("writable: {other:?}")),
            }
        })
        .await
    }

    async fn is_fenced(&self, instance: usize) -> Result<()> {
        let lua = "local guard = tarsec_guard return box.info.ro and not guard.state.leased \
                   and guard.state.barrier_epoch == guard.state.epoch";
        eventually(SOON, "a fence that has passed", async || {
            match self.set[instance].eval(lua, &[]).await.as_deref() {
                Ok([Value::Bool(true)]) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn open(&self, instance: usize, key: &str) -> Result<()> {
        self.set[instance]
            .eval("story_open(...)", &[json!(key)])
            .await
            .map(|_| ())
    }

    /// What became of each: `[kind, committed, error, the row is there]`.
    async fn commit(&self, instance: usize) -> Result<Vec<Value>> {
        let outcome = self.set[instance]
            .eval("return story_commit()", &[])
            .await?;
        let outcome = outcome[0].as_array().cloned().unwrap_or_default();
        let kinds = if has_streams() { 6 } else { 2 };
        assert_eq!(outcome.len(), 2 * kinds, "{outcome:?}");
        Ok(outcome)
    }

    /// Without a fence all of them commit: nothing but a fence ends them. Without its transaction manager memtx lets no
    /// transaction yield.
    async fn assert_all_commit(&self, instance: usize) -> Result<()> {
        for open in self.commit(instance).await? {
            let may_yield = self.mvcc || open[0].to_string().contains("rows_vinyl");
            let commits = json!(may_yield);
            assert_eq!((&open[1], &open[3]), (&commits, &commits), "{open}");
        }
        Ok(())
    }

    async fn assert_none_commits(&self, instance: usize) -> Result<()> {
        self.is_fenced(instance).await?;
        for open in self.commit(instance).await? {
            assert_eq!(
                (&open[1], &open[3]),
                (&json!(false), &json!(false)),
                "{open}"
            );
        }
        Ok(())
    }
}

/// Streams, isolation levels and a transaction manager of memtx that can be relied on came together.
fn has_streams() -> bool {
    Version::of_tests() >= Version::new(2, 10, 0)
}

/// A fence of each kind, with transactions of every kind open.
async fn none_commits_after_any_fence(world: &World, mvcc: bool) -> Result<()> {
    let scene = Scene::start(world, mvcc).await?;
    let board = world.board(&scene.consul, &scene.set);
    let first = scene.master(None).await?;
    let second = 1 - first;

    scene.open(first, "calm").await?;
    scene.assert_all_commit(first).await?;

    scene.open(first, "switchover").await?;
    wait_for_followers(&board, 1).await?;
    let target = scene.set[second].uuid();
    board
        .request_switchover(Some(target), Duration::from_secs(5))
        .await?;
    assert_eq!(scene.master(Some(first)).await?, second);
    scene.assert_none_commits(first).await?;

    scene.open(second, "SIGTERM").await?;
    scene.agents[second].term(SOON).await?;
    scene.assert_none_commits(second).await?;
    assert_eq!(scene.master(Some(second)).await?, first);

    scene.open(first, "the lease's end").await?;
    scene.agents[first].kill().await?;
    scene.assert_none_commits(first).await?;

    // No instance is master now, and a hand makes it writable: fenced in the next turn of the event loop, so the
    // transactions begin in this one.
    scene.agents[second].kill().await.ok();
    scene.is_fenced(first).await?;
    let by_hand = "box.cfg{read_only = false} story_open(...)";
    scene.set[first].eval(by_hand, &[json!("by hand")]).await?;
    scene.assert_none_commits(first).await
}

#[tokio::test]
async fn no_transaction_that_was_open_at_a_fence_commits_after_it() {
    world()
        .story("open-transactions", async |world| {
            none_commits_after_any_fence(world, false).await
        })
        .await;
}

#[tokio::test]
async fn no_transaction_of_memtxs_manager_that_was_open_at_a_fence_commits_after_it() {
    if Version::skips(
        "no_transaction_of_memtxs_manager_that_was_open_at_a_fence_commits_after_it",
        |_| has_streams(),
        "it has no transactions of memtx that yield, and no streams",
    ) {
        return;
    }
    world()
        .story("open-transactions-mvcc", async |world| {
            none_commits_after_any_fence(world, true).await
        })
        .await;
}

/// A master without tarsec turns read-only by hand, and its first agent comes while transactions of before are open.
/// They may commit after that, so no agent is told that its commits have landed before they are over.
#[tokio::test]
async fn transactions_of_before_the_guard_are_commits_that_have_not_landed() {
    if Version::skips(
        "transactions_of_before_the_guard_are_commits_that_have_not_landed",
        |_| has_streams(),
        "it has no transactions of memtx that yield, and no streams",
    ) {
        return;
    }
    let story = async |world: &World| {
        let options = ReplicaSetOptions::of(1)
            .env("MEMTX_MVCC", "true")
            .env("HAS_STREAMS", "true")
            .extra_lua(TRANSACTIONS);
        let set = world.replica_set_with(options).await?;
        set[0].set_writable(true).await?;
        let spaces = format!("box.session.su('admin', function() {SPACES} end)");
        set[0].eval(&spaces, &[]).await?;
        let open = "story_open(...) box.cfg{read_only = true}";
        set[0].eval(open, &[json!("before")]).await?;
        for source in sources::GUARD {
            set[0].eval(source, &[]).await?;
        }
        set[0]
            .eval("tarsec_guard.attach('story', false)", &[])
            .await?;
        let word = "local word = tarsec_guard.probe('story').probe.guard
            return word.landed, word.barrier_failure";
        let failed = "transactions of a time before the guard may be open";
        eventually(SOON, failed, async || {
            match set[0].eval(word, &[]).await.as_deref() {
                Ok([Value::Bool(false), Value::String(why)]) if why.contains(failed) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        set[0].eval("story_commit()", &[]).await?;
        eventually(SOON, "their end", async || {
            match set[0].eval(word, &[]).await.as_deref() {
                Ok([Value::Bool(true), ..]) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    world().story("open-before-guard", story).await;
}
