//! Targets, hosts and methods that could be read in two ways (RFC 9112 section 3.2, threats 51 to 53).

use super::{NONE, Row};

const READ: &[&str] = &["GET /t|", "GET /end|"];
/// Refused, but well-formed: the connection goes on.
const GOES_ON: &[&str] = &["GET /end|"];

macro_rules! target {
    ($name:literal, $line:literal, $want:expr) => {
        (
            $name,
            concat!($line, " HTTP/1.1\r\n@@\r\n\r\n").as_bytes(),
            $want,
        )
    };
}

macro_rules! hosts {
    ($name:literal, $fields:literal, $want:expr) => {
        (
            $name,
            concat!("GET /t HTTP/1.1\r\n", $fields, "\r\n\r\n").as_bytes(),
            $want,
        )
    };
}

pub const ROWS: &[Row] = &[
    target!("absolute form", "GET http://inventory.shop/t", READ),
    target!(
        "absolute form in capitals",
        "GET HTTP://INVENTORY.SHOP/t",
        READ
    ),
    target!(
        "absolute form without path",
        "GET http://inventory.shop",
        &["GET /|", "GET /end|"]
    ),
    target!(
        "absolute form of another host",
        "GET http://evil.shop/t",
        NONE
    ),
    target!(
        "absolute form with a port",
        "GET http://inventory.shop:8080/t",
        NONE
    ),
    target!(
        "absolute form with a user",
        "GET http://a@inventory.shop/t",
        NONE
    ),
    target!(
        "absolute form with another host as user",
        "GET http://inventory.shop@evil.shop/t",
        NONE
    ),
    target!(
        "absolute form of another scheme",
        "GET ftp://inventory.shop/t",
        NONE
    ),
    target!("absolute form without host", "GET http:///t", NONE),
    target!("a scheme alone", "GET file:/t", NONE),
    target!("authority form", "GET inventory.shop:80", NONE),
    target!("no slash", "GET t", NONE),
    target!("an asterisk", "GET *", NONE),
    target!("a backslash first", "GET \\\\evil.shop/t", NONE),
    target!("peer: CONNECT", "CONNECT inventory.shop:80", GOES_ON),
    target!("peer: CONNECT with a path", "CONNECT /t", GOES_ON),
    target!("TRACE", "TRACE /t", GOES_ON),
    target!("a method in lower case", "get /t", NONE),
    target!("a method in mixed case", "Get /t", NONE),
    target!("a method with a digit", "G3T /t", NONE),
    hosts!("no host", "x-a: b", NONE),
    hosts!("two hosts", "@@\r\nhost: evil.shop", NONE),
    hosts!("one host twice", "@@\r\n@@", NONE),
    hosts!(
        "two hosts in a list",
        "host: inventory.shop, evil.shop",
        NONE
    ),
    hosts!(
        "two hosts by a space",
        "host: inventory.shop evil.shop",
        NONE
    ),
    hosts!("an empty host", "host:", NONE),
    hosts!("a host with a user", "host: a@inventory.shop", NONE),
    hosts!("a host with a path", "host: inventory.shop/t", NONE),
    hosts!("a host with a query", "host: inventory.shop?a", NONE),
    hosts!("a host with a fragment", "host: inventory.shop#a", NONE),
    hosts!("a host with a scheme", "host: http://inventory.shop", NONE),
    hosts!("a host with an encoded dot", "host: inventory%2eshop", NONE),
    hosts!("a host with port 0", "host: inventory.shop:0", NONE),
    hosts!("a host with an empty port", "host: inventory.shop:", NONE),
    hosts!("a host with two ports", "host: inventory.shop:80:80", NONE),
    hosts!(
        "a host with a port that is too large",
        "host: inventory.shop:65616",
        NONE
    ),
    hosts!(
        "a host with a NUL",
        "host: inventory.shop\0.evil.shop",
        NONE
    ),
    hosts!(
        "a host of another script",
        "host: inv\u{e4}ntory.shop",
        NONE
    ),
    hosts!("a host with an empty label", "host: inventory..shop", NONE),
    hosts!(
        "an override of the method",
        "@@\r\nx-http-method-override: DELETE",
        GOES_ON
    ),
    hosts!(
        "an override with underscores",
        "@@\r\nx_http_method_override: DELETE",
        GOES_ON
    ),
    hosts!("a short override", "@@\r\nx-http-method: DELETE", GOES_ON),
    hosts!(
        "another override",
        "@@\r\nx-method-override: DELETE",
        GOES_ON
    ),
];
