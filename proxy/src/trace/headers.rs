//! The headers of a trace in a head: found, removed, written. The first family that is there counts: W3C, B3 in one header,
//! B3 in several. Of what is written, W3C always is; B3 where the caller spoke it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{TraceContext, is_tracestate, parse_b3_decision};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const ALL: [HeaderName; 8] = [
    TRACEPARENT,
    TRACESTATE,
    B3,
    B3_TRACE,
    B3_SPAN,
    B3_PARENT,
    B3_SAMPLED,
    B3_FLAGS,
];

/// What a head says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Where it stands.
    Context(TraceContext),
    /// Only whether it is to be sampled.
    Decision(bool),
    /// Something that nobody can rely on.
    Malformed,
}

/// Reads the trace of a head.
pub fn read(headers: &HeaderMap) -> Found {
    // WHY: most calls have none of them; one look each is cheap.
    if let Some(value) = one(headers, &TRACEPARENT) {
        return TraceContext::parse_traceparent(value).map_or(Found::Malformed, Found::Context);
    }
    if let Some(value) = one(headers, &B3) {
        return match parse_b3_decision(value) {
            Some(decision) => Found::Decision(decision),
            None => TraceContext::parse_b3(value).map_or(Found::Malformed, Found::Context),
        };
    }
    let is_there = |name: &HeaderName| headers.contains_key(name);
    if is_there(&B3_TRACE) || is_there(&B3_SPAN) || is_there(&B3_SAMPLED) || is_there(&B3_FLAGS) {
        return several(headers).unwrap_or(Found::Malformed);
    }
    if is_there(&TRACESTATE) || is_there(&B3_PARENT) {
        return Found::Malformed;
    }
    Found::Nothing
}

/// B3 in several headers; `None` when one of them is malformed or missing.
fn several(headers: &HeaderMap) -> Option<Found> {
    let text = |name: &HeaderName| {
        let value = one(headers, name).map(std::str::from_utf8);
        value.transpose().ok()
    };
    let decision = match (text(&B3_FLAGS)?, text(&B3_SAMPLED)?) {
        (Some("1"), _) => Some("d"),
        (Some("0") | None, Some("true")) => Some("1"),
        (Some("0") | None, Some("false")) => Some("0"),
        (Some("0") | None, sampled) => sampled,
        (Some(_), _) => return None,
    };
    match (text(&B3_TRACE)?, text(&B3_SPAN)?) {
        (Some(trace), Some(span)) => {
            TraceContext::of_b3(trace, span, text(&B3_PARENT)?, decision).map(Found::Context)
        }
        (None, None) => parse_b3_decision(decision?.as_bytes()).map(Found::Decision),
        (Some(_), None) | (None, Some(_)) => None,
    }
}

/// The only value of a header; an empty one, which nobody accepts, when it is there twice.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(match values.next() {
        None => first.as_bytes(),
        Some(_) => b"",
    })
}

/// Removes every header of a trace.
pub fn remove(headers: &mut HeaderMap) {
    for name in ALL {
        headers.remove(name);
    }
}

/// Writes `context` for the next hop.
pub fn write(headers: &mut HeaderMap, context: &TraceContext) {
    let is_continued = context.parent != 0;
    let state: Vec<HeaderValue> = if is_continued && headers.contains_key(TRACEPARENT) {
        let values: Vec<HeaderValue> = headers.get_all(TRACESTATE).iter().cloned().collect();
        let joined: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
        if is_tracestate(&joined.join(&b","[..])) {
            values
        } else {
            Vec::new()
        }
    } else {
        Vec::new()
    };
    let (has_single, has_several) = (headers.contains_key(B3), headers.contains_key(B3_TRACE));
    remove(headers);
    set(headers, TRACEPARENT, &context.to_traceparent());
    for value in state {
        headers.append(TRACESTATE, value);
    }
    if has_single {
        set(headers, B3, &context.to_b3());
    }
    if has_several {
        set(headers, B3_TRACE, &context.trace_text());
        set(headers, B3_SPAN, &format!("{:016x}", context.span));
        if is_continued {
            set(headers, B3_PARENT, &format!("{:016x}", context.parent));
        }
        match context.b3_decision() {
            'd' => set(headers, B3_FLAGS, "1"),
            decision => set(headers, B3_SAMPLED, decision.encode_utf8(&mut [0; 4])),
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // WHY: hexadecimal digits and dashes are always a value.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        map
    }

    fn kind(found: Found) -> &'static str {
        match found {
            Found::Nothing => "nothing",
            Found::Context(_) => "context",
            Found::Decision(true) => "yes",
            Found::Decision(false) => "no",
            Found::Malformed => "malformed",
        }
    }

    #[test]
    fn a_head_has_one_meaning_or_the_trace_begins_anew() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let rows: [(&[(&'static str, &str)], &str); 16] = [
            (&[], "nothing"),
            (&[("traceparent", &parent)], "context"),
            (
                &[("traceparent", &parent), ("traceparent", &parent)],
                "malformed",
            ),
            (&[("traceparent", "x"), ("b3", "1")], "malformed"),
            (&[("tracestate", "a=1")], "malformed"),
            (&[("b3", "1")], "yes"),
            (&[("b3", "0")], "no"),
            (&[("b3", "x")], "malformed"),
            (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)], "context"),
            (
                &[
                    ("x-b3-traceid", SPAN),
                    ("x-b3-spanid", SPAN),
                    ("x-b3-sampled", "1"),
                    ("x-b3-parentspanid", SPAN),
                ],
                "context",
            ),
            (&[("x-b3-traceid", TRACE)], "malformed"),
            (
                &[
                    ("x-b3-traceid", TRACE),
                    ("x-b3-spanid", SPAN),
                    ("x-b3-sampled", "yes"),
                ],
                "malformed",
            ),
            (&[("x-b3-sampled", "true")], "yes"),
            (&[("x-b3-flags", "1")], "yes"),
            (&[("x-b3-flags", "2")], "malformed"),
            (&[("x-b3-parentspanid", SPAN)], "malformed"),
        ];
        for (pairs, want) in rows {
            assert_eq!(kind(read(&headers(pairs))), want, "{pairs:?}");
        }
    }

    #[test]
    fn the_next_hop_is_told_in_every_form_that_the_caller_spoke() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let mut map = headers(&[
            ("traceparent", &parent),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("b3", "0"),
            ("x-b3-traceid", SPAN),
            ("x-b3-sampled", "0"),
        ]);
        let context = TraceContext {
            trace: 0xabc,
            span: 2,
            parent: 1,
            is_sampled: Some(true),
            ..TraceContext::default()
        };
        write(&mut map, &context);
        let trace = format!("{:032x}", 0xabc);
        assert_eq!(map.get_all("tracestate").iter().count(), 2);
        let rows = [
            ("traceparent", format!("00-{trace}-0000000000000002-01")),
            ("b3", format!("{trace}-0000000000000002-1-0000000000000001")),
            ("x-b3-traceid", trace.clone()),
            ("x-b3-spanid", "0000000000000002".to_owned()),
            ("x-b3-parentspanid", "0000000000000001".to_owned()),
            ("x-b3-sampled", "1".to_owned()),
        ];
        for (name, want) in rows {
            assert_eq!(map[name].to_str().unwrap(), want, "{name}");
        }
        let mut bad = headers(&[("traceparent", &parent), ("tracestate", "A=1")]);
        write(&mut bad, &context);
        assert!(
            !bad.contains_key("tracestate"),
            "a state that breaks its grammar goes no further"
        );
    }
}
