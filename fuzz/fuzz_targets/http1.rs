//! HTTP responses, cut into pieces in several ways that must agree.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::http1::fuzz_http1(data));
