//! Rooms in which callers talk: what one of them says, all others hear, line by line.

mod lines;
mod room;
mod settings;
mod word;

use lines::Lines;
use plugd_core::prelude::*;
use room::{Heard, Rooms};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
pub use settings::ChatSettings;
pub use word::{WORD_LEN_MAX, Word};

/// Rooms in which callers talk; every plugin has its own.
#[derive(Debug)]
pub struct Chat {
    rooms: Rooms,
    line_len_max: usize,
}

/// The arguments of `join`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JoinArgs {
    /// The name that the others see: 1 to 32 characters without spaces, which nobody else in the room has. Without it the
    /// caller is a guest with a number.
    name: Option<Word>,
    /// The room; it is there as long as somebody is in it.
    #[serde(default = "lobby")]
    room: Word,
}

fn lobby() -> Word {
    Word::new("lobby").expect("a good word")
}

#[async_trait]
impl Handler for Chat {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "join" => self.join(call).await,
            "rooms" => call.send(self.rooms.to_string()).await,
            other => Err(Status::unimplemented("unknown-operation", format!("no operation {other:?}"))),
        }
    }
}

impl Chat {
    /// Talks and listens until the caller's input ends. However the call ends, the member leaves with it.
    async fn join(&self, call: &mut Call) -> Result<(), Status> {
        let JoinArgs { name, room } = call.args()?;
        let mut member = self.rooms.join(&room, name)?;
        call.head(&json!({ "room": room, "name": member.name(), "members": member.others() }))?;
        let mut lines = Lines::new(self.line_len_max);
        let (input, output) = call.split();
        loop {
            // A caller that does not read is not listened to either, and misses what is said meanwhile.
            tokio::select! {
                said = input.recv() => match said? {
                    Some(data) => lines.push(&data, |line| member.say(line))?,
                    None => break,
                },
                heard = member.hear() => match heard {
                    Heard::Line(line) => output.send(line).await?,
                    Heard::Missed(count) => output.send(format!("* {count} lines missed\n")).await?,
                },
            }
        }
        lines.finish(|line| member.say(line));
        Ok(())
    }
}

fn descriptor() -> Descriptor {
    Descriptor::new("chat", "rooms in which callers talk by lines")
        .operation(
            Operation::new("join", "talks in a room, until the input ends").streams(Streaming::Both).args::<JoinArgs>(),
        )
        .operation(Operation::new("rooms", "lists the rooms and who is in them"))
        .settings::<ChatSettings>()
}

plugd_core::register!(descriptor);
