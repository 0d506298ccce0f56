//! What HAProxy says on its runtime socket.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::sinks::haproxy::replies::fuzz_haproxy_replies(data));
