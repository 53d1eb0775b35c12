//! The least that running a command for somebody else can cost: tokio on one thread, its own way to start processes, and
//! both streams in frames.
//!
//! The frames look as plugd's do, so that one client can talk with both, but here is nothing else of it: no hello, no
//! input, no limits, nobody who looks for what a command left behind.

use std::io;
use std::process::Stdio;

use bytes::BytesMut;
use nix::fcntl::{FcntlArg, fcntl};
use plugd_core::wire::{FRAME_HEADER_LEN, FrameHeader, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// How much is read at once of what a command prints, in bytes.
const READ_LEN: usize = 256 << 10;

/// What a pipe is made to hold when its command fills it, in bytes: the most that anybody may ask for.
const PIPE_LEN: i32 = 1 << 20;

/// What a pipe holds at first, in bytes.
const PIPE_LEN_BEFORE: usize = 64 << 10;

/// Serves until it is killed.
///
/// ```text
/// request  OPEN frame: the program and its arguments, a zero byte between them
/// answer   DATA frames, standard output on channel 0, standard error on channel 1
///          END frame: {"code":0,"trailer":{"exit":{"code":N}}}
/// ```
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("bare exec listening on {}", listener.local_addr().expect("an address"));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = converse(stream).await {
                    eprintln!("bare exec: {error}");
                }
            });
        }
    });
}

/// One request of [`serve`].
pub fn request(argv: &[&str]) -> Vec<u8> {
    super::frame(Kind::Open, argv.join("\0").as_bytes())
}

/// One command after the other, until the client leaves.
async fn converse(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = BytesMut::with_capacity(4 << 10);
    let mut pieces = [Piece::new(0), Piece::new(1)];
    loop {
        received.reserve(4 << 10);
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        while let Some(header) = received.first_chunk::<FRAME_HEADER_LEN>() {
            let len = FRAME_HEADER_LEN + u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if received.len() < len {
                break;
            }
            let request = received.split_to(len);
            let argv = String::from_utf8_lossy(&request[FRAME_HEADER_LEN..]);
            let code = run(&mut stream, &mut pieces, &argv).await?;
            let end = format!("{{\"code\":0,\"trailer\":{{\"exit\":{{\"code\":{code}}}}}}}");
            stream.write_all(&super::frame(Kind::End, end.as_bytes())).await?;
        }
    }
}

async fn run(stream: &mut TcpStream, [out, err]: &mut [Piece; 2], argv: &str) -> io::Result<i32> {
    let mut words = argv.split('\0');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    loop {
        tokio::select! {
            len = out.read(&mut stdout), if stdout.is_some() => {
                let len = len?;
                if len == PIPE_LEN_BEFORE && let Some(stdout) = &stdout {
                    let _ = fcntl(stdout, FcntlArg::F_SETPIPE_SZ(PIPE_LEN));
                }
                out.write(len, stream).await?;
            }
            len = err.read(&mut stderr), if stderr.is_some() => {
                let len = len?;
                err.write(len, stream).await?;
            }
            else => break,
        }
    }
    child.wait().await?.code().ok_or_else(|| io::Error::other("the command was killed"))
}

/// What is read at once of one stream, behind room for the header.
struct Piece {
    channel: u8,
    buf: Vec<u8>,
}

impl Piece {
    fn new(channel: u8) -> Piece {
        Piece { channel, buf: vec![0; FRAME_HEADER_LEN + READ_LEN] }
    }

    /// Reads once; the stream is gone at its end.
    async fn read(&mut self, source: &mut Option<impl AsyncRead + Unpin>) -> io::Result<usize> {
        let Some(open) = source else { return Ok(0) };
        let len = open.read(&mut self.buf[FRAME_HEADER_LEN..]).await?;
        if len == 0 {
            *source = None;
        }
        Ok(len)
    }

    async fn write(&mut self, len: usize, stream: &mut TcpStream) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let header = FrameHeader { channel: self.channel, ..FrameHeader::new(Kind::Data, len as u32) };
        self.buf[..FRAME_HEADER_LEN].copy_from_slice(&header.encode());
        stream.write_all(&self.buf[..FRAME_HEADER_LEN + len]).await
    }
}
