//! Bounds the nesting of JSON that came from outside, before anything parses it.

/// The deepest nesting of arrays and objects in a JSON frame: deeper values serve no caller and cost stack to read.
pub const JSON_DEPTH_MAX: usize = 32;

/// Whether arrays and objects in `json` nest deeper than `depth_max`. Looks at brackets outside strings only.
pub fn json_depth_exceeds(json: &[u8], depth_max: usize) -> bool {
    let mut depth = 0usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
        if depth > depth_max {
            return true;
        }
    }
    false
}

/// Refuses JSON that is no object: serde would take a struct's fields from an array as well.
pub(super) fn require_object(json: &[u8]) -> Result<(), serde_json::Error> {
    match json.trim_ascii_start().first() {
        Some(b'[') => Err(serde::de::Error::custom("expected an object, found an array")),
        _ => Ok(()),
    }
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exact() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(!json_depth_exceeds(nested(32).as_bytes(), 32));
        assert!(json_depth_exceeds(nested(33).as_bytes(), 32));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert!(!json_depth_exceeds(br#"{"a":"[[[[\"[[[[\\"}"#, 1));
        assert!(json_depth_exceeds(br#"{"a":"\\",b:[[]]}"#, 2));
    }
}
