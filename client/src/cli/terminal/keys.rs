//! What is typed at a terminal, and the keys that mean this side.

/// What becomes of some keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// What goes to the command.
    pub(crate) bytes: Vec<u8>,
    /// Whether `~.` was typed, after which nothing goes there.
    pub(crate) leaves: bool,
}

/// Finds `~.` at the start of a line, which leaves, and `~~`, which is one `~`, as ssh does. A `~` waits for what follows.
#[derive(Debug)]
pub(crate) struct Keys {
    is_line_start: bool,
    is_escape: bool,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys { is_line_start: true, is_escape: false }
    }

    pub(crate) fn typed(&mut self, keys: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(keys.len() + 1);
        for &key in keys {
            if std::mem::take(&mut self.is_escape) {
                match key {
                    b'.' => return Typed { bytes, leaves: true },
                    b'~' => {}
                    _ => bytes.push(b'~'),
                }
            } else if self.is_line_start && key == b'~' {
                self.is_escape = true;
                self.is_line_start = false;
                continue;
            }
            bytes.push(key);
            self.is_line_start = matches!(key, b'\r' | b'\n');
        }
        Typed { bytes, leaves: false }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(&["ls\r"], "ls\r", false)]
    #[case::at_the_beginning(&["~."], "", true)]
    #[case::after_a_line(&["ls\r~.x"], "ls\r", true)]
    #[case::key_by_key(&["l", "s", "\r", "~", "."], "ls\r", true)]
    #[case::within_a_line(&["a~."], "a~.", false)]
    #[case::doubled(&["~~."], "~.", false)]
    #[case::doubled_then_a_line(&["~~\r~."], "~\r", true)]
    #[case::another_key(&["~x\r"], "~x\r", false)]
    #[case::a_tilde_then_a_line(&["~\r~."], "~\r", true)]
    fn what_is_typed_goes_on_but_for_the_escapes(#[case] keys: &[&str], #[case] bytes: &str, #[case] leaves: bool) {
        let mut state = Keys::new();
        let mut all = Typed::default();
        for keys in keys {
            let typed = state.typed(keys.as_bytes());
            all.bytes.extend(typed.bytes);
            all.leaves |= typed.leaves;
        }
        assert_eq!((std::str::from_utf8(&all.bytes), all.leaves), (Ok(bytes), leaves));
    }
}
