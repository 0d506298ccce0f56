//! Urls and rules: what is admitted is canonical and within the policy.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::beacon::admission::fuzz_admission(data));
