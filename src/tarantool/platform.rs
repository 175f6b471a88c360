//! What differs between Tarantool's versions (`platform.lua`); whatever else is installed in an instance rests on it.

/// Evaluating it again replaces it for whoever comes after.
pub(super) const PLATFORM: &str = include_str!("platform.lua");
