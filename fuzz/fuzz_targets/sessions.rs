#![no_main]

libfuzzer_sys::fuzz_target!(
    init: duet_fuzz_harness::sessions::prepare(),
    |bytes: &[u8]| duet_fuzz_harness::sessions::run(bytes)
);
