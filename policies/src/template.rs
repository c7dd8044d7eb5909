//! Path templates: `{*}` is one segment, `{**}` the rest (rules 41 to 43).

/// Why a text with `{*}` or `{**}` is not a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("a path template begins with `/`")]
    NoSlash,
    #[error(
        "`{{*}}` and `{{**}}` stand alone between two `/`; other braces and `*` have no place in a path template"
    )]
    Operator,
    #[error("`{{**}}` is the last operator of a path template")]
    NotLast,
    #[error("a path template has only `A-Z a-z 0-9 - . _ ~ % ! $ & ' ( ) + , ; : @ =`, not `{0}`")]
    Character(char),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    /// `{*}`
    One,
}

/// A compiled template: segments, then perhaps `{**}` with the literal text behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PathTemplate {
    segments: Vec<Segment>,
    /// `Some(text)` with `{**}`: the path's end, `/cart` in `/store/{**}/cart`.
    rest: Option<String>,
}

impl PathTemplate {
    /// True for what rule 41 calls a template.
    pub(crate) fn is_template(text: &str) -> bool {
        text.contains("{*}") || text.contains("{**}")
    }

    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let body = text.strip_prefix('/').ok_or(TemplateError::NoSlash)?;
        let mut segments = Vec::new();
        let mut parts = body.split('/');
        while let Some(part) = parts.next() {
            match part {
                "{*}" => segments.push(Segment::One),
                "{**}" => {
                    let mut rest = String::new();
                    for part in parts {
                        if matches!(part, "{*}" | "{**}") {
                            return Err(TemplateError::NotLast);
                        }
                        rest.push('/');
                        rest.push_str(literal(part)?);
                    }
                    return Ok(Self {
                        segments,
                        rest: Some(rest),
                    });
                }
                _ => segments.push(Segment::Literal(literal(part)?.to_owned())),
            }
        }
        Ok(Self {
            segments,
            rest: None,
        })
    }

    /// What every path that matches begins with.
    pub(crate) fn literal_start(&self) -> String {
        let mut start = String::from("/");
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => {
                    start.push_str(text);
                    start.push('/');
                }
                Segment::One => return start,
            }
        }
        if self.rest.is_none() {
            start.pop();
        }
        start
    }

    /// What every path that matches ends with.
    pub(crate) fn literal_end(&self) -> String {
        if let Some(end) = &self.rest {
            return end.clone();
        }
        let literals = self
            .segments
            .iter()
            .rev()
            .map_while(|segment| match segment {
                Segment::Literal(text) => Some(text.as_str()),
                Segment::One => None,
            });
        let mut parts: Vec<&str> = literals.flat_map(|text| [text, "/"]).collect();
        parts.reverse();
        parts.concat()
    }

    /// The segment of this number, from 1, where it is a literal.
    pub(crate) fn literal_segment(&self, number: usize) -> Option<&str> {
        match self.segments.get(number.checked_sub(1)?)? {
            Segment::Literal(text) => Some(text),
            Segment::One => None,
        }
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut left = path;
        for segment in &self.segments {
            let Some(tail) = left.strip_prefix('/') else {
                return false;
            };
            let (part, after) = tail.split_at(tail.find('/').unwrap_or(tail.len()));
            let is_match = match segment {
                Segment::Literal(text) => text == part,
                Segment::One => !part.is_empty() && part.chars().all(is_pchar),
            };
            if !is_match {
                return false;
            }
            left = after;
        }
        match &self.rest {
            None => left.is_empty(),
            // `{**}` is zero or more characters behind its own `/`.
            Some(end) => left
                .strip_prefix('/')
                .is_some_and(|tail| tail.ends_with(end.as_str())),
        }
    }
}

fn literal(part: &str) -> Result<&str, TemplateError> {
    match part.chars().find(|c| !is_pchar(*c) || *c == '*') {
        Some('{' | '}' | '*') => Err(TemplateError::Operator),
        Some(other) => Err(TemplateError::Character(other)),
        None => Ok(part),
    }
}

pub(crate) fn is_pchar(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=*".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_42_the_truth_table_of_templates_holds() {
        let templates: Vec<PathTemplate> =
            ["/allow/admin/{**}", "/foo/{*}/bar/{**}", "/store/{**}/cart"]
                .iter()
                .map(|text| PathTemplate::parse(text).unwrap())
                .collect();
        for (path, want) in [
            ("/allow/admin/", true),
            ("/allow/admin/temp", true),
            ("/allow/admin/temp.txt", true),
            ("/allow/admin/foo/temp.txt", true),
            ("/foo/buzz/bar/bat.txt", true),
            ("/foo/buzz/bar/bat.temp.txt", true),
            ("/foo/buzz/bar/bat/fuzz.txt", true),
            ("/foo/buzz/bar/bat", true),
            ("/store//cart", true),
            ("/store/foo/cart", true),
            ("/store/foo/bar/cart", true),
            ("/allow/admin", false),
            ("/allow/user/", false),
            ("/allow", false),
            ("/foo/bar/bat.txt", false),
            ("/foo//bar/bat.txt", false),
            ("/store/cart", false),
        ] {
            assert_eq!(
                templates.iter().any(|template| template.matches(path)),
                want,
                "{path}"
            );
        }
        let trailing = PathTemplate::parse("/foo/{**}/").unwrap();
        assert!(
            trailing.matches("/foo/bar/") && !trailing.matches("/foo/bar/baz.txt"),
            "trailing slash required"
        );
    }

    #[test]
    fn rule_43_a_template_matches_to_the_end() {
        let template = PathTemplate::parse("/a/{*}").unwrap();
        for (path, want) in [
            ("/a/b", true),
            ("/a/b/", false),
            ("/a/b/c", false),
            ("/a/", false),
            ("/a", false),
            ("/a/b|c", false),
        ] {
            assert_eq!(template.matches(path), want, "{path}");
        }
    }

    #[test]
    fn rule_41_malformed_templates_are_refused_by_name() {
        use TemplateError as E;
        for (text, want) in [
            ("{*}", E::NoSlash),
            ("/a{*}", E::Operator),
            ("/{*}b/c", E::Operator),
            ("/{*}/*", E::Operator),
            ("/{*}/{x}", E::Operator),
            ("/{***}/{*}", E::Operator),
            ("/{**}/a/{*}", E::NotLast),
            ("/{**}/{**}", E::NotLast),
            ("/{*}/a b", E::Character(' ')),
            ("/{*}/a?b", E::Character('?')),
        ] {
            assert_eq!(PathTemplate::parse(text), Err(want), "{text}");
        }
    }
}
