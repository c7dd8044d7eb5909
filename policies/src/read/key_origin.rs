//! Where the keys of a JWT rule come from: exactly one place (rule 76). No place is ever filled in by a default key
//! (threat A9).

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::http_url::HttpUrl;
use ravelin_proto::jwks::{JwkSet, ReadKey};
use ravelin_proto::spiffe_id::TrustDomain;

use super::Reader;
use crate::diagnostic::{Span, excerpt};
use crate::fields::Fields;
use crate::schema::{KeyAddress, KeyOrigin, RemoteKeys};

pub(super) fn read_keys(
    fields: &Fields<'_>,
    issuer: Option<&str>,
    timeout: Duration,
    reader: &mut Reader<'_, '_>,
) -> Option<KeyOrigin> {
    let given: Vec<&str> = ["jwks", "jwksFile", "jwksUri"]
        .into_iter()
        .filter(|name| fields.member(name).is_some())
        .collect();
    match given.as_slice() {
        [] => discovered(fields, issuer?, timeout, reader),
        ["jwks"] => {
            let written = fields.text("jwks", reader.problems)?;
            let at = fields.node("jwks").map_or(fields.at, |node| node.at);
            key_set(written, "jwks", at, reader)
        }
        ["jwksFile"] => {
            let path = fields.text("jwksFile", reader.problems)?;
            let at = fields.node("jwksFile").map_or(fields.at, |node| node.at);
            let Some(content) = reader.context.files.get(path).copied() else {
                let help = Some(
                    "the path is relative to the mesh folder, with `/`, and ends in `.json`"
                        .to_owned(),
                );
                reader.problems.error_with_help(
                    at,
                    "no-such-file",
                    format!("the mesh folder has no file `{}`", excerpt(path)),
                    help,
                );
                return None;
            };
            key_set(content, path, at, reader)
        }
        ["jwksUri"] => {
            let written = fields.text("jwksUri", reader.problems)?;
            let at = fields.node("jwksUri").map_or(fields.at, |node| node.at);
            key_uri(written, timeout, at, reader)
        }
        [_, second, ..] => {
            let message = format!("keys come from one place: `{second}` stands beside others");
            reader
                .problems
                .error(fields.key_at(second), "bad-combination", message);
            None
        }
        [_] => None,
    }
}

// Neither `jwks` nor `jwksUri`: the issuer's discovery document names the keys.
fn discovered(
    fields: &Fields<'_>,
    issuer: &str,
    timeout: Duration,
    reader: &mut Reader<'_, '_>,
) -> Option<KeyOrigin> {
    let at = fields.node("issuer").map_or(fields.at, |node| node.at);
    match HttpUrl::parse(issuer) {
        // SPEC: OpenID Connect Discovery 1.0, section 2: an issuer has no query.
        Ok(url) if !issuer.contains('?') => {
            warn_of_plain_text(&url, at, reader);
            let address = KeyAddress::Issuer(url);
            Some(KeyOrigin::Remote(RemoteKeys { address, timeout }))
        }
        Ok(_) | Err(_) => {
            let help = Some(
                "give `jwks`, `jwksFile`, `jwksUri: https://..` or `jwksUri: spiffe://TRUST_DOMAIN`"
                    .to_owned(),
            );
            let message = format!(
                "the keys of `{}` cannot be found: it is not an address that could be asked for them",
                excerpt(issuer)
            );
            reader
                .problems
                .error_with_help(at, "no-keys", message, help);
            None
        }
    }
}

/// A set that stands in a file is whole or refused; a private half is warned of and not kept (rule 76, threat 48).
fn key_set(text: &str, name: &str, at: Span, reader: &mut Reader<'_, '_>) -> Option<KeyOrigin> {
    let name = excerpt(name);
    let mut refuse = |reason: String| {
        reader.problems.error(
            at,
            "bad-key-set",
            format!("the key set of `{name}` {reason}"),
        );
        None
    };
    let read = match JwkSet::parse_each(text) {
        Ok(read) => read,
        Err(error) => return refuse(format!("is refused: {error}")),
    };
    let mut set = JwkSet::default();
    let mut secrets: Vec<usize> = Vec::new();
    for (index, key) in read.into_iter().enumerate() {
        match key {
            ReadKey::Usable(key) => set.keys.push(key),
            ReadKey::Private(key) => {
                set.keys.extend(key);
                secrets.push(index);
            }
            ReadKey::Symmetric => secrets.push(index),
            ReadKey::Unknown => {}
            ReadKey::Broken(reason) => {
                return refuse(format!("is refused: key {index} is malformed: {reason}"));
            }
        }
    }
    if set.keys.is_empty() {
        return refuse("has no usable key".to_owned());
    }
    if let Some(index) = secrets.first() {
        let message = format!(
            "key {index} of the key set of `{name}` has private parts: whoever reads this file can sign"
        );
        let help = Some("make a new key pair, and give the public half alone".to_owned());
        reader.problems.warning(at, "private-key", message, help);
    }
    Some(KeyOrigin::Inline(Arc::new(set)))
}

fn key_uri(
    written: &str,
    timeout: Duration,
    at: Span,
    reader: &mut Reader<'_, '_>,
) -> Option<KeyOrigin> {
    if let Some(Ok(domain)) = written.strip_prefix("spiffe://").map(TrustDomain::parse) {
        return Some(KeyOrigin::TrustDomain(domain));
    }
    match HttpUrl::parse(written) {
        Ok(url) => {
            warn_of_plain_text(&url, at, reader);
            let address = KeyAddress::JwksUri(url);
            Some(KeyOrigin::Remote(RemoteKeys { address, timeout }))
        }
        Err(error) => {
            let help = Some(
                "write `https://..`, or `spiffe://TRUST_DOMAIN` for the JWT bundle of a trust domain"
                    .to_owned(),
            );
            let message = format!("`{}` is not a place of keys: {error}", excerpt(written));
            reader
                .problems
                .error_with_help(at, "bad-value", message, help);
            None
        }
    }
}

fn warn_of_plain_text(url: &HttpUrl, at: Span, reader: &mut Reader<'_, '_>) {
    if !url.is_tls() {
        let message = "keys that are fetched by plain `http` can be replaced by anyone on the way, who can then sign tokens";
        let help = Some("write `https://`".to_owned());
        reader
            .problems
            .warning(at, "plain-text-keys", message, help);
    }
}
