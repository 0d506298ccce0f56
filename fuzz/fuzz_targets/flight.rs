#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| beacond::proxy::flight::fuzz_flight(data));
