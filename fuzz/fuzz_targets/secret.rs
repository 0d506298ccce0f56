//! The text of a secret file.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| beacond::secret::fuzz_secret(data));
