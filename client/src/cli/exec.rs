//! `plug exec`: one command, with its streams and its exit code handed through.

use plugd_core::Code;
use serde_json::{Map, json};

use super::answer::Answer;
use super::exit;
use super::failure::Failure;
use super::options::Exec;
use super::session::Session;
use super::stream::{Source, exchange, receive};
use crate::Reply;

pub(crate) async fn run(session: &mut Session<'_>, options: &Exec) -> Result<Answer, Failure> {
    let json = session.options().json;
    let command = session.command("exec").await?;
    let mut call = session.open(&command, Map::from_iter([("argv".to_owned(), json!(options.argv))])).await?;
    let (sender, receiver) = call.split();
    let reply = exchange(Source::stdin()?.send_as_it_comes(sender), receive(receiver, json)).await?;
    match exit_code(&reply) {
        Some(exit) => Ok(Answer { exit, ..Answer::of(reply) }),
        None if reply.status.is_ok() => Err(Failure::protocol("exec ended without an exit code")),
        None => Err(Failure::Status(Box::new(reply))),
    }
}

/// The code to exit with, when it was the command that ended the call: well, or in its own way.
fn exit_code(reply: &Reply) -> Option<u8> {
    if !matches!(reply.status.code(), Code::Ok | Code::Unknown) {
        return None;
    }
    let exit = reply.trailer.as_ref()?.get("exit")?;
    if let Some(signal) = exit["signal"].as_u64() {
        return Some(exit::of_signal(u8::try_from(signal).unwrap_or(u8::MAX)));
    }
    exit["code"].as_u64().map(|code| u8::try_from(code).unwrap_or(exit::EXEC_FAILED))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::Status;

    fn code(status: Status, trailer: Value) -> Option<u8> {
        exit_code(&Reply { status, trailer: trailer.as_object().cloned(), ..Reply::default() })
    }

    #[test]
    fn the_commands_own_code_is_handed_through() {
        assert_eq!(code(Status::ok(), json!({"exit": {"code": 3}})), Some(3));
        assert_eq!(code(Status::unknown("exit", "x"), json!({"exit": {"code": 3}})), Some(3));
        assert_eq!(code(Status::ok(), json!({"exit": {"signal": 9, "core": false}})), Some(137));
    }

    #[test]
    fn an_end_that_is_not_the_commands_has_no_code_of_it() {
        assert_eq!(code(Status::deadline_exceeded("x", "y"), json!({"exit": {"signal": 9}})), None);
        assert_eq!(code(Status::ok(), json!({})), None);
    }
}
