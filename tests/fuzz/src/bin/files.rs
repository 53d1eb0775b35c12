//! Calls of the file handler with any arguments, in a directory of their own: each ends with a status that is nobody's bug, and
//! nothing outside of the root is ever touched.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use plugd_core::testing::Plugin;
use plugd_core::{Code, Operation};
use plugd_server as _;
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};

/// What lies beside the root, and must lie there as it is.
const BESIDE: &str = "beside the root";

static WORLD: LazyLock<World> = LazyLock::new(World::new);

struct World {
    dir: tempfile::TempDir,
    plugin: Plugin,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("a directory");
        std::fs::write(root.join("f"), "content").expect("a file");
        std::fs::write(dir.path().join("secret"), BESIDE).expect("a file");
        std::os::unix::fs::symlink("../secret", root.join("out")).expect("a link");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let settings =
            json!({ "root": root, "writable": true, "size_max": "64KiB", "quota": "1MiB", "durability": "none" });
        let plugin = runtime.block_on(async { Plugin::linked("file", settings) });
        World { dir, plugin, runtime }
    }
}

fuzz_target!(|input: (u8, Vec<(u8, &str)>, &[u8])| {
    let (choice, members, data) = input;
    let World { dir, plugin, runtime } = &*WORLD;
    let operations = plugin.operations();
    let operation = &operations[usize::from(choice) % operations.len()];
    let args: Map<String, Value> = members.into_iter().filter_map(|(key, text)| member(operation, key, text)).collect();
    let call =
        plugin.call(operation.name()).args(Value::Object(args)).send(data.to_vec()).deadline(Duration::from_secs(1));
    let answer = runtime.block_on(async { call.await });
    assert_ne!(answer.status.code(), Code::Internal, "{}", answer.status);
    assert_untouched(dir.path());
});

/// An argument that the operation knows, with a value that is any JSON or any text.
fn member(operation: &Operation, key: u8, text: &str) -> Option<(String, Value)> {
    let known = operation.args_schema_value()["properties"].as_object()?;
    let name = known.keys().nth(usize::from(key) % known.len().max(1))?;
    Some((name.clone(), serde_json::from_str(text).unwrap_or_else(|_| text.into())))
}

fn assert_untouched(dir: &Path) {
    assert_eq!(std::fs::read_to_string(dir.join("secret")).expect("a file"), BESIDE);
    assert_eq!(std::fs::read_dir(dir).expect("a directory").count(), 2);
}
