//! Paths as shapes: segments that look like the name of one thing among many become `{*}`.

use std::fmt::Write as _;

/// Does the segment look like an identifier: a number, a UUID, a hash, a long mix of letters and digits?
pub(crate) fn looks_like_id(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let has_only = |is: fn(&u8) -> bool| !bytes.is_empty() && bytes.iter().all(is);
    let is_number = has_only(u8::is_ascii_digit);
    let is_hex = bytes.len() >= 8 && digits > 0 && has_only(u8::is_ascii_hexdigit);
    let is_mix = bytes.len() >= 16
        && digits >= 2
        && has_only(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_number || is_uuid(segment) || is_hex || is_mix
}

fn is_uuid(segment: &str) -> bool {
    let lengths = segment.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
        && segment
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// The path with `{*}` for each segment that looks like an identifier. For grouping; not a pattern to enforce.
pub(crate) fn shape_of(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    for (number, segment) in path.split('/').enumerate() {
        let separator = if number == 0 { "" } else { "/" };
        let shown = if looks_like_id(segment) {
            "{*}"
        } else {
            segment
        };
        // Writing to a String cannot fail.
        let _ = write!(shape, "{separator}{shown}");
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_uuids_and_hashes_look_like_ids_and_words_do_not() {
        for (path, want) in [
            ("/orders/42", "/orders/{*}"),
            ("/a/123e4567-e89b-12d3-a456-426614174000/b", "/a/{*}/b"),
            ("/commits/9fceb02d0ae598e9", "/commits/{*}"),
            ("/01HZX3KJ5N8Q2W4E6R8T0Y1U3I", "/{*}"),
            ("/v1/users/", "/v1/users/"),
            ("/deadbeef", "/deadbeef"),
            ("/", "/"),
            ("*", "*"),
            ("/internationalization", "/internationalization"),
            ("/report-2026", "/report-2026"),
        ] {
            assert_eq!(shape_of(path), want, "{path}");
        }
    }
}
