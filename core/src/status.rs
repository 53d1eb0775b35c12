//! How a call ended: code, reason, message, who ended it, and whether a retry is safe.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal, $constructor:ident;)*) => {
        /// The kind of an end, by the names and numbers of gRPC's canonical codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: [Code; 17] = [$(Code::$variant),*];

            /// The canonical name in lower case, such as `not_found`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)*
                }
            }

            /// The canonical number, 0 to 16.
            pub fn number(self) -> u8 {
                self as u8
            }

            /// The code of a canonical number, or `None` above 16.
            pub fn from_number(number: u8) -> Option<Code> {
                Code::ALL.get(usize::from(number)).copied()
            }
        }

        impl Status {
            $(
                #[doc = concat!("A status of code `", $name, "` whose origin is the handler; see [`Code::", stringify!($variant), "`].")]
                pub fn $constructor(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Status {
                    Status::new(Code::$variant, reason, message)
                }
            )*
        }
    };
}

codes! {
    /// The call did what was asked.
    Ok = 0 "ok", ok_because;
    /// The caller, or somebody on its behalf, gave up.
    Cancelled = 1 "cancelled", cancelled;
    /// Something foreign failed in its own way, such as a command with an exit code.
    Unknown = 2 "unknown", unknown;
    /// What was asked can never work, whatever the state of the server.
    InvalidArgument = 3 "invalid_argument", invalid_argument;
    /// The time that the caller or the plugin allows has passed.
    DeadlineExceeded = 4 "deadline_exceeded", deadline_exceeded;
    /// The thing that was named does not exist.
    NotFound = 5 "not_found", not_found;
    /// The thing to be made exists already.
    AlreadyExists = 6 "already_exists", already_exists;
    /// The caller may not do this.
    PermissionDenied = 7 "permission_denied", permission_denied;
    /// A limit, a quota or a resource is used up.
    ResourceExhausted = 8 "resource_exhausted", resource_exhausted;
    /// What was asked cannot work in the present state; another state would allow it.
    FailedPrecondition = 9 "failed_precondition", failed_precondition;
    /// The call lost against another that ran at the same time.
    Aborted = 10 "aborted", aborted;
    /// What was asked lies past the end of what there is.
    OutOfRange = 11 "out_of_range", out_of_range;
    /// This server does not offer what was asked.
    Unimplemented = 12 "unimplemented", unimplemented;
    /// The server or a handler is broken.
    Internal = 13 "internal", internal;
    /// The server cannot serve now; a later try may succeed.
    Unavailable = 14 "unavailable", unavailable;
    /// Data was lost or came through changed.
    DataLoss = 15 "data_loss", data_loss;
    /// The caller did not show who it is.
    Unauthenticated = 16 "unauthenticated", unauthenticated;
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The handler returned, well or badly.
    Handler,
    /// The caller cancelled or broke the protocol.
    Caller,
    /// The deadline of the caller or of the plugin passed.
    Deadline,
    /// A limit of the server was reached.
    Limit,
    /// The caller may not call this.
    Access,
    /// The server is stopping.
    Drain,
    /// The server itself refused or failed, before or beside any handler.
    Server,
}

impl Origin {
    /// Every origin.
    pub const ALL: [Origin; 7] = [
        Origin::Handler,
        Origin::Caller,
        Origin::Deadline,
        Origin::Limit,
        Origin::Access,
        Origin::Drain,
        Origin::Server,
    ];

    /// The origin of a name, or `None` when a newer server made it up.
    pub fn from_name(name: &str) -> Option<Origin> {
        Origin::ALL.into_iter().find(|origin| origin.name() == name)
    }

    /// The name that stands on the wire and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Handler => "handler",
            Origin::Caller => "caller",
            Origin::Deadline => "deadline",
            Origin::Limit => "limit",
            Origin::Access => "access",
            Origin::Drain => "drain",
            Origin::Server => "server",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// How a call ended.
///
/// The message is for the caller: it names what was asked, what was found and what is allowed, and it holds no path,
/// command or secret of the server. What only the operator may read goes into [`Status::with_detail`], which never
/// crosses the wire.
///
/// ```
/// use plugd_core::{Code, Origin, Status};
///
/// let status = Status::not_found("no-such-file", "no file \"a.txt\"");
/// assert_eq!(status.code(), Code::NotFound);
/// assert_eq!(status.origin(), Origin::Handler);
/// assert_eq!(status.to_string(), "not_found (no-such-file): no file \"a.txt\"");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(
    /// Nothing is plain success: the ordinary end costs no memory, and every result no more than a pointer.
    Option<Box<Parts>>,
);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    code: Code,
    reason: Cow<'static, str>,
    message: String,
    origin: Origin,
    retry: bool,
    detail: Option<String>,
}

const PLAIN: Parts = Parts {
    code: Code::Ok,
    reason: Cow::Borrowed(""),
    message: String::new(),
    origin: Origin::Handler,
    retry: false,
    detail: None,
};

static PLAIN_SUCCESS: Parts = PLAIN;

impl Status {
    /// Makes a status that a handler ended; `reason` is a stable word for programs, such as `no-such-file`.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Status {
        Status::from_parts(Parts { code, reason: reason.into(), message: message.into(), ..PLAIN })
    }

    /// The end of a call that did what was asked.
    pub fn ok() -> Status {
        Status(None)
    }

    fn from_parts(parts: Parts) -> Status {
        Status((parts != PLAIN).then(|| Box::new(parts)))
    }

    fn parts(&self) -> &Parts {
        self.0.as_deref().unwrap_or(&PLAIN_SUCCESS)
    }

    fn with(self, change: impl FnOnce(&mut Parts)) -> Status {
        let mut parts = self.0.map_or(PLAIN, |parts| *parts);
        change(&mut parts);
        Status::from_parts(parts)
    }

    /// Says who ended the call; a new status says the handler did.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Status {
        self.with(|parts| parts.origin = origin)
    }

    /// Says whether the same call may safely be tried again; a new status says no.
    #[must_use]
    pub fn with_retry(self, retry: bool) -> Status {
        self.with(|parts| parts.retry = retry)
    }

    /// Adds what only the server's log may show, such as the chain of causes.
    #[must_use]
    pub fn with_detail(self, detail: impl fmt::Display) -> Status {
        self.with(|parts| parts.detail = Some(detail.to_string()))
    }

    /// Whether the call did what was asked.
    pub fn is_ok(&self) -> bool {
        self.code() == Code::Ok
    }

    /// Whether there is nothing to say but that the call did what was asked.
    pub fn is_plain_success(&self) -> bool {
        self.0.is_none()
    }

    /// The kind of the end.
    pub fn code(&self) -> Code {
        self.parts().code
    }

    /// The stable word for programs; empty when there is none.
    pub fn reason(&self) -> &str {
        &self.parts().reason
    }

    /// The line for people; empty when there is none.
    pub fn message(&self) -> &str {
        &self.parts().message
    }

    /// Who ended the call.
    pub fn origin(&self) -> Origin {
        self.parts().origin
    }

    /// Whether the same call may safely be tried again: nothing was done, or doing it twice is harmless.
    pub fn retry(&self) -> bool {
        self.parts().retry
    }

    /// What only the server's log may show.
    pub fn detail(&self) -> Option<&str> {
        self.parts().detail.as_deref()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.code())?;
        if !self.reason().is_empty() {
            write!(out, " ({})", self.reason())?;
        }
        if !self.message().is_empty() {
            write!(out, ": {}", self.message())?;
        }
        Ok(())
    }
}

impl Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_success_is_plain_however_it_was_made() {
        assert!(Status::ok().is_plain_success() && Status::new(Code::Ok, "", "").is_plain_success());
        assert!(Status::internal("a", "b").with_origin(Origin::Server).with(|parts| *parts = PLAIN).is_plain_success());
        assert!(!Status::ok().with_origin(Origin::Server).is_plain_success());
        assert_eq!(size_of::<Result<(), Status>>(), 2 * size_of::<usize>());
    }

    #[test]
    fn numbers_and_codes_agree_in_both_directions() {
        for (number, code) in (0u8..).zip(Code::ALL) {
            assert_eq!(code.number(), number);
            assert_eq!(Code::from_number(number), Some(code));
        }
        assert_eq!(Code::from_number(17), None);
    }

    #[test]
    fn names_and_origins_agree_in_both_directions() {
        for origin in Origin::ALL {
            assert_eq!(Origin::from_name(origin.name()), Some(origin));
        }
        assert_eq!(Origin::from_name("weather"), None);
    }
}
