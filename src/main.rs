//! tarsec.
fn main() {}
