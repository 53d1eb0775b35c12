//! The secret that a caller proves itself with.

use std::fmt;
use std::path::Path;

use plugd_core::wire::{Auth, TOKEN_LEN_MAX};

use crate::SetupError;
use crate::setup::Input;

/// The longest file with a token, in bytes: the token, and space around it.
const FILE_LEN_MAX: u64 = 4 << 10;

/// The secret that a caller proves itself with. Its text is never shown, neither by `Debug` nor in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a text of 1 to 512 visible letters; space around them does not count.
    ///
    /// # Errors
    ///
    /// [`SetupError::Value`] for any other text.
    pub fn new(text: &str) -> Result<Token, SetupError> {
        Token::parse(text).map_err(|why| SetupError::Value { what: "token", why })
    }

    /// Reads a file that holds nothing else: a regular file and no link to one, of the user or of root, and readable by
    /// nobody else, which is the mode 0600 or stricter.
    ///
    /// # Errors
    ///
    /// [`SetupError::Read`] and [`SetupError::Refused`].
    pub fn read_file(path: &Path) -> Result<Token, SetupError> {
        let input = Input { what: "token file", path, len_max: FILE_LEN_MAX };
        let bytes = input.read_secret()?;
        let text = str::from_utf8(&bytes).map_err(|_| input.refused("it holds no text"))?;
        Token::parse(text).map_err(|why| input.refused(why))
    }

    /// What proves it to a server.
    pub(crate) fn auth(&self) -> Auth {
        Auth { token: self.0.clone() }
    }

    fn parse(text: &str) -> Result<Token, String> {
        let text = text.trim();
        let allowed = format!("allowed: one line of 1 to {TOKEN_LEN_MAX} visible letters");
        match text.len() {
            0 => Err(format!("it is empty; {allowed}")),
            _ if text.lines().count() > 1 => Err(format!("it has several lines; {allowed}")),
            _ if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) => {
                Err(format!("it has space or control characters in it; {allowed}"))
            }
            1..=TOKEN_LEN_MAX => Ok(Token(text.to_owned())),
            found => Err(format!("it has {found} bytes; {allowed}")),
        }
    }
}

/// Shows that there is one, and not what it is.
impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Token").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rstest::rstest;
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[rstest]
    #[case(" plugd_x \n", Ok("plugd_x"))]
    #[case("", Err("empty"))]
    #[case(" \n ", Err("empty"))]
    #[case("secret\nother", Err("several lines"))]
    #[case("secret other", Err("space or control"))]
    #[case("secret\u{1b}x", Err("space or control"))]
    fn a_token_is_one_word(#[case] text: &str, #[case] expected: Result<&str, &str>) {
        match (Token::new(text), expected) {
            (Ok(token), Ok(expected)) => assert_eq!(token.0, expected),
            (Err(error), Err(expected)) => {
                let error = error.to_string();
                assert!(error.contains(expected) && !error.contains("secret"), "{error}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_token_has_a_longest_length() {
        assert!(Token::new(&"x".repeat(TOKEN_LEN_MAX)).is_ok());
        let error = Token::new(&"x".repeat(TOKEN_LEN_MAX + 1)).expect_err("too long").to_string();
        assert!(error.contains("513 bytes; allowed: one line of 1 to 512"), "{error}");
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("secret").expect("a token");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn only_a_file_of_ones_own_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("token");
        let refused = |path: &Path, what: &str| {
            let error = Token::read_file(path).expect_err(what).to_string();
            assert!(error.contains(what) && !error.contains("secret"), "{error}");
        };
        fs::write(&path, "secret\n").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a file of ours");
        refused(&path, "its mode is 0644; allowed: 0600 or less; chmod 600");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of ours");
        assert_eq!(Token::read_file(&path).expect("a good file").0, "secret");
        let link = dir.path().join("link");
        symlink(&path, &link).expect("a link");
        refused(&link, "symbolic link");
        refused(dir.path(), "no regular file");
        let pipe = dir.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).expect("a pipe");
        refused(&pipe, "no regular file");
        fs::write(&path, "x".repeat(5000)).expect("a file");
        refused(&path, "too long; allowed: 4096 bytes");
        refused(Path::new("/nonexistent/token"), "cannot read token file");
    }
}
