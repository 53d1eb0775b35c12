//! Limits on the size of a file and of all files, by what is declared and by what comes.

use std::fs;
use std::sync::Arc;

use plugd_core::{Code, Data, Status};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::world::{CHUNK_LEN, UPLOADS, World, sample};

const MIB: usize = 1 << 20;

async fn used(world: &World) -> u64 {
    let line = &world.lines("df", json!({})).await[0];
    line["quota_used"].as_u64().expect("a number")
}

fn end(status: &Status) -> (Code, &str) {
    (status.code(), status.reason())
}

/// Opens an upload and returns how it ends before any input.
async fn refused_at_once(world: &World, args: Value) -> Status {
    let mut session = world.open("put", args).await;
    session.receiver.answer().await.status
}

#[tokio::test]
async fn space_is_told() {
    let world = World::new();
    let line = &world.lines("df", json!({})).await[0];
    let number = |key: &str| line[key].as_u64().expect("a number");
    assert!(number("total") >= number("free") && number("free") >= number("available"), "{line}");
    assert_eq!(line.get("quota"), None);
    let world = World::with(json!({ "quota": "1MiB" }));
    let line = &world.lines("df", json!({})).await[0];
    assert_eq!((&line["quota"], &line["quota_used"]), (&json!(MIB), &json!(0)));
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused() {
    let world = World::with(json!({ "size_max": "1MiB" }));
    world.write("a", "old");
    let status = refused_at_once(&world, json!({ "path": "a", "size": MIB + 1 })).await;
    assert_eq!(end(&status), (Code::ResourceExhausted, "too-large"), "by what is declared");
    for token in [Value::Null, json!("t")] {
        let (session, _) = world.begin_put(json!({ "path": "a", "token": token }), &sample(MIB + 1)).await;
        assert_eq!(end(&session.finish().await.status), (Code::ResourceExhausted, "too-large"), "by what comes");
        assert_eq!((world.text("a"), world.uploads()), ("old".to_owned(), vec![]));
    }
    world.put(json!({ "path": "a", "size": MIB }), sample(MIB)).await;
    let huge = refused_at_once(&World::new(), json!({ "path": "a", "size": u64::MAX })).await;
    assert_eq!(end(&huge), (Code::ResourceExhausted, "too-large"));
}

#[tokio::test]
async fn a_quota_holds_for_all_files_together() {
    let world = World::with(json!({ "quota": "5MiB" }));
    fs::create_dir(world.path("dir")).expect("a directory");
    world.write("dir/there", sample(MIB));
    world.put(json!({ "path": "a" }), sample(MIB)).await;
    assert_eq!(used(&world).await, 2 << 20);
    let status = refused_at_once(&world, json!({ "path": "b", "size": 3 * MIB + 1 })).await;
    assert_eq!(end(&status), (Code::ResourceExhausted, "quota"), "by what is declared");
    let (session, _) = world.begin_put(json!({ "path": "b" }), &sample(3 * MIB + 1)).await;
    assert_eq!(end(&session.finish().await.status), (Code::ResourceExhausted, "quota"), "by what comes");
    assert_eq!((used(&world).await, world.uploads()), (2 << 20, vec![]));
    for number in 0..3 {
        world.ask("copy", json!({ "from": "a", "to": format!("copy-{number}") })).await;
    }
    assert_eq!(world.reason("copy", json!({ "from": "a", "to": "b" })).await, "quota");
}

#[tokio::test]
async fn what_runs_counts_until_it_ends() {
    let world = World::with(json!({ "quota": "5MiB" }));
    let (first, _) = world.begin_put(json!({ "path": "a", "size": 4 * MIB }), b"").await;
    assert_eq!(used(&world).await, 4 << 20);
    let status = refused_at_once(&world, json!({ "path": "b", "size": 2 * MIB })).await;
    assert_eq!(status.reason(), "quota");
    first.vanish().await;
    assert_eq!(used(&world).await, 0);
    world.put(json!({ "path": "b", "size": 2 * MIB }), sample(2 * MIB)).await;
    assert_eq!(used(&world).await, 2 << 20);
}

#[tokio::test]
async fn a_file_that_is_replaced_makes_room_for_the_new_one() {
    let world = World::with(json!({ "quota": "5MiB" }));
    for size in [4 * MIB, 5 * MIB, MIB] {
        world.put(json!({ "path": "a", "size": size }), sample(size)).await;
        assert_eq!(used(&world).await, size as u64);
    }
    world.ask("copy", json!({ "from": "a", "to": "b" })).await;
    world.ask("copy", json!({ "from": "a", "to": "c" })).await;
    assert_eq!(used(&world).await, 3 << 20);
    world.ask("mv", json!({ "from": "a", "to": "b" })).await;
    assert_eq!(used(&world).await, 2 << 20);
    world.ask("rm", json!({ "path": "b" })).await;
    world.ask("mkdir", json!({ "path": "d" })).await;
    world.ask("mv", json!({ "from": "c", "to": "d/c" })).await;
    world.ask("rm", json!({ "path": "d", "recursive": true })).await;
    assert_eq!(used(&world).await, 0);
}

#[tokio::test]
async fn what_is_kept_of_a_cut_upload_counts_until_it_goes() {
    let mut world = World::with(json!({ "quota": "5MiB", "upload_expiry": "1h" }));
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t", "size": 4 * MIB }), &sample(2 * MIB)).await;
    session.vanish().await;
    let kept = fs::metadata(world.path(UPLOADS).join(&world.uploads()[0])).expect("an upload").len();
    assert!(kept > 0);
    for _ in 0..2 {
        assert_eq!(used(&world).await, kept);
        let status = refused_at_once(&world, json!({ "path": "b", "size": 5 * MIB })).await;
        assert_eq!(status.reason(), "quota");
        world.restart();
    }
    let args = json!({ "path": "a", "token": "t", "size": 4 * MIB, "resume": true });
    let (mut session, head) = world.begin_put(args, b"").await;
    assert_eq!(used(&world).await, 4 << 20);
    session.send(&sample(4 * MIB)[head["offset"].as_u64().expect("an offset") as usize..]).await;
    assert!(session.finish().await.status.is_ok());
    assert_eq!(used(&world).await, 4 << 20);
}

#[tokio::test]
async fn a_file_that_is_moved_to_itself_makes_no_room() {
    let world = World::with(json!({ "quota": "5MiB" }));
    world.put(json!({ "path": "a" }), sample(4 * MIB)).await;
    for (from, to) in [("a", "a"), ("a", "./a")] {
        world.ask("mv", json!({ "from": from, "to": to })).await;
        assert_eq!(used(&world).await, 4 << 20, "{from} {to}");
    }
    assert_eq!(world.reason("put", json!({ "path": "b", "size": 2 * MIB })).await, "quota");
}

#[tokio::test]
async fn the_room_of_a_file_that_is_gone_before_it_is_replaced_is_not_taken_twice() {
    let world = World::with(json!({ "quota": "5MiB" }));
    world.put(json!({ "path": "a" }), sample(4 * MIB)).await;
    let (upload, _) = world.begin_put(json!({ "path": "a", "size": 4 * MIB }), &sample(4 * MIB)).await;
    world.ask("rm", json!({ "path": "a" })).await;
    world.put(json!({ "path": "b" }), sample(5 * MIB)).await;
    assert_eq!(end(&upload.finish().await.status), (Code::ResourceExhausted, "quota"));
    assert_eq!((world.names(), used(&world).await), (vec!["b".to_owned()], 5 << 20));
}

#[tokio::test]
async fn many_uploads_over_one_file_do_not_each_have_its_room() {
    let world = World::with(json!({ "quota": "5MiB" }));
    world.put(json!({ "path": "a" }), sample(4 * MIB)).await;
    let (first, _) = world.begin_put(json!({ "path": "a", "size": 5 * MIB }), &sample(5 * MIB)).await;
    let status = refused_at_once(&world, json!({ "path": "a", "size": 5 * MIB })).await;
    assert_eq!(status.reason(), "quota");
    assert!(first.finish().await.status.is_ok());
    world.put(json!({ "path": "a", "size": 5 * MIB }), sample(5 * MIB)).await;
    assert_eq!(used(&world).await, 5 << 20);
}

#[tokio::test]
async fn what_is_cut_is_kept_only_as_far_as_the_quota_goes() {
    for (quota, kept) in [("5MiB", 0), ("9MiB", 1)] {
        let world = World::with(json!({ "quota": quota }));
        world.put(json!({ "path": "a" }), sample(4 * MIB)).await;
        let args = json!({ "path": "a", "token": "t", "size": 4 * MIB });
        let (session, _) = world.begin_put(args, &sample(3 * MIB)).await;
        session.vanish().await;
        assert_eq!(world.uploads().len(), kept, "{quota}");
        let max = if kept == 0 { 4 << 20 } else { 9 << 20 };
        assert!(used(&world).await <= max, "{quota}");
    }
}

#[tokio::test]
async fn many_puts_at_once_stay_within_the_quota() {
    let world = Arc::new(World::with(json!({ "quota": "5MiB" })));
    let mut puts = JoinSet::new();
    for number in 0..12 {
        let world = Arc::clone(&world);
        puts.spawn(async move {
            // Every third declares nothing, and some replace each other.
            let size = if number % 3 == 0 { Value::Null } else { json!(MIB) };
            let input: Vec<Data> = sample(MIB).chunks(CHUNK_LEN).map(|chunk| Data::main(chunk.to_vec())).collect();
            world.call("put", json!({ "path": format!("f{}", number % 8), "size": size }), &input).await.status
        });
    }
    let mut stored = 0;
    for status in puts.join_all().await {
        assert!(status.is_ok() || status.reason() == "quota", "{status}");
        stored += usize::from(status.is_ok());
    }
    let on_disk: u64 = world.names().iter().map(|name| world.read(name).len() as u64).sum();
    assert!(stored > 0 && on_disk <= 5 << 20, "{stored} stored, {on_disk} bytes");
    assert_eq!((used(&world).await, world.uploads()), (on_disk, vec![]));
}

#[tokio::test]
async fn a_file_that_is_moved_away_meanwhile_makes_no_room() {
    for fate in ["moved", "removed"] {
        let world = World::with(json!({ "quota": "5MiB" }));
        world.put(json!({ "path": "a" }), sample(4 * MIB)).await;
        let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &sample(5 * MIB)).await;
        match fate {
            "moved" => drop(world.ask("mv", json!({ "from": "a", "to": "b" })).await),
            _ => {
                world.ask("rm", json!({ "path": "a" })).await;
                world.put(json!({ "path": "b" }), sample(4 * MIB)).await;
            }
        }
        let status = session.finish().await.status;
        assert_eq!(end(&status), (Code::ResourceExhausted, "quota"), "{fate}");
        assert_eq!((world.names(), world.uploads(), used(&world).await), (vec!["b".to_owned()], vec![], 4 << 20));
    }
}

#[tokio::test]
async fn a_quota_holds_for_what_lies_deeper_than_a_path_is_long() {
    let mut world = World::with(json!({ "quota": "5MiB" }));
    let chain = vec!["d".repeat(200); 15].join("/");
    for number in 0..3 {
        world.ask("mkdir", json!({ "path": format!("{number}/{chain}"), "parents": true })).await;
    }
    world.put(json!({ "path": format!("0/{chain}/a") }), sample(MIB)).await;
    world.ask("mv", json!({ "from": "0", "to": format!("1/{chain}/0") })).await;
    world.ask("mv", json!({ "from": "1", "to": format!("2/{chain}/1") })).await;
    world.restart();
    assert_eq!(used(&world).await, 1 << 20);
    let status = refused_at_once(&world, json!({ "path": "b", "size": 4 * MIB + 1 })).await;
    assert_eq!(end(&status), (Code::ResourceExhausted, "quota"));
    world.put(json!({ "path": "b", "size": 4 * MIB }), sample(4 * MIB)).await;
}
