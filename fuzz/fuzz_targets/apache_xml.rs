//! What Apache's balancer-manager answers.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::sinks::apache::page::fuzz_apache_xml(data));
