//! The holder of one member's key speaks of no member but its own.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::beacon::gate::fuzz_member_keys(data));
