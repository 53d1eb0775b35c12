//! Ends of calls: what is accepted fits a frame when it is written again, and says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugd_core::wire::{End, HEADER_LEN_MAX};

fuzz_target!(|bytes: &[u8]| {
    let end = match End::decode(bytes) {
        Ok(end) => end,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = end.encode();
    assert!(written.len() <= HEADER_LEN_MAX as usize);
    let again = End::decode(&written).expect("what was accepted once");
    assert_eq!(again.encode(), written);
    if end.trailer == again.trailer {
        assert_eq!(again.status.code(), end.status.code());
    }
});
