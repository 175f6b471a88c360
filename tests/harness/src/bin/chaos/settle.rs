//! After the faults: one master in each replica set, every member follows every other, and every acknowledged
//! synchronous write is on every member. What Tarantool 2.6.0 is known to break by itself (docs/TARANTOOL.md) is said
//! and mended as an operator would; a lost write never is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tarsec_harness::{Error, Instance, Result, Value, eventually};

use super::schedule::MEMBERS;
use super::stage::{SOON, Side, Stage, chain, letter, why_lost};

/// How long a replica set may take to have one master that accepts writes: an agent's session may have to end (twice its
/// TTL of 10 s), then the lease of a record has to be waited for.
const MASTER_BOUND: Duration = Duration::from_secs(45);
/// Links that were restored are tried again every second, and a follower asks for rows that it missed.
const MESH_BOUND: Duration = Duration::from_secs(15);
const MENDED_BOUND: Duration = Duration::from_secs(10);
const ROWS_BOUND: Duration = Duration::from_secs(10);
const SOME_WRITES: u64 = 20;
/// Rows without a quorum are rolled back after `replication_synchro_timeout`, 5 s, and then a write ends.
const PROBE_BOUND: Duration = Duration::from_secs(12);
/// How often an operator lets members join again.
const ATTEMPTS: usize = 2;

/// Waits until all is well; anything that is not goes into the journal.
pub(crate) async fn settle(stage: &Stage<'_>) -> Result<()> {
    let since = Instant::now();
    stage.consul.wait_for_leader(SOON).await?;
    for (index, side) in stage.sides.iter().enumerate() {
        if let Err(error) = side_settles(stage, index, side, since).await {
            let words = explain(side).await;
            let set = letter(index);
            stage
                .journal
                .violation(format!("replica set {set}: {}{words}", chain(&error)));
        }
    }
    stage.look_for_lua_errors();
    stage.judge_kills()
}

async fn side_settles(stage: &Stage<'_>, index: usize, side: &Side, since: Instant) -> Result<()> {
    let set = letter(index);
    side.set.wait_for_master(MASTER_BOUND).await?;
    let mut mended = false;
    let mut lost = Vec::new();
    for (member, instance) in side.set.iter().enumerate() {
        if let Some(why) = comes_up(side, instance).await? {
            let name = instance.name();
            stage
                .journal
                .known(format!("{name} cannot start again: {why}"));
            lost.push(member);
        }
    }
    if !lost.is_empty() {
        let master = side.set.wait_for_master(MASTER_BOUND).await?;
        join_again(stage, side, &lost, master).await?;
        mended = true;
    }
    mended |= follow_each_other(stage, side).await?;
    let began = Instant::now();
    if let Err(error) = side.writers.wait_for_writes(SOME_WRITES, SOON).await {
        if !unstick(stage, side).await? {
            return Err(error);
        }
        mended = true;
        side.writers.wait_for_writes(SOME_WRITES, SOON).await?;
    }
    if began.elapsed() > Duration::from_secs(1) {
        let late = began.elapsed().as_secs_f64();
        stage
            .journal
            .say(&format!("    set {set}: writes after {late:.1} s"));
    }
    if side.synchronous {
        mended |= everything_is_everywhere(stage, side).await?;
    }
    let master = side.set.wait_for_master(MASTER_BOUND).await?;
    let took = since.elapsed();
    stage.journal.settled(took);
    let (name, took) = (side.set[master].name(), took.as_secs_f64());
    let how = if mended { ", after mending" } else { "" };
    stage.journal.say(&format!(
        "    set {set} is well after {took:.1} s{how}: the master is {name}"
    ));
    Ok(())
}

/// Waits until it is up, or says why it never will be. The supervisor may still have to start it, so that its end alone
/// is no news.
async fn comes_up(side: &Side, instance: &Instance) -> Result<Option<&'static str>> {
    let what = format!("{} to be up", instance.name());
    eventually(SOON, &what, async || {
        let Err(error) = instance.wait_ready().await else {
            return Ok(None);
        };
        let words = chain(&error);
        match why_lost(&words).filter(|_| side.synchronous) {
            Some(why) => Ok(Some(why)),
            None => Err(words),
        }
    })
    .await
}

/// Waits until an instance that joins has joined.
async fn wait_until_ready(instance: &Instance) -> Result<()> {
    let what = format!("{} to have joined", instance.name());
    eventually(SOON, &what, async || {
        instance.wait_ready().await.map_err(|error| chain(&error))
    })
    .await
}

/// Waits for the mesh. Where replication has stopped for good in a synchronous set, it is mended: `replication` is set
/// anew, and where that does not do, members that the master does not follow, or that do not follow it, are wiped and
/// join again. Returns whether anything was mended.
async fn follow_each_other(stage: &Stage<'_>, side: &Side) -> Result<bool> {
    let waited = side.set.wait_for_mesh(MESH_BOUND).await;
    let Err(error) = waited else {
        return Ok(false);
    };
    if !side.synchronous {
        return Err(error);
    }
    let broken = broken_links(side).await?;
    for (follower, source, why) in &broken {
        let (follower, source) = (side.set[*follower].name(), side.set[*source].name());
        stage.journal.known(format!(
            "{follower} does not follow {source} any more: {why}"
        ));
    }
    set_replication_anew(side).await?;
    if side.set.wait_for_mesh(MENDED_BOUND).await.is_ok() {
        stage.journal.say("    replication set anew did");
        return Ok(true);
    }
    for _ in 0..ATTEMPTS {
        let broken = broken_links(side).await?;
        // The master may have crashed since, and another member have become master.
        let master = side.set.wait_for_master(MASTER_BOUND).await?;
        join_again(stage, side, &who_is_sick(&broken, master), master).await?;
        if side.set.wait_for_mesh(MENDED_BOUND).await.is_ok() {
            return Ok(true);
        }
        set_replication_anew(side).await?;
        if side.set.wait_for_mesh(MENDED_BOUND).await.is_ok() {
            return Ok(true);
        }
    }
    side.set.wait_for_mesh(MENDED_BOUND).await?;
    Ok(true)
}

/// The members that are to join again: all that cannot follow the master, and all that it cannot follow, since any of
/// them would spoil the next member that joins. Where there are none: all that other members cannot follow. Never the
/// master.
fn who_is_sick(broken: &[(usize, usize, String)], master: usize) -> Vec<usize> {
    let ends = |(follower, source, _): &(usize, usize, String)| [*follower, *source];
    let beside_master: BTreeSet<_> = broken
        .iter()
        .map(ends)
        .filter(|ends| ends.contains(&master))
        .flatten()
        .filter(|member| *member != master)
        .collect();
    if beside_master.is_empty() {
        broken
            .iter()
            .map(|(_, source, _)| *source)
            .take(1)
            .collect()
    } else {
        beside_master.into_iter().collect()
    }
}

/// The pairs of members of which one does not follow the other, and why.
async fn broken_links(side: &Side) -> Result<Vec<(usize, usize, String)>> {
    let mut broken = Vec::new();
    for (follower, instance) in side.set.iter().enumerate() {
        let seen = ask(instance, UPSTREAMS).await?;
        for entry in seen.first().and_then(Value::as_array).into_iter().flatten() {
            let source = side
                .set
                .iter()
                .position(|one| Some(one.uuid()) == entry[0].as_str());
            if let Some(source) = source {
                let why = entry[1].as_str().unwrap_or_default().to_owned();
                broken.push((follower, source, why));
            }
        }
    }
    Ok(broken)
}

async fn set_replication_anew(side: &Side) -> Result<()> {
    for instance in side.set.iter() {
        ask(instance, RESET_REPLICATION).await?;
    }
    Ok(())
}

/// Asks until there is an answer: an instance that has crashed has to be started again first.
async fn ask(instance: &Instance, lua: &str) -> Result<Vec<Value>> {
    let what = format!("an answer from {}", instance.name());
    eventually(SOON, &what, async || {
        let answer = instance.eval(lua, &[]).await;
        answer.map_err(|error| chain(&error))
    })
    .await
}

/// Wipes members and lets them join again, once the master is seen to have all that was ever acknowledged.
async fn join_again(stage: &Stage<'_>, side: &Side, sick: &[usize], master: usize) -> Result<()> {
    let history = side.writers.so_far();
    side.set
        .wait_for_all_writes(master, &history, ROWS_BOUND)
        .await?;
    let sick: Vec<_> = sick.iter().map(|member| &side.set[*member]).collect();
    let names: Vec<_> = sick.iter().map(|instance| instance.name()).collect();
    stage.journal.say(&format!(
        "    wiped, to join again: {}; the master has every acknowledged write",
        names.join(", ")
    ));
    // 2.6.0 cannot join while there are synchronous writes: "Unknown request type 40".
    side.writers.keep_quiet(true);
    // All of them before the first one joins: rows that the next member has alone must not reach it.
    for instance in &sick {
        stage.hold(instance.process());
        if instance.process().is_running() {
            instance.kill().await?;
        }
        instance.wipe(stage.world)?;
    }
    // Rows of the sick members that the master has wait in its queue for a word that no other member gives.
    end_queue(&side.set[master]).await?;
    // Nor while the master's queue is stuck.
    let master = if unstick(stage, side).await? {
        let master = side.set.wait_for_master(MASTER_BOUND).await?;
        let all = side.set.wait_for_all_writes(master, &history, ROWS_BOUND);
        all.await?;
        master
    } else {
        master
    };
    // Nor can it start again from the snapshot that a join leaves if that has rows of a synchronous space.
    make_synchronous(side, false).await?;
    for instance in sick {
        // They join from the master, not from a member that may lack something.
        let others = (0..MEMBERS).filter(|other| *other != master);
        let links: Vec<_> = others.filter_map(|other| instance.link_to(other)).collect();
        for link in &links {
            link.cut().await?;
        }
        stage.release(instance.process());
        wait_until_ready(instance).await?;
        for link in &links {
            link.restore().await?;
        }
    }
    make_synchronous(side, true).await?;
    side.writers.keep_quiet(false);
    Ok(())
}

/// Where the master of a synchronous set does not even end a write that needs no quorum, its queue is stuck, as the
/// queue of 2.6.0 may be (docs/TARANTOOL.md); an operator starts it again. Returns whether that was so.
async fn unstick(stage: &Stage<'_>, side: &Side) -> Result<bool> {
    if !side.synchronous {
        return Ok(false);
    }
    let master = &side.set[side.set.wait_for_master(MASTER_BOUND).await?];
    ask(master, PROBE).await?;
    let ended = eventually(PROBE_BOUND, "a write to end", async || {
        let ended = master.eval("return chaos_probe_ended", &[]).await;
        match ended.map_err(|error| chain(&error))?.first() {
            Some(Value::Bool(true)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    if ended.await.is_ok() {
        return Ok(false);
    }
    let name = master.name();
    stage.journal.known(format!(
        "{name} is writable, but ends no write any more; it is started again"
    ));
    // The supervisor does that.
    master.kill().await?;
    side.set.wait_for_master(MASTER_BOUND).await?;
    Ok(true)
}

/// Whether the journal is a synchronous space.
async fn make_synchronous(side: &Side, synchronous: bool) -> Result<()> {
    let args = [Value::from(synchronous)];
    eventually(SOON, "the journal to be altered", async || {
        let master = side.set.wait_for_master(MASTER_BOUND).await;
        let master = master.map_err(|error| chain(&error))?;
        let altered = side.set[master].eval(MAKE_SYNCHRONOUS, &args);
        altered.await.map_err(|error| chain(&error))
    })
    .await?;
    Ok(())
}

/// Ends what waits in the queue for another instance.
async fn end_queue(master: &Instance) -> Result<()> {
    ask(master, END_QUEUE).await?;
    let what = format!("the queue of {} to be ended", master.name());
    eventually(SOON, &what, async || {
        let ended = master.eval("return rawget(_G, 'chaos_ends_queue')", &[]);
        let ended = ended.await.map_err(|error| chain(&error))?;
        match ended.first() {
            Some(Value::Bool(true)) => Err("it waits".to_owned()),
            _ => Ok(()),
        }
    })
    .await
}

/// Every acknowledged write is on every member. A member that lacks writes which the master has is a known limit of
/// 2.6.0 and is mended; a master that lacks some is not.
async fn everything_is_everywhere(stage: &Stage<'_>, side: &Side) -> Result<bool> {
    let master = side.set.wait_for_master(MASTER_BOUND).await?;
    let history = side.writers.so_far();
    side.set
        .wait_for_all_writes(master, &history, ROWS_BOUND)
        .await?;
    let mut mended = false;
    for member in (0..MEMBERS).filter(|member| *member != master) {
        let all = side.set.wait_for_all_writes(member, &history, ROWS_BOUND);
        let Err(error) = all.await else {
            continue;
        };
        let name = side.set[member].name();
        stage.journal.known(format!(
            "{name} lacks what the master has: {}",
            chain(&error)
        ));
        mended = true;
        join_again(stage, side, &[member], master).await?;
        set_replication_anew(side).await?;
        side.set.wait_for_all_writes(member, &history, SOON).await?;
    }
    if mended {
        side.set.wait_for_mesh(MESH_BOUND).await?;
    }
    Ok(mended)
}

/// What members and agents say, for a reader who looks for the cause.
async fn explain(side: &Side) -> String {
    let mut text = String::new();
    for (instance, agent) in side.set.iter().zip(&side.agents) {
        let asked = instance.eval(STANDING, &[]);
        let standing = match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(Ok(values)) => Value::from(values).to_string(),
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer".to_owned(),
        };
        let lines = agent.logs().unwrap_or_default();
        let words = lines
            .iter()
            .rfind(|line| line.message() == "reason changed")
            .map(|line| line.field("to").to_string());
        text.push_str(&format!(
            "\n    {}: {standing}; its agent: {}",
            instance.name(),
            words.unwrap_or_default()
        ));
    }
    text
}

/// Something is not as it should be.
pub(crate) fn wrong(what: impl Into<String>) -> Error {
    Error::Malformed { what: what.into() }
}

const UPSTREAMS: &str = "
local broken = setmetatable({}, {__serialize = 'seq'})
for _, peer in pairs(box.info.replication) do
    local upstream = peer.upstream
    if peer.id ~= box.info.id and (upstream == nil or upstream.status ~= 'follow') then
        local why = upstream == nil and 'no upstream' or upstream.status .. ': ' .. (upstream.message or '')
        table.insert(broken, {peer.uuid, why})
    end
end
return broken
";

const RESET_REPLICATION: &str = "
local replication = box.cfg.replication
box.cfg{replication = {}}
box.cfg{replication = replication}
";

/// Waits for twice `replication_synchro_timeout` where there is something to end, hence in a fiber. Every row that
/// waits is confirmed, as at a promotion: it may have been acknowledged.
const END_QUEUE: &str = "
if box.ctl.clear_synchro_queue ~= nil then
    rawset(_G, 'chaos_ends_queue', true)
    require('fiber').create(function()
        local quorum = box.cfg.replication_synchro_quorum
        box.cfg{replication_synchro_quorum = 1}
        pcall(box.ctl.clear_synchro_queue)
        box.cfg{replication_synchro_quorum = quorum}
        rawset(_G, 'chaos_ends_queue', nil)
    end)
end
";

/// A write to a space that is not synchronous.
const PROBE: &str = "
rawset(_G, 'chaos_probe_ended', false)
require('fiber').create(function()
    -- Refused is ended, too.
    pcall(box.space._schema.replace, box.space._schema, {'chaos_probe'})
    rawset(_G, 'chaos_probe_ended', true)
end)
";

/// The change stands behind every row that waits in the queue.
const MAKE_SYNCHRONOUS: &str = "
local journal, is_sync = box.space.journal, ...
if (journal.is_sync or false) ~= is_sync then
    box.space._space:update(journal.id, {{'=', 6, {is_sync = is_sync}}})
end
";

const STANDING: &str = "
local guard = rawget(_G, 'tarsec_guard')
return box.info.ro and 'read-only' or 'writable', guard and guard.state and guard.state.term or 0, box.info.vclock
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_disagree_with_the_master_are_wiped_and_never_the_master() {
        let link = |follower, source| (follower, source, String::new());
        // No member can follow the master 1.
        let broken = [link(0, 1), link(2, 1), link(2, 0)];
        assert_eq!(who_is_sick(&broken, 1), [0, 2]);
        // No member can follow the woken 0.
        assert_eq!(who_is_sick(&[link(1, 0), link(2, 0)], 1), [0]);
        // The master 1 has no quarrel with any member.
        assert_eq!(who_is_sick(&[link(2, 0)], 1), [0]);
        assert!(who_is_sick(&[], 1).is_empty());
    }
}
