//! What every handler must stand, with commands that read, write and do nothing.

use plugd_core::Data;
use plugd_core::testing::conformance::Subject;
use plugd_shell as _;
use serde_json::{Value, json};

fn settings() -> Value {
    json!({
        "allow_any_command": true,
        "time_max": "20s",
        "commands": { "greet": {
            "argv": ["echo", "hello", "{name}"],
            "parameters": { "name": { "type": "string", "length_max": 20, "default": "you" } },
        } },
    })
}

plugd_core::conformance! {
    conforms: Subject::linked("shell", settings())
        .sample("exec", json!({ "argv": ["cat"] }), [Data::main("hello")])
        .sample("exec", json!({ "argv": ["true"] }), [])
        .sample("greet", json!({ "name": "world" }), [])
        .sample("jobs", json!({}), [])
}

#[test]
fn the_readme_tells_what_the_handler_is() {
    plugd_core::testing::check_readme("shell", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
