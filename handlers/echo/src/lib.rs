//! Streams back what comes, frame by frame.

use plugd_core::prelude::*;

/// Sends every frame back as it came: the same channel, the same payload, the same message boundaries.
///
/// A payload is passed on from where it was received and is never copied here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let (input, output) = call.split();
        while let Some(batch) = input.recv_batch().await? {
            output.send_batch(batch).await?;
        }
        Ok(())
    }
}

fn descriptor() -> Descriptor {
    Descriptor::new("echo", "streams back what comes, frame by frame")
        .operation(Operation::new("echo", "streams back what comes, on any channel").streams(Streaming::Both))
        .handler(Echo::default)
}

plugd_core::register!(descriptor);
