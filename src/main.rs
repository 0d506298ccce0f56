//! The `beacond` program.
fn main() {}
