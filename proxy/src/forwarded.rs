//! The client's address as trusted proxies in front of this one tell it (rule 36). Pure.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// With `hops` trusted proxies, the direct peer among them: the address that the outermost of them saw, which is the
/// one so many places from the right in `X-Forwarded-For`. None without hops, or where that place has no address: then
/// the direct peer counts.
pub fn client(headers: &HeaderMap, hops: usize) -> Option<IpAddr> {
    let nth = hops.checked_sub(1)?;
    let values: Vec<&[u8]> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .collect();
    let trusted = values.len().checked_sub(hops)?;
    // WHY: each entry from there on was written by a trusted proxy; one that is no address speaks against all.
    let mut addresses = values.iter().skip(trusted).map(|value| address(value));
    let client = addresses.next()??;
    let others = addresses.take(nth).collect::<Option<Vec<_>>>();
    others.map(|_| client)
}

/// An address, with or without a port.
fn address(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .or_else(|_| text.parse().map(|address: SocketAddr| address.ip()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_36_the_client_stands_as_many_places_from_the_right_as_proxies_are_trusted() {
        let rows: [(&str, usize, &[&str], Option<&str>); 14] = [
            ("none is trusted", 0, &["1.1.1.1"], None),
            ("one", 1, &["1.1.1.1"], Some("1.1.1.1")),
            (
                "one, forged before it",
                1,
                &["6.6.6.6, 1.1.1.1"],
                Some("1.1.1.1"),
            ),
            ("two", 2, &["6.6.6.6, 1.1.1.1, 2.2.2.2"], Some("1.1.1.1")),
            (
                "several fields are one list",
                2,
                &["6.6.6.6", "1.1.1.1,2.2.2.2"],
                Some("1.1.1.1"),
            ),
            (
                "split between fields",
                2,
                &["6.6.6.6,1.1.1.1", "2.2.2.2"],
                Some("1.1.1.1"),
            ),
            ("too few", 2, &["1.1.1.1"], None),
            ("nothing", 1, &[], None),
            ("empty", 1, &[""], None),
            ("no address", 1, &["1.1.1.1, unknown"], None),
            ("no address on the way", 2, &["1.1.1.1, _hidden"], None),
            (
                "forged text before it is not looked at",
                1,
                &["\"'<>, 1.1.1.1"],
                Some("1.1.1.1"),
            ),
            ("a port", 1, &["1.1.1.1:80"], Some("1.1.1.1")),
            ("v6", 2, &["[2001:db8::1]:80, [::1]"], Some("2001:db8::1")),
        ];
        for (name, hops, values, want) in rows {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let want = want.map(|want| want.parse::<IpAddr>().unwrap());
            assert_eq!(client(&headers, hops), want, "{name}");
        }
    }
}
