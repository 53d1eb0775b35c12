//! What a peer that speaks another protocol is told.

use plugd_core::wire::{Knock, VERSION};

/// The bytes for it: an answer of its own protocol as far as one line goes, and which client to use.
pub(super) fn refusal(knock: Knock) -> Vec<u8> {
    let text = format!(
        "this port speaks the plugd protocol, version {VERSION}, and found {}; use the client plug\r\n",
        knock.name()
    );
    match knock {
        Knock::Http => format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )
        .into_bytes(),
        // A fatal alert, protocol_version (RFC 8446, section 6), is what a TLS client can report.
        Knock::Tls => [&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46], text.as_bytes()].concat(),
        Knock::Ssh | Knock::Stranger => text.into_bytes(),
    }
}
