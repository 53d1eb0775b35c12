//! Upper-cases text as it streams.

mod config;
mod transform;

pub use config::{Invalid, Mode, UpperSettings};
use plugd_core::prelude::*;
use plugd_core::wire::CHANNEL_MAIN;
use transform::{InvalidUtf8, Transform};

/// Answers each frame of text with the same text in upper case.
#[derive(Debug, Clone, Copy)]
pub struct Upper {
    settings: UpperSettings,
}

impl Upper {
    /// A handler with these settings.
    pub fn new(settings: UpperSettings) -> Upper {
        Upper { settings }
    }
}

#[async_trait]
impl Handler for Upper {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let (input, output) = call.split();
        let mut transform = Transform::new(self.settings);
        while let Some(data) = input.recv_data().await? {
            check_channel(data.channel)?;
            let payload = transform.push(data.payload).map_err(refusal)?;
            output.send_data(Data { payload, ..data }).await?;
        }
        let rest = transform.finish().map_err(refusal)?;
        if !rest.is_empty() {
            output.send(rest).await?;
        }
        Ok(())
    }
}

fn check_channel(channel: u8) -> Result<(), Status> {
    if channel == CHANNEL_MAIN {
        return Ok(());
    }
    let message = format!("data on channel {channel}; this operation takes channel {CHANNEL_MAIN}");
    Err(Status::invalid_argument("unexpected-channel", message))
}

fn refusal(error: InvalidUtf8) -> Status {
    Status::invalid_argument("invalid-utf8", error.to_string())
}

fn descriptor() -> Descriptor {
    Descriptor::new("upper", "upper-cases text as it streams")
        .operation(Operation::new("upper", "answers with the same text in upper case").streams(Streaming::Both))
        .settings::<UpperSettings>()
}

plugd_core::register!(descriptor);
