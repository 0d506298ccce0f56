//! A first flight, whole and in pieces.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::proxy::flight::fuzz_flight(data));
