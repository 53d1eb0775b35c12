//! Text from bytes in an encoding of the reader's choice.

use encoding_rs::{CoderResult, Decoder, Encoding};

use crate::cli::failure::Failure;

/// What the reader asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// Bytes as they come.
    Raw,
    /// What the plugin declares, or bytes as they come.
    AsDeclared,
    /// This encoding.
    Given(&'static Encoding),
}

impl Asked {
    /// Reads a label as the Encoding Standard of the WHATWG has them.
    pub(crate) fn parse(label: Option<&str>) -> Result<Asked, Failure> {
        let Some(label) = label else { return Ok(Asked::Raw) };
        if label == "auto" {
            return Ok(Asked::AsDeclared);
        }
        let encoding = Encoding::for_label(label.as_bytes()).map(Asked::Given);
        encoding.ok_or_else(|| {
            let allowed = "allowed: auto, and the labels of the Encoding Standard, such as utf-8, gbk, big5, shift_jis";
            Failure::Usage(format!("unknown encoding \"{label}\"; {allowed}"))
        })
    }

    /// The encoding to use when the plugin declares `declared`.
    pub(crate) fn choose(self, declared: Option<&str>) -> Option<&'static Encoding> {
        match self {
            Asked::Raw => None,
            Asked::AsDeclared => Encoding::for_label(declared?.as_bytes()),
            Asked::Given(encoding) => Some(encoding),
        }
    }
}

/// The text of one stream, whose characters may be split anywhere.
pub(crate) struct Text {
    decoder: Decoder,
}

impl Text {
    pub(crate) fn new(encoding: &'static Encoding) -> Text {
        Text { decoder: encoding.new_decoder_with_bom_removal() }
    }

    /// Decodes the next bytes; what is malformed becomes U+FFFD, and what is not whole yet waits for more.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> String {
        self.advance(bytes, false)
    }

    /// What is left at the end of the stream: one U+FFFD for a character that was cut, or nothing.
    pub(crate) fn finish(&mut self) -> String {
        self.advance(b"", true)
    }

    fn advance(&mut self, mut bytes: &[u8], is_last: bool) -> String {
        let mut text = String::with_capacity(bytes.len());
        loop {
            // At least room for one character, or the decoder could not move on.
            text.reserve(bytes.len().max(16));
            let (result, read, _) = self.decoder.decode_to_string(bytes, &mut text, is_last);
            bytes = &bytes[read..];
            if result == CoderResult::InputEmpty {
                return text;
            }
        }
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Text").field("encoding", &self.decoder.encoding().name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::split_between_frames("gbk", vec![&b"\xd6"[..], b"\xd0"], "中")]
    #[case::cut_at_the_end("gbk", vec![&b"a\xd6"[..]], "a\u{fffd}")]
    #[case::a_wrong_second_byte_stays("gbk", vec![&b"\x81\x20"[..]], "\u{fffd} ")]
    #[case::empty_frames("gbk", vec![&b""[..], b"\xd6", b"", b"\xd0", b""], "中")]
    #[case::four_bytes_one_by_one("gb18030", vec![&b"\x81"[..], b"\x30", b"\x81", b"\x30"], "\u{80}")]
    #[case::escape_sequences("iso-2022-jp", vec![&b"\x1b$"[..], b"BF|", b"K\\\x1b(B!"], "日本!")]
    #[case::utf_16("utf-16le", vec![&b"\xff"[..], b"\xfea", b"\0\x2d\x4e"], "a中")]
    fn text_is_decoded_across_frames(#[case] label: &str, #[case] frames: Vec<&[u8]>, #[case] expected: &str) {
        let encoding = Asked::parse(Some(label)).expect("a label").choose(None).expect("an encoding");
        let mut text = Text::new(encoding);
        let mut decoded: String = frames.iter().map(|frame| text.decode(frame)).collect();
        decoded += &text.finish();
        assert_eq!(decoded, expected);
    }

    #[test]
    fn a_long_run_of_wrong_bytes_is_decoded_whole() {
        let mut text = Text::new(encoding_rs::UTF_8);
        assert_eq!(text.decode(&[0xff; 100_000]), "\u{fffd}".repeat(100_000));
    }

    #[test]
    fn what_the_plugin_declares_is_used_when_asked_for() {
        let auto = Asked::parse(Some("auto")).expect("a label");
        assert_eq!(auto.choose(Some("gbk")), Some(encoding_rs::GBK));
        assert_eq!(auto.choose(None), None);
        assert_eq!(Asked::parse(None).expect("nothing").choose(Some("gbk")), None);
    }

    #[test]
    fn an_unknown_label_is_refused_by_naming_some() {
        let line = Asked::parse(Some("gkb")).expect_err("no label").line().expect("a line");
        assert!(line.starts_with("unknown encoding \"gkb\"; allowed: auto, "), "{line}");
    }
}
