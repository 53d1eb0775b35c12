//! Arguments of calls, checked against what every linked handler says of its operations.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use plugd_core::Code;
use plugd_server::Registry;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::linked().expect("sound handlers"));

fuzz_target!(|input: (u8, &str)| {
    let (choice, args) = input;
    let operations: Vec<_> = REGISTRY.handlers().flat_map(|handler| handler.operations()).collect();
    let operation = operations[usize::from(choice) % operations.len()];
    if let Err(status) = operation.check_args(args) {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(!status.message().is_empty());
    }
});
