//! The last frame of a call: its status and what the handler adds to it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::frame::HEADER_LEN_MAX;
use super::json::{JSON_DEPTH_MAX, json_depth_exceeds, require_object};
use crate::{Code, Origin, Status};

/// How a call ended, as it stands in an END frame.
///
/// ```text
/// code     integer, required: gRPC's canonical number
/// name     string, the canonical name of the code, for people
/// reason   string, a stable word for programs; absent when there is none
/// message  string, a line for people; absent when there is none
/// origin   string: handler, caller, deadline, limit, access, drain or server, which any other word is taken for; absent
///          means handler
/// retry    boolean, whether the same call may safely be tried again; absent means false
/// trailer  object, what the handler adds to the end; absent when it adds nothing
/// ```
///
/// An empty payload means plain success: code 0 by the handler, no trailer. Unknown keys are ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// How the call ended.
    pub status: Status,
    /// What the handler adds, such as an exit code; present on success and on failure alike.
    pub trailer: Option<Map<String, Value>>,
}

/// Why the payload of an END frame cannot be read. What it ends has ended; how is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndError {
    /// The payload is no JSON object of the documented shape.
    #[error("end of the call is malformed: {0}")]
    Json(serde_json::Error),
    /// Arrays and objects nest too deep.
    #[error("end of the call nests too deep; allowed: {JSON_DEPTH_MAX} levels")]
    Depth,
    /// The code is none of the canonical ones.
    #[error("unknown status code {found}; known: 0 to 16")]
    Code {
        /// The number that was found.
        found: u8,
    },
}

#[derive(Serialize, Deserialize)]
struct EndObject {
    code: u8,
    #[serde(default)]
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(default)]
    retry: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trailer: Option<Map<String, Value>>,
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        End { status, trailer: None }
    }
}

impl End {
    /// Writes the payload of an END frame, at most [`HEADER_LEN_MAX`] bytes: what does not fit of the message is cut, and
    /// a trailer that does not fit is left out, which turns a success into a failure of the handler.
    pub fn encode(&self) -> Vec<u8> {
        if self.trailer.is_none() && self.status.is_plain_success() {
            return Vec::new();
        }
        let payload = self.encode_whole();
        if payload.len() <= HEADER_LEN_MAX as usize {
            return payload;
        }
        self.shortened().encode_whole()
    }

    fn encode_whole(&self) -> Vec<u8> {
        let object = EndObject {
            code: self.status.code().number(),
            name: self.status.code().name().to_owned(),
            reason: self.status.reason().to_owned(),
            message: self.status.message().to_owned(),
            origin: Some(self.status.origin().name().to_owned()),
            retry: self.status.retry(),
            trailer: self.trailer.clone(),
        };
        serde_json::to_vec(&object).expect("strings, numbers and JSON values always serialise")
    }

    /// An end that surely fits.
    fn shortened(&self) -> End {
        // Escaped, a character takes at most six bytes, so that the texts take less than half of what is allowed.
        const MESSAGE_CHARS_MAX: usize = 4 << 10;
        const REASON_CHARS_MAX: usize = 256;
        let status = match self.trailer.is_some() && self.status.is_ok() {
            true => Status::internal("trailer-too-long", "the handler's trailer does not fit"),
            false => self.status.clone(),
        };
        let cut = |text: &str, chars_max| text.chars().take(chars_max).collect::<String>();
        let (reason, message) = (cut(status.reason(), REASON_CHARS_MAX), cut(status.message(), MESSAGE_CHARS_MAX));
        Status::new(status.code(), reason, message).with_origin(status.origin()).with_retry(status.retry()).into()
    }

    /// Reads the payload of an END frame.
    ///
    /// # Errors
    ///
    /// [`EndError`]; the call has ended all the same.
    pub fn decode(payload: &[u8]) -> Result<End, EndError> {
        if payload.is_empty() {
            return Ok(Status::ok().into());
        }
        if json_depth_exceeds(payload, JSON_DEPTH_MAX) {
            return Err(EndError::Depth);
        }
        require_object(payload).map_err(EndError::Json)?;
        let object: EndObject = serde_json::from_slice(payload).map_err(EndError::Json)?;
        let code = Code::from_number(object.code).ok_or(EndError::Code { found: object.code })?;
        let origin = match object.origin {
            Some(name) => Origin::from_name(&name).unwrap_or(Origin::Server),
            None => Origin::Handler,
        };
        let status = Status::new(code, object.reason, object.message).with_origin(origin).with_retry(object.retry);
        Ok(End { status, trailer: object.trailer })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_success_takes_no_payload() {
        let end = End::from(Status::ok());
        assert!(end.encode().is_empty());
        assert_eq!(End::decode(&[]).expect("plain success"), end);
    }

    #[test]
    fn status_and_trailer_survive_the_round_trip() {
        let status = Status::not_found("unknown-plugin", "no \"x\"").with_origin(Origin::Server).with_retry(true);
        let end = End { status, trailer: json!({ "exit": { "code": 3 } }).as_object().cloned() };
        assert_eq!(End::decode(&end.encode()).expect("our own end"), end);
    }

    #[test]
    fn what_a_newer_server_adds_does_not_hide_how_the_call_ended() {
        let payload = br#"{"code":8,"origin":"weather","mood":"bad"}"#;
        let end = End::decode(payload).expect("a newer end");
        assert_eq!((end.status.code(), end.status.origin()), (Code::ResourceExhausted, Origin::Server));
    }

    #[test]
    fn detail_stays_off_the_wire() {
        let end = End::from(Status::internal("broken", "it broke").with_detail("/etc/secret"));
        assert!(!String::from_utf8_lossy(&end.encode()).contains("secret"));
    }

    #[test]
    fn an_end_always_fits_and_keeps_its_code() {
        let endless = "\u{1}".repeat(100_000);
        let status = Status::not_found("a-reason", endless.clone());
        for trailer in [None, json!({ "a": endless }).as_object().cloned()] {
            let payload = End { status: status.clone(), trailer }.encode();
            assert!(payload.len() <= HEADER_LEN_MAX as usize, "{}", payload.len());
            let end = End::decode(&payload).expect("a shortened end");
            assert_eq!((end.status.code(), end.status.reason()), (Code::NotFound, "a-reason"));
        }
        let end = End { status: Status::ok(), trailer: json!({ "a": endless }).as_object().cloned() };
        assert_eq!(End::decode(&end.encode()).expect("a shortened end").status.reason(), "trailer-too-long");
    }

    #[test]
    fn an_end_is_an_object() {
        assert!(End::decode(b"[5]").is_err());
    }
}
