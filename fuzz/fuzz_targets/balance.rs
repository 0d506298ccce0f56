//! Operations on a pool of members, with an account of who may be picked after each.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::proxy::balance::fuzz_balance(data));
