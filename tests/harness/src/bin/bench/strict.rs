//! What `GUARD=strict` costs each write.

use std::time::Duration;

use tarsec_harness::{Result, Value, World, sources};

const COST_LUA: &str = include_str!("../../../lua/strict_cost.lua");

/// Some hundred thousand writes, each of which waits for the WAL.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures and prints: microseconds of the transaction thread for each row.
pub(crate) async fn measure(world: &World) -> Result<()> {
    let set = world.replica_set(1).await?;
    let mut connection = set[0].connect().await?;
    let guard = sources::GUARD.into_iter();
    let args: Vec<Value> = guard.chain([sources::STRICT]).map(Value::from).collect();
    let answer = connection.eval(COST_LUA, &args, PATIENCE).await?;
    println!("\nGUARD=strict, processor time of the transaction thread for each row written");
    let rows = answer.first().and_then(|rows| rows.as_array());
    for row in rows.into_iter().flatten() {
        let us = |place: usize| row[place].as_f64().unwrap_or(f64::NAN) / 1000.0;
        let engine = row[0].as_str().unwrap_or("?");
        println!(
            "  {engine}, {:>3} rows a transaction  {:.2} us without, {:.2} us with: {:+.2} us",
            row[1],
            us(2),
            us(3),
            us(3) - us(2)
        );
    }
    Ok(())
}
