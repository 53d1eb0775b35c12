//! Upper-cases a text that arrives in pieces, without any regard to where it was cut.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::{Invalid, Mode, UpperSettings};

/// From this length on an answer's memory is worth using again, in bytes.
const LONG_LEN: usize = 16 << 10;

/// How many answers' memory is waited for: as many as may stand before a caller that reads slowly.
const LENT_MAX: usize = 8;

/// Bytes that are no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidUtf8 {
    /// Where they begin, in bytes from the first one of the whole input.
    offset: u64,
}

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "input is not UTF-8 at byte {}", self.offset)
    }
}

/// Takes a text piece by piece and gives it back in upper case.
///
/// The end of a piece that may be the beginning of a character, at most three bytes, is kept for the next piece.
#[derive(Debug)]
pub(crate) struct Transform {
    settings: UpperSettings,
    /// The beginning of a character whose rest has not arrived.
    begun: Bytes,
    /// Where `begun` stands in the whole input; while it is empty, where the next piece does.
    offset: u64,
    memory: Memory,
}

/// Memory of long answers, used again once they are written: to have fresh memory for each takes as long as to fill it.
#[derive(Debug, Default)]
struct Memory {
    lent: VecDeque<Bytes>,
}

impl Memory {
    /// Memory for `len` bytes.
    fn take(&mut self, len: usize) -> BytesMut {
        match self.lent.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(mut memory)) => {
                memory.clear();
                memory.reserve(len);
                return memory;
            }
            // The answer is not written yet.
            Some(Err(lent)) => self.lent.push_front(lent),
            None => {}
        }
        BytesMut::with_capacity(len)
    }

    /// Hands an answer out whose memory is to come back.
    fn lend(&mut self, answer: BytesMut) -> Bytes {
        let answer = answer.freeze();
        if self.lent.len() < LENT_MAX {
            self.lent.push_back(answer.clone());
        }
        answer
    }
}

impl Transform {
    pub(crate) fn new(settings: UpperSettings) -> Transform {
        Transform { settings, begun: Bytes::new(), offset: 0, memory: Memory::default() }
    }

    /// Takes the next piece and returns as much of the text as is certain.
    ///
    /// # Errors
    ///
    /// [`InvalidUtf8`], unless the settings let it pass. Nothing may follow.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<Bytes, InvalidUtf8> {
        let is_plain = self.begun.is_empty() && piece.is_ascii();
        if is_plain || self.settings.mode == Mode::Ascii {
            self.offset += piece.len() as u64;
            return Ok(self.ascii_uppercase(piece));
        }
        let text = match self.begun.is_empty() {
            true => piece,
            false => [&self.begun[..], &piece[..]].concat().into(),
        };
        self.unicode_uppercase(&text)
    }

    /// Takes the end of the input and returns what was kept for the next piece.
    ///
    /// # Errors
    ///
    /// As [`Transform::push`]: a character that never became whole is none.
    pub(crate) fn finish(self) -> Result<Bytes, InvalidUtf8> {
        match self.settings.invalid {
            Invalid::Fail if !self.begun.is_empty() => Err(InvalidUtf8 { offset: self.offset }),
            _ => Ok(self.begun),
        }
    }

    fn unicode_uppercase(&mut self, text: &Bytes) -> Result<Bytes, InvalidUtf8> {
        let mut upper = Vec::with_capacity(text.len());
        let mut done = 0;
        let begun_len = loop {
            let rest = &text[done..];
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    push_uppercase(&mut upper, valid);
                    break 0;
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            push_uppercase(&mut upper, as_str(valid));
            // Without a length the error is a character that the end of the piece has cut.
            let Some(invalid_len) = error.error_len() else { break invalid.len() };
            if self.settings.invalid == Invalid::Fail {
                return Err(InvalidUtf8 { offset: self.offset + (done + valid.len()) as u64 });
            }
            upper.extend_from_slice(&invalid[..invalid_len]);
            done += valid.len() + invalid_len;
        };
        let certain_len = text.len() - begun_len;
        // A copy, so that three bytes do not keep a whole frame in memory.
        self.begun = Bytes::copy_from_slice(&text[certain_len..]);
        self.offset += certain_len as u64;
        Ok(upper.into())
    }

    fn ascii_uppercase(&mut self, piece: Bytes) -> Bytes {
        if !piece.iter().any(u8::is_ascii_lowercase) {
            return piece;
        }
        match piece.try_into_mut() {
            Ok(mut owned) => {
                owned.make_ascii_uppercase();
                owned.freeze()
            }
            Err(shared) if shared.len() >= LONG_LEN => {
                let mut upper = self.memory.take(shared.len());
                upper.extend_from_slice(&shared);
                upper.make_ascii_uppercase();
                self.memory.lend(upper)
            }
            // One pass from one memory into another is cheaper than a copy and a pass over it.
            Err(shared) => shared.iter().map(u8::to_ascii_uppercase).collect::<Vec<u8>>().into(),
        }
    }
}

/// `char::to_uppercase` knows no language and looks at no neighbour, so it is the same wherever a text is cut.
fn push_uppercase(upper: &mut Vec<u8>, text: &str) {
    let mut utf8 = [0; 4];
    for character in text.chars() {
        if character.is_ascii() {
            upper.push(character.to_ascii_uppercase() as u8);
            continue;
        }
        for character in character.to_uppercase() {
            upper.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
        }
    }
}

fn as_str(valid: &[u8]) -> &str {
    std::str::from_utf8(valid).expect("the bytes before the first error are UTF-8")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNICODE: UpperSettings = UpperSettings { mode: Mode::Unicode, invalid: Invalid::Fail };
    const LENIENT: UpperSettings = UpperSettings { mode: Mode::Unicode, invalid: Invalid::Pass };
    const ASCII: UpperSettings = UpperSettings { mode: Mode::Ascii, invalid: Invalid::Fail };

    fn transformed(settings: UpperSettings, pieces: &[&[u8]]) -> Result<Vec<u8>, InvalidUtf8> {
        let mut transform = Transform::new(settings);
        let mut upper = Vec::new();
        for piece in pieces {
            upper.extend_from_slice(&transform.push(Bytes::copy_from_slice(piece))?);
        }
        upper.extend_from_slice(&transform.finish()?);
        Ok(upper)
    }

    #[test]
    fn the_memory_of_a_written_answer_is_used_again_and_that_of_others_is_left_alone() {
        let mut transform = Transform::new(UNICODE);
        let input = Bytes::from(vec![b'a'; 3 * LONG_LEN]);
        let mut push = |start| transform.push(input.slice(start..start + LONG_LEN)).expect("ASCII");
        let (first, second) = (push(0), push(1));
        assert_ne!(first.as_ptr(), second.as_ptr());
        let memory = first.as_ptr();
        drop(first);
        let third = push(2);
        assert_eq!(third.as_ptr(), memory);
        assert!(
            [second, third].iter().all(|answer| answer.len() == LONG_LEN && answer.iter().all(|byte| *byte == b'A'))
        );
        assert_eq!(input[0], b'a');
    }

    #[test]
    fn unicode_is_upper_cased_in_full() {
        let text = "straße, ŉ, ΐ, ﬁ, éa\u{301}, ſ, ᾳ, ς, 日本, 😀";
        let upper = transformed(UNICODE, &[text.as_bytes()]).expect("UTF-8");
        assert_eq!(String::from_utf8_lossy(&upper), text.to_uppercase());
        assert!(text.to_uppercase().starts_with("STRASSE"));
    }

    #[test]
    fn a_character_comes_with_the_piece_that_completes_it() {
        let mut transform = Transform::new(UNICODE);
        let pieces = [&b"a\xc3"[..], b"\xa9b", b"c"].map(Bytes::from_static);
        let upper = pieces.map(|piece| transform.push(piece).expect("UTF-8"));
        assert_eq!(upper, [&b"A"[..], "ÉB".as_bytes(), b"C"]);
    }

    #[test]
    fn the_offset_of_a_failure_counts_from_the_first_byte_of_all() {
        for pieces in [&[&b"ab\xffcd"[..]][..], &[b"a", b"b", b"\xff", b"cd"]] {
            assert_eq!(transformed(UNICODE, pieces), Err(InvalidUtf8 { offset: 2 }));
        }
        assert_eq!(transformed(UNICODE, &[b"a\xc3", b"b"]), Err(InvalidUtf8 { offset: 1 }));
    }

    #[test]
    fn a_character_that_never_becomes_whole_is_invalid() {
        assert_eq!(transformed(UNICODE, &[b"a\xe2\x82"]), Err(InvalidUtf8 { offset: 1 }));
        assert_eq!(transformed(LENIENT, &[b"a\xe2\x82"]), Ok(b"A\xe2\x82".to_vec()));
    }

    #[test]
    fn ascii_touches_nothing_but_its_letters() {
        assert_eq!(
            transformed(ASCII, &["aé\u{0}z".as_bytes(), b"\xff{`"]),
            Ok("Aé\u{0}Z".bytes().chain(*b"\xff{`").collect())
        );
    }

    #[test]
    fn a_piece_without_lower_case_is_passed_on_as_it_lies() {
        let piece = Bytes::from_static(b"ABC 123");
        let upper = Transform::new(UNICODE).push(piece.clone()).expect("UTF-8");
        assert_eq!(upper.as_ptr(), piece.as_ptr());
    }

    fn text_or_bytes() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..24);
        let text = proptest::collection::vec(any::<char>(), 0..12).prop_map(|text| text.iter().collect::<String>());
        (text, noise.clone(), any::<bool>()).prop_map(|(text, noise, noisy)| {
            let mut bytes = text.into_bytes();
            bytes.extend(noise.into_iter().filter(|_| noisy));
            bytes
        })
    }

    proptest! {
        #[test]
        fn cutting_the_input_anywhere_changes_nothing(bytes in text_or_bytes()) {
            for settings in [UNICODE, LENIENT, ASCII] {
                let whole = transformed(settings, &[&bytes]);
                for cut in 0..=bytes.len() {
                    let (head, tail) = bytes.split_at(cut);
                    prop_assert_eq!(&transformed(settings, &[head, tail]), &whole);
                }
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                prop_assert_eq!(&transformed(settings, &single), &whole);
            }
        }

        #[test]
        fn text_becomes_what_the_standard_library_makes_of_each_character(text in any::<String>()) {
            let expected: String = text.chars().flat_map(char::to_uppercase).collect();
            prop_assert_eq!(transformed(UNICODE, &[text.as_bytes()]), Ok(expected.into_bytes()));
        }
    }
}
