//! Does a rule match a call? (rules 20 to 22, 28, 44 to 47, 54 to 57)

use serde_json::Value;

use super::{Call, World, annotation, claims, items, namespace_of, peer, text, text_at};

/// How doubt is settled: an ALLOW needs certainty, everything else takes any hint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Narrow,
    Wide,
}

/// A call, a policy, and on which side it errs.
pub struct Question<'q> {
    pub world: &'q World<'q>,
    pub policy: &'q Value,
    pub call: &'q Call,
    /// Normalized, and the query with its `?`; nothing on a bare connection.
    pub path: Option<&'q (String, String)>,
    pub side: Side,
}

const HTTP_FIELDS: [&str; 4] = ["hosts", "methods", "paths", "requestPrincipals"];

/// `notPaths` is `paths`, negated.
fn positive_name(field: &str) -> (String, bool) {
    match field.strip_prefix("not") {
        Some(rest) => {
            let (first, others) = rest.split_at(1);
            (format!("{}{others}", first.to_lowercase()), true)
        }
        None => (field.to_owned(), false),
    }
}

fn is_http_field(field: &str) -> bool {
    HTTP_FIELDS.contains(&positive_name(field).0.as_str())
}

fn is_http_key(key: &str) -> bool {
    key.starts_with("request.")
}

fn alternatives<'r>(rule: &'r Value, list: &str, inner: &str) -> Vec<&'r Value> {
    items(rule.get(list))
        .iter()
        .filter_map(|entry| entry.get(inner))
        .collect()
}

/// Rule 54: it speaks of HTTP somewhere.
fn is_about_http(rule: &Value) -> bool {
    let parts = alternatives(rule, "from", "source")
        .into_iter()
        .chain(alternatives(rule, "to", "operation"));
    let of_parts = parts
        .filter_map(Value::as_object)
        .flat_map(serde_json::Map::keys);
    of_parts.into_iter().any(|field| is_http_field(field))
        || items(rule.get("when"))
            .iter()
            .any(|condition| text_at(condition, &["key"]).is_some_and(is_http_key))
}

impl Question<'_> {
    /// Rule 20.
    pub fn is_matched_by(&self, rule: &Value) -> bool {
        if self.call.is_tcp() && self.side == Side::Narrow && is_about_http(rule) {
            return false;
        }
        let any = |list: &str, inner: &str| {
            rule.get(list).is_none()
                || alternatives(rule, list, inner)
                    .into_iter()
                    .any(|part| self.is_in(part))
        };
        any("from", "source")
            && any("to", "operation")
            && items(rule.get("when"))
                .iter()
                .all(|condition| self.holds(condition))
    }

    /// Rule 21: one source or operation.
    fn is_in(&self, part: &Value) -> bool {
        part.as_object().into_iter().flatten().all(|(field, list)| {
            if self.call.is_tcp() && is_http_field(field) {
                return true;
            }
            let (name, is_negative) = positive_name(field);
            let is_hit = items(Some(list))
                .iter()
                .any(|value| self.is_hit(&name, &as_text(value)));
            is_hit != is_negative
        })
    }

    /// Rule 22: one condition.
    fn holds(&self, condition: &Value) -> bool {
        let key = text_at(condition, &["key"]).unwrap_or_default();
        if self.call.is_tcp() && is_http_key(key) {
            return true;
        }
        let list = |name: &str| {
            condition.get(name).map(|list| {
                items(Some(list))
                    .iter()
                    .map(as_text)
                    .collect::<Vec<String>>()
            })
        };
        let (positive, negative) = (list("values"), list("notValues"));
        if let Some(name) = key
            .strip_prefix("request.headers[")
            .and_then(|rest| rest.strip_suffix(']'))
        {
            return self.header_holds(name, positive.as_deref(), negative.as_deref());
        }
        let is_hit = |pattern: &String| match field_of(key) {
            Some(field) => self.is_hit(field, pattern),
            None => self.has_text(key, pattern),
        };
        let is_positive_met = positive.is_none_or(|patterns| {
            if self.wants_all_of(key) {
                patterns.iter().all(is_hit)
            } else {
                patterns.iter().any(is_hit)
            }
        });
        is_positive_met && !negative.is_some_and(|patterns| patterns.iter().any(is_hit))
    }

    /// One value of a field against the call.
    fn is_hit(&self, field: &str, pattern: &str) -> bool {
        let call = self.call;
        let own = namespace_of(self.policy);
        let by_peer = |is_hit: &dyn Fn(&str) -> bool| call.principal.as_deref().is_some_and(is_hit);
        match field {
            "principals" => by_peer(&|id| peer::principal_matches(self.world, pattern, id)),
            "namespaces" => by_peer(&|id| peer::namespace_matches(pattern, id)),
            "serviceAccounts" => by_peer(&|id| peer::account_matches(pattern, own, id)),
            "trustDomains" => by_peer(&|id| peer::domain_matches(self.world, pattern, id)),
            "requestPrincipals" => claims::request_principal_matches(pattern, call.claims.as_ref()),
            "ipBlocks" => text::address_matches(pattern, &call.source_ip),
            "remoteIpBlocks" => text::address_matches(pattern, &call.remote_ip),
            "destination.ip" => text::address_matches(pattern, &call.destination_ip),
            "ports" => call.port.to_string() == pattern,
            "hosts" => {
                let is_exact = text_at(self.world.config, &["hostMatching"]) == Some("EXACT");
                text::host_matches(pattern, &call.host, is_exact)
            }
            "methods" => text::matches(pattern, &call.method),
            "paths" => self
                .path
                .is_some_and(|(path, _)| text::path_matches(pattern, path)),
            other => panic!("the reference knows no field `{other}`"),
        }
    }

    /// Keys that look at texts.
    fn has_text(&self, key: &str, pattern: &str) -> bool {
        let token = self.call.claims.as_ref();
        let found: Vec<String> = match key {
            "connection.sni" => self.call.sni.clone().into_iter().collect(),
            "request.auth.audiences" => claims::audiences(token),
            "request.auth.presenter" => claims::presenter(token),
            claim => {
                let values =
                    claims::values(token, &claims::steps(claim), self.world.has_typed_claims());
                if let Some(reference) = self.reference(pattern) {
                    return reference.is_some_and(|wanted| values.contains(&wanted));
                }
                values
            }
        };
        found.iter().any(|text| text::matches(pattern, text))
    }

    /// `${request.headers[NAME]}` and `${request.path[N]}`, where the policy asks for them: the call's own value.
    fn reference(&self, pattern: &str) -> Option<Option<String>> {
        if annotation(self.policy, "ravelin.dev/references") != Some("true") {
            return None;
        }
        let inner = pattern.strip_prefix("${")?.strip_suffix('}')?;
        let bracketed = |start: &str| {
            inner
                .strip_prefix(start)
                .and_then(|rest| rest.strip_suffix(']'))
        };
        if let Some(name) = bracketed("request.headers[") {
            let found = self.header(name);
            return Some(match found.as_slice() {
                [one] => Some(one.clone()).filter(|value| !value.is_empty()),
                _ => None,
            });
        }
        let number: usize = bracketed("request.path[")?.parse().ok()?;
        let (path, _) = self.path?;
        let segment = path
            .split('/')
            .nth(number)
            .filter(|segment| !segment.is_empty());
        Some(segment.map(str::to_owned))
    }

    fn wants_all_of(&self, key: &str) -> bool {
        annotation(self.policy, "ravelin.dev/all-of")
            .is_some_and(|keys| keys.split(',').any(|listed| listed.trim() == key))
    }

    /// Rules 26, 28, 44, 45.
    fn header_holds(
        &self,
        name: &str,
        positive: Option<&[String]>,
        negative: Option<&[String]>,
    ) -> bool {
        let found = self.header(name);
        let is_hit = |patterns: &[String], value: &String| {
            patterns
                .iter()
                .any(|pattern| pattern == "*" || text::matches(pattern, value))
        };
        let is_positive_met = positive.is_none_or(|patterns| match self.side {
            Side::Narrow => !found.is_empty() && found.iter().all(|value| is_hit(patterns, value)),
            Side::Wide => found.iter().any(|value| is_hit(patterns, value)),
        });
        let is_negative_met = negative.is_none_or(|patterns| match self.side {
            Side::Narrow => !found.iter().any(|value| is_hit(patterns, value)),
            Side::Wide => found.is_empty() || found.iter().any(|value| !is_hit(patterns, value)),
        });
        is_positive_met && is_negative_met
    }

    fn header(&self, name: &str) -> Vec<String> {
        match name.to_lowercase().as_str() {
            ":method" => vec![self.call.method.clone()],
            ":authority" => vec![self.call.host.clone()],
            ":path" => self
                .path
                .map(|(path, query)| format!("{path}{query}"))
                .into_iter()
                .collect(),
            name => {
                let all = self.call.headers.iter();
                all.filter(|(known, _)| known.to_lowercase() == name)
                    .map(|(_, value)| value.clone())
                    .collect()
            }
        }
    }
}

/// Keys that are fields under another name.
fn field_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "request.auth.principal" => "requestPrincipals",
        "source.principal" => "principals",
        "source.namespace" => "namespaces",
        "source.serviceAccount" => "serviceAccounts",
        "source.trustDomain" => "trustDomains",
        "source.ip" => "ipBlocks",
        "remote.ip" => "remoteIpBlocks",
        "destination.ip" => "destination.ip",
        "destination.port" => "ports",
        _ => return None,
    })
}

/// A port may stand as a number.
fn as_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
