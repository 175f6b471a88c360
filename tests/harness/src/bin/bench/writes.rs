//! What the guard's triggers cost each write.

use std::time::Duration;

use tarsec_harness::{Error, ReplicaSetOptions, Result, Value, Version, World, sources};

const COST_LUA: &str = include_str!("../../../lua/write_cost.lua");

/// Some hundred thousand writes, each of which waits for the WAL.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures and prints: microseconds of the transaction thread for each row, with memtx as it is by default and with its
/// transaction manager.
pub(crate) async fn measure(world: &World) -> Result<()> {
    println!(
        "\nThe guard's triggers, processor time of the transaction thread for each row written"
    );
    measure_on(world, false).await?;
    if Version::of_tests() > Version::new(2, 6, 0) {
        measure_on(world, true).await?;
    }
    Ok(())
}

async fn measure_on(world: &World, mvcc: bool) -> Result<()> {
    let options = ReplicaSetOptions::of(1).env("MEMTX_MVCC", &mvcc.to_string());
    let set = world.replica_set_with(options).await?;
    let mut connection = set[0].connect().await?;
    let guard = sources::GUARD.into_iter();
    let args: Vec<Value> = guard.chain([sources::STRICT]).map(Value::from).collect();
    let answer = connection.eval(COST_LUA, &args, PATIENCE).await?;
    let [armed, rows] = answer.as_slice() else {
        let what = format!("what writes cost: {answer:?}");
        return Err(Error::Malformed { what });
    };
    let armed = *armed == true;
    assert_eq!(armed, mvcc, "GUARD=lease has triggers where there is MVCC");
    println!("  memtx_use_mvcc_engine = {mvcc}");
    for row in rows.as_array().into_iter().flatten() {
        let us = |place: usize| row[place].as_f64().unwrap_or(f64::NAN) / 1000.0;
        let engine = row[0].as_str().unwrap_or("?");
        let (none, lease, strict) = (us(2), us(3), us(4));
        let lease = if armed {
            format!("GUARD=lease {:+.2} us, ", lease - none)
        } else {
            String::new()
        };
        println!(
            "    {engine}, {:>3} rows a transaction  {none:.2} us without, {lease}GUARD=strict {:+.2} us",
            row[1],
            strict - none
        );
    }
    set[0].stop().await
}
