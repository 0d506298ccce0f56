//! The text of the state file: refused, or encoded and decoded again to the same.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::state_text::fuzz_state(data));
