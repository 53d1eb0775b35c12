//! Cuts what a caller sends into lines.

use plugd_core::Status;

/// What has come of a line that has not ended.
#[derive(Debug)]
pub(crate) struct Lines {
    begun: Vec<u8>,
    len_max: usize,
}

impl Lines {
    /// Lines of at most `len_max` bytes.
    pub(crate) fn new(len_max: usize) -> Lines {
        Lines { begun: Vec::new(), len_max }
    }

    /// Takes the next bytes, and hands each line that they end to `each`.
    pub(crate) fn push(&mut self, data: &[u8], mut each: impl FnMut(&str)) -> Result<(), Status> {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n");
            self.begun.extend_from_slice(text.unwrap_or(part));
            if self.begun.len() > self.len_max {
                let message = format!("line of more than {0} bytes; allowed: {0}", self.len_max);
                return Err(Status::resource_exhausted("line-too-long", message));
            }
            if text.is_some() {
                each(&harmless(&self.begun));
                self.begun.clear();
            }
        }
        Ok(())
    }

    /// Hands out the last line, which need not have an end.
    pub(crate) fn finish(self, each: impl FnOnce(&str)) {
        if !self.begun.is_empty() {
            each(&harmless(&self.begun));
        }
    }
}

/// Text that cannot drive the terminal of whoever sees it.
fn harmless(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let shown = |char: char| if char.is_control() && char != '\t' { char::REPLACEMENT_CHARACTER } else { char };
    line.trim_end_matches('\r').chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&str]) -> Result<Vec<String>, Status> {
        let (mut lines, mut found) = (Lines::new(5), Vec::new());
        for piece in pieces {
            lines.push(piece.as_bytes(), |line| found.push(line.to_owned()))?;
        }
        lines.finish(|line| found.push(line.to_owned()));
        Ok(found)
    }

    #[test]
    fn a_line_is_a_line_however_it_is_cut() {
        let whole = cut(&["one\r\ntwo\n\nlast"]).expect("short lines");
        assert_eq!(whole, ["one", "two", "", "last"]);
        assert_eq!(cut(&["o", "ne\r", "\ntwo\n", "\nla", "st"]).expect("short lines"), whole);
    }

    #[test]
    fn a_long_line_is_refused_before_it_has_ended() {
        assert_eq!(cut(&["12345\n"]).expect("a short line"), ["12345"]);
        assert_eq!(cut(&["123", "456"]).expect_err("a long line").reason(), "line-too-long");
    }

    #[test]
    fn no_line_drives_a_terminal() {
        assert_eq!(cut(&["\x1b[2J\n"]).expect("a short line"), ["\u{fffd}[2J"]);
    }
}
