//! The floor: the operations that a change of hands cannot do without, by a plain client and with no agent.

use std::time::{Duration, Instant};

use tarsec_harness::{
    Consul, ConsulApi, Error, Instance, ReplicaSet, ReplicaSetOptions, Result, World, eventually,
    json,
};

use super::cluster::{SOON, memory_for, wrong};

/// Kills to learn from: a large instance takes its time to fill.
const KILLS_SMALL: usize = 15;
const KILLS_LARGE: usize = 5;
/// Operations that take a millisecond are measured this often.
const TIMES: usize = 60;
const KEY: &str = "bench/floor";
/// Each of two candidates writes under this prefix, and waits for the other's key.
const BALLOTS: &str = "bench/ballots/";

/// Milliseconds of each bare operation, every single one.
pub(crate) struct Floor {
    /// From the kill to the end of the connection.
    pub(crate) connection_end: Vec<f64>,
    /// From the kill until the kernel says that the process is exiting.
    pub(crate) exiting: Vec<f64>,
    /// The sooner of the two, kill by kill.
    pub(crate) soonest: Vec<f64>,
    pub(crate) transaction: Vec<f64>,
    /// From sending a transaction until a blocking query is answered for it.
    pub(crate) wake: Vec<f64>,
    /// From writing a key until a client has read the key of another client that does the same.
    pub(crate) ballots: Vec<f64>,
    /// A new session.
    pub(crate) session: Vec<f64>,
    /// `box.cfg{read_only = false}`.
    pub(crate) switch: Vec<f64>,
    /// One accepted write.
    pub(crate) write: Vec<f64>,
    /// From a write's begin until a replica has it.
    pub(crate) replicated: Vec<f64>,
}

/// Measures them all.
pub(crate) async fn measure(
    world: &World,
    consul: &Consul,
    large_mib: Option<u64>,
) -> Result<Floor> {
    let members = if large_mib.is_some() { 1 } else { 2 };
    let set = world
        .replica_set_with(ReplicaSetOptions::of(members).memtx_memory(memory_for(large_mib)))
        .await?;
    let instance = &set[0];
    let api = consul.api()?;
    let mut floor = Floor {
        connection_end: Vec::new(),
        exiting: Vec::new(),
        soonest: Vec::new(),
        transaction: transactions(api).await?,
        wake: wakes(api).await?,
        ballots: ballots(api).await?,
        session: sessions(api).await?,
        switch: Vec::new(),
        write: Vec::new(),
        replicated: replicated(&set).await?,
    };
    switch_and_write(instance, &mut floor).await?;
    let kills = if large_mib.is_some() {
        KILLS_LARGE
    } else {
        KILLS_SMALL
    };
    for _ in 0..kills {
        if let Some(mib) = large_mib {
            instance.fill(mib).await?;
        }
        let (end, exiting) = kill(instance).await?;
        floor.connection_end.push(end);
        floor.exiting.push(exiting);
        floor.soonest.push(end.min(exiting));
        instance.start().await?;
    }
    // The rest is measured without them.
    for instance in set.iter() {
        instance.kill().await?;
    }
    Ok(floor)
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

async fn transactions(api: &ConsulApi) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for number in 0..TIMES {
        let start = Instant::now();
        transact(api, number).await?;
        times.push(ms_since(start));
    }
    Ok(times)
}

async fn transact(api: &ConsulApi, value: usize) -> Result<()> {
    let value = base64_of(&value.to_string());
    let body = json!([{"KV": {"Verb": "set", "Key": KEY, "Value": value}}]);
    api.call("PUT", "/v1/txn", Some(body.to_string()))
        .await
        .map(|_| ())
}

/// One client waits for the key to change, another one changes it.
async fn wakes(api: &ConsulApi) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for number in 0..TIMES {
        let entry = api.kv(KEY).await?;
        let index = entry.map_or(1, |entry| entry.modify_index);
        let path = format!("/v1/kv/{KEY}?index={index}&wait=10s&consistent");
        let waiting = api.clone();
        let watcher = tokio::spawn(async move {
            let answer = waiting.get(&path).await;
            (answer, Instant::now())
        });
        // Should the question not have arrived by then, its answer comes all the same.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        transact(api, TIMES + number).await?;
        let (answer, woken) = watcher.await.map_err(|error| Error::Malformed {
            what: format!("a watcher's end ({error})"),
        })?;
        answer?;
        times.push(woken.duration_since(start).as_secs_f64() * 1000.0);
    }
    Ok(times)
}

/// Two candidates write what they have and wait for the other's.
async fn ballots(api: &ConsulApi) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for number in 0..TIMES {
        let start = Instant::now();
        let (one, other) = (
            candidate(api, "a", "b", number),
            candidate(api, "b", "a", number),
        );
        tokio::try_join!(one, other)?;
        times.push(ms_since(start));
    }
    Ok(times)
}

async fn candidate(api: &ConsulApi, own: &str, other: &str, number: usize) -> Result<()> {
    let value = number.to_string();
    api.kv_put(&format!("{BALLOTS}{own}"), value.as_str())
        .await?;
    let key = format!("{BALLOTS}{other}");
    let mut index = 0;
    loop {
        let path = format!("/v1/kv/{key}?consistent&wait=3s&index={index}");
        let answer = api.get(&path).await?;
        // A client asks again for a key that is not there yet, as for a key that nobody has changed.
        if answer[0]["Value"].as_str() == Some(&base64_of(&value)) {
            return Ok(());
        }
        index = answer[0]["ModifyIndex"].as_u64().unwrap_or(0);
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

async fn sessions(api: &ConsulApi) -> Result<Vec<f64>> {
    let body = json!({"TTL": "15s", "LockDelay": "0s", "NodeChecks": []}).to_string();
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        let created = api
            .call("PUT", "/v1/session/create", Some(body.clone()))
            .await?;
        times.push(ms_since(start));
        if let Some(id) = created["ID"].as_str() {
            api.destroy_session(id).await?;
        }
    }
    Ok(times)
}

async fn switch_and_write(instance: &Instance, floor: &mut Floor) -> Result<()> {
    let mut connection = instance.connect().await?;
    for number in 0..TIMES {
        let start = Instant::now();
        connection
            .eval("box.cfg{read_only = false}", &[], SOON)
            .await?;
        floor.switch.push(ms_since(start));
        let args = [json!("floor"), json!(number)];
        let start = Instant::now();
        connection
            .eval("return journal_write(...)", &args, SOON)
            .await?;
        floor.write.push(ms_since(start));
        connection
            .eval("box.cfg{read_only = true}", &[], SOON)
            .await?;
    }
    Ok(())
}

/// How long rows take to a replica, where there is one; by the host's clock, which both instances read.
async fn replicated(set: &ReplicaSet) -> Result<Vec<f64>> {
    let Some(replica) = set.get(1) else {
        return Ok(Vec::new());
    };
    set[0].set_writable(true).await?;
    let (mut master, mut replica) = (set[0].connect().await?, replica.connect().await?);
    let mut times = Vec::new();
    for number in 0..TIMES {
        let args = [json!("replicated"), json!(number)];
        let (written, arrived) = tokio::try_join!(
            master.eval("return (select(2, journal_write(...)))", &args, SOON),
            replica.eval(ARRIVED, &args, SOON),
        )?;
        let [Some(written), Some(arrived)] = [written, arrived].map(|values| {
            let first = values.first();
            first.and_then(|value| value.as_u64())
        }) else {
            return Err(wrong("when a row was written and arrived"));
        };
        times.push(Duration::from_nanos(arrived.saturating_sub(written)).as_secs_f64() * 1000.0);
    }
    set[0].set_writable(false).await?;
    Ok(times)
}

const ARRIVED: &str = "
local fiber = require('fiber')
while not box.space.journal:get{...} do fiber.sleep(0) end
return host_now()
";

/// Kills the instance; milliseconds until its connection ends, and until it is seen to be exiting.
async fn kill(instance: &Instance) -> Result<(f64, f64)> {
    let mut connection = instance.connect().await?;
    let pid = instance.process().pid().ok_or(Error::NotRunning {
        name: instance.name().to_owned(),
    })?;
    let (ready, watching) = std::sync::mpsc::sync_channel(1);
    let watcher = tokio::task::spawn_blocking(move || {
        ready.send(()).ok();
        // A look costs 10 us; a gap of 50 us is as good as none and leaves the processor to the kernel.
        while !is_exiting(pid) {
            std::thread::sleep(Duration::from_micros(50));
        }
        Instant::now()
    });
    watching.recv().map_err(|error| Error::Malformed {
        what: format!("the watching thread's start ({error})"),
    })?;
    let start = Instant::now();
    instance.process().kill_no_wait()?;
    while connection.replies.next().await.is_ok() {}
    let end = ms_since(start);
    let seen = watcher.await.map_err(|error| Error::Malformed {
        what: format!("the watching thread's end ({error})"),
    })?;
    eventually(SOON, "the killed process to be gone", async || {
        if instance.process().is_running() {
            Err("it is there")
        } else {
            Ok(())
        }
    })
    .await?;
    Ok((
        end,
        seen.saturating_duration_since(start).as_secs_f64() * 1000.0,
    ))
}

/// `PF_EXITING` among the flags of `/proc/<pid>/stat` (proc(5)), or no process any more.
fn is_exiting(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, Some("Z" | "X")) || flags.is_some_and(|flags| flags & 4 != 0)
}
