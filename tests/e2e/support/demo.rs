//! A handler with an operation for each way to behave, well or badly.

use async_trait::async_trait;
use plugd_core::{Call, Descriptor, Handler, Operation, Status, Streaming};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

plugd_core::register!(|| {
    Descriptor::new("demo", "behaves in every way that a test needs")
        .operation(Operation::new("report", "sends a header, data on two channels, and a trailer").channel(1, "stderr"))
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
            "head-late" => {
                call.send("data").await?;
                call.head(&json!({}))
            }
            operation => Err(Status::internal("demo", format!("no such way to behave: {operation}"))),
        }
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
