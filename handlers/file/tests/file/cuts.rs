//! Uploads that are cut: carried on by their token, taken over, expired, and swept.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use plugd_core::Code;
use serde_json::{Value, json};

use crate::world::{CHUNK_LEN, UPLOADS, World, blake3_of, sample, wait_until};

/// How much of what was sent a cut may lose: one frame of the largest size.
const LOSS_MAX: usize = 1 << 20;

fn offset(head: &Value) -> usize {
    head["offset"].as_u64().expect("an offset") as usize
}

#[tokio::test]
async fn a_put_that_is_cut_anywhere_is_carried_on_by_the_next_server() {
    let mut world = World::new();
    let content = sample(5 * CHUNK_LEN + 7);
    let digest = blake3_of(&content);
    for (number, cut) in
        [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 5 * CHUNK_LEN, content.len() - 1].into_iter().enumerate()
    {
        world.write("a", "old");
        let token = format!("token-{number}");
        for resume in [true, false] {
            let args = json!({ "path": "a", "token": token, "size": content.len(), "resume": resume });
            let (session, head) = world.begin_put(args, &content[..cut]).await;
            assert_eq!(head["offset"], 0, "nothing is kept of a token that is new, or that begins anew");
            session.vanish().await;
            assert_eq!(world.text("a"), "old");
            world.restart();
            let args = json!({ "path": "a", "token": token, "size": content.len(), "digest": digest, "resume": true });
            let (mut session, head) = world.begin_put(args, b"").await;
            let offset = offset(&head);
            assert!(offset <= cut && cut - offset <= LOSS_MAX, "{offset} of {cut}");
            session.send(&content[offset..]).await;
            let answer = session.finish().await;
            assert!(answer.status.is_ok(), "{}", answer.status);
            let receipt = answer.trailer();
            assert_eq!((&receipt["bytes"], &receipt["size"]), (&json!(content.len() - offset), &json!(content.len())));
            assert_eq!((&receipt["resumed_from"], &receipt["verified"]), (&json!(offset), &json!(true)));
            assert!(world.read("a") == content);
            assert_eq!(world.uploads(), [""; 0]);
            world.write("a", "old");
        }
    }
}

#[tokio::test]
async fn most_of_what_was_sent_is_still_there() {
    let world = World::new();
    let content = sample(8 << 20);
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &content).await;
    session.vanish().await;
    let (session, head) = world.begin_put(json!({ "path": "a", "token": "t", "resume": true }), b"").await;
    assert!(offset(&head) >= content.len() - LOSS_MAX, "{head}");
    session.vanish().await;
}

#[tokio::test]
async fn a_finished_upload_that_was_cut_moves_nothing_again() {
    let world = World::new();
    let content = sample(2 << 20);
    let digest = blake3_of(&content);
    let args = json!({ "path": "a", "token": "t", "size": content.len(), "digest": digest });
    let (session, _) = world.begin_put(args.clone(), &content).await;
    assert!(session.finish().await.status.is_ok());
    let args = json!({ "path": "a", "token": "t", "if_none_match": digest });
    assert_eq!(world.ask("put", args).await.trailer()["bytes"], 0);
}

#[tokio::test]
async fn a_source_that_changed_meanwhile_is_not_published() {
    let world = World::new();
    world.write("a", "old");
    let content = sample(3 << 20);
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &content[..2 << 20]).await;
    session.vanish().await;
    let mut changed = content.clone();
    changed[5] ^= 1;
    let args = json!({ "path": "a", "token": "t", "resume": true, "digest": blake3_of(&changed) });
    let (mut session, head) = world.begin_put(args.clone(), b"").await;
    let offset = offset(&head);
    assert!(offset > 5);
    session.send(&changed[offset..]).await;
    let status = session.finish().await.status;
    assert_eq!((status.code(), status.reason()), (Code::DataLoss, "digest-mismatch"));
    assert_eq!(world.text("a"), "old");
    let (mut session, head) = world.begin_put(args, b"").await;
    assert_eq!(head["offset"], 0, "what could never become good is gone");
    session.send(&changed).await;
    assert!(session.finish().await.status.is_ok());
    assert!(world.read("a") == changed);
}

#[tokio::test]
async fn a_source_that_is_shorter_now_begins_anew() {
    let world = World::new();
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &sample(3 << 20)).await;
    session.vanish().await;
    let args = json!({ "path": "a", "token": "t", "resume": true, "size": 5 });
    let (mut session, head) = world.begin_put(args, b"").await;
    assert_eq!(head["offset"], 0);
    session.send(b"hello").await;
    assert!(session.finish().await.status.is_ok());
    assert_eq!(world.text("a"), "hello");
}

#[tokio::test]
async fn a_token_is_good_for_its_path_alone() {
    let world = World::new();
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &sample(3 << 20)).await;
    session.vanish().await;
    for args in
        [json!({ "path": "b", "token": "t", "resume": true }), json!({ "path": "a", "token": "u", "resume": true })]
    {
        let (session, head) = world.begin_put(args, b"").await;
        assert_eq!(head["offset"], 0);
        session.vanish().await;
    }
}

#[tokio::test]
async fn a_new_call_takes_over_from_one_that_hangs() {
    let world = World::new();
    let content = sample(4 << 20);
    let (mut hanging, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &content[..3 << 20]).await;
    for take_over in 0..3 {
        let args = json!({ "path": "a", "token": "t", "resume": true, "digest": blake3_of(&content) });
        let start = SystemTime::now();
        let (mut session, head) = world.begin_put(args, b"").await;
        assert!(start.elapsed().expect("a clock") < Duration::from_secs(5), "at once");
        let status = hanging.receiver.answer().await.status;
        assert_eq!((status.code(), status.reason()), (Code::Aborted, "superseded"));
        let offset = offset(&head);
        assert!(offset <= 3 << 20, "{take_over}: {offset}");
        session.send(&content[offset..3 << 20]).await;
        hanging = session;
    }
    hanging.send(&content[3 << 20..]).await;
    let answer = hanging.finish().await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    assert!(world.read("a") == content);
}

#[tokio::test]
async fn an_upload_that_another_server_writes_is_left_to_it() {
    let mut world = World::new();
    let content = sample(3 << 20);
    let (other, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &content).await;
    // The old server still has it while the new one begins.
    world.restart();
    for resume in [true, false] {
        let answer = world.call("put", json!({ "path": "a", "token": "t", "resume": resume }), &[]).await;
        assert_eq!((answer.status.code(), answer.status.reason()), (Code::Unavailable, "busy"));
        assert!(answer.status.retry());
    }
    assert!(other.finish().await.status.is_ok());
    assert!(world.read("a") == content);
    world.put(json!({ "path": "a", "token": "t" }), "next").await;
    assert_eq!((world.text("a"), world.uploads()), ("next".to_owned(), vec![]));
}

#[tokio::test]
async fn what_an_error_of_the_input_leaves_can_be_carried_on() {
    let world = World::new();
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t", "size": 5 << 20 }), &sample(3 << 20)).await;
    assert_eq!(session.finish().await.status.reason(), "size-mismatch");
    let (session, head) = world.begin_put(json!({ "path": "a", "token": "t", "resume": true }), b"").await;
    assert_eq!(head["offset"], 3 << 20);
    session.vanish().await;
}

#[tokio::test]
async fn space_that_was_reserved_for_what_did_not_come_is_given_back() {
    use std::os::unix::fs::MetadataExt;

    let world = World::new();
    let args = json!({ "path": "a", "token": "t", "size": 64 << 20 });
    let (session, _) = world.begin_put(args, &sample(2 << 20)).await;
    session.vanish().await;
    let [name] = &world.uploads()[..] else { panic!("one upload: {:?}", world.uploads()) };
    let metadata = fs::metadata(world.path(UPLOADS).join(name)).expect("an upload");
    assert!(metadata.blocks() * 512 < 4 << 20, "{} blocks for {} bytes", metadata.blocks(), metadata.len());
}

#[tokio::test]
async fn leftovers_of_a_dead_server_are_swept_at_its_next_start() {
    let mut world = World::new();
    world.write("a", "old");
    world.put(json!({ "path": "b" }), "makes the directory of uploads").await;
    // What kill -9 leaves: files that nobody has locked.
    for name in ["t-dead", "k-0123456789abcdef0123456789abcdef", "k-expired", "foreign"] {
        fs::write(world.path(UPLOADS).join(name), "left").expect("a file");
    }
    let expired = File::options().write(true).open(world.path(UPLOADS).join("k-expired")).expect("a file");
    expired.set_modified(SystemTime::now() - Duration::from_secs(25 * 3600)).expect("a time");
    let (session, _) = world.begin_put(json!({ "path": "c" }), b"alive").await;
    assert_eq!(world.uploads().len(), 5);
    world.restart();
    let left = world.uploads();
    assert_eq!(left[..2], ["foreign", "k-0123456789abcdef0123456789abcdef"]);
    assert!(left.len() == 3 && left[2].starts_with("t-"), "what is being written stays: {left:?}");
    assert!(session.finish().await.status.is_ok());
    assert_eq!(world.text("c"), "alive");
}

#[tokio::test]
async fn what_a_dead_server_had_reserved_is_given_back_at_the_next_start() {
    use std::os::unix::fs::MetadataExt;

    let mut world = World::new();
    fs::create_dir(world.path(UPLOADS)).expect("a directory");
    let kept = world.path(UPLOADS).join("k-left");
    fs::write(&kept, "left").expect("a file");
    let file = File::options().write(true).open(&kept).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 4, 64 << 20).expect("room");
    assert!(file.metadata().expect("a file").blocks() * 512 >= 64 << 20);
    drop(file);
    world.restart();
    let metadata = fs::metadata(&kept).expect("it can still be carried on");
    assert!(metadata.len() == 4 && metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
}

#[tokio::test]
async fn a_cut_upload_is_swept_when_its_time_is_over() {
    let world = World::with(json!({ "upload_expiry": "300ms" }));
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &sample(3 << 20)).await;
    session.vanish().await;
    assert_eq!(world.uploads().len(), 1);
    wait_until("sweep", || world.uploads().is_empty()).await;
}

#[tokio::test]
async fn a_leftover_that_is_not_yet_expired_at_the_start_is_swept_later() {
    let mut world = World::with(json!({ "upload_expiry": "700ms" }));
    fs::create_dir(world.path(UPLOADS)).expect("a directory");
    fs::write(world.path(UPLOADS).join("k-left"), "left").expect("a file");
    world.restart();
    assert_eq!(world.uploads(), ["k-left"]);
    wait_until("sweep", || world.uploads().is_empty()).await;
}

#[tokio::test]
async fn no_more_uploads_are_kept_than_allowed() {
    let world = World::new();
    fs::create_dir(world.path(UPLOADS)).expect("a directory");
    for number in 0..1000 {
        fs::write(world.path(UPLOADS).join(format!("k-{number}")), "left").expect("a file");
    }
    let (session, _) = world.begin_put(json!({ "path": "a", "token": "t" }), &sample(3 << 20)).await;
    session.vanish().await;
    assert_eq!(world.uploads().len(), 1000);
}

#[tokio::test]
async fn an_upload_of_more_than_four_gibibytes_is_carried_on_to_its_last_byte() {
    const SIZE: u64 = (5 << 30) + 1;
    let world = World::new();
    let args = |resume: bool| json!({ "path": "a", "token": "t", "algorithm": "none", "resume": resume });
    let (session, _) = world.begin_put(args(false), b"first").await;
    session.vanish().await;
    // The rest is a hole: nothing is sent or stored for it.
    let kept = File::options().write(true).open(world.path(UPLOADS).join(&world.uploads()[0])).expect("an upload");
    kept.set_len(SIZE - 1).expect("a sparse file");
    let (mut session, head) = world.begin_put(args(true), b"").await;
    assert_eq!(head["offset"], SIZE - 1);
    session.send(b"x").await;
    let receipt = session.finish().await.trailer();
    assert_eq!((&receipt["bytes"], &receipt["size"]), (&json!(1), &json!(SIZE)));
    assert_eq!(fs::metadata(world.path("a")).expect("a file").len(), SIZE);
    let args = json!({ "path": "a", "algorithm": "none", "offset": SIZE - 2 });
    assert_eq!(world.ask("get", args).await.text(), "\0x");
}
