//! The pure part of what tarsec does with vshard's configurations, in a real Tarantool and without vshard.

use tarsec_harness::{Result, World, json, sources};

use crate::support::world;

const PURE: &str = include_str!("../../src/tarantool/vshard.lua");
const APPLYING: &str = include_str!("../../src/tarantool/vshard_apply.lua");
const SHAPES: &str = include_str!("lua/vshard_shapes.lua");

/// A case that vanishes is a case that does not fail.
const CASES: usize = 15;

async fn shapes(world: &World) -> Result<()> {
    let set = world.replica_set(1).await?;
    set[0].eval(PURE, &[]).await?;
    let ran = set[0].eval(SHAPES, &[]).await?;
    let ran = ran.first().and_then(|names| names.as_array());
    assert_eq!(ran.map_or(0, Vec::len), CASES, "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn configurations_of_all_shapes_are_patched_compared_and_checked() {
    world().story("vshard-shapes", shapes).await;
}

async fn without_vshard(world: &World) -> Result<()> {
    let set = world.replica_set(1).await?;
    for source in [sources::PLATFORM, PURE, APPLYING, PURE, APPLYING] {
        set[0].eval(source, &[]).await?;
    }
    let found = set[0]
        .eval(
            "return tarsec_vshard.role(), tarsec_vshard.look() == nil",
            &[],
        )
        .await?;
    let nothing = json!({"storage": false, "router": false, "loaded": false});
    assert_eq!(found, [nothing, json!(true)]);
    let applied = set[0]
        .eval(
            "return tarsec_vshard.apply({sequence = 1, masters = {}}, 1).busy",
            &[],
        )
        .await?;
    assert_eq!(applied, [json!(false)]);
    Ok(())
}

#[tokio::test]
async fn an_instance_without_vshard_has_nothing_to_say_about_it() {
    world().story("vshard-without", without_vshard).await;
}
