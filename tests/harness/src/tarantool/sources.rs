//! The guard's Lua, as an agent brings it into an instance: for stories and figures without an agent.

/// What differs between Tarantool's versions; what comes after it rests on it.
pub const PLATFORM: &str = include_str!("../../../../src/tarantool/platform.lua");

/// The clock of leases and promises.
pub const TIME: &str = include_str!("../../../../src/tarantool/time.lua");

/// The guard as an agent with `GUARD=lease` installs it, to be evaluated in this order.
pub const GUARD: [&str; 13] = [
    PLATFORM,
    TIME,
    include_str!("../../../../src/tarantool/look.lua"),
    include_str!("../../../../src/tarantool/promises.lua"),
    include_str!("../../../../src/tarantool/barrier.lua"),
    include_str!("../../../../src/tarantool/replication.lua"),
    include_str!("../../../../src/tarantool/guard.lua"),
    include_str!("../../../../src/tarantool/synchro.lua"),
    include_str!("../../../../src/tarantool/writes.lua"),
    include_str!("../../../../src/tarantool/mvcc.lua"),
    include_str!("../../../../src/tarantool/isolation.lua"),
    include_str!("../../../../src/tarantool/moments.lua"),
    include_str!("../../../../src/tarantool/proof.lua"),
];

/// What `GUARD=strict` adds to it, evaluated last.
pub const STRICT: &str = include_str!("../../../../src/tarantool/strict.lua");
