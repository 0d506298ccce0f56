//! Answers about a session, cut into pieces in several ways that must agree, and questions of any names.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::proxy::verdict::fuzz_verdict(data));
