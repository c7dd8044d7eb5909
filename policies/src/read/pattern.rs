//! One value of a list to compiled patterns, by the rules of its field (rules 24 to 41).

use std::net::IpAddr;

use ipnet::IpNet;
use ravelin_proto::spiffe_id::TrustDomain;

use super::header::is_label;
use crate::diagnostic::excerpt;
use crate::limits;
use crate::matcher::{Pattern, StringMatch};
use crate::schema::{Field, MeshConfig};
use crate::template::PathTemplate;

/// Why a value is no pattern of its field: message and help.
pub(super) type Refusal = (String, Option<String>);

/// Compiles a value. More than one pattern comes of trust domain aliases (rule 34).
pub(super) fn compile(
    field: &Field,
    value: &str,
    namespace: &str,
    config: &MeshConfig,
) -> Result<Vec<Pattern>, Refusal> {
    let text = |value: &str| Ok(vec![Pattern::Text(StringMatch::parse(value))]);
    match field {
        Field::Principal => Ok(principals(value, config)),
        Field::TrustDomain => trust_domains(value, config),
        Field::Namespace => namespace_pattern(value),
        Field::ServiceAccount => service_account(value, namespace),
        Field::RequestPrincipal => request_principal(value),
        Field::SourceAddress | Field::RemoteAddress | Field::DestinationAddress => address(value),
        Field::DestinationPort => port(value),
        Field::Host => text(&value.to_ascii_lowercase()),
        Field::Method => method(value),
        Field::Path => path(value),
        Field::ServerName
        | Field::Header(_)
        | Field::Audience
        | Field::Presenter
        | Field::Claim(_) => text(value),
    }
}

fn known_domains(config: &MeshConfig) -> impl Iterator<Item = &TrustDomain> {
    std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases)
}

fn is_known_domain(name: &str, config: &MeshConfig) -> bool {
    known_domains(config).any(|domain| domain.as_str() == name)
}

// Rule 30: without `spiffe://`; who writes it means the same. Rule 34: a principal in five parts stands for
// every alias of its trust domain.
fn principals(value: &str, config: &MeshConfig) -> Vec<Pattern> {
    let value = value.strip_prefix("spiffe://").unwrap_or(value);
    let one = |value: &str| Pattern::Text(StringMatch::parse(value));
    let mut parts = value.split('/');
    let (domain, rest) = value.split_once('/').unwrap_or((value, ""));
    let is_five_part =
        parts.clone().count() == 5 && parts.nth(1) == Some("ns") && parts.nth(1) == Some("sa");
    if !is_five_part || !(domain == "cluster.local" || is_known_domain(domain, config)) {
        return vec![one(value)];
    }
    known_domains(config)
        .map(|domain| one(&format!("{domain}/{rest}")))
        .collect()
}

fn trust_domains(value: &str, config: &MeshConfig) -> Result<Vec<Pattern>, Refusal> {
    check_stars(value)?;
    if value.contains('/') {
        return Err((
            format!("`{}` is not the name of a trust domain", excerpt(value)),
            Some("write the name alone, without `spiffe://` or a path".into()),
        ));
    }
    let names: Vec<&str> = if is_known_domain(value, config) {
        known_domains(config).map(TrustDomain::as_str).collect()
    } else {
        vec![value]
    };
    Ok(names
        .into_iter()
        .map(|name| Pattern::Text(StringMatch::parse(name)))
        .collect())
}

// Rule 29: Istio's two data planes differ on a `*` in the middle; we refuse it.
fn namespace_pattern(value: &str) -> Result<Vec<Pattern>, Refusal> {
    check_stars(value)?;
    Ok(vec![Pattern::Text(StringMatch::parse(value))])
}

/// At most one `*`, at an end (rules 29, 33).
fn check_stars(value: &str) -> Result<(), Refusal> {
    let inner = value
        .strip_prefix('*')
        .or_else(|| value.strip_suffix('*'))
        .unwrap_or(value);
    if inner.contains('*') {
        return Err((
            format!(
                "`{}` has a `*` that is not alone at one end",
                excerpt(value)
            ),
            Some("write `name`, `name*`, `*name` or `*`".into()),
        ));
    }
    Ok(())
}

fn service_account(value: &str, own_namespace: &str) -> Result<Vec<Pattern>, Refusal> {
    let (namespace, account) = value.split_once('/').unwrap_or((own_namespace, value));
    let is_fine = value.chars().count() <= limits::SERVICE_ACCOUNT_CHARS_MAX
        && is_label(namespace)
        && !account.is_empty()
        && !account.contains(['/', '*']);
    if !is_fine {
        return Err((
            format!("`{}` is not a service account", excerpt(value)),
            Some("write `NAME` or `NAMESPACE/NAME`, without `*`".into()),
        ));
    }
    Ok(vec![Pattern::ServiceAccount {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
    }])
}

// Rule 35: split on the last `/`; a leading `*` wins over a trailing one.
fn request_principal(value: &str) -> Result<Vec<Pattern>, Refusal> {
    use StringMatch as M;
    let parts = value.rsplit_once('/');
    let any = || M::Prefix(String::new());
    let (issuer, subject) = match (value, parts) {
        ("*", _) => (M::Present, M::Present),
        ("*/*", _) => {
            return Err((
                "`*/*` matches nobody".into(),
                Some("`*` means every accepted token".into()),
            ));
        }
        (_, Some((issuer, subject))) if value.starts_with('*') => {
            let issuer = if issuer == "*" {
                any()
            } else {
                M::Suffix(issuer.trim_start_matches('*').to_owned())
            };
            (issuer, M::Exact(subject.to_owned()))
        }
        (_, Some((issuer, "*"))) => (M::Exact(issuer.to_owned()), M::Present),
        (_, Some((issuer, subject))) => match subject.strip_suffix('*') {
            Some(start) => (M::Exact(issuer.to_owned()), M::Prefix(start.to_owned())),
            None => (M::Exact(issuer.to_owned()), M::Exact(subject.to_owned())),
        },
        (_, None) => match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(end), _) => (any(), M::Suffix(end.to_owned())),
            (None, Some(start)) => (M::Prefix(start.to_owned()), any()),
            (None, None) => (M::Exact(value.to_owned()), M::Exact(String::new())),
        },
    };
    Ok(vec![Pattern::RequestPrincipal { issuer, subject }])
}

fn address(value: &str) -> Result<Vec<Pattern>, Refusal> {
    let net = value
        .parse::<IpNet>()
        .ok()
        .or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
    match net {
        Some(net) => Ok(vec![Pattern::Address(canonical(net.trunc()))]),
        None => Err((
            format!(
                "`{}` is neither an IP address nor a CIDR block",
                excerpt(value)
            ),
            Some("write `10.0.0.7`, `10.0.0.0/8` or `fd00::/8`".into()),
        )),
    }
}

/// An IPv4 block written in IPv6 (`::ffff:10.0.0.0/104`) is compared as IPv4, as addresses are.
fn canonical(net: IpNet) -> IpNet {
    let as_v4 = net
        .prefix_len()
        .checked_sub(96)
        .and_then(|prefix| IpNet::new(net.addr().to_canonical(), prefix).ok())
        .filter(|canonical| matches!(canonical, IpNet::V4(_)));
    match net {
        IpNet::V4(_) => net,
        IpNet::V6(_) => as_v4.unwrap_or(net),
    }
}

fn port(value: &str) -> Result<Vec<Pattern>, Refusal> {
    match value.parse::<u16>() {
        Ok(port) if value.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(vec![Pattern::Port(port)])
        }
        _ => Err((
            format!("`{}` is not a port", excerpt(value)),
            Some("a port is a number from 0 to 65535; ranges and `*` do not exist".into()),
        )),
    }
}

// Rule 39: methods compare by case, and a method in lower case is never judged: such a DENY would do nothing.
fn method(value: &str) -> Result<Vec<Pattern>, Refusal> {
    if value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err((
            format!(
                "`{}` is not a method; methods are in upper case",
                excerpt(value)
            ),
            Some(format!("write `{}`", excerpt(&value.to_ascii_uppercase()))),
        ));
    }
    Ok(vec![Pattern::Text(StringMatch::parse(value))])
}

fn path(value: &str) -> Result<Vec<Pattern>, Refusal> {
    if !PathTemplate::is_template(value) && value.contains(['{', '}']) {
        return Err((
            format!("the braces of `{}` mean nothing", excerpt(value)),
            Some("for one path segment write `{*}`, for any number of them `{**}`".to_owned()),
        ));
    }
    if !PathTemplate::is_template(value) {
        return Ok(vec![Pattern::Text(StringMatch::parse(value))]);
    }
    match PathTemplate::parse(value) {
        Ok(template) => Ok(vec![Pattern::Template(template)]),
        Err(error) => Err((
            format!("`{}` is not a path template: {error}", excerpt(value)),
            None,
        )),
    }
}
