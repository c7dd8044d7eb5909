//! A path template and paths, a line each: the policy that has the template answers as a naive matcher does.

use ravelin_policies::{Connection, HttpCall, RequestIdentity, WorkloadPolicies, load};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;

use super::{MESH, file};

/// Loads the first line as a template, and asks for each of the others.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let template = lines.next().unwrap_or_default();
    if !template.contains("{*}") && !template.contains("{**}") {
        return;
    }
    let parsed = parse(template);
    let Some(policies) = policies(template) else {
        assert!(parsed.is_none(), "`{template}` is refused");
        return;
    };
    let tokens = parsed.unwrap_or_else(|| panic!("`{template}` is taken"));
    for line in lines {
        if let Some(found) = ask(&policies, line) {
            let path = line.split(['?', '#']).next().unwrap();
            assert_eq!(found, matches(&tokens, path), "`{template}` on `{line}`");
        }
    }
}

fn policies(template: &str) -> Option<WorkloadPolicies> {
    let quoted = serde_json::to_string(template).ok()?;
    let policy = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  rules:\n  - to:\n    - operation:\n        paths: [{quoted}]\n"
    );
    let mesh = MESH.replace("shop.example}", "shop.example, pathNormalization: NONE}");
    let set = load(&[
        file("ravelin.yaml", &mesh),
        file("policies/p.yaml", &policy),
    ])
    .ok()?;
    let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/payments").unwrap();
    Some(WorkloadPolicies::compile(&set, &set.workload(&id), 1).unwrap())
}

/// `None` for what is no path at all.
fn ask(policies: &WorkloadPolicies, target: &str) -> Option<bool> {
    let path = policies.normalize(target).ok()?;
    let connection = Connection {
        principal: None,
        source_ip: [10, 0, 0, 1].into(),
        remote_ip: [10, 0, 0, 1].into(),
        destination_ip: [10, 0, 0, 2].into(),
        destination_port: 80,
        sni: None,
    };
    let call = HttpCall {
        connection: &connection,
        method: "GET",
        host: "payments",
        path: &path,
        headers: &Vec::new(),
        identity: &RequestIdentity::default(),
        now: Timestamp::from_unix_secs(0),
    };
    Some(policies.authorize_http(&call).is_allowed)
}

enum Token {
    Char(char),
    /// `{*}`
    One,
    /// `{**}`
    Rest,
}

fn is_pchar(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c)
}

/// Rule 41; `None` for what it forbids, or what the limits of a value do.
fn parse(template: &str) -> Option<Vec<Token>> {
    if !template.starts_with('/') || template.len() > ravelin_policies::limits::VALUE_BYTES_MAX {
        return None;
    }
    let mut tokens = Vec::new();
    for part in template[1..].split('/') {
        let is_behind_rest = tokens.iter().any(|token| matches!(token, Token::Rest));
        tokens.push(Token::Char('/'));
        match part {
            "{*}" | "{**}" if is_behind_rest => return None,
            "{*}" => tokens.push(Token::One),
            "{**}" => tokens.push(Token::Rest),
            text if text.chars().all(is_pchar) => tokens.extend(text.chars().map(Token::Char)),
            _ => return None,
        }
    }
    Some(tokens)
}

/// Backtracking over every split.
fn matches(tokens: &[Token], path: &str) -> bool {
    let Some((first, tokens)) = tokens.split_first() else {
        return path.is_empty();
    };
    match first {
        Token::Char(wanted) => path
            .strip_prefix(*wanted)
            .is_some_and(|rest| matches(tokens, rest)),
        Token::One => (1..=path.len())
            .take_while(|end| path[..*end].chars().all(|c| is_pchar(c) || c == '*'))
            .any(|end| matches(tokens, &path[end..])),
        Token::Rest => (0..=path.len()).any(|end| matches(tokens, &path[end..])),
    }
}
