//! What handlers send, parts of files above all, over every kind of stream.

use std::fs::File;
use std::future::poll_fn;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use plugd_core::Status;
use plugd_core::transport::{Connection, Inbound, Interrupt, Stream};
use plugd_core::wire::{End, Frame, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind, Open};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const FILE_LEN: usize = 3_000_000;

/// What the client accepts; a file's part is longer.
const DATA_LEN_MAX: u32 = 100_000;

fn content() -> Vec<u8> {
    (0..FILE_LEN).map(|index| (index * 31 / 7) as u8).collect()
}

fn file(content: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(content).expect("room");
    Arc::new(file)
}

/// Opens a call and returns all frames up to the end of the stream.
async fn receive(mut io: impl AsyncRead + AsyncWrite + Unpin) -> Vec<Frame> {
    let open = Open::new("x").encode();
    let header = FrameHeader::new(Kind::Open, open.len() as u32).encode();
    let hello = Hello { data_len_max: DATA_LEN_MAX }.encode();
    io.write_all(&[&hello[..], &header, &open].concat()).await.expect("an open stream");
    io.read_exact(&mut [0; HELLO_LEN]).await.expect("a hello");
    let mut inbound = Inbound::new(FrameLimits { data_len_max: DATA_LEN_MAX, ..FrameLimits::default() });
    let mut frames = Vec::new();
    loop {
        while let Some(frame) = inbound.take().expect("good frames") {
            frames.push(frame);
        }
        if inbound.fill(&mut io).await.unwrap_or_default() == 0 {
            assert!(inbound.is_empty() || inbound.len() < DATA_LEN_MAX as usize, "a part of a frame at the most");
            return frames;
        }
    }
}

/// Serves one call with `send`, and its end when the stream did not break.
async fn serve<F>(io: Box<dyn Stream>, send: impl FnOnce(plugd_core::Output) -> F) -> Result<Status, Interrupt>
where
    F: Future<Output = Result<(), Status>>,
{
    let mut connection = Connection::new(io, FrameLimits::default());
    connection.greet().await.expect("a hello");
    poll_fn(|cx| connection.poll_next(cx)).await.expect("an opening header");
    let (input, output, watch) = connection.begin();
    let outcome = tokio::select! {
        biased;
        sent = send(output) => Ok(sent.err().unwrap_or_else(Status::ok)),
        interrupt = watch.interrupted() => Err(interrupt),
    };
    drop((input, watch));
    if let Ok(status) = &outcome {
        let _ = connection.finish(&End::from(status.clone()), true);
        connection.flush().await.expect("a reader");
    }
    outcome
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let far = TcpStream::connect(listener.local_addr().expect("a port")).await.expect("a listener");
    let (near, _) = listener.accept().await.expect("a caller");
    (near, far)
}

/// The bytes of each message.
fn messages(frames: &[Frame]) -> Vec<Bytes> {
    let mut messages = vec![Vec::new()];
    for frame in frames.iter().filter(|frame| frame.header.kind == Kind::Data) {
        messages.last_mut().expect("at least one").extend_from_slice(&frame.payload);
        if !frame.header.more {
            messages.push(Vec::new());
        }
    }
    assert_eq!(messages.pop(), Some(Vec::new()), "the last message is whole");
    messages.into_iter().map(Bytes::from).collect()
}

async fn parts_arrive_over(near: Box<dyn Stream>, far: impl AsyncRead + AsyncWrite + Unpin) {
    let content = content();
    let file = file(&content);
    let send = async |mut output: plugd_core::Output| {
        output.send("before").await?;
        output.send_file(&file, 0..FILE_LEN as u64, false).await?;
        output.send_file(&file, 7..7, false).await?;
        output.send_file(&file, 10..1_000_000, true).await?;
        output.send("between").await?;
        output.send_file(&file, 2_999_999..FILE_LEN as u64, false).await?;
        output.written().await
    };
    let (served, frames) = tokio::join!(serve(near, send), receive(far));
    assert!(served.expect("no interrupt").is_ok());
    let expected =
        [b"before", &content[..], b"", &[&content[10..1_000_000], b"between"].concat(), &content[2_999_999..]]
            .map(Bytes::copy_from_slice);
    assert!(messages(&frames) == expected);
    assert_eq!(frames.last().expect("an end").header.kind, Kind::End);
}

#[tokio::test]
async fn parts_of_files_arrive_whole_and_in_order_over_every_stream() {
    let (near, far) = tokio::io::duplex(10_000);
    parts_arrive_over(Box::new(near), far).await;
    let (near, far) = UnixStream::pair().expect("two sockets");
    parts_arrive_over(Box::new(near), far).await;
    let (near, far) = tcp_pair().await;
    parts_arrive_over(Box::new(near), far).await;
}

#[tokio::test]
async fn a_file_that_became_shorter_is_refused_before_its_bytes_are_announced() {
    let (near, far) = UnixStream::pair().expect("two sockets");
    let file = file(&[7; 1000]);
    let send = async |mut output: plugd_core::Output| {
        output.send_file(&file, 0..1000, true).await?;
        output.written().await?;
        file.set_len(500).expect("a file of ours");
        output.send_file(&file, 0..1000, false).await
    };
    let (served, _) = tokio::join!(serve(Box::new(near), send), receive(far));
    assert_eq!(served.expect("no interrupt").reason(), "source-changed");
}

#[tokio::test]
async fn an_empty_part_is_a_message_unless_the_message_goes_on() {
    let (near, far) = UnixStream::pair().expect("two sockets");
    let file = file(b"abc");
    let send = async |mut output: plugd_core::Output| {
        output.send_file(&file, 3..3, true).await?;
        output.send_file(&file, 1..1, false).await
    };
    let (served, frames) = tokio::join!(serve(Box::new(near), send), receive(far));
    assert!(served.expect("no interrupt").is_ok());
    assert_eq!(messages(&frames), [Bytes::new()]);
    assert_eq!(frames.len(), 2, "one empty frame and the end: {frames:?}");
}

#[tokio::test]
async fn a_part_that_ends_before_it_begins_is_refused() {
    let (near, far) = UnixStream::pair().expect("two sockets");
    let file = file(b"abc");
    #[expect(clippy::reversed_empty_ranges, reason = "what a mistaken handler asks for")]
    let send = async |mut output: plugd_core::Output| output.send_file(&file, 3..1, false).await;
    let (served, frames) = tokio::join!(serve(Box::new(near), send), receive(far));
    assert_eq!(served.expect("no interrupt").reason(), "malformed-part");
    assert_eq!(frames.len(), 1, "the end alone: {frames:?}");
}

#[tokio::test]
async fn a_file_that_becomes_shorter_within_a_frame_breaks_the_connection_and_is_never_filled_up() {
    fn pair<S: Stream>((near, far): (S, S)) -> [Box<dyn Stream>; 2] {
        [Box::new(near), Box::new(far)]
    }
    let pairs = [pair(UnixStream::pair().expect("two sockets")), pair(tcp_pair().await), pair(tokio::io::duplex(64))];
    for [near, far] in pairs {
        let file = file(&[7; 1000]);
        let send = async |mut output: plugd_core::Output| {
            output.send_file(&file, 0..1000, false).await?;
            file.set_len(500).expect("a file of ours");
            output.written().await
        };
        let (served, frames) = tokio::join!(serve(near, send), receive(far));
        assert!(matches!(served, Err(Interrupt::Source(_))), "{served:?}");
        assert_eq!(frames, [], "no frame came whole");
    }
}

#[tokio::test]
async fn an_empty_batch_is_nothing_and_a_header_may_follow() {
    let (near, far) = UnixStream::pair().expect("two sockets");
    let send = async |mut output: plugd_core::Output| {
        output.send_batch(plugd_core::Batch::default()).await?;
        output.head(&serde_json::json!({ "size": 0 }))
    };
    let (served, frames) = tokio::join!(serve(Box::new(near), send), receive(far));
    assert!(served.expect("no interrupt").is_ok());
    assert_eq!(frames.iter().map(|frame| frame.header.kind).collect::<Vec<_>>(), [Kind::Head, Kind::End]);
}
