//! The text of a configuration file: refused, or written out and read again to the same.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::config::grammar::fuzz_config(data));
