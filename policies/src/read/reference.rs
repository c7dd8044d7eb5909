//! `${request.headers[x-tenant]}` and `${request.path[1]}` in values of claims (ours, by annotation).

use super::condition::field_of_key;
use crate::diagnostic::excerpt;
use crate::matcher::Reference;
use crate::schema::Field;

/// True for a text that looks as if it meant a part of the request.
pub(super) fn is_like_reference(value: &str) -> bool {
    value.contains("${")
}

/// The part of the request that a value stands for; a value is one reference or none. The error is message and help.
pub(super) fn parse_reference(value: &str) -> Result<Reference, (String, String)> {
    let refuse = |what: &str| {
        let message = format!("`{}` is not a reference: {what}", excerpt(value));
        let help = "write `${request.headers[NAME]}` or `${request.path[NUMBER]}` alone".to_owned();
        Err((message, help))
    };
    let inner = value
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|inner| !inner.contains(['$', '{', '}']));
    let Some(inner) = inner else {
        return refuse("nothing stands before, behind or inside of it");
    };
    if let Some(number) = inner
        .strip_prefix("request.path[")
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let is_plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
        return match number.parse() {
            Ok(number) if is_plain => Ok(Reference::PathSegment(number)),
            _ => refuse("the segments of a path are numbered from 1"),
        };
    }
    match field_of_key(inner) {
        Ok(Field::Header(name)) if name != ":path" => Ok(Reference::Header(name)),
        _ => refuse("it names neither a header nor a segment of the path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_one_header_or_one_segment_of_the_path() {
        let header = |name: &str| Some(Reference::Header(name.into()));
        for (text, want) in [
            ("${request.headers[X-Tenant]}", header("x-tenant")),
            ("${request.headers[:method]}", header(":method")),
            ("${request.path[1]}", Some(Reference::PathSegment(1))),
            ("${request.path[12]}", Some(Reference::PathSegment(12))),
            ("${request.path[0]}", None),
            ("${request.path[01]}", None),
            ("${request.path[-1]}", None),
            ("${request.path[99999]}", None),
            ("${request.path[]}", None),
            ("${request.path}", None),
            ("${request.headers[:path]}", None),
            ("${request.headers}", None),
            ("${request.auth.claims[a]}", None),
            ("${source.ip}", None),
            ("${}", None),
            ("a${request.path[1]}", None),
            ("${request.path[1]}b", None),
            ("${request.path[1]}${request.path[2]}", None),
            ("${request.path[1]", None),
        ] {
            assert_eq!(parse_reference(text).ok(), want, "{text}");
        }
    }
}
