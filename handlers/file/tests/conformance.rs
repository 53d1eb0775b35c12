//! What every handler must stand, on a served directory with a file in it.

use std::fs;
use std::path::Path;

use plugd_core::Data;
use plugd_core::testing::Plugin;
use plugd_core::testing::conformance::Subject;
use plugd_file as _;
use serde_json::json;

/// A served directory that may be changed, with a file and a directory in it.
fn served(dir: &Path) -> Plugin {
    fs::create_dir_all(dir.join("root/dir")).expect("a directory");
    fs::write(dir.join("root/file"), vec![b'a'; 3 << 20]).expect("a file");
    let settings = json!({ "root": "root", "writable": true, "durability": "none", "quota": "64MiB" });
    Plugin::linked_in("file", settings, dir)
}

plugd_core::conformance! {
    conforms: Subject::of(served)
        .sample("get", json!({ "path": "file" }), [])
        .sample("put", json!({ "path": "new" }), [Data::main("hello")])
        .sample("ls", json!({ "recursive": true }), [])
        .sample("stat", json!({ "path": "file" }), [])
        .sample("digest", json!({ "path": "file" }), [])
        .sample("copy", json!({ "from": "file", "to": "copy" }), [])
        .sample("mkdir", json!({ "path": "dir", "parents": true }), [])
        .sample("df", json!({}), [])
}

#[test]
fn the_readme_tells_what_the_handler_is() {
    plugd_core::testing::check_readme("file", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
