//! Configurations: each is accepted, or refused with everything that is wrong in it, and nothing happens either way.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use plugd_server::{Config, Origin, Registry};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::linked().expect("sound handlers"));

fuzz_target!(|text: &str| {
    if let Err(errors) = Config::parse(&Origin::text(text), &REGISTRY, &[]) {
        assert!(!errors.to_string().is_empty());
    }
});
