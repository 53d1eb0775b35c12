//! Handlers that take files and keep none: one as an older server has it, one that lies about many files at once.

use async_trait::async_trait;
use plugd_core::{Call, Data, Descriptor, Handler, Operation, Status, Streaming};
use serde_json::{Value, json};

plugd_core::register!(|| {
    let put = Operation::new("put", "takes a file").streams(Streaming::Client).has_effects().args::<Value>();
    let mkdir = Operation::new("mkdir", "makes nothing").has_effects().args::<Value>();
    Descriptor::new("old_depot", "takes files one by one").operation(put).operation(mkdir).handler(|| Depot)
});

plugd_core::register!(|| {
    let any = |name| Operation::new(name, "takes files").streams(Streaming::Both).has_effects().args::<Value>();
    let put_all = any("put_all").input_channel(2, "file");
    let lying = Descriptor::new("lying_depot", "lies about files").operation(any("put")).operation(put_all);
    lying.operation(any("mkdir")).handler(|| Depot)
});

#[derive(Debug)]
struct Depot;

#[async_trait]
impl Handler for Depot {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let operation = call.operation().to_owned();
        let (input, output) = call.split();
        let (mut size, mut paths) = (0, Vec::new());
        while let Some(Data { channel, payload, .. }) = input.recv_data().await? {
            match channel {
                2 => paths.push(serde_json::from_slice::<Value>(&payload).expect("JSON")["path"].clone()),
                _ => size += payload.len(),
            }
        }
        if operation == "mkdir" {
            return Ok(());
        }
        let receipt = |size| json!({ "size": size, "published": true });
        if operation == "put" {
            return output.set_trailer(&receipt(size));
        }
        let path = |index: usize| paths[index].as_str().expect("a path").to_owned();
        let good = |index| json!({ "path": path(index), "receipt": receipt(1) });
        let lines = match path(0).split('/').next() {
            Some("few") => vec![good(0)],
            Some("many") => vec![good(0), good(1), good(1)],
            Some("swapped") => vec![good(1), good(0)],
            Some("nothing") => vec![json!({ "path": path(0) }), good(1)],
            Some("both") => vec![json!({ "path": path(0), "receipt": receipt(1), "status": { "code": 5 } }), good(1)],
            Some("status") => vec![json!({ "path": path(0), "status": { "code": 99 } }), good(1)],
            Some("size") => vec![json!({ "path": path(0), "receipt": receipt(2) }), good(1)],
            Some("failed") => return Err(Status::failed_precondition("closed", "the depot is closed")),
            _ => vec![good(0), good(1)],
        };
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        output.send(text).await
    }
}
