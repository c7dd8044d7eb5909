//! The forms of a trace's identity on the wire, read strictly: W3C Trace Context (`traceparent`), and B3 in one header.
//!
//! Pure. What is not exactly well-formed is no context at all; the trace begins anew here.

use std::fmt::Write as _;

/// Where in which trace a call stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id; never 0 in a context that was read.
    pub trace: u128,
    /// Id of the present span: the caller's as read, this hop's as written.
    pub span: u64,
    /// Id of the span above it; 0 if unknown.
    pub parent: u64,
    /// The decision, where one was taken.
    pub is_sampled: Option<bool>,
    /// The trace id is random in its lower part (bit 1 of W3C's flags), which is passed on.
    pub is_random: bool,
    /// B3's debug flag, which is passed on.
    pub is_debug: bool,
}

impl TraceContext {
    /// 32 hexadecimal digits.
    pub fn trace_text(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Reads `traceparent` (W3C Trace Context level 2, section 3.2).
    pub fn parse_traceparent(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (version, rest) = (hex(text.get(..2)?, 2)?, text.get(2..)?);
        let fields = rest.get(..53)?;
        let is_longer = rest.len() > 53;
        // SPEC: section 3.2.3: of a later version the fields of this one are read; whatever follows begins with a dash.
        if version == 0xff
            || (version == 0 && is_longer)
            || (is_longer && !rest.get(53..)?.starts_with('-'))
        {
            return None;
        }
        let mut parts = fields.split('-').skip(1);
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || !fields.starts_with('-') {
            return None;
        }
        let flags = hex(flags, 2)?;
        Some(Self {
            trace: nonzero(hex(trace, 32)?)?,
            span: u64::try_from(nonzero(hex(span, 16)?)?).ok()?,
            is_sampled: Some(flags & 1 == 1),
            is_random: flags & 2 == 2,
            ..Self::default()
        })
    }

    /// Reads the header `b3` with ids; a lone decision is [`parse_b3_decision`].
    pub fn parse_b3(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('-');
        let (trace, span) = (parts.next()?, parts.next()?);
        let decision = parts.next();
        let parent = parts.next();
        if parts.next().is_some() {
            return None;
        }
        Self::of_b3(trace, span, parent, decision)
    }

    /// Puts together the values of B3's headers.
    pub fn of_b3(
        trace: &str,
        span: &str,
        parent: Option<&str>,
        decision: Option<&str>,
    ) -> Option<Self> {
        let digits = if trace.len() == 16 { 16 } else { 32 };
        if let Some(parent) = parent {
            hex(parent, 16)?;
        }
        let is_sampled = match decision {
            None => None,
            Some(decision) => Some(parse_b3_decision(decision.as_bytes())?),
        };
        Some(Self {
            trace: nonzero(hex(trace, digits)?)?,
            span: u64::try_from(nonzero(hex(span, 16)?)?).ok()?,
            is_sampled,
            is_debug: decision == Some("d"),
            ..Self::default()
        })
    }

    /// The value of `traceparent`.
    pub fn to_traceparent(self) -> String {
        let flags = u8::from(self.is_sampled == Some(true)) | (u8::from(self.is_random) << 1);
        format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }

    /// The value of `b3`.
    pub fn to_b3(self) -> String {
        let decision = self.b3_decision();
        let mut text = format!("{:032x}-{:016x}-{decision}", self.trace, self.span);
        if self.parent != 0 {
            // WHY: writing to a String cannot fail.
            let _ = write!(text, "-{:016x}", self.parent);
        }
        text
    }

    /// `d`, `1` or `0`.
    pub fn b3_decision(self) -> char {
        match (self.is_debug, self.is_sampled) {
            (true, _) => 'd',
            (false, Some(true)) => '1',
            (false, Some(false) | None) => '0',
        }
    }
}

/// A decision of B3 without ids.
pub fn parse_b3_decision(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

/// True for a list of vendors' entries that may be passed on (W3C Trace Context, section 3.3).
pub fn is_tracestate(value: &[u8]) -> bool {
    const MEMBERS_MAX: usize = 32;
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let members = || {
        text.split(',')
            .map(|member| member.trim_matches([' ', '\t']))
            .filter(|member| !member.is_empty())
    };
    text.len() <= crate::limits::TRACESTATE_BYTES_MAX
        && members().count() <= MEMBERS_MAX
        && members().all(is_member)
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let is_key = (1..=256).contains(&key.len())
        && key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && key.bytes().all(|byte| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
        });
    let is_value = (1..=256).contains(&value.len())
        && value
            .bytes()
            .all(|byte| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=');
    is_key && is_value
}

/// Exactly `digits` lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hex
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

fn nonzero(id: u128) -> Option<u128> {
    (id != 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_strictly() {
        let rows = [
            (format!("00-{TRACE}-{SPAN}-01"), Some((true, false))),
            (format!("00-{TRACE}-{SPAN}-00"), Some((false, false))),
            (format!("00-{TRACE}-{SPAN}-03"), Some((true, true))),
            (format!("00-{TRACE}-{SPAN}-ff"), Some((true, true))),
            (format!("cc-{TRACE}-{SPAN}-01"), Some((true, false))),
            (
                format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"),
                Some((true, false)),
            ),
            (format!("cc-{TRACE}-{SPAN}-01.more"), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{TRACE}-{SPAN}-0g"), None),
            (format!("00_{TRACE}_{SPAN}_01"), None),
            (format!(" 00-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}{SPAN}--01"), None),
            (String::new(), None),
        ];
        for (text, want) in rows {
            let read = TraceContext::parse_traceparent(text.as_bytes());
            let found = read.map(|context| (context.is_sampled == Some(true), context.is_random));
            assert_eq!(found, want, "{text}");
            if let Some(context) = read.filter(|_| text.len() == 55 && text.ends_with('1')) {
                assert_eq!(context.to_traceparent().get(3..), text.get(3..));
            }
        }
        assert_eq!(TraceContext::parse_traceparent(b"\xff"), None);
    }

    #[test]
    fn b3_is_read_strictly_in_its_single_form() {
        let rows = [
            (format!("{TRACE}-{SPAN}"), Some(None)),
            (format!("{SPAN}-{SPAN}-1"), Some(Some(true))),
            (format!("{TRACE}-{SPAN}-0-{SPAN}"), Some(Some(false))),
            (format!("{TRACE}-{SPAN}-d"), Some(Some(true))),
            (format!("{TRACE}-{SPAN}-2"), None),
            (format!("{TRACE}-{SPAN}-1-x"), None),
            (format!("{TRACE}-{SPAN}-1-{SPAN}-1"), None),
            (format!("{}-{SPAN}-1", "0".repeat(32)), None),
            ("1".to_owned(), None),
        ];
        for (text, want) in rows {
            let read = TraceContext::parse_b3(text.as_bytes());
            assert_eq!(read.map(|context| context.is_sampled), want, "{text}");
        }
        let context = TraceContext::parse_b3(format!("{TRACE}-{SPAN}-d").as_bytes()).unwrap();
        assert_eq!(context.to_b3(), format!("{TRACE}-{SPAN}-d"));
    }

    #[test]
    fn a_tracestate_that_breaks_its_grammar_or_its_bounds_is_none() {
        let long = format!("a={}", "x".repeat(256));
        let many = vec!["a=1"; 33].join(",");
        let rows = [
            ("a=1", true),
            ("a=1, b@c=2,,d/e*f-g_h=3 4", true),
            ("", true),
            (long.as_str(), true),
            (many.as_str(), false),
            ("a", false),
            ("A=1", false),
            ("a=", false),
            ("a=1=2", false),
            ("a=\u{e9}", false),
        ];
        for (text, want) in rows {
            assert_eq!(is_tracestate(text.as_bytes()), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_of_a_trace_panics_and_what_is_read_is_written_alike(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = is_tracestate(&bytes);
            let _ = TraceContext::parse_b3(&bytes);
            if let Some(context) = TraceContext::parse_traceparent(&bytes) {
                let again = TraceContext::parse_traceparent(context.to_traceparent().as_bytes());
                proptest::prop_assert_eq!(again, Some(context));
            }
        }
    }
}
