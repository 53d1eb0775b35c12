//! How a command's call ended: one word, one exit code, one object for programs.

use plugd_core::{Code, Origin};
use serde_json::{Map, Value, json};

use crate::cli::envelope::{ErrorObject, StatusObject};
use crate::cli::exit;
use crate::cli::failure::Failure;
use crate::{ClientError, Reply};

const DEADLINE: u8 = 124;
const BAD_CWD: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Which exit codes a verb uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codes {
    /// The command's own, and those around it.
    Exec,
    /// Those of every other verb.
    Call,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// What happened, in one word.
    pub(crate) word: &'static str,
    /// The exit code.
    pub(crate) exit: u8,
    /// Whether the command, or the call, ended by itself, so that there is nothing to complain of.
    pub(crate) is_own: bool,
    /// The object for programs: `end`, `exit_code`, `status` or `error`, and what the server told in header and trailer.
    pub(crate) object: Map<String, Value>,
}

impl Ending {
    pub(crate) fn of(codes: Codes, result: &Result<Reply, Failure>) -> Ending {
        let (word, exit, is_own) = match (codes, result) {
            (Codes::Exec, Ok(reply)) => of_command(reply),
            (Codes::Exec, Err(Failure::Status(reply))) => of_command(reply),
            (Codes::Call, Ok(reply)) if reply.status.is_ok() => ("ok", exit::OK, true),
            (Codes::Call, Ok(reply)) => (word_of_status(reply), exit::of_status(&reply.status), false),
            (_, Err(failure)) => (word_of_failure(failure), exit::of_failure(failure), false),
        };
        Ending { word, exit, is_own, object: object(word, exit, result) }
    }
}

/// The end of a call that the server told.
fn of_command(reply: &Reply) -> (&'static str, u8, bool) {
    let exit = reply.trailer.as_ref().and_then(|trailer| trailer.get("exit"));
    if matches!(reply.status.code(), Code::Ok | Code::Unknown) {
        if let Some(signal) = exit.and_then(|exit| exit["signal"].as_u64()) {
            return ("killed", exit::of_signal(u8::try_from(signal).unwrap_or(u8::MAX)), true);
        }
        if let Some(code) = exit.and_then(|exit| exit["code"].as_u64()) {
            return ("exited", u8::try_from(code).unwrap_or(u8::MAX), true);
        }
        if reply.status.is_ok() && is_job(reply) {
            return ("detached", exit::OK, true);
        }
        if reply.status.is_ok() {
            // A success of which nobody says that the command ended is none.
            return ("lost", exit::LOST, false);
        }
    }
    let word = word_of_status(reply);
    let exit = match word {
        "deadline" => DEADLINE,
        "bad-cwd" => BAD_CWD,
        "not-executable" => NOT_EXECUTABLE,
        "not-found" => NOT_FOUND,
        _ => exit::of_status(&reply.status),
    };
    (word, exit, false)
}

/// Whether the call left a job running.
pub(crate) fn is_job(reply: &Reply) -> bool {
    reply.head.as_ref().is_some_and(|head| head.contains_key("job"))
}

fn word_of_status(reply: &Reply) -> &'static str {
    let status = &reply.status;
    if status.origin() == Origin::Drain {
        return "drain";
    }
    match (status.code(), status.reason()) {
        (Code::NotFound, "command-not-found") => "not-found",
        (Code::PermissionDenied, "command-not-executable") => "not-executable",
        (Code::FailedPrecondition | Code::PermissionDenied, "bad-cwd") => "bad-cwd",
        (Code::DeadlineExceeded, _) => "deadline",
        (Code::ResourceExhausted, "output-max") => "output-limit",
        (Code::ResourceExhausted, "cpu-max") => "cpu-limit",
        (Code::ResourceExhausted, _) => "busy",
        (Code::Cancelled, _) => "cancelled",
        (Code::Unknown | Code::Internal | Code::DataLoss | Code::Aborted, _) => "failed",
        _ => "refused",
    }
}

fn word_of_failure(failure: &Failure) -> &'static str {
    match failure {
        Failure::Usage(_) => "usage",
        Failure::Client(ClientError::Address(_) | ClientError::HeaderTooLong { .. }) => "usage",
        Failure::Client(ClientError::Connect { .. }) => "connect",
        Failure::Client(ClientError::ReplyTooLong { .. }) => "local",
        Failure::Client(_) => "lost",
        Failure::Status(reply) => word_of_status(reply),
        Failure::Io { .. } | Failure::StdoutClosed => "local",
        Failure::Several { first, .. } => word_of_failure(first),
        Failure::Signal(_) => "cancelled",
    }
}

/// What stands under a name of ours is ours; the server's comes beside it.
fn object(word: &str, exit: u8, result: &Result<Reply, Failure>) -> Map<String, Value> {
    let mut object = Map::from_iter([("end".to_owned(), json!(word)), ("exit_code".to_owned(), json!(exit))]);
    match result {
        Ok(reply) => add_reply(&mut object, reply),
        Err(Failure::Status(reply)) => add_reply(&mut object, reply),
        Err(failure) => drop(object.insert("error".to_owned(), json!(ErrorObject::of(failure)))),
    }
    object
}

fn add_reply(object: &mut Map<String, Value>, reply: &Reply) {
    object.insert("status".to_owned(), json!(StatusObject::of(&reply.status)));
    for (name, value) in reply.head.iter().chain(&reply.trailer).flatten() {
        object.entry(name).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rstest::rstest;

    use super::*;
    use crate::{ServerAddress, Status};

    fn reply(status: Status, trailer: Value) -> Result<Reply, Failure> {
        Ok(Reply { status, trailer: trailer.as_object().cloned(), ..Reply::default() })
    }

    fn ending(result: Result<Reply, Failure>) -> (&'static str, u8) {
        let ending = Ending::of(Codes::Exec, &result);
        assert_eq!(ending.object["end"], ending.word);
        assert_eq!(ending.object["exit_code"], ending.exit);
        (ending.word, ending.exit)
    }

    #[rstest]
    #[case(Status::ok(), json!({"exit": {"code": 0}}), "exited", 0)]
    #[case(Status::unknown("command-failed", ""), json!({"exit": {"code": 1}}), "exited", 1)]
    #[case(Status::unknown("command-failed", ""), json!({"exit": {"code": 255}}), "exited", 255)]
    #[case(Status::unknown("command-killed", ""), json!({"exit": {"signal": 11, "name": "SIGSEGV"}}), "killed", 139)]
    #[case(Status::deadline_exceeded("deadline", ""), json!({"exit": {"signal": 15}}), "deadline", 124)]
    #[case(Status::deadline_exceeded("time-max", ""), json!({"exit": {"signal": 9}}), "deadline", 124)]
    #[case(Status::failed_precondition("bad-cwd", ""), json!({}), "bad-cwd", 125)]
    #[case(Status::permission_denied("bad-cwd", ""), json!({}), "bad-cwd", 125)]
    #[case(Status::permission_denied("command-not-executable", ""), json!({}), "not-executable", 126)]
    #[case(Status::not_found("command-not-found", ""), json!({}), "not-found", 127)]
    #[case(Status::not_found("unknown-plugin", ""), json!({}), "refused", 69)]
    #[case(Status::resource_exhausted("output-max", ""), json!({"exit": {"signal": 15}}), "output-limit", 72)]
    #[case(Status::resource_exhausted("cpu-max", ""), json!({"exit": {"signal": 9}}), "cpu-limit", 72)]
    #[case(Status::resource_exhausted("busy", ""), json!({}), "busy", 72)]
    #[case(Status::cancelled("cancelled", ""), json!({"exit": {"signal": 15}}), "cancelled", 65)]
    #[case(Status::unavailable("stopping", "").with_origin(Origin::Drain), json!({}), "drain", 78)]
    #[case(Status::unknown("x", ""), json!({}), "failed", 66)]
    #[case(Status::internal("panic", ""), json!({}), "failed", 77)]
    #[case(Status::ok(), json!({}), "lost", 4)]
    fn every_end_has_its_word_and_its_code(
        #[case] status: Status,
        #[case] trailer: Value,
        #[case] word: &str,
        #[case] code: u8,
    ) {
        assert_eq!(ending(reply(status, trailer)), (word, code));
    }

    #[test]
    fn a_failure_on_this_side_has_a_word_too() {
        let connect = ClientError::Connect { address: ServerAddress::default(), source: io::Error::other("x") };
        assert_eq!(ending(Err(connect.into())), ("connect", 3));
        assert_eq!(ending(Err(ClientError::Lost(io::Error::other("x")).into())), ("lost", 4));
        assert_eq!(ending(Err(Failure::StdoutClosed)), ("local", 5));
        assert_eq!(ending(Err(Failure::Signal(15))), ("cancelled", 143));
        assert_eq!(ending(Err(Failure::Usage("x".to_owned()))), ("usage", 2));
    }

    #[test]
    fn a_job_is_left_running() {
        let head = json!({"job": "a1"}).as_object().cloned();
        let result = Ok(Reply { head, ..Reply::default() });
        assert_eq!(ending(result), ("detached", 0));
    }

    #[test]
    fn the_object_has_what_the_server_told() {
        let trailer = json!({"exit": {"code": 3}, "wall_ms": 1.5, "end": "made up"});
        let result = reply(Status::unknown("command-failed", "x"), trailer);
        let object = Ending::of(Codes::Exec, &result).object;
        assert_eq!((&object["end"], &object["wall_ms"]), (&json!("exited"), &json!(1.5)));
        assert_eq!(object["status"]["reason"], "command-failed");
    }
}
