//! A handler that speaks as the one for files does, and lies.

use async_trait::async_trait;
use plugd_core::{Call, Descriptor, Handler, Operation, Status, Streaming};
use serde_json::{Value, json};

plugd_core::register!(|| {
    let any = |name| Operation::new(name, "lies").streams(Streaming::Server).args::<Value>();
    Descriptor::new("evil", "lies about files")
        .operation(any("ls"))
        .operation(any("stat"))
        .operation(any("get"))
        .handler(|| Evil)
});

/// What every one of its files holds.
pub(crate) const CONTENT: &str = "evil";

/// Half a file that is too large to be held in memory, in bytes.
const HALF_LEN: usize = 300_000;

/// Names that lead out of a directory, or nowhere, between two that are good. `link` is for a trap that the test sets.
const NAMES: [&str; 8] = ["good", "../out", "/tmp/plug-evil", "a/../../out", "", ".", "link/in", "z"];

#[derive(Debug)]
struct Evil;

#[async_trait]
impl Handler for Evil {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let Value::Object(args) = call.args::<Value>()? else { return Ok(()) };
        let path = args.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
        let file = json!({"kind": "file", "size": CONTENT.len(), "mtime_s": 1, "mtime_ns": 0, "mode": 0o644});
        match (call.operation(), &*path) {
            ("stat", _) => call.send(json!({"kind": "dir"}).to_string()).await,
            ("ls", "gap") => {
                call.send(line("good", &file)).await?;
                Err(Status::permission_denied("no-access", "one directory cannot be read"))
            }
            ("ls", "times") => {
                for name in ["a", "b", "c"] {
                    call.send(line(name, &file)).await?;
                }
                Ok(())
            }
            ("get", "times/a") => {
                // No time has so many nanoseconds.
                call.head(&json!({"size": CONTENT.len(), "mtime_s": 1, "mtime_ns": u32::MAX, "unchanged": true}))
            }
            // Nothing was compared, so nothing can be the same.
            ("get", "unasked") => call.head(&json!({"size": CONTENT.len(), "mtime_s": 1, "unchanged": true})),
            // The rest of another file than the one whose first half came.
            ("get", "swapped") => {
                let offset = args.get("offset").and_then(Value::as_u64).unwrap_or(0);
                let etag = if offset == 0 { "one" } else { "other" };
                call.head(&json!({"size": 2 * HALF_LEN, "mtime_s": 1, "etag": etag, "offset": offset}))?;
                call.send(vec![etag.as_bytes()[0]; HALF_LEN]).await?;
                if offset == 0 { Err(Status::unavailable("busy", "later")) } else { Ok(()) }
            }
            ("ls", _) => {
                for name in NAMES {
                    call.send(line(name, &file)).await?;
                }
                Ok(())
            }
            _ => {
                call.head(&json!({"size": CONTENT.len(), "mtime_s": 1, "mode": 0o644, "etag": "e", "offset": 0}))?;
                call.send(CONTENT).await
            }
        }
    }
}

fn line(name: &str, facts: &Value) -> String {
    let mut line = facts.clone();
    line["name"] = name.into();
    format!("{line}\n")
}
