//! Envoy's response flags: in two letters, why a call ended otherwise than by the upstream's whole answer.
//!
//! Pure. Derived from the stable code of a refusal, so that no second vocabulary has to be kept in step.

use crate::decision_log::Outcome;

/// One flag of a call or a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResponseFlag {
    /// Nothing special.
    #[default]
    None,
    /// The caller went away, or its connection broke.
    DownstreamEnd,
    /// The request is not HTTP as this proxy accepts it.
    DownstreamProtocol,
    /// No service has the host.
    NoRoute,
    /// The proxy has no configuration or identity for it.
    NoCluster,
    /// No endpoint can be reached.
    UpstreamConnect,
    /// The upstream's connection ended before or within its answer.
    UpstreamEnd,
    /// The upstream's answer did not come in time.
    UpstreamTimeout,
    /// The upstream broke its protocol.
    UpstreamProtocol,
    /// A limit is reached.
    Overflow,
    /// The stream stood still for too long.
    StreamIdle,
    /// An external authorizer refused, or could not be asked.
    Unauthorized,
}

impl ResponseFlag {
    /// As metrics and access log write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::DownstreamEnd => "DC",
            Self::DownstreamProtocol => "DPE",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::UpstreamConnect => "UF",
            Self::UpstreamEnd => "UC",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamProtocol => "UPE",
            Self::Overflow => "UO",
            Self::StreamIdle => "SI",
            Self::Unauthorized => "UAEX",
        }
    }

    /// The flag of a refusal by its stable code. A considered No of policy or tokens has none, as in Envoy.
    pub fn of_code(code: &str) -> Self {
        match code {
            "no_route" => Self::NoRoute,
            "not_ready" | "svid_expired" => Self::NoCluster,
            "upstream_unreachable" | "peer_untrusted" => Self::UpstreamConnect,
            "upstream_failed" => Self::UpstreamEnd,
            "upstream_timeout" => Self::UpstreamTimeout,
            "upstream_switched_protocols" => Self::UpstreamProtocol,
            "body_timeout" => Self::StreamIdle,
            "body_failed" => Self::DownstreamEnd,
            "bad_provider" => Self::Unauthorized,
            _ if code.starts_with("custom_") => Self::Unauthorized,
            _ if code.ends_with("_limit") || code.starts_with("overload") => Self::Overflow,
            _ if is_protocol_refusal(code) => Self::DownstreamProtocol,
            _ => Self::None,
        }
    }

    /// The flag of a call: of its refusal if it has one, else of how it ended.
    pub fn of_call(refusal: &str, outcome: Outcome) -> Self {
        match (Self::of_code(refusal), outcome) {
            (Self::None, Outcome::Cancelled) => Self::DownstreamEnd,
            (Self::None, Outcome::Failed) => Self::UpstreamEnd,
            (flag, Outcome::Completed | Outcome::Cancelled | Outcome::Failed) => flag,
        }
    }
}

/// Codes of heads that are refused before anything is judged (`head`), and of ambiguous paths.
fn is_protocol_refusal(code: &str) -> bool {
    const STARTS: [&str; 11] = [
        "host_",
        "method_",
        "target_",
        "path_",
        "connection_header",
        "length_",
        "expectation_",
        "upgrade_",
        "too_many_headers",
        "header_",
        "framing_",
    ];
    STARTS.iter().any(|start| code.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_says_in_envoys_words_why_a_call_ended() {
        let rows = [
            ("", Outcome::Completed, "-"),
            ("", Outcome::Cancelled, "DC"),
            ("", Outcome::Failed, "UC"),
            ("no_allow_matched", Outcome::Completed, "-"),
            ("token_expired", Outcome::Completed, "-"),
            ("no_route", Outcome::Completed, "NR"),
            ("not_ready", Outcome::Completed, "NC"),
            ("upstream_unreachable", Outcome::Failed, "UF"),
            ("upstream_failed", Outcome::Failed, "UC"),
            ("upstream_timeout", Outcome::Failed, "UT"),
            ("custom_denied", Outcome::Completed, "UAEX"),
            ("bad_provider", Outcome::Completed, "UAEX"),
            ("connection_limit", Outcome::Completed, "UO"),
            ("host_mismatch", Outcome::Completed, "DPE"),
            ("length_ambiguous", Outcome::Completed, "DPE"),
        ];
        for (code, outcome, want) in rows {
            let flag = ResponseFlag::of_call(code, outcome);
            assert_eq!(flag.as_str(), want, "{code} {outcome:?}");
        }
    }
}
