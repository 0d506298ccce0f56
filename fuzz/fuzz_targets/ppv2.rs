//! PROXY headers, read beside another implementation.
#![no_main]
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/oracles/ppv2.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    beacond::proxy::ppv2::fuzz_ppv2(data);
    oracle::agree(data);
});
