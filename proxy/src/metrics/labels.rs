//! Istio's labels: what is constant on one edge (who calls whom, by which service) as text made once, and what differs
//! from call to call as a small key.
//!
//! Pure. INVARIANT: no label takes a value that a caller chooses: hosts, paths, methods and headers never become one.

use std::fmt::Write as _;

use super::flags::ResponseFlag;
use super::names::{ServiceNames, WorkloadNames};

/// Value of a label that is not known, as in Istio.
pub const UNKNOWN: &str = "unknown";

/// Who counts: the caller's proxy or that of the one that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reporter {
    /// The caller's.
    Source,
    /// The one that is called.
    Destination,
}

impl Reporter {
    /// Value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What is the same for all calls between two workloads by one service.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'a> {
    /// Who counts.
    pub reporter: Reporter,
    /// The caller; `None` when nobody is authenticated.
    pub source: Option<&'a WorkloadNames>,
    /// The one that is called; `None` before a route is known.
    pub destination: Option<&'a WorkloadNames>,
    /// By which service; `None` where none is declared.
    pub service: Option<&'a ServiceNames>,
    /// True with mutual TLS between the two.
    pub is_mutual_tls: bool,
}

impl Edge<'_> {
    /// The labels as the exposition writes them, without braces.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(1024);
        let reporter = self.reporter.as_str();
        // WHY: writing to a String cannot fail.
        let _ = write!(text, "reporter=\"{reporter}\"");
        workload(&mut text, "source", self.source);
        workload(&mut text, "destination", self.destination);
        let service = self.service;
        label(
            &mut text,
            "destination_service",
            service.map(|service| service.host.as_str()),
        );
        label(
            &mut text,
            "destination_service_name",
            service.map(|service| service.name.as_str()),
        );
        label(
            &mut text,
            "destination_service_namespace",
            service.map(|service| service.namespace.as_str()),
        );
        let security = if self.is_mutual_tls {
            "mutual_tls"
        } else {
            "none"
        };
        label(&mut text, "connection_security_policy", Some(security));
        text
    }
}

/// The labels of calls that found no room for series of their own.
pub fn overflow(reporter: Reporter) -> String {
    let reporter = reporter.as_str();
    let mut text = format!("reporter=\"{reporter}\"");
    for name in [
        "source_principal",
        "destination_principal",
        "destination_service",
    ] {
        label(&mut text, name, Some("overflow"));
    }
    text
}

fn workload(text: &mut String, side: &str, names: Option<&WorkloadNames>) {
    let labels: [(&str, Option<&str>); 8] = [
        ("workload", names.map(|names| names.workload.as_str())),
        (
            "workload_namespace",
            names.map(|names| names.namespace.as_str()),
        ),
        ("principal", names.map(|names| names.principal.as_str())),
        ("app", names.map(|names| names.app.as_str())),
        ("version", names.map(|names| names.version.as_str())),
        ("cluster", names.map(|names| names.cluster.as_str())),
        (
            "canonical_service",
            names.map(|names| names.canonical_service.as_str()),
        ),
        (
            "canonical_revision",
            names.map(|names| names.canonical_revision.as_str()),
        ),
    ];
    for (name, value) in labels {
        text.push(',');
        text.push_str(side);
        text.push('_');
        text.push_str(name);
        quoted(text, value);
    }
}

fn label(text: &mut String, name: &str, value: Option<&str>) {
    text.push(',');
    text.push_str(name);
    quoted(text, value);
}

fn quoted(text: &mut String, value: Option<&str>) {
    text.push_str("=\"");
    let value = value.filter(|value| !value.is_empty()).unwrap_or(UNKNOWN);
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other if other.is_control() => text.push('\u{fffd}'),
            other => text.push(other),
        }
    }
    text.push('"');
}

/// `grpc-status` of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrpcStatus {
    /// The call is no gRPC.
    #[default]
    NotGrpc,
    /// gRPC whose status never came, or is none of the seventeen.
    Unknown,
    /// 0 to 16.
    Code(u8),
}

impl GrpcStatus {
    /// Reads the field of trailers or of a head.
    pub fn parse(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or_default();
        match text.parse::<u8>() {
            Ok(code) if code <= 16 && text.len() <= 2 => Self::Code(code),
            Ok(_) | Err(_) => Self::Unknown,
        }
    }

    /// True for a gRPC call.
    pub fn is_grpc(self) -> bool {
        self != Self::NotGrpc
    }
}

/// What differs between the calls of one edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// Status of the answer; 0 where none was given.
    pub code: u16,
    /// gRPC, and how it ended.
    pub grpc: GrpcStatus,
    /// Why it ended otherwise.
    pub flag: ResponseFlag,
}

impl CallKey {
    /// Statuses that do not exist count as 0: an application must not make series of them.
    pub fn new(code: u16, grpc: GrpcStatus, flag: ResponseFlag) -> Self {
        let code = if (100..600).contains(&code) { code } else { 0 };
        Self { code, grpc, flag }
    }

    /// The labels as the exposition writes them, to stand behind those of the edge.
    pub fn render(self, text: &mut String) {
        let protocol = if self.grpc.is_grpc() { "grpc" } else { "http" };
        let _ = write!(
            text,
            ",request_protocol=\"{protocol}\",response_code=\"{}\",response_flags=\"{}\"",
            self.code,
            self.flag.as_str()
        );
        match self.grpc {
            GrpcStatus::NotGrpc => {}
            GrpcStatus::Unknown => text.push_str(",grpc_response_status=\"unknown\""),
            GrpcStatus::Code(code) => {
                let _ = write!(text, ",grpc_response_status=\"{code}\"");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> WorkloadNames {
        WorkloadNames {
            workload: name.to_owned(),
            namespace: "shop".to_owned(),
            principal: format!("spiffe://example.org/ns/shop/sa/{name}"),
            app: name.to_owned(),
            version: "v1".to_owned(),
            cluster: "example.org".to_owned(),
            canonical_service: name.to_owned(),
            canonical_revision: "v1".to_owned(),
        }
    }

    #[test]
    fn an_edge_has_every_label_of_istio_once() {
        let (source, destination) = (names("orders"), names("inventory"));
        let service = ServiceNames {
            host: "inventory.shop".to_owned(),
            name: "inventory".to_owned(),
            namespace: "shop".to_owned(),
        };
        let text = Edge {
            reporter: Reporter::Destination,
            source: Some(&source),
            destination: Some(&destination),
            service: Some(&service),
            is_mutual_tls: true,
        }
        .render();
        let mut wanted: Vec<String> = ["source", "destination"]
            .iter()
            .flat_map(|side| {
                [
                    "workload",
                    "workload_namespace",
                    "principal",
                    "app",
                    "version",
                    "cluster",
                    "canonical_service",
                    "canonical_revision",
                ]
                .map(|name| format!("{side}_{name}"))
            })
            .collect();
        wanted.extend(
            [
                "reporter",
                "destination_service",
                "destination_service_name",
                "destination_service_namespace",
                "connection_security_policy",
            ]
            .map(str::to_owned),
        );
        wanted.sort_unstable();
        let mut found: Vec<String> = text
            .split("\",")
            .map(|pair| pair.split_once('=').unwrap().0.to_owned())
            .collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        assert!(text.contains("source_principal=\"spiffe://example.org/ns/shop/sa/orders\""));
    }

    #[test]
    fn what_is_not_known_is_unknown_and_no_value_leaves_its_quotes() {
        let mut names = names("x");
        names.app = "a\"b\\c\nd\u{1b}".to_owned();
        names.version = String::new();
        let text = Edge {
            reporter: Reporter::Source,
            source: Some(&names),
            destination: None,
            service: None,
            is_mutual_tls: false,
        }
        .render();
        assert!(
            text.contains("source_app=\"a\\\"b\\\\c\\nd\u{fffd}\""),
            "{text}"
        );
        assert!(text.contains("source_version=\"unknown\""), "{text}");
        assert!(text.contains("destination_principal=\"unknown\""), "{text}");
        assert!(
            text.contains("connection_security_policy=\"none\""),
            "{text}"
        );
    }

    #[test]
    fn the_key_of_a_call_has_few_values_whatever_an_application_answers() {
        let rows: [(u16, &[u8], &str); 6] = [
            (
                200,
                b"0",
                ",request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"0\"",
            ),
            (
                200,
                b"16",
                ",request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"16\"",
            ),
            (
                200,
                b"17",
                ",request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"unknown\"",
            ),
            (
                200,
                b"007",
                ",request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"unknown\"",
            ),
            (
                200,
                b"\xff",
                ",request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"unknown\"",
            ),
            (
                999,
                b"0",
                ",request_protocol=\"grpc\",response_code=\"0\",response_flags=\"-\",grpc_response_status=\"0\"",
            ),
        ];
        for (code, status, want) in rows {
            let mut text = String::new();
            CallKey::new(code, GrpcStatus::parse(status), ResponseFlag::None).render(&mut text);
            assert_eq!(text, want);
        }
        let mut text = String::new();
        CallKey::new(404, GrpcStatus::NotGrpc, ResponseFlag::NoRoute).render(&mut text);
        assert_eq!(
            text,
            ",request_protocol=\"http\",response_code=\"404\",response_flags=\"NR\""
        );
    }
}
