//! Globs, over names that may be no text.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

use super::name::Name;
use crate::cli::failure::Failure;

/// A glob: `*` and `?` stop at slashes, `**` does not, `[a-z]` is one of several letters, `{a,b}` one of several words.
#[derive(Debug)]
pub(crate) struct Glob {
    matcher: GlobMatcher,
    has_slash: bool,
}

impl Glob {
    pub(crate) fn new(text: &str) -> Result<Glob, Failure> {
        let text = text.trim_end_matches('/');
        let glob = GlobBuilder::new(text.trim_start_matches('/')).literal_separator(true).build();
        let glob = glob.map_err(|error| Failure::Usage(format!("bad glob \"{text}\": {}", error.kind())))?;
        Ok(Glob { matcher: glob.compile_matcher(), has_slash: text.contains('/') })
    }

    /// Whether the whole path matches.
    pub(crate) fn matches(&self, path: &Name) -> bool {
        self.matcher.is_match(Path::new(path.as_os_str()))
    }

    /// Whether the path matches, or its last part when the glob has no slash.
    fn selects(&self, path: &Name) -> bool {
        match self.has_slash {
            true => self.matches(path),
            false => self.matches(&path.split_last().1),
        }
    }
}

/// What `--include` and `--exclude` leave.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

impl Selection {
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Selection, Failure> {
        let globs = |texts: &[String]| texts.iter().map(|text| Glob::new(text)).collect::<Result<Vec<_>, _>>();
        Ok(Selection { include: globs(include)?, exclude: globs(exclude)? })
    }

    /// Whether something is left out, with everything below it.
    pub(crate) fn excludes(&self, path: &Name) -> bool {
        self.exclude.iter().any(|glob| glob.selects(path))
    }

    /// Whether something is left out, or a directory above it is.
    pub(crate) fn excludes_at_any_depth(&self, path: &Name) -> bool {
        let ends = path.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut above = ends.map(|end| Name::new(&path.as_bytes()[..end]));
        !self.exclude.is_empty() && (above.any(|above| self.excludes(&above)) || self.excludes(path))
    }

    /// Whether a file is asked for, unless it is left out.
    pub(crate) fn includes(&self, path: &Name) -> bool {
        self.include.is_empty() || self.include.iter().any(|glob| glob.selects(path))
    }

    /// Whether every file is asked for that is not left out.
    pub(crate) fn includes_all(&self) -> bool {
        self.include.is_empty()
    }
}

/// Whether a path looks like a glob.
pub(crate) fn has_glob(path: &Name) -> bool {
    path.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// The directory that a glob is looked for in, the glob below it, and whether that reaches into directories.
pub(crate) fn split_glob(path: &Name) -> Result<(Name, Glob, bool), Failure> {
    let Ok(text) = std::str::from_utf8(path.as_bytes()) else {
        return Err(Failure::Usage(format!("glob \"{path}\" is no UTF-8")));
    };
    let first = text.find(['*', '?', '[']).unwrap_or(text.len());
    let start = text[..first].rfind('/').map_or(0, |slash| slash + 1);
    let base = match text[..start].trim_end_matches('/') {
        "" => ".",
        base => base,
    };
    let glob = &text[start..];
    let reaches_down = glob.trim_end_matches('/').contains('/') || glob.contains("**");
    Ok((base.into(), Glob::new(glob)?, reaches_down))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("logs/*.gz", "logs", "a.gz", false)]
    #[case("*.gz", ".", "a.gz", false)]
    #[case("a/b*/c", "a", "bx/c", true)]
    #[case("a/**/c", "a", "x/y/c", true)]
    fn a_glob_is_looked_for_below_its_plain_part(
        #[case] path: &str,
        #[case] base: &str,
        #[case] hit: &str,
        #[case] down: bool,
    ) {
        let (found, glob, reaches_down) = split_glob(&path.into()).expect("a glob");
        assert_eq!((found, reaches_down), (base.into(), down));
        assert!(glob.matches(&hit.into()));
    }

    #[test]
    fn a_star_stops_at_a_slash_and_matches_any_bytes() {
        let glob = Glob::new("*.c").expect("a glob");
        assert!(!glob.matches(&"a/b.c".into()) && glob.matches(&Name::new(b"\xff.c")));
        assert!(matches!(Glob::new("[a"), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_selection_knows_names_at_any_depth_and_whole_paths() {
        let globs = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let selection = Selection::new(&globs(&["*.c", "doc/*"]), &globs(&["target", "a/*.c"])).expect("globs");
        for (path, included, excluded) in [
            ("x/y.c", true, false),
            ("doc/readme", true, false),
            ("x/doc/readme", false, false),
            ("x/target", false, true),
            ("x/target/y.c", true, true),
            ("a/y.c", true, true),
        ] {
            assert_eq!(selection.includes(&path.into()), included, "{path}");
            assert_eq!(selection.excludes_at_any_depth(&path.into()), excluded, "{path}");
        }
        assert!(Selection::default().includes(&"a".into()) && !Selection::default().excludes(&"a".into()));
    }
}
