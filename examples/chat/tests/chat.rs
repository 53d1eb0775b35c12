//! The handler over a connection in memory.

use plugd_chat as _;
use plugd_core::testing::conformance::Subject;
use plugd_core::testing::{Answer, Plugin, Session};
use plugd_core::wire::Kind;
use plugd_core::{Code, Data, Registry};
use serde_json::{Value, json};

fn chat() -> Plugin {
    Plugin::linked("chat", json!({ "rooms_max": 2, "line_len_max": 1000, "lines_kept": 16 }))
}

async fn rooms(chat: &Plugin) -> String {
    chat.call("rooms").await.ok().text()
}

/// Somebody in a room.
struct Talker(Session);

impl Talker {
    /// Joins a room, and gives who was there before.
    async fn join(chat: &Plugin, name: &str, room: &str) -> (Talker, Value) {
        let mut session = chat.call("join").arg("name", name).arg("room", room).start().await;
        let head = session.receiver.frame().await;
        assert_eq!(head.header.kind, Kind::Head);
        let head: Value = serde_json::from_slice(&head.payload).expect("JSON");
        assert_eq!(head["room"], room);
        (Talker(session), head["members"].clone())
    }

    async fn say(&mut self, text: &str) {
        self.0.send(text.as_bytes()).await;
    }

    async fn hear(&mut self) -> String {
        let frame = self.0.receiver.frame().await;
        assert_eq!(frame.header.kind, Kind::Data);
        String::from_utf8(frame.payload.to_vec()).expect("text")
    }

    /// Ends the input, and hears the rest.
    async fn leave(self) -> Answer {
        self.0.finish().await
    }
}

#[tokio::test]
async fn what_one_says_all_others_in_the_room_hear() {
    let chat = chat();
    let (mut ann, before) = Talker::join(&chat, "ann", "lobby").await;
    assert_eq!(before, json!([]));
    let (mut bob, before) = Talker::join(&chat, "bob", "lobby").await;
    assert_eq!(before, json!(["ann"]));
    let (cid, before) = Talker::join(&chat, "cid", "cellar").await;
    assert_eq!(before, json!([]));
    assert_eq!(ann.hear().await, "* bob joined\n");
    ann.say("hello,\nbo").await;
    assert_eq!(bob.hear().await, "ann: hello,\n");
    ann.say("b\n").await;
    assert_eq!(bob.hear().await, "ann: bob\n");
    bob.say("hello, ann").await;
    // A line that has no end yet is said when the input ends.
    assert!(bob.leave().await.status.is_ok());
    assert_eq!(ann.hear().await, "bob: hello, ann\n");
    assert_eq!(ann.hear().await, "* bob left\n");
    assert_eq!(ann.leave().await.text(), "");
    assert_eq!(cid.leave().await.text(), "");
}

#[tokio::test]
async fn however_a_call_ends_its_member_leaves() {
    let chat = chat();
    let (mut ann, _) = Talker::join(&chat, "ann", "lobby").await;
    for end in ["vanish", "cancel", "abort"] {
        let (mut bob, _) = Talker::join(&chat, "bob", "lobby").await;
        assert_eq!(ann.hear().await, "* bob joined\n");
        match end {
            "vanish" => bob.0.vanish().await,
            "abort" => bob.0.abort().await,
            _ => {
                bob.0.sender.cancel().await;
                assert_eq!(bob.0.receiver.answer().await.status.code(), Code::Cancelled);
            }
        }
        assert_eq!(ann.hear().await, "* bob left\n", "{end}");
    }
    assert_eq!(rooms(&chat).await, "lobby: ann\n");
    ann.leave().await;
    assert_eq!(rooms(&chat).await, "");
}

#[tokio::test]
async fn who_reads_slowly_holds_nobody_up_and_hears_how_many_lines_it_missed() {
    let chat = chat();
    let (mut ann, _) = Talker::join(&chat, "ann", "lobby").await;
    let (mut bob, _) = Talker::join(&chat, "bob", "lobby").await;
    // More than the connection and the room hold together, and ann is through with it.
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..2000 {
        ann.say(&line).await;
    }
    assert!(ann.leave().await.status.is_ok());
    let mut heard = 0;
    let missed = loop {
        match bob.hear().await {
            line if line.starts_with("ann: x") => heard += 1,
            line if line.starts_with("* ann left") => panic!("nothing was missed of what was never read"),
            line => break line,
        }
    };
    assert!(missed.starts_with("* ") && missed.ends_with(" lines missed\n"), "{missed}");
    assert!(heard < 1000, "{heard} lines were held for one who does not read");
}

#[tokio::test]
async fn who_gives_no_name_gets_one_of_its_own() {
    let chat = chat();
    let (guest, _) = Talker::join(&chat, "guest-1", "lobby").await;
    let session = chat.call("join").start().await;
    while rooms(&chat).await != "lobby: guest-1 guest-2\n" {}
    session.vanish().await;
    guest.leave().await;
}

#[tokio::test]
async fn names_rooms_and_lines_have_bounds() {
    let chat = chat();
    let (ann, _) = Talker::join(&chat, "ann", "lobby").await;
    let status = |name: &str, room: &str, input: String| {
        let call = chat.call("join").arg("name", name).arg("room", room).send(input);
        async move { call.await.status }
    };
    assert_eq!(status("ann", "lobby", String::new()).await.reason(), "name-taken");
    assert_eq!(status("a b", "lobby", String::new()).await.reason(), "bad-arguments");
    assert_eq!(status("bob", "lobby", "x".repeat(1001)).await.reason(), "line-too-long");
    let (cid, _) = Talker::join(&chat, "cid", "cellar").await;
    assert_eq!(status("dan", "attic", String::new()).await.reason(), "rooms-max");
    cid.leave().await;
    assert!(status("dan", "attic", String::new()).await.is_ok());
    ann.leave().await;
}

#[test]
fn settings_out_of_range_are_refused() {
    let registry = Registry::linked().expect("a sound registry");
    let errors =
        registry.handler("chat").expect("the handler is linked").prepare(json!({ "rooms_max": 0, "lines_kept": 5000 }));
    let errors: Vec<String> = errors.expect_err("bad settings").iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["rooms_max: 0 is out of range; allowed: 1 to 10000", "lines_kept: 5000 is out of range; allowed: 1 to 4096"]
    );
}

plugd_core::conformance! {
    conforms: Subject::linked("chat", json!({}))
        .sample("join", json!({}), [Data::main("hello\n"), Data::main("everybody")])
        .sample("rooms", json!({}), [])
}

#[test]
fn the_readme_tells_what_the_handler_is() {
    plugd_core::testing::check_readme("chat", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
