//! The least that a server can do: tokio on one thread, four bytes of length before each message, all of it sent back.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves until it is killed.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("raw echo listening on {}", listener.local_addr().expect("an address"));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
}

/// All messages that have arrived leave in one write.
async fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut received = BytesMut::with_capacity(4 << 10);
    let mut out = BytesMut::with_capacity(4 << 10);
    loop {
        received.reserve(4 << 10);
        match stream.read_buf(&mut received).await {
            Ok(1..) => {}
            _ => return,
        }
        while let Some(header) = received.first_chunk::<4>() {
            let message_len = 4 + u32::from_be_bytes(*header) as usize;
            if received.len() < message_len {
                received.reserve(message_len - received.len());
                break;
            }
            out.extend_from_slice(&received[..message_len]);
            received.advance(message_len);
        }
        if !out.is_empty() {
            if stream.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
        }
    }
}
