//! What Caddy's admin API answers.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::sinks::caddy::upstreams::fuzz_caddy_upstreams(data));
