//! Opening headers: what is accepted keeps every bound, and means the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugd_core::wire::{COMMAND_LEN_MAX, DEADLINE_MAX, JSON_DEPTH_MAX, METADATA_ENTRIES_MAX, Open, json_depth_exceeds};
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let open = match Open::decode(bytes) {
        Ok(open) => open,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(open.command.len() <= COMMAND_LEN_MAX && open.metadata.len() <= METADATA_ENTRIES_MAX);
    assert!(open.deadline_ms.is_none_or(|deadline| u128::from(deadline) <= DEADLINE_MAX.as_millis()));
    assert!(!json_depth_exceeds(bytes, JSON_DEPTH_MAX));
    let written = open.encode();
    let again = Open::decode(&written).expect("what was accepted once");
    assert_eq!((&again.command, again.deadline_ms, &again.metadata), (&open.command, open.deadline_ms, &open.metadata));
    assert_eq!(again.auth, open.auth);
    assert_eq!(args(again.args.as_deref()), args(open.args.as_deref()));
});

fn args(args: Option<&RawValue>) -> Option<Value> {
    args.and_then(|args| serde_json::from_str(args.get()).ok())
}
