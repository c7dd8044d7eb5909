//! Texts, templates, addresses: what one value of a list says about one text (rules 24 to 27, 36 to 43).

use std::net::IpAddr;

/// Exact, `v*`, `*v`, and `*` for anything that is not empty; a leading `*` wins (rules 24, 25).
pub fn matches(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        return !text.is_empty();
    }
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    match pattern.split_first() {
        Some((b'*', rest)) => ends_with(text, rest),
        _ => match pattern.split_last() {
            Some((b'*', rest)) => ends_with_reversed(text, rest),
            _ => pattern == text,
        },
    }
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    text == end
        || text
            .split_first()
            .is_some_and(|(_, rest)| ends_with(rest, end))
}

fn ends_with_reversed(text: &[u8], start: &[u8]) -> bool {
    text == start
        || text
            .split_last()
            .is_some_and(|(_, rest)| ends_with_reversed(rest, start))
}

/// Hosts know no case, and are compared with and without their port unless told otherwise (rule 38).
pub fn host_matches(pattern: &str, host: &str, is_exact: bool) -> bool {
    let (pattern, host) = (pattern.to_lowercase(), host.to_lowercase());
    if matches(&pattern, &host) {
        return true;
    }
    // Whatever stands behind the last colon outside of brackets.
    let end = host.rfind(':').filter(|colon| {
        let before = &host[..*colon];
        !before.is_empty() && (!before.contains(':') || before.ends_with(']'))
    });
    !is_exact && end.is_some_and(|colon| matches(&pattern, &host[..colon]))
}

/// Paths: a template where `{*}` or `{**}` stands, else a text (rules 40, 41).
pub fn path_matches(pattern: &str, path: &str) -> bool {
    if pattern.contains("{*}") || pattern.contains("{**}") {
        template_matches(pattern, path)
    } else {
        matches(pattern, path)
    }
}

// Every way to cut the path between the operators is tried.
fn template_matches(template: &str, path: &str) -> bool {
    if let Some(rest) = template.strip_prefix("{**}") {
        return cuts(path, |_| true).any(|cut| template_matches(rest, &path[cut..]));
    }
    if let Some(rest) = template.strip_prefix("{*}") {
        return cuts(path, is_pchar)
            .filter(|cut| *cut > 0)
            .any(|cut| template_matches(rest, &path[cut..]));
    }
    match (template.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some(wanted), Some(found)) if wanted == found => {
            template_matches(&template[wanted.len_utf8()..], &path[found.len_utf8()..])
        }
        _ => false,
    }
}

/// Lengths of the beginnings of `path` that have nothing but these characters.
fn cuts(path: &str, is_fine: impl Fn(char) -> bool) -> impl Iterator<Item = usize> {
    let longest = path.find(|c| !is_fine(c)).unwrap_or(path.len());
    0..=longest
}

fn is_pchar(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;:@=".contains(c)
}

/// An address or a block of them; IPv4 written as IPv6 is IPv4 (rule 36).
pub fn address_matches(pattern: &str, address: &str) -> bool {
    let (base, length) = match pattern.split_once('/') {
        Some((base, length)) => (base, Some(length.parse::<u32>().unwrap())),
        None => (pattern, None),
    };
    let (base, address): (IpAddr, IpAddr) = (base.parse().unwrap(), address.parse().unwrap());
    let bits = |address: IpAddr| match address {
        IpAddr::V4(four) => u128::from(four.to_bits()),
        IpAddr::V6(six) => six.to_bits(),
    };
    let (written, base, address) = (base, base.to_canonical(), address.to_canonical());
    if base.is_ipv4() != address.is_ipv4() {
        return false;
    }
    let width = if base.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => width,
        // A block of IPv4 that is written as IPv6; a wider one has no address of IPv4 in it.
        Some(length) if written.is_ipv6() && base.is_ipv4() => match length.checked_sub(96) {
            Some(length) => length,
            None => return false,
        },
        Some(length) => length,
    };
    (0..width)
        .rev()
        .take(length.try_into().unwrap())
        .all(|bit| (bits(base) >> bit) & 1 == (bits(address) >> bit) & 1)
}
