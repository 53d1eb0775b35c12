//! The one JSON object that `--json` prints, for results and failures alike.
//!
//! ```text
//! ok      boolean: whether the verb did what was asked
//! status  object, how the call ended: code, name, reason, message, origin, retry; absent when no end arrived
//! head    object, the handler's own header, or null
//! data    the payload: text; for list, describe, ping, bench and the verbs for files a JSON value; absent when it is no
//!         UTF-8
//! data_base64  string, the payload when it is no UTF-8 text; absent otherwise
//! side    object, by channel number: objects with data or data_base64, as above
//! trailer object, what the handler adds to the end, or null
//! error   object: kind (connect, lost, protocol, usage, io, limit or signal) and message; absent unless this side failed
//! end, exit_code  how a command ended, in one word, and the exit code; absent for verbs that run no command
//! server  string, which of several servers answered; absent when there is one
//! ```
//!
//! It stands on one line of stdout. `ls` prints a line for each entry instead, and the object only when it fails, as the
//! last line. Payload is collected up to [`REPLY_LEN_MAX`](crate::REPLY_LEN_MAX) bytes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::failure::Failure;
use crate::{Reply, Status};

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusObject>,
    head: Option<Map<String, Value>>,
    #[serde(flatten)]
    payload: Payload,
    side: BTreeMap<u8, Payload>,
    trailer: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

/// A status, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct StatusObject {
    code: u8,
    name: &'static str,
    reason: String,
    message: String,
    origin: &'static str,
    retry: bool,
}

/// Bytes, as text where they are UTF-8.
#[derive(Debug, Serialize)]
pub(crate) enum Payload {
    #[serde(rename = "data")]
    Json(Value),
    #[serde(rename = "data_base64")]
    Base64(String),
}

/// A failure on this side, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorObject {
    kind: &'static str,
    message: String,
}

impl Envelope {
    pub(crate) fn of(result: &Result<Answer, Failure>) -> Envelope {
        match result {
            Ok(Answer { failure: Some(failure), data: Some(data), .. }) => {
                Envelope { payload: Payload::Json(data.clone()), ..Envelope::of_failure(failure) }
            }
            Ok(answer) => Envelope::of_reply(&answer.reply, answer.data.as_ref()),
            Err(failure) => Envelope::of_failure(failure),
        }
    }

    pub(crate) fn of_failure(failure: &Failure) -> Envelope {
        if let Failure::Status(reply) = failure {
            return Envelope::of_reply(reply, None);
        }
        if let Failure::Several { first, data, .. } = failure {
            return Envelope { payload: Payload::Json(data.clone()), ..Envelope::of_failure(first) };
        }
        Envelope {
            ok: false,
            status: None,
            error: Some(ErrorObject::of(failure)),
            ..Envelope::of_reply(&Reply::default(), None)
        }
    }

    pub(crate) fn of_reply(reply: &Reply, data: Option<&Value>) -> Envelope {
        Envelope {
            ok: reply.status.is_ok(),
            status: Some(StatusObject::of(&reply.status)),
            head: reply.head.clone(),
            payload: data.map_or_else(|| Payload::of(&reply.bytes()), |data| Payload::Json(data.clone())),
            side: reply.side.iter().map(|(channel, bytes)| (*channel, Payload::of(bytes))).collect(),
            trailer: reply.trailer.clone(),
            error: None,
            end: None,
            exit_code: None,
            server: None,
        }
    }

    /// Adds how a command ended, and on which server when there are several.
    pub(crate) fn ended(self, word: &'static str, exit: u8, server: Option<String>) -> Envelope {
        Envelope { end: Some(word), exit_code: Some(exit), server, ..self }
    }

    pub(crate) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("strings, numbers and JSON values always serialise");
        line.push(b'\n');
        line
    }
}

impl StatusObject {
    pub(crate) fn of(status: &Status) -> StatusObject {
        StatusObject {
            code: status.code().number(),
            name: status.code().name(),
            reason: status.reason().to_owned(),
            message: status.message().to_owned(),
            origin: status.origin().name(),
            retry: status.retry(),
        }
    }
}

impl ErrorObject {
    pub(crate) fn of(failure: &Failure) -> ErrorObject {
        ErrorObject { kind: failure.kind(), message: failure.line().unwrap_or_else(|| "stopped".to_owned()) }
    }
}

impl Payload {
    pub(crate) fn of(bytes: &[u8]) -> Payload {
        match std::str::from_utf8(bytes) {
            Ok(text) => Payload::Json(text.into()),
            Err(_) => Payload::Base64(STANDARD.encode(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ClientError;

    fn value(result: Result<Answer, Failure>) -> Value {
        serde_json::from_slice(&Envelope::of(&result).line()).expect("an envelope is JSON")
    }

    #[test]
    fn text_and_other_bytes_stand_under_different_keys() {
        let mut reply = Reply { messages: vec!["a".into(), "b".into()], ..Reply::default() };
        reply.side.insert(1, b"\xff"[..].into());
        let status = json!({"code": 0, "name": "ok", "reason": "", "message": "", "origin": "handler", "retry": false});
        assert_eq!(
            value(Ok(Answer::of(reply))),
            json!({"ok": true, "status": status, "head": null, "data": "ab", "side": {"1": {"data_base64": "/w=="}},
                   "trailer": null})
        );
    }

    #[test]
    fn a_failing_status_keeps_the_shape() {
        let envelope = value(Err(Failure::found(Status::not_found("unknown-plugin", "no \"x\""))));
        assert_eq!(envelope["ok"], false);
        assert_eq!(envelope["status"]["name"], "not_found");
        assert_eq!(envelope["data"], "");
        assert_eq!(envelope.get("error"), None);
    }

    #[test]
    fn a_failure_on_this_side_has_no_status() {
        let envelope = value(Err(ClientError::Protocol("x".to_owned()).into()));
        assert_eq!(envelope["ok"], false);
        assert_eq!(envelope.get("status"), None);
        assert_eq!(envelope["error"], json!({"kind": "protocol", "message": "protocol broken by the server: x"}));
    }
}
