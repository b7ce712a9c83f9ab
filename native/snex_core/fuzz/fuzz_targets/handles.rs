#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snex_core::fuzz::handles(data));
