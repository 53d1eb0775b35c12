//! The words of a command line that is being typed, as bash has it: one text, and the cursor's place in it.
//!
//! Bash takes words apart at colons and equals signs, so that an address comes in pieces. The text is taken apart here
//! instead, by the shell's rules for quotes; what expands to something else stays as it was typed.

/// The words up to the cursor, the last of which is being typed and may be empty.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut letters = text.chars();
    let mut is_between = true;
    while let Some(letter) = letters.next() {
        if letter.is_whitespace() {
            if !is_between {
                words.push(String::new());
            }
            is_between = true;
            continue;
        }
        is_between = false;
        let word = words.last_mut().expect("there is always one");
        match letter {
            '\'' => word.extend(letters.by_ref().take_while(|letter| *letter != '\'')),
            '"' => quoted(word, &mut letters),
            '\\' => word.extend(letters.next()),
            letter => word.push(letter),
        }
    }
    words
}

/// Reads on to the closing quote, or to the cursor.
fn quoted(word: &mut String, letters: &mut impl Iterator<Item = char>) {
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return,
            '\\' => word.extend(letters.next()),
            letter => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("plug call fi", &["plug", "call", "fi"])]
    #[case("plug call ", &["plug", "call", ""])]
    #[case("  plug  -s tcp://a:1 ", &["plug", "-s", "tcp://a:1", ""])]
    #[case("plug 'a b' \"c \\\"d\" e\\ f", &["plug", "a b", "c \"d", "e f"])]
    #[case("plug 'a b", &["plug", "a b"])]
    #[case("plug '' x", &["plug", "", "x"])]
    #[case("", &[""])]
    fn a_text_becomes_words(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(words(text), expected);
    }
}
