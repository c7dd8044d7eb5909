//! The shapes of ServiceEntry and WorkloadEntry.

use super::ValueShape::{Integer, Labels, List, Map, Object, Text, Texts, Words};
use super::{Shape, ValueShape, may, must};
use crate::read::words;

const PORT_NUMBER: ValueShape = Integer(1, 65_535);

/// `spec` of a ServiceEntry.
pub(crate) static SERVICE_ENTRY: Shape = Shape {
    fields: &[
        must(
            "hosts",
            Texts(1),
            "Names without port; `*.example.org` for every name below",
        ),
        may(
            "addresses",
            Texts(1),
            "Virtual addresses: a captured connection to one of them is meant for this service",
        ),
        must("ports", List(&SERVICE_PORT, 1), "Ports that callers use"),
        may(
            "location",
            Words(|| words::names(&words::LOCATIONS)),
            "Inside or outside of the mesh; what is outside is not routed",
        ),
        may(
            "resolution",
            Words(|| words::names(&words::RESOLUTIONS)),
            "STATIC alone is routed",
        ),
        may(
            "endpoints",
            List(&ENDPOINT, 1),
            "Where the peers' proxies listen",
        ),
        may(
            "workloadSelector",
            Object(&WORKLOAD_SELECTOR),
            "Chooses WorkloadEntries instead of `endpoints`",
        ),
        may("exportTo", Texts(1), "`*`; another value is not routed"),
        may("subjectAltNames", Texts(1), "SPIFFE IDs that may serve it"),
    ],
};

/// One port.
pub(crate) static SERVICE_PORT: Shape = Shape {
    fields: &[
        must("number", PORT_NUMBER, "Number that callers use"),
        must(
            "protocol",
            Words(|| words::names_in_any_case(&words::PROTOCOLS)),
            "What is spoken",
        ),
        must("name", Text, "Name of the port"),
        may("targetPort", PORT_NUMBER, "Port of the endpoints"),
    ],
};

/// `workloadSelector`.
pub(crate) static WORKLOAD_SELECTOR: Shape = Shape {
    fields: &[must("labels", Labels, "Labels of WorkloadEntries")],
};

/// An endpoint, and `spec` of a WorkloadEntry.
pub(crate) static ENDPOINT: Shape = Shape {
    fields: &[
        must(
            "address",
            Text,
            "IP address of the peer's proxy, without port",
        ),
        may(
            "ports",
            Map(&PORT_NUMBER),
            "Names of ports to numbers, where they differ",
        ),
        may("labels", Labels, "Labels"),
        may("network", Text, "Network"),
        may("locality", Text, "`region/zone/subzone`"),
        may("weight", Integer(0, 1_000_000), "Share of the calls"),
        may("serviceAccount", Text, "Account, for information"),
    ],
};
