//! What a name may look like, and which known name an unknown one was meant to be.

/// The longest name of a handler, a plugin or an operation, in bytes: a command stays readable on one line.
pub const NAME_LEN_MAX: usize = 64;

/// The most edits between a misspelt name and the one that is suggested for it.
const EDITS_MAX: usize = 3;

/// Whether `name` may name a handler, a plugin or an operation: `[a-z][a-z0-9_-]*`, at most [`NAME_LEN_MAX`] bytes.
pub fn is_legal_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_LEN_MAX
        && bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-')
}

/// Finds a name that is illegal, or else one that is there twice.
pub(crate) fn illegal_or_repeated<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    if let Some(illegal) = names.iter().find(|name| !is_legal_name(name)) {
        return Some(illegal);
    }
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Finds the candidate that `name` was probably meant to be.
///
/// Nothing is suggested when more than a third of the name, or more than three characters, would have to change.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // An edit distance costs the product of both lengths; nothing as long as this was a typing slip.
    if name.len() > 2 * NAME_LEN_MAX {
        return None;
    }
    let edits_max = EDITS_MAX.min(name.chars().count().div_ceil(3));
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Suggests the candidate that `name` was probably meant to be, as the middle of a message; empty when there is none.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or(String::new(), |candidate| format!("; did you mean \"{candidate}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_are_lower_case_words() {
        for name in ["a", "upper", "my-files_2"] {
            assert!(is_legal_name(name), "{name}");
        }
        for name in ["", "Upper", "2files", "a.b", "a b", "ü", &"a".repeat(65)] {
            assert!(!is_legal_name(name), "{name}");
        }
    }

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_does_not() {
        let known = ["echo", "file", "shell", "upper"];
        assert_eq!(nearest("uper", known), Some("upper"));
        assert_eq!(nearest("flie", known), Some("file"));
        assert_eq!(nearest("weather", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
