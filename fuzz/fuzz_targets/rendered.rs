//! Files of servers in every format.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::sinks::rendered::layout::fuzz_rendered(data));
