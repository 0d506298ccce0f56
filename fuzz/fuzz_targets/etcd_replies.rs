//! What etcd's HTTP gateway answers.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::sinks::etcd::wire::fuzz_etcd_replies(data));
