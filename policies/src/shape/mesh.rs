//! The shapes of MeshConfig and WorkloadIdentity.

use super::ValueShape::{Bool, Duration, Integer, Labels, List, Object, Text, Texts, Words};
use super::{FieldShape, Shape, may, must};
use crate::limits;
use crate::path::PathNormalization;
use crate::read::words;

/// `spec` of a MeshConfig.
pub(crate) static MESH_CONFIG: Shape = Shape {
    fields: &[
        must("trustDomain", Text, "The trust domain of the mesh"),
        may(
            "trustDomainAliases",
            Texts(1),
            "Other names of it in principals",
        ),
        may(
            "rootNamespace",
            Text,
            "Policies of this namespace hold for all; `istio-system` when left out",
        ),
        may(
            "defaults",
            Object(&IDENTITY_DEFAULTS),
            "What a WorkloadIdentity takes when it does not say",
        ),
        may(
            "pathNormalization",
            Words(|| words::names(&PathNormalization::NAMES)),
            "How paths are normalized",
        ),
        may(
            "hostMatching",
            Words(|| words::names(&words::HOST_MATCHING)),
            "If `hosts` compare with the port as it came alone",
        ),
        may("jwt", Object(&JWT), "How tokens are judged"),
        may(
            "unlistedCalls",
            Words(|| words::names(&words::UNLISTED)),
            "What becomes of calls to workloads without any policy",
        ),
        may(
            "extensionProviders",
            List(&PROVIDER, 1),
            "External authorizers of CUSTOM policies",
        ),
    ],
};

/// `defaults`.
pub(crate) static IDENTITY_DEFAULTS: Shape = Shape {
    fields: &[
        may("parentId", Text, "The node that hands identities out"),
        may("x509SvidTtl", Duration, "Life of an X509-SVID"),
        may("jwtSvidTtl", Duration, "Life of a JWT-SVID"),
    ],
};

/// `jwt`.
pub(crate) static JWT: Shape = Shape {
    fields: &[
        may("clockSkew", Duration, "Widens `exp` and `nbf`"),
        may("requireExpiry", Bool, "Tokens without `exp` are refused"),
        may(
            "typedClaims",
            Bool,
            "Booleans and numbers of claims match their text",
        ),
    ],
};

/// An entry of `extensionProviders`.
pub(crate) static PROVIDER: Shape = Shape {
    fields: &[
        must("name", Text, "What `provider.name` of a policy says"),
        may("envoyExtAuthzHttp", Object(&HTTP_PROVIDER), "Asked by HTTP"),
        may("envoyExtAuthzGrpc", Object(&GRPC_PROVIDER), "Asked by gRPC"),
    ],
};

const SERVICE: FieldShape = must("service", Text, "Host of a ServiceEntry, or an IP address");
const PORT: FieldShape = must("port", Integer(1, 65_535), "Port of the service");
const TIMEOUT: FieldShape = may(
    "timeout",
    Duration,
    "How long an answer may take; 2s when left out",
);
const FAIL_OPEN: FieldShape = may("failOpen", Bool, "Calls pass when it cannot be asked");
const CLEAR: FieldShape = may("clearRouteCache", Bool, "Not supported but as `false`");
const STATUS: FieldShape = may(
    "statusOnError",
    Integer(400, 599),
    "Status when it cannot be asked; 403 when left out",
);
const BODY: FieldShape = may(
    "includeRequestBodyInCheck",
    Object(&CHECKED_BODY),
    "How much of the body it gets",
);

/// `envoyExtAuthzGrpc`.
pub(crate) static GRPC_PROVIDER: Shape = Shape {
    fields: &[SERVICE, PORT, TIMEOUT, FAIL_OPEN, CLEAR, STATUS, BODY],
};

/// `envoyExtAuthzHttp`.
pub(crate) static HTTP_PROVIDER: Shape = Shape {
    fields: &[
        SERVICE,
        PORT,
        TIMEOUT,
        FAIL_OPEN,
        CLEAR,
        STATUS,
        BODY,
        may("pathPrefix", Text, "Before the path of the call"),
        may(
            "includeHeadersInCheck",
            Texts(1),
            "Older name of `includeRequestHeadersInCheck`",
        ),
        may(
            "includeRequestHeadersInCheck",
            Texts(1),
            "Headers of the call that it gets",
        ),
        may(
            "includeAdditionalHeadersInCheck",
            Labels,
            "Headers that are added",
        ),
        may(
            "headersToUpstreamOnAllow",
            Texts(1),
            "Headers of a permitting answer that replace those of the call",
        ),
        may(
            "headersToDownstreamOnAllow",
            Texts(1),
            "Headers of a permitting answer that the caller gets",
        ),
        may(
            "headersToDownstreamOnDeny",
            Texts(1),
            "Headers of a refusing answer that the caller gets",
        ),
    ],
};

/// `includeRequestBodyInCheck`.
pub(crate) static CHECKED_BODY: Shape = Shape {
    fields: &[
        must(
            "maxRequestBytes",
            Integer(1, limits::CHECKED_BODY_BYTES_MAX),
            "Most bytes that are sent",
        ),
        may(
            "allowPartialMessage",
            Bool,
            "A longer body is cut instead of refused",
        ),
        may("packAsBytes", Bool, "As bytes instead of text"),
    ],
};

/// `spec` of a WorkloadIdentity.
pub(crate) static WORKLOAD_IDENTITY: Shape = Shape {
    fields: &[
        may(
            "spiffeId",
            Text,
            "A path or a SPIFFE ID; `/ns/NAMESPACE/sa/NAME` when left out",
        ),
        must(
            "selectors",
            Texts(1),
            "What must be attested, such as `unix:uid:1000`; all of them",
        ),
        may("parentId", Text, "The node that hands it out"),
        may("x509SvidTtl", Duration, "Life of its X509-SVIDs"),
        may("jwtSvidTtl", Duration, "Life of its JWT-SVIDs"),
        may("dnsNames", Texts(1), "DNS names of its X509-SVIDs"),
        may(
            "federatesWith",
            Texts(1),
            "Trust domains whose bundles it gets",
        ),
        may("hint", Text, "For its operator"),
        may("isAdmin", Bool, "May use the administrative API"),
        may("launch", Object(&LAUNCH), "How `ravelin up` starts it"),
    ],
};

/// `launch`.
pub(crate) static LAUNCH: Shape = Shape {
    fields: &[
        may("command", Texts(1), "Program and arguments"),
        must(
            "port",
            Integer(1, 65_535),
            "Port of the workload on loopback",
        ),
        may("inbound", Text, "The proxy's listener for peers"),
        may(
            "outbound",
            Text,
            "The proxy's listener for the workload's own calls",
        ),
        may(
            "protocol",
            Words(|| words::names(&words::LAUNCH_PROTOCOLS)),
            "What it speaks",
        ),
    ],
};
