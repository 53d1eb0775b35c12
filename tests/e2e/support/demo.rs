//! A handler with an operation for each way to behave, well or badly.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use async_trait::async_trait;
use plugd_core::{Call, Descriptor, Handler, Operation, Status, Streaming};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

plugd_core::register!(|| {
    Descriptor::new("demo", "behaves in every way that a test needs")
        .operation(
            Operation::new("report", "sends a header, data on two channels, and a trailer").output_channel(1, "stderr"),
        )
        .operation(
            Operation::new("repeat", "sends each piece of input several times")
                .streams(Streaming::Both)
                .args::<RepeatArgs>(),
        )
        .operation(Operation::new("wait", "never ends by itself"))
        .operation(Operation::new("panic", "panics"))
        .operation(Operation::new("stubborn", "never ends, and ignores that it is cancelled"))
        .operation(Operation::new("flood", "sends without end").streams(Streaming::Server))
        .operation(Operation::new("refuse", "fails with a status and a trailer"))
        .operation(Operation::new("deaf", "reads no input until it is cancelled, then says how much it moved"))
        .operation(Operation::new("head-late", "sends its header after data"))
        .operation(Operation::new("fill", "sends so many bytes").args::<FillArgs>())
        .operation(Operation::new("block", "blocks its thread until a file is there").args::<BlockArgs>())
        .operation(Operation::new("panic-in-drop", "panics when it is dropped"))
        .handler(|| Demo)
});

/// The arguments of `repeat`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RepeatArgs {
    /// How many times.
    times: usize,
}

#[derive(Debug)]
struct Demo;

#[async_trait]
impl Handler for Demo {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "report" => report(call).await,
            "repeat" => repeat(call).await,
            "wait" | "deaf" => {
                call.cancelled().await;
                Ok(())
            }
            "panic" => panic!("as asked"),
            "stubborn" => std::future::pending().await,
            "flood" => loop {
                call.send(vec![7; 64 << 10]).await?;
            },
            "refuse" => {
                call.set_trailer(&json!({ "left": 3 }))?;
                Err(Status::failed_precondition("not-today", "not today").with_detail("only for the log"))
            }
            "fill" => fill(call).await,
            "block" => {
                let BlockArgs { until, entered } = call.args()?;
                std::fs::write(&entered, "").expect("a directory");
                while !until.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Ok(())
            }
            "panic-in-drop" => {
                let _bomb = Bomb;
                std::future::pending().await
            }
            "head-late" => {
                call.send("data").await?;
                call.head(&json!({}))
            }
            operation => Err(Status::internal("demo", format!("no such way to behave: {operation}"))),
        }
    }
}

/// The arguments of `fill`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FillArgs {
    /// How many bytes.
    len: usize,
}

/// The arguments of `block`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BlockArgs {
    /// The file.
    until: std::path::PathBuf,
    /// A file that says that the thread is blocked.
    entered: std::path::PathBuf,
}

async fn fill(call: &mut Call) -> Result<(), Status> {
    let FillArgs { mut len } = call.args()?;
    while len > 0 {
        let piece = len.min(64 << 10);
        call.send(vec![7; piece]).await?;
        len -= piece;
    }
    Ok(())
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as asked");
    }
}

plugd_core::register!(|| {
    Descriptor::new("hasty", "panics before it has made a future")
        .operation(Operation::new("hasty", "panics before it has made a future"))
        .handler(|| Hasty)
});

#[derive(Debug)]
struct Hasty;

impl Handler for Hasty {
    fn handle<'s, 'c, 'f>(
        &'s self,
        _call: &'c mut Call,
    ) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'f>>
    where
        's: 'f,
        'c: 'f,
    {
        panic!("as asked");
    }
}

async fn report(call: &mut Call) -> Result<(), Status> {
    call.head(&json!({ "size": 3 }))?;
    let (_, output) = call.split();
    output.send("out").await?;
    output.send_on(1, "err").await?;
    call.set_trailer(&json!({ "lines": 1 }))
}

async fn repeat(call: &mut Call) -> Result<(), Status> {
    let RepeatArgs { times } = call.args()?;
    while let Some(data) = call.recv().await? {
        call.send(data.repeat(times)).await?;
    }
    Ok(())
}

plugd_core::register!(|| {
    Descriptor::new("parting", "ends well and panics when its future is dropped")
        .operation(Operation::new("parting", "ends well and panics when its future is dropped"))
        .handler(|| Parting)
});

#[derive(Debug)]
struct Parting;

impl Handler for Parting {
    fn handle<'s, 'c, 'f>(
        &'s self,
        _call: &'c mut Call,
    ) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'f>>
    where
        's: 'f,
        'c: 'f,
    {
        let bomb = Bomb;
        Box::pin(poll_fn(move |_| {
            let _held = &bomb;
            Poll::Ready(Ok(()))
        }))
    }
}
