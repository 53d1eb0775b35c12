//! tonic, with messages of raw bytes: no generated code, so that only gRPC itself is measured.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::load::{Load, Measured};

const UNARY: &str = "/bench.Echo/Unary";
const STREAM: &str = "/bench.Echo/Stream";

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}

#[derive(Debug, Clone, Copy)]
struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = BoxFuture<Response<Streaming<Bytes>>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(BytesCodec);
            Ok(match request.uri().path() {
                UNARY => grpc.unary(Echo, request).await,
                STREAM => grpc.streaming(Echo, request).await,
                _ => http::Response::new(tonic::body::Body::default()),
            })
        })
    }
}

/// Serves until it is killed.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("tonic listening on {}", listener.local_addr().expect("an address"));
        let incoming = TcpListenerStream::new(listener);
        Server::builder().tcp_nodelay(true).add_service(Echo).serve_with_incoming(incoming).await.expect("a server");
    });
}

async fn client(address: SocketAddr) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").tcp_nodelay(true);
    Grpc::new(endpoint.connect().await.expect("a listening peer")).max_decoding_message_size(64 << 20)
}

/// Loads the peer with `payload`, in whole calls or in messages of one call for each connection.
pub fn run(address: SocketAddr, payload: &[u8], load: Load, stream: bool) -> Measured {
    let payload = Bytes::copy_from_slice(payload);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let end = start + load.duration;
        let mut tasks = Vec::new();
        for _ in 0..load.connections {
            let grpc = client(address).await;
            match stream {
                true => tasks.push(tokio::spawn(messages(grpc, payload.clone(), load.pipeline, end))),
                false => {
                    tasks.extend((0..load.pipeline).map(|_| tokio::spawn(calls(grpc.clone(), payload.clone(), end))))
                }
            }
        }
        let mut latency_ns = crate::load::histogram();
        for task in tasks {
            latency_ns.add(task.await.expect("good answers")).expect("equal histograms");
        }
        Measured { requests: latency_ns.len(), elapsed: start.elapsed(), latency_ns }
    })
}

async fn calls(mut grpc: Grpc<Channel>, payload: Bytes, end: Instant) -> hdrhistogram::Histogram<u64> {
    let mut latency_ns = crate::load::histogram();
    while Instant::now() < end {
        let begun = Instant::now();
        grpc.ready().await.expect("a channel");
        let path = PathAndQuery::from_static(UNARY);
        let answer = grpc.unary(Request::new(payload.clone()), path, BytesCodec).await.expect("an answer");
        assert!(answer.into_inner() == payload, "a wrong answer");
        latency_ns.record(begun.elapsed().as_nanos() as u64).expect("within the bounds");
    }
    latency_ns
}

async fn messages(
    mut grpc: Grpc<Channel>,
    payload: Bytes,
    pipeline: usize,
    end: Instant,
) -> hdrhistogram::Histogram<u64> {
    let mut latency_ns = crate::load::histogram();
    let (sender, receiver) = tokio::sync::mpsc::channel(pipeline);
    for _ in 0..pipeline {
        sender.send(payload.clone()).await.expect("a receiver");
    }
    grpc.ready().await.expect("a channel");
    let path = PathAndQuery::from_static(STREAM);
    let request = Request::new(ReceiverStream::new(receiver));
    let mut answers = grpc.streaming(request, path, BytesCodec).await.expect("an answer").into_inner();
    let mut sent_at = Instant::now();
    while Instant::now() < end {
        let answer = answers.next().await.expect("an answer").expect("a good answer");
        assert!(answer == payload, "a wrong answer");
        latency_ns.record(sent_at.elapsed().as_nanos() as u64).expect("within the bounds");
        sent_at = Instant::now();
        sender.send(payload.clone()).await.expect("a receiver");
    }
    latency_ns
}
