//! Sizes, times and permissions as people read them.

use super::facts::{Facts, Kind};

/// The end of the year 9999, in seconds since 1970; later times have no RFC 3339 form.
const TIME_MAX_S: i64 = 253_402_300_799;

/// A size in bytes, or with `human` in three to four letters: `999`, `1.5K`, `23M`.
pub(crate) fn size(bytes: u64, human: bool) -> String {
    if !human || bytes < 1024 {
        return bytes.to_string();
    }
    let mut value = bytes as f64;
    let mut unit = ' ';
    for next in ['K', 'M', 'G', 'T', 'P', 'E'] {
        value /= 1024.0;
        unit = next;
        if value < 1023.5 {
            break;
        }
    }
    // As `ls -h` does, never less than there is.
    if value < 9.95 {
        format!("{:.1}{unit}", (value * 10.0).ceil() / 10.0)
    } else {
        format!("{:.0}{unit}", value.ceil())
    }
}

/// A time in UTC, to the second.
pub(crate) fn time(facts: &Facts) -> String {
    match facts.modified().filter(|_| (0..=TIME_MAX_S).contains(&facts.mtime_s)) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => facts.mtime_s.to_string(),
    }
}

/// Kind and permissions in ten letters, as `ls -l` has them.
pub(crate) fn mode(facts: &Facts) -> String {
    let kind = match facts.kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Other => '?',
    };
    let mut letters = String::from(kind);
    for (shift, special, lower, upper) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = facts.mode >> shift;
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        letters.push(match (bits & 1 != 0, facts.mode & special != 0) {
            (true, false) => 'x',
            (true, true) => lower,
            (false, true) => upper,
            (false, false) => '-',
        });
    }
    letters
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(0, "0")]
    #[case(1023, "1023")]
    #[case(1024, "1.0K")]
    #[case(1025, "1.1K")]
    #[case(10 << 10, "10K")]
    #[case((1 << 20) - 1, "1.0M")]
    #[case(5 << 30, "5.0G")]
    #[case(u64::MAX, "16E")]
    fn a_human_size_is_short_and_never_too_small(#[case] bytes: u64, #[case] text: &str) {
        assert_eq!(size(bytes, true), text);
        assert_eq!(size(bytes, false), bytes.to_string());
    }

    #[rstest]
    #[case("file", 0o644, "-rw-r--r--")]
    #[case("dir", 0o1777, "drwxrwxrwt")]
    #[case("symlink", 0o777, "lrwxrwxrwx")]
    #[case("file", 0o4644, "-rwSr--r--")]
    #[case("file", 0o2755, "-rwxr-sr-x")]
    fn permissions_are_those_of_ls(#[case] kind: &str, #[case] bits: u32, #[case] letters: &str) {
        let facts: Facts = serde_json::from_value(json!({"kind": kind, "mode": bits})).expect("facts");
        assert_eq!(mode(&facts), letters);
    }

    #[test]
    fn a_time_without_a_form_is_a_number() {
        let at =
            |mtime_s: i64| time(&serde_json::from_value(json!({"kind": "file", "mtime_s": mtime_s})).expect("facts"));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(TIME_MAX_S), "9999-12-31T23:59:59Z");
        assert_eq!(at(TIME_MAX_S + 1), (TIME_MAX_S + 1).to_string());
        assert_eq!(at(-5), "-5");
        assert_eq!(at(i64::MIN), i64::MIN.to_string());
    }
}
