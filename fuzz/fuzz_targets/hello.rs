//! First flights, cut in several ways that must agree with each other, and with another parser of the same bytes.
#![no_main]
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/oracles/hello.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    beacond::proxy::hello::fuzz_hello(data);
    let bytes = data.get(1..).unwrap_or_default();
    oracle::agree(bytes);
    oracle::agree_on_body(bytes);
});
