//! The client against a peer that follows a script, frame by frame.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use plugd_client::{CallError, Client, ClientError, Code, Connector, Data, Open, ServerAddress, Status, Token};
use plugd_core::transport::Inbound;
use plugd_core::wire::{
    DATA_LEN_MAX_DEFAULT, DATA_LEN_MAX_LEAST, End, Frame, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The server's end of a pipe.
struct Peer {
    io: DuplexStream,
    inbound: Inbound,
}

impl Peer {
    async fn greet(&mut self, data_len_max: u32) {
        self.write(&Hello { data_len_max }.encode()).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("an open pipe");
    }

    async fn frame(&mut self, header: FrameHeader, payload: &[u8]) {
        let header = FrameHeader { payload_len: payload.len() as u32, ..header };
        self.write(&[&header.encode()[..], payload].concat()).await;
    }

    async fn data(&mut self, payload: &[u8]) {
        self.frame(FrameHeader::new(Kind::Data, 0), payload).await;
    }

    async fn end(&mut self, status: Status, close: bool) {
        let payload = End::from(status).encode();
        self.frame(FrameHeader { close, ..FrameHeader::new(Kind::End, 0) }, &payload).await;
    }

    async fn hello(&mut self) -> Hello {
        let mut bytes = [0; HELLO_LEN];
        self.io.read_exact(&mut bytes).await.expect("a hello");
        Hello::decode(&bytes).expect("a good hello").expect("a whole hello")
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.inbound.take().expect("good frames only") {
                return frame;
            }
            let read = self.inbound.fill(&mut self.io).await.expect("an open pipe");
            assert_ne!(read, 0, "a frame was expected, found the end of the stream");
        }
    }

    async fn expect(&mut self, kind: Kind) -> Bytes {
        let frame = self.next().await;
        assert_eq!(frame.header.kind, kind);
        frame.payload
    }
}

/// Runs both ends; the peer has read the hello and sent its own.
async fn play<T>(peer: impl AsyncFnOnce(&mut Peer), client: impl AsyncFnOnce(&mut Client) -> T) -> T {
    play_with_pipe(1 << 20, peer, client).await
}

async fn play_with_pipe<T>(
    pipe_len: usize,
    peer: impl AsyncFnOnce(&mut Peer),
    client: impl AsyncFnOnce(&mut Client) -> T,
) -> T {
    let (near, far) = tokio::io::duplex(pipe_len);
    let mut near = Client::over(near);
    let peer = async {
        let mut far = Peer { io: far, inbound: Inbound::new(FrameLimits::default()) };
        assert_eq!(far.hello().await.data_len_max, DATA_LEN_MAX_DEFAULT);
        far.greet(DATA_LEN_MAX_LEAST).await;
        peer(&mut far).await;
    };
    bounded(async { tokio::join!(client(&mut near), peer).0 }).await
}

/// A test that hangs fails instead.
async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("an end within ten seconds")
}

fn status_of(result: Result<plugd_client::Reply, CallError>) -> Status {
    match result {
        Err(CallError::Status { status, .. }) => *status,
        other => panic!("a failing status expected, found {other:?}"),
    }
}

#[tokio::test]
async fn one_connection_carries_call_after_call() {
    let peer = async |peer: &mut Peer| {
        for answer in [&b"ONE"[..], b"TWO"] {
            assert_eq!(peer.expect(Kind::Open).await, r#"{"command":"upper"}"#);
            peer.expect(Kind::Data).await;
            peer.expect(Kind::EndOfInput).await;
            peer.data(answer).await;
            peer.end(Status::ok(), false).await;
        }
    };
    let client = async |client: &mut Client| {
        let one = client.call(&Open::new("upper"), "one").await.expect("the first answer");
        let two = client.call(&Open::new("upper"), "two").await.expect("the second answer");
        (one.bytes(), two.bytes())
    };
    assert_eq!(play(peer, client).await, (Bytes::from("ONE"), Bytes::from("TWO")));
}

#[tokio::test]
async fn head_side_channels_and_trailer_are_kept_apart() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.frame(FrameHeader::new(Kind::Head, 0), br#"{"size":3}"#).await;
        peer.frame(FrameHeader { more: true, ..FrameHeader::new(Kind::Data, 0) }, b"a").await;
        peer.frame(FrameHeader { channel: 1, ..FrameHeader::new(Kind::Data, 0) }, b"log").await;
        peer.data(b"b").await;
        peer.data(b"c").await;
        peer.frame(FrameHeader::new(Kind::End, 0), br#"{"code":0,"trailer":{"n":1}}"#).await;
    };
    let client = async |client: &mut Client| client.call(&Open::new("x"), "").await.expect("an answer");
    let reply = play(peer, client).await;
    assert_eq!(reply.head.as_ref(), json!({"size": 3}).as_object());
    assert_eq!(reply.messages, ["ab", "c"]);
    assert_eq!(reply.side[&1], "log");
    assert_eq!(reply.trailer.as_ref(), json!({"n": 1}).as_object());
}

#[tokio::test]
async fn an_early_end_is_answered_with_a_cancel_so_that_the_next_call_can_come() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.expect(Kind::Data).await;
        peer.end(Status::invalid_argument("no", "not this"), false).await;
        while peer.next().await.header.kind == Kind::Data {}
        peer.expect(Kind::Open).await;
        peer.expect(Kind::EndOfInput).await;
        peer.end(Status::ok(), false).await;
    };
    let client = async |client: &mut Client| {
        let endless = vec![0; 64 << 20];
        let status = status_of(client.call(&Open::new("x"), endless).await);
        client.call(&Open::new("x"), "").await.expect("the next call");
        status
    };
    // A narrow pipe keeps the client from having sent everything before the end arrives.
    assert_eq!(play_with_pipe(4096, peer, client).await.reason(), "no");
}

#[tokio::test]
async fn sending_to_an_ended_call_says_so() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.end(Status::ok(), false).await;
        peer.expect(Kind::Cancel).await;
    };
    let client = async |client: &mut Client| {
        let mut exchange = client.open(&Open::new("x")).await.expect("a call");
        assert_eq!(exchange.recv().await.expect("an end"), None);
        let error = exchange.send("late").await.expect_err("the call has ended");
        assert!(matches!(error, ClientError::Ended), "{error:?}");
        exchange.end().await.expect("an end")
    };
    assert!(play(peer, client).await.status.is_ok());
}

#[tokio::test]
async fn a_cut_is_a_lost_connection_and_never_a_success() {
    let whole: &[&[u8]] = &[b"", &[6], &[6, 0, 0, 0, 0, 0, 0, 2, b'{'], &[3, 0, 0, 0, 0, 0, 0, 1, b'x']];
    for bytes in whole {
        let peer = async |peer: &mut Peer| {
            peer.expect(Kind::Open).await;
            peer.expect(Kind::EndOfInput).await;
            peer.write(bytes).await;
            peer.io.shutdown().await.expect("an open pipe");
        };
        let client = async |client: &mut Client| {
            let error = client.call(&Open::new("x"), "").await.expect_err("no end came");
            assert!(matches!(error, CallError::Client(ClientError::Lost(_))), "{error:?}");
            client.call(&Open::new("x"), "").await.expect_err("a lost connection takes no call")
        };
        let error = play(peer, client).await;
        assert!(matches!(error, CallError::Client(ClientError::Closed)), "{error:?}");
    }
}

#[tokio::test]
async fn an_end_that_closes_is_the_last_one() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.end(Status::ok(), true).await;
    };
    let client = async |client: &mut Client| {
        client.call(&Open::new("x"), "").await.expect("an end is an end");
        client.call(&Open::new("x"), "").await.expect_err("the connection is closed")
    };
    let error = play(peer, client).await;
    assert!(matches!(error, CallError::Client(ClientError::Closed)), "{error:?}");
}

#[tokio::test]
async fn an_end_while_idle_is_the_status_of_the_next_call() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.expect(Kind::EndOfInput).await;
        peer.end(Status::ok(), false).await;
        peer.end(Status::unavailable("idle-timeout", "too quiet").with_retry(true), true).await;
    };
    let client = async |client: &mut Client| {
        client.call(&Open::new("x"), "").await.expect("the first call");
        status_of(client.call(&Open::new("x"), "").await)
    };
    let status = play(peer, client).await;
    assert_eq!((status.code(), status.reason(), status.retry()), (Code::Unavailable, "idle-timeout", true));
}

#[tokio::test]
async fn long_messages_are_split_as_the_server_asks() {
    let len_max = DATA_LEN_MAX_LEAST as usize;
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        let mut lens = Vec::new();
        loop {
            let frame = peer.next().await;
            assert_eq!((frame.header.kind, frame.header.channel), (Kind::Data, 7));
            lens.push(frame.payload.len());
            if !frame.header.more {
                break;
            }
        }
        assert_eq!(lens, [len_max, len_max, 5]);
        peer.end(Status::ok(), false).await;
    };
    let client = async |client: &mut Client| {
        let mut exchange = client.open(&Open::new("x")).await.expect("a call");
        exchange.send_on(7, vec![1; 2 * len_max + 5]).await.expect("an open call");
        exchange.end().await.expect("an end")
    };
    assert!(play(peer, client).await.status.is_ok());
}

#[tokio::test]
async fn frames_grow_to_what_the_server_accepts_once_it_is_known() {
    let (near, far) = tokio::io::duplex(4 << 20);
    let mut client = Client::over(near);
    let mut peer = Peer { io: far, inbound: Inbound::new(FrameLimits::default()) };
    let server = async {
        peer.hello().await;
        peer.greet(DATA_LEN_MAX_LEAST + 1).await;
        peer.expect(Kind::Open).await;
        peer.data(b"ready").await;
        peer.expect(Kind::Data).await.len()
    };
    let caller = async {
        let mut exchange = client.open(&Open::new("x")).await.expect("a call");
        exchange.recv().await.expect("data");
        exchange.send(vec![0; 1 << 20]).await.expect("an open call");
    };
    assert_eq!(bounded(async { tokio::join!(server, caller).0 }).await, DATA_LEN_MAX_LEAST as usize + 1);
}

#[tokio::test]
async fn calls_can_be_sent_ahead_of_their_answers() {
    const CALLS: usize = 1000;
    let (near, far) = tokio::io::duplex(1024);
    let (mut sender, mut receiver) = Client::over(near).into_halves();
    let mut peer = Peer { io: far, inbound: Inbound::new(FrameLimits::default()) };
    let server = async {
        peer.hello().await;
        peer.greet(DATA_LEN_MAX_LEAST).await;
        for _ in 0..CALLS {
            peer.expect(Kind::Open).await;
            let payload = peer.expect(Kind::Data).await;
            peer.expect(Kind::EndOfInput).await;
            peer.data(&payload).await;
            peer.end(Status::ok(), false).await;
        }
    };
    let send = async {
        for number in 0..CALLS {
            sender.send_ahead(&Open::new("echo"), number.to_string()).await.expect("an open connection");
        }
        sender.flush().await.expect("an open connection");
    };
    let receive = async {
        for number in 0..CALLS {
            let data = receiver.recv().await.expect("an answer").expect("data before the end");
            assert_eq!(data, Data::main(number.to_string()));
            assert!(receiver.end().await.expect("an end").status.is_ok());
        }
    };
    bounded(async { tokio::join!(server, send, receive) }).await;
}

#[tokio::test]
async fn a_call_left_open_is_cancelled_by_the_next_one() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.data(b"stale").await;
        peer.expect(Kind::Cancel).await;
        peer.end(Status::cancelled("cancelled", ""), false).await;
        peer.expect(Kind::Open).await;
        peer.expect(Kind::EndOfInput).await;
        peer.data(b"fresh").await;
        peer.end(Status::ok(), false).await;
    };
    let client = async |client: &mut Client| {
        client.open(&Open::new("x")).await.expect("a call");
        client.call(&Open::new("x"), "").await.expect("the next call").bytes()
    };
    assert_eq!(play(peer, client).await, "fresh");
}

#[tokio::test]
async fn a_cancelled_call_still_gets_its_end() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.expect(Kind::EndOfInput).await;
        peer.expect(Kind::Cancel).await;
        peer.end(Status::cancelled("cancelled", ""), false).await;
    };
    let client = async |client: &mut Client| {
        let mut exchange = client.open(&Open::new("x")).await.expect("a call");
        exchange.finish().await.expect("an open connection");
        exchange.cancel().await.expect("an open connection");
        exchange.end().await.expect("an end")
    };
    assert_eq!(play(peer, client).await.status.code(), Code::Cancelled);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_from_a_lost_connection() {
    let head = FrameHeader::new(Kind::Head, 2).encode();
    let twice = [&head[..], b"{}", &head, b"{}"].concat();
    let open = [&FrameHeader::new(Kind::Open, 2).encode()[..], b"{}"].concat();
    let end = [&FrameHeader::new(Kind::End, 1).encode()[..], b"x"].concat();
    let long = FrameHeader::new(Kind::Data, u32::MAX).encode();
    for bytes in [&twice[..], &open, &end, &long, &[9; 8]] {
        let peer = async |peer: &mut Peer| {
            peer.expect(Kind::Open).await;
            peer.write(bytes).await;
        };
        let client = async |client: &mut Client| client.call(&Open::new("x"), "").await.expect_err("no call");
        let error = play(peer, client).await;
        assert!(matches!(error, CallError::Client(ClientError::Protocol(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_stranger_is_named() {
    let (near, mut far) = tokio::io::duplex(1024);
    let mut client = Client::over(near);
    far.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.expect("an open pipe");
    let error = bounded(client.call(&Open::new("x"), "")).await.expect_err("no plugd server");
    assert_eq!(error.to_string(), "protocol broken by the server: expected a plugd hello, found an ssh banner");
}

#[tokio::test]
async fn a_reply_over_the_bound_is_refused() {
    let peer = async |peer: &mut Peer| {
        peer.expect(Kind::Open).await;
        peer.data(b"12345").await;
    };
    let client = async |client: &mut Client| {
        let mut exchange = client.open(&Open::new("x")).await.expect("a call");
        let (sender, receiver) = exchange.split();
        sender.flush().await.expect("an open connection");
        receiver.reply(4).await.expect_err("too long")
    };
    let error = play(peer, client).await;
    assert!(matches!(error, ClientError::ReplyTooLong { allowed: 4 }), "{error:?}");
}

#[tokio::test]
async fn connecting_waits_for_a_server_that_comes_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let address = ServerAddress::Unix(path.clone());
    let error = Client::connect(&address).await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    // The first try is made, and fails, before the listener gets its turn.
    let late = async { tokio::net::UnixListener::bind(&path) };
    let connector = Connector::new(address).wait(Duration::from_secs(5));
    let (client, listener): (_, io::Result<_>) = tokio::join!(connector.connect(), late);
    listener.expect("a free path");
    client.expect("a connection");
}

#[tokio::test]
async fn waiting_ends_with_the_error_of_the_last_try() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = ServerAddress::Unix(directory.path().join("socket"));
    let connector = Connector::new(address).wait(Duration::from_millis(50));
    let error = bounded(connector.connect()).await;
    let error = error.expect_err("nobody listens");
    assert!(matches!(&error, ClientError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_goes_with_the_first_call_only() {
    let peer = async |peer: &mut Peer| {
        for expected in [Some("secret"), None] {
            let open = peer.expect(Kind::Open).await;
            let open = Open::decode(&open).expect("a good header");
            assert_eq!(open.auth.map(|auth| auth.token).as_deref(), expected);
            peer.expect(Kind::EndOfInput).await;
            peer.end(Status::ok(), false).await;
        }
    };
    play(peer, async |client: &mut Client| {
        client.authenticate(Token::new("secret").expect("a token"));
        for _ in 0..2 {
            client.call(&Open::new("upper"), "").await.expect("a good end");
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_goes_to_other_machines_only_by_tls() {
    let token = Token::new("secret").expect("a token");
    // An address that nobody has (RFC 5737): connecting would fail in another way, and late.
    let connector = Connector::new("192.0.2.1:1".parse().expect("an address")).token(token);
    let error = connector.connect().await.expect_err("a refusal");
    assert!(matches!(error, ClientError::CleartextToken { .. }), "{error:?}");
    assert!(!format!("{connector:?} {error} {error:?}").contains("secret"));
}
