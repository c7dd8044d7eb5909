//! The naive engine: the same rules in a vector, asked one after the other, DENY first. Patterns are parsed beforehand.

use crate::workload::{PlainCall, PlainRule};

enum Path {
    Exact(String),
    Prefix(String),
    Template(Vec<Segment>),
}

enum Segment {
    Text(String),
    One,
    Rest,
}

/// One rule; an empty list is no condition.
struct Rule {
    principals: Vec<String>,
    namespaces: Vec<String>,
    methods: Vec<&'static str>,
    paths: Vec<Path>,
    groups: Vec<String>,
}

/// The rules of one workload.
pub(crate) struct Linear {
    deny: Vec<Rule>,
    allow: Vec<Rule>,
}

impl Linear {
    pub(crate) fn new(rules: &[PlainRule]) -> Self {
        let of_kind = |is_deny| {
            let chosen = rules.iter().filter(|rule| rule.is_deny == is_deny);
            chosen.map(Rule::new).collect()
        };
        Self {
            deny: of_kind(true),
            allow: of_kind(false),
        }
    }

    /// The number of the deciding rule, and whether the call is allowed.
    pub(crate) fn decide(&self, call: &PlainCall) -> (bool, Option<usize>) {
        if let Some(number) = self.deny.iter().position(|rule| rule.matches(call)) {
            return (false, Some(number));
        }
        let found = self.allow.iter().position(|rule| rule.matches(call));
        (found.is_some(), found)
    }
}

impl Rule {
    fn new(rule: &PlainRule) -> Self {
        Self {
            principals: rule.principals.clone(),
            namespaces: rule.namespaces.clone(),
            methods: rule.methods.clone(),
            paths: rule.paths.iter().map(|text| Path::parse(text)).collect(),
            groups: rule.groups.clone(),
        }
    }

    fn matches(&self, call: &PlainCall) -> bool {
        (self.principals.is_empty() || self.principals.contains(&call.principal))
            && (self.namespaces.is_empty() || self.namespaces.contains(&call.namespace))
            && (self.methods.is_empty() || self.methods.contains(&call.method))
            && (self.paths.is_empty() || self.paths.iter().any(|path| path.matches(&call.path)))
            && (self.groups.is_empty() || self.groups.iter().any(|one| call.groups.contains(one)))
    }
}

impl Path {
    fn parse(text: &str) -> Self {
        if text.contains('{') {
            let segments = text.split('/').map(|part| match part {
                "{*}" => Segment::One,
                "{**}" => Segment::Rest,
                text => Segment::Text(text.to_owned()),
            });
            Self::Template(segments.collect())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => text == path,
            Self::Prefix(text) => path.starts_with(text.as_str()),
            Self::Template(segments) => {
                let mut parts = path.split('/');
                for segment in segments {
                    let Some(part) = parts.next() else {
                        return false;
                    };
                    let is_match = match segment {
                        Segment::Text(text) => text == part,
                        Segment::One => !part.is_empty(),
                        // Nothing follows it in this workload.
                        Segment::Rest => return true,
                    };
                    if !is_match {
                        return false;
                    }
                }
                parts.next().is_none()
            }
        }
    }
}
