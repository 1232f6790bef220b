//! What the two processes of a handover say: no bytes make the decoder panic, however they are cut, and what it takes for
//! messages is what the encoder would have said.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = hythe::server::fuzzed_handover(bytes, usize::MAX);
    assert_eq!(hythe::server::fuzzed_handover(bytes, usize::from(step)), whole, "cut in steps of {step}");
    if let Some(again) = whole {
        assert!(bytes.starts_with(&again));
    }
});
