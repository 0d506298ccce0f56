//! Texts behind the check of the MAC: the input is signed first, which a fuzzer could not.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::beacon::auth::fuzz_beacon_unverified(data));
