//! Operations on the member table, with its invariants after each.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::members::fuzz_members(data));
