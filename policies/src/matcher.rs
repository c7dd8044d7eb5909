//! Patterns, compiled once; matching never allocates and knows no regular expressions (threat A8).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::template::PathTemplate;

/// Exact, prefix, suffix or presence (rules 24 to 26).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum StringMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// `*`: not empty.
    Present,
}

impl StringMatch {
    /// A leading `*` wins over a trailing one; any other `*` is literal (rule 25).
    pub(crate) fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Present
        } else if let Some(rest) = text.strip_prefix('*') {
            Self::Suffix(rest.to_owned())
        } else if let Some(rest) = text.strip_suffix('*') {
            Self::Prefix(rest.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Present => !value.is_empty(),
        }
    }

    /// For hosts; the pattern is in lower case already (threat A4).
    pub(crate) fn matches_ignoring_case(&self, value: &[u8]) -> bool {
        let equal = |text: &str, part: Option<&[u8]>| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(text.as_bytes()))
        };
        match self {
            Self::Exact(text) => equal(text, Some(value)),
            Self::Prefix(text) => equal(text, value.get(..text.len())),
            Self::Suffix(text) => equal(
                text,
                value
                    .len()
                    .checked_sub(text.len())
                    .and_then(|from| value.get(from..)),
            ),
            Self::Present => !value.is_empty(),
        }
    }

    /// A `*` that has no special meaning where it stands (rule 25).
    pub(crate) fn has_literal_star(&self) -> bool {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text.contains('*'),
            Self::Present => false,
        }
    }
}

/// One pattern of a list, ready for its field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// Most text fields. A principal is compared without `spiffe://` (rule 30).
    Text(StringMatch),
    Template(PathTemplate),
    Address(IpNet),
    Port(u16),
    /// Namespace and account name, in any trust domain (rule 31).
    ServiceAccount {
        namespace: String,
        account: String,
    },
    RequestPrincipal {
        issuer: StringMatch,
        subject: StringMatch,
    },
    /// Whatever the request has there (ours, by annotation).
    Reference(Reference),
}

/// A part of the request that a claim is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reference {
    /// A header that stands exactly once; lower case.
    Header(String),
    /// A segment of the path, from 1.
    PathSegment(u16),
}

impl Pattern {
    pub(crate) fn matches_text(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.matches(value),
            Self::Template(template) => {
                std::str::from_utf8(value).is_ok_and(|path| template.matches(path))
            }
            Self::Address(_)
            | Self::Port(_)
            | Self::ServiceAccount { .. }
            | Self::RequestPrincipal { .. }
            | Self::Reference(_) => false,
        }
    }

    /// A lone `*`.
    pub(crate) fn is_presence(&self) -> bool {
        matches!(self, Self::Text(StringMatch::Present))
    }

    pub(crate) fn matches_address(&self, address: IpAddr) -> bool {
        matches!(self, Self::Address(net) if net.contains(&address.to_canonical()))
    }

    pub(crate) fn matches_port(&self, port: u16) -> bool {
        matches!(self, Self::Port(wanted) if *wanted == port)
    }

    pub(crate) fn matches_host(&self, host: &str, is_exact: bool) -> bool {
        let Self::Text(text) = self else { return false };
        host_forms(host, is_exact)
            .into_iter()
            .flatten()
            .any(|form| text.matches_ignoring_case(form.as_bytes()))
    }

    /// `/ns/NS/..` anywhere in a SPIFFE ID's path, with something behind it (rule 29).
    pub(crate) fn matches_namespace(&self, path: &str) -> bool {
        let Self::Text(text) = self else { return false };
        namespaces(path)
            .any(|(namespace, rest)| rest.is_some() && text.matches(namespace.as_bytes()))
    }

    /// `/ns/NS/[key/value/..]sa/NAME` anywhere in a SPIFFE ID's path (rule 31).
    pub(crate) fn matches_service_account(&self, path: &str) -> bool {
        let Self::ServiceAccount { namespace, account } = self else {
            return false;
        };
        namespaces(path).any(|(found, rest)| {
            found == namespace && accounts(rest.unwrap_or_default()).any(|found| found == account)
        })
    }

    pub(crate) fn matches_request_principal(&self, issuer: &str, subject: &str) -> bool {
        matches!(self, Self::RequestPrincipal { issuer: left, subject: right }
            if left.matches(issuer.as_bytes()) && right.matches(subject.as_bytes()))
    }
}

/// The forms of a host that are compared (rule 38): as it is, without its port, without the root's dot.
pub(crate) fn host_forms(host: &str, is_exact: bool) -> [Option<&str>; 3] {
    if is_exact {
        return [Some(host), None, None];
    }
    let (name, port) = split_port(host);
    let rooted = name.strip_suffix('.');
    [Some(host), port.map(|_| name), rooted]
}

/// The accounts of what follows a namespace: values of the key `sa` (rule 31).
pub(crate) fn accounts(rest: &str) -> impl Iterator<Item = &str> {
    let mut pairs = rest.split('/');
    std::iter::from_fn(move || Some((pairs.next()?, pairs.next()?)))
        .filter_map(|(key, value)| (key == "sa").then_some(value))
}

/// Each namespace that the path names, with what follows behind its `/`.
pub(crate) fn namespaces(path: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    path.match_indices("/ns/").filter_map(move |(at, key)| {
        let value = path.get(at + key.len()..)?;
        Some(match value.split_once('/') {
            Some((namespace, rest)) => (namespace, Some(rest)),
            None => (value, None),
        })
    })
}

/// `host:port` taken apart; an IPv6 address keeps its brackets.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.ends_with(':') && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str) -> StringMatch {
        StringMatch::parse(pattern)
    }

    #[test]
    fn rule_24_to_26_text_is_exact_prefix_suffix_or_present() {
        for (pattern, value, want) in [
            ("v", "v", true),
            ("v", "V", false),
            ("v", "vv", false),
            ("v*", "v", true),
            ("v*", "vx", true),
            ("v*", "xv", false),
            ("*v", "v", true),
            ("*v", "xv", true),
            ("*v", "vx", false),
            ("*", "x", true),
            ("*", "", false),
            ("*/x*", "/x*", true),
            ("*/x*", "a/x*", true),
            ("*/x*", "/x", false),
            ("*/x*", "/xy", false),
            ("/a*b", "/a*b", true),
            ("/a*b", "/axb", false),
        ] {
            assert_eq!(
                text(pattern).matches(value.as_bytes()),
                want,
                "{pattern} {value}"
            );
        }
        assert!(
            text("/a*b").has_literal_star()
                && text("*/x*").has_literal_star()
                && !text("/a*").has_literal_star()
        );
    }

    #[test]
    fn rule_38_hosts_match_in_any_case_and_with_or_without_port() {
        for (pattern, host, with_port, exactly) in [
            ("a.com", "a.com", true, true),
            ("a.com", "A.cOm", true, true),
            ("a.com", "a.com:8080", true, false),
            ("a.com", "a.com.", true, false),
            ("a.com", "a.com.:80", true, false),
            ("a.com:*", "a.com:8080", true, true),
            ("a.com:80", "a.com:8080", false, false),
            ("a.com:80", "a.com", false, false),
            ("*.com", "x.com:80", true, false),
            ("a.*", "a.com:80", true, true),
            ("*", "a", true, true),
            ("*", "", false, false),
            ("[::1]", "[::1]:80", true, false),
            ("::", "::1", false, false),
        ] {
            let pattern_of = |host: &str| Pattern::Text(text(host));
            assert_eq!(
                pattern_of(pattern).matches_host(host, false),
                with_port,
                "{pattern} {host}"
            );
            assert_eq!(
                pattern_of(pattern).matches_host(host, true),
                exactly,
                "{pattern} {host} exact"
            );
        }
    }

    #[test]
    fn rule_29_and_31_namespace_and_account_are_read_from_the_path() {
        for (pattern, path, want) in [
            ("shop", "/ns/shop/sa/a", true),
            ("shop", "/x/ns/shop/sa/a", true),
            ("shop", "/ns/shop", false),
            ("shop", "/ns/shopping/sa/a", false),
            ("sho*", "/ns/shop/sa/a", true),
            ("*op", "/ns/shop/sa/a", true),
            ("*", "/ns/shop/sa/a", true),
            ("*", "/host/a", false),
            ("s.op", "/ns/shop/sa/a", false),
        ] {
            assert_eq!(
                Pattern::Text(text(pattern)).matches_namespace(path),
                want,
                "{pattern} {path}"
            );
        }
        for (namespace, account, path, want) in [
            ("shop", "a", "/ns/shop/sa/a", true),
            ("shop", "a", "/ns/shop/sa/a/more", true),
            ("shop", "a", "/ns/shop/env/prod/sa/a", true),
            ("shop", "a", "/ns/shop/sa/ab", false),
            ("shop", "a", "/ns/shopx/sa/a", false),
            ("shop", "a", "/ns/shop/x/sa/a", false),
            ("shop", "a.b", "/ns/shop/sa/axb", false),
        ] {
            let pattern = Pattern::ServiceAccount {
                namespace: namespace.into(),
                account: account.into(),
            };
            assert_eq!(
                pattern.matches_service_account(path),
                want,
                "{namespace}/{account} {path}"
            );
        }
    }
}
