//! What an operator may set, and what is refused before the server starts.

use plugd_core::{Context, Registry};
use serde_json::json;

use crate::world::{HELLO_BLAKE3, HELLO_MD5, World};
use plugd_core::testing::Plugin;

#[test]
fn a_missing_root_is_made_and_an_impossible_one_keeps_the_server_from_starting() {
    let world = World::new();
    Plugin::linked_in("file", json!({ "root": "new/root" }), world.dir.path());
    assert!(world.dir.path().join("new/root").is_dir());
    let registry = Registry::linked().expect("a sound registry");
    let file = registry.handler("file").expect("linked");
    let blueprint = file.prepare(json!({ "root": "secret" })).expect("good settings");
    assert!(blueprint.build(&Context::new(world.dir.path())).is_err());
}

#[test]
fn bad_settings_are_told_by_their_place() {
    let registry = Registry::linked().expect("a sound registry");
    let file = registry.handler("file").expect("linked");
    for (settings, place) in [
        (json!({ "root": "" }), "root"),
        (json!({ "root": "x", "algorithms": [] }), "algorithms"),
        (json!({ "root": "x", "algorithms": ["sha1"] }), "algorithms"),
        (json!({ "root": "x", "symlinks": "outside" }), "symlinks"),
        (json!({ "root": "x", "durability": true }), "durability"),
        (json!({ "root": "x", "size_max": "many" }), "size_max"),
        (json!({ "root": "x", "quota": -1 }), "quota"),
        (json!({ "root": "x", "upload_expiry": "0s" }), "upload_expiry"),
        (json!({ "root": "x", "upload_expiry": "2years" }), "upload_expiry"),
    ] {
        let errors = file.prepare(settings.clone()).expect_err("bad settings");
        assert_eq!(errors[0].path[0], place, "{settings}: {errors:?}");
    }
    let all = json!({ "root": "x", "writable": true, "algorithms": ["none"], "symlinks": "refuse",
        "durability": "full", "size_max": "1GiB", "quota": 1_000_000, "upload_expiry": "2h 30m" });
    assert!(file.prepare(all).is_ok());
}

#[tokio::test]
async fn the_algorithms_can_be_restricted() {
    let world = World::with(json!({ "algorithms": ["blake3", "none"] }));
    world.write("a", "hello");
    for (operation, args) in [
        ("get", json!({ "path": "a", "algorithm": "md5" })),
        ("digest", json!({ "path": "a", "algorithm": "sha256" })),
        ("put", json!({ "path": "a", "algorithm": "md5" })),
        ("put", json!({ "path": "a", "digest": HELLO_MD5 })),
        ("put", json!({ "path": "a", "if_match": HELLO_MD5 })),
        ("get", json!({ "path": "a", "if_none_match": HELLO_MD5 })),
    ] {
        assert_eq!(world.reason(operation, args).await, "algorithm-not-allowed", "{operation}");
    }
    assert_eq!(world.ask("get", json!({ "path": "a" })).await.trailer()["digest"], HELLO_BLAKE3, "the first of them");
    assert_eq!(world.put(json!({ "path": "a" }), "hello").await["digest"], HELLO_BLAKE3);
}
