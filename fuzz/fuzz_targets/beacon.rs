//! Datagrams with whatever MAC they have: none is believed.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::beacon::auth::fuzz_beacon(data));
