//! The handler over a connection in memory.

use plugd_core::testing::conformance::Subject;
use plugd_core::testing::{Answer, Plugin, Session};
use plugd_core::wire::Kind;
use plugd_core::{Code, Data, Registry};
use plugd_kv as _;
use serde_json::{Value, json};
use tempfile::TempDir;

fn settings() -> Value {
    json!({ "file": "kv.redb", "value_len_max": 1000, "changes_kept": 16 })
}

/// A store in a directory of its own.
struct World {
    kv: Plugin,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a directory");
        World { kv: Plugin::linked_in("kv", settings(), dir.path()), dir }
    }

    async fn again(self) -> World {
        let World { kv, dir } = self;
        drop(kv);
        let registry = Registry::linked().expect("a sound registry");
        let descriptor = registry.handler("kv").expect("the handler is linked");
        loop {
            // The last call's connection closes a moment after its end, and holds the store until then.
            match Plugin::build(descriptor.prepare(settings()).expect("good settings"), dir.path()) {
                Ok(kv) => return World { kv, dir },
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    async fn watch(&self, prefix: &str) -> Session {
        let mut session = self.kv.call("watch").arg("prefix", prefix).start().await;
        assert_eq!(session.receiver.frame().await.header.kind, Kind::Head);
        session
    }

    async fn set(&self, key: &str, value: &str) -> Answer {
        self.kv.call("set").arg("key", key).send(value.to_owned()).await.ok()
    }

    async fn get(&self, key: &str) -> Answer {
        self.kv.call("get").arg("key", key).await
    }

    async fn list(&self, args: Value) -> String {
        self.kv.call("list").args(args).await.ok().text()
    }
}

#[tokio::test]
async fn what_was_set_is_got_also_after_a_restart() {
    let world = World::new();
    assert_eq!(world.set("color", "red").await.trailer(), json!({ "len": 3, "replaced": false }));
    assert_eq!(world.set("color", "blue").await.trailer(), json!({ "len": 4, "replaced": true }));
    let world = world.again().await;
    let answer = world.get("color").await.ok();
    assert_eq!((answer.head.as_ref(), &*answer.text()), (Some(&json!({ "len": 4 })), "blue"));
}

#[tokio::test]
async fn an_empty_value_is_a_value_and_no_value_is_none() {
    let world = World::new();
    assert!(world.kv.call("set").arg("key", "empty").await.status.is_ok());
    assert_eq!(world.get("empty").await.ok().text(), "");
    let answer = world.get("none").await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::NotFound, "unknown-key"));
    assert_eq!(answer.status.message(), "no key \"none\"");
}

#[tokio::test]
async fn a_list_of_any_length_is_in_order_and_stops_at_its_prefix() {
    let world = World::new();
    let keys: Vec<String> = (0..600).map(|number| format!("item/{number:03}")).collect();
    for key in keys.iter().map(String::as_str).chain(["a", "item", "z"]) {
        world.set(key, "").await;
    }
    let listed = world.list(json!({ "prefix": "item/" })).await;
    assert_eq!(listed.lines().collect::<Vec<_>>(), keys);
    assert_eq!(world.list(json!({})).await.lines().count(), 603);
    assert_eq!(world.list(json!({ "prefix": "none" })).await, "");
}

#[tokio::test]
async fn a_value_that_is_cut_or_too_long_changes_nothing() {
    let world = World::new();
    world.set("color", "red").await;
    world.kv.call("set").arg("key", "color").send("bl").start().await.vanish().await;
    let answer = world.kv.call("set").arg("key", "color").send(vec![0; 1001]).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::ResourceExhausted, "value-too-long"));
    assert_eq!(world.get("color").await.ok().text(), "red");
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused_with_what_is_allowed() {
    let world = World::new();
    for (key, allowed) in [("", "1 to 512"), ("a\nb", "allowed: none"), (&*"x".repeat(513), "1 to 512")] {
        let answer = world.get(key).await;
        assert_eq!((answer.status.code(), answer.status.reason()), (Code::InvalidArgument, "bad-arguments"));
        assert!(answer.status.message().contains(allowed), "{}", answer.status);
    }
}

#[tokio::test]
async fn a_watcher_hears_each_change_below_its_prefix_in_order_until_it_cancels() {
    let world = World::new();
    let mut session = world.watch("a/").await;
    for (key, value) in [("a/1", "one"), ("b/1", "unheard"), ("a/2", "")] {
        world.set(key, value).await;
    }
    for event in [json!({ "key": "a/1", "len": 3 }), json!({ "key": "a/2", "len": 0 })] {
        assert_eq!(session.receiver.frame().await.payload, format!("{event}\n"));
    }
    session.sender.cancel().await;
    assert_eq!(session.receiver.answer().await.status.code(), Code::Cancelled);
}

#[tokio::test]
async fn a_watcher_that_vanishes_leaves_nothing_behind() {
    let world = World::new();
    let session = world.watch("").await;
    session.vanish().await;
    world.set("a", "b").await;
}

#[tokio::test]
async fn a_watcher_that_reads_slowly_hears_how_many_changes_it_missed() {
    let world = World::new();
    let mut session = world.watch("").await;
    let key = "k".repeat(500);
    // More than the connection and the store hold together.
    for _ in 0..1000 {
        world.set(&key, "").await;
    }
    let mut missed = None;
    while missed.is_none() {
        let event: Value = serde_json::from_slice(&session.receiver.frame().await.payload).expect("JSON");
        missed = event["missed"].as_u64();
    }
    assert!(missed.is_some_and(|missed| missed > 0 && missed < 1000), "{missed:?}");
    session.vanish().await;
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let registry = Registry::linked().expect("a sound registry");
    let kv = registry.handler("kv").expect("the handler is linked");
    let refused =
        |settings| kv.prepare(settings).expect_err("bad settings").iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        refused(json!({ "file": "", "value_len_max": 0 })),
        ["file: the path is empty", "value_len_max: 0 is out of range; allowed: 1 to 67108864"]
    );
    assert_eq!(
        refused(json!({ "fiel": "a" }))[0],
        "fiel: unknown key \"fiel\"; did you mean \"file\"?; allowed: changes_kept, file, value_len_max"
    );
    let nowhere = kv.prepare(json!({ "file": "/none/such/kv.redb" })).expect("good settings");
    let error = nowhere.build(&plugd_core::Context::default()).map(|_| ()).expect_err("no such directory");
    assert!(error.to_string().starts_with("cannot open the database /none/such/kv.redb"), "{error}");
}

plugd_core::conformance! {
    conforms: Subject::of(|dir| Plugin::linked_in("kv", settings(), dir))
        .sample("set", json!({ "key": "color" }), [Data::main("red")])
        .sample("list", json!({ "prefix": "c" }), [])
        // It goes on until its caller has enough.
        .sparing("watch")
}

#[test]
fn the_readme_tells_what_the_handler_is() {
    plugd_core::testing::check_readme("kv", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
