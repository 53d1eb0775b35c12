//! The handler over a connection in memory.

#[path = "../../../handlers/echo/tests/memory/mod.rs"]
mod memory;

use std::sync::Arc;

use memory::{Answer, Session, build};
use plugd_core::wire::Kind;
use plugd_core::{Code, Data, Handler, Registry};
use plugd_kv as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A store in a directory of its own.
struct World {
    kv: Arc<dyn Handler>,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a directory");
        World { kv: store(&dir), dir }
    }

    async fn again(self) -> World {
        // The last call's connection closes a moment after its end, and holds the store until then.
        while Arc::strong_count(&self.kv) > 1 {
            tokio::task::yield_now().await;
        }
        drop(self.kv);
        World { kv: store(&self.dir), dir: self.dir }
    }

    async fn open(&self, operation: &'static str, args: Value) -> Session {
        Session::open(self.kv.clone(), operation, args).await
    }

    async fn call(&self, operation: &'static str, args: Value, input: &[Data]) -> Answer {
        self.open(operation, args).await.call(input).await
    }

    async fn set(&self, key: &str, value: &str) -> Answer {
        let answer = self.call("set", json!({ "key": key }), &[Data::main(value.to_owned())]).await;
        assert!(answer.status.is_ok(), "{}", answer.status);
        answer
    }

    async fn text(&self, operation: &'static str, args: Value) -> String {
        let answer = self.call(operation, args, &[]).await;
        assert!(answer.status.is_ok(), "{}", answer.status);
        answer.text()
    }
}

fn store(dir: &TempDir) -> Arc<dyn Handler> {
    build("kv", json!({ "file": "kv.redb", "value_len_max": 1000, "changes_kept": 16 }), dir.path())
}

#[tokio::test]
async fn what_was_set_is_got_also_after_a_restart() {
    let world = World::new();
    assert_eq!(world.set("color", "red").await.trailer(), json!({ "len": 3, "replaced": false }));
    assert_eq!(world.set("color", "blue").await.trailer(), json!({ "len": 4, "replaced": true }));
    let world = world.again().await;
    let answer = world.call("get", json!({ "key": "color" }), &[]).await;
    assert_eq!((answer.head.as_ref(), &*answer.text()), (Some(&json!({ "len": 4 })), "blue"));
}

#[tokio::test]
async fn an_empty_value_is_a_value_and_no_value_is_none() {
    let world = World::new();
    assert!(world.call("set", json!({ "key": "empty" }), &[]).await.status.is_ok());
    assert_eq!(world.text("get", json!({ "key": "empty" })).await, "");
    let answer = world.call("get", json!({ "key": "none" }), &[]).await;
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
    let listed = world.text("list", json!({ "prefix": "item/" })).await;
    assert_eq!(listed.lines().collect::<Vec<_>>(), keys);
    assert_eq!(world.text("list", json!({})).await.lines().count(), 603);
    assert_eq!(world.text("list", json!({ "prefix": "none" })).await, "");
}

#[tokio::test]
async fn a_value_that_is_cut_or_too_long_changes_nothing() {
    let world = World::new();
    world.set("color", "red").await;
    let mut session = world.open("set", json!({ "key": "color" })).await;
    session.sender.data(&Data::main("bl")).await;
    session.cut().await;
    let answer = world.call("set", json!({ "key": "color" }), &[Data::main(vec![0; 1001])]).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::ResourceExhausted, "value-too-long"));
    assert_eq!(world.text("get", json!({ "key": "color" })).await, "red");
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused_with_what_is_allowed() {
    let world = World::new();
    for (key, allowed) in [("", "1 to 512"), ("a\nb", "allowed: none"), (&*"x".repeat(513), "1 to 512")] {
        let answer = world.call("get", json!({ "key": key }), &[]).await;
        assert_eq!((answer.status.code(), answer.status.reason()), (Code::InvalidArgument, "bad-arguments"));
        assert!(answer.status.message().contains(allowed), "{}", answer.status);
    }
}

#[tokio::test]
async fn a_watcher_hears_each_change_below_its_prefix_in_order_until_it_cancels() {
    let world = World::new();
    let mut session = world.open("watch", json!({ "prefix": "a/" })).await;
    assert_eq!(session.receiver.frame().await.header.kind, Kind::Head);
    for (key, value) in [("a/1", "one"), ("b/1", "unheard"), ("a/2", "")] {
        world.set(key, value).await;
    }
    for event in [json!({ "key": "a/1", "len": 3 }), json!({ "key": "a/2", "len": 0 })] {
        assert_eq!(session.receiver.frame().await.payload, format!("{event}\n"));
    }
    session.sender.cancel().await;
    // The handler returns by itself, well before anybody would drop it.
    session.receiver.answer().await;
}

#[tokio::test]
async fn a_watcher_that_vanishes_leaves_nothing_behind() {
    let world = World::new();
    let mut session = world.open("watch", json!({})).await;
    assert_eq!(session.receiver.frame().await.header.kind, Kind::Head);
    session.cut().await;
    world.set("a", "b").await;
}

#[tokio::test]
async fn a_watcher_that_reads_slowly_hears_how_many_changes_it_missed() {
    let world = World::new();
    let mut session = world.open("watch", json!({})).await;
    assert_eq!(session.receiver.frame().await.header.kind, Kind::Head);
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
    session.cut().await;
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
