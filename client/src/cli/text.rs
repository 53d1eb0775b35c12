//! Makes text that came from elsewhere fit for a terminal.

/// Escapes control characters, so that a name or a message cannot steer the terminal or fake a line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

/// Escapes bytes that may be no text: control characters as [`one_line`] does, and bytes that are no UTF-8 as `\\xff`.
pub(crate) fn one_line_of_bytes(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        line.push_str(&one_line(chunk.valid()));
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    line
}

/// Puts cells into columns that are as wide as their widest cell, two spaces apart; the last one is not filled up.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match (right[column], widths[column]) {
            (true, width) => format!("{cell:>width$}"),
            (false, width) => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_stay() {
        assert_eq!(one_line("naïve \u{1b}[31m\r\n"), "naïve \\u{1b}[31m\\r\\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(one_line_of_bytes(b"a\xff\xfe\nb"), "a\\xff\\xfe\\nb");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        assert_eq!(columns(&[row(["ä", "b"]), row(["ccc", ""])], [false, false]), "ä    b\nccc\n");
        assert_eq!(columns(&[row(["1", "b"]), row(["22", "c"])], [true, false]), " 1  b\n22  c\n");
    }
}
