#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| duet_fuzz_harness::policies::run(bytes));
