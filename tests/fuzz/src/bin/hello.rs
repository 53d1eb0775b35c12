//! The first bytes of a connection: a hello comes out as it went in, and no prefix of one is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugd_core::wire::{HELLO_LEN, Hello};

fuzz_target!(|bytes: &[u8]| {
    match Hello::decode(bytes) {
        Ok(Some(hello)) => {
            assert_eq!(hello.encode(), bytes[..HELLO_LEN]);
            for len in 0..HELLO_LEN {
                assert!(matches!(Hello::decode(&bytes[..len]), Ok(None)), "the first {len} bytes");
            }
        }
        Ok(None) => assert!(bytes.len() < HELLO_LEN),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
