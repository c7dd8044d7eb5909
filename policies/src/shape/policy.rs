//! The shapes of AuthorizationPolicy, RequestAuthentication, PeerAuthentication and PolicyTest.

use super::ValueShape::{
    AnyText, Anything, Bool, ConditionKey, Duration, Integer, Labels, List, Map, Object, Text,
    TextOrFalse, TextOrTexts, Texts, TextsOrNumbers, Words,
};
use super::{FieldShape, Shape, ValueShape, may, must};
use crate::read::words;

const ACTION_WORDS: ValueShape = Words(|| words::names(&words::EFFECTS));
const MODE_WORDS: ValueShape = Words(|| words::names(&words::PEER_MODES));

/// Whom a policy holds for.
pub(crate) static SELECTOR: Shape = Shape {
    fields: &[must(
        "matchLabels",
        Labels,
        "Labels of the workload, compared exactly; all of them",
    )],
};

/// One target reference.
pub(crate) static TARGET: Shape = Shape {
    fields: &[
        may("group", AnyText, "API group of the target"),
        must(
            "kind",
            Words(|| words::names(&words::TARGETS)),
            "Kind of the target",
        ),
        must("name", Text, "Name of the target"),
        may("namespace", AnyText, "Has to be empty"),
    ],
};

const SELECTED: FieldShape = may(
    "selector",
    Object(&SELECTOR),
    "Whom it holds for; without it everyone in the namespace",
);
const TARGET_REF: FieldShape = may(
    "targetRef",
    Object(&TARGET),
    "A gateway or service; it then holds for no workload here",
);
const TARGET_REFS: FieldShape = may(
    "targetRefs",
    List(&TARGET, 1),
    "Gateways or services; it then holds for no workload here",
);

/// `spec` of an AuthorizationPolicy.
pub(crate) static AUTHORIZATION_POLICY: Shape = Shape {
    fields: &[
        SELECTED,
        TARGET_REF,
        TARGET_REFS,
        may(
            "action",
            ACTION_WORDS,
            "What a match means; ALLOW when left out",
        ),
        may(
            "provider",
            Object(&PROVIDER_NAME),
            "The external authorizer of a CUSTOM policy",
        ),
        may(
            "rules",
            List(&RULE, 0),
            "Any of them matches; none never matches, `{}` always",
        ),
    ],
};

/// `provider` of an AuthorizationPolicy.
pub(crate) static PROVIDER_NAME: Shape = Shape {
    fields: &[must(
        "name",
        Text,
        "One of `extensionProviders` of the MeshConfig",
    )],
};

/// One rule.
pub(crate) static RULE: Shape = Shape {
    fields: &[
        may("from", List(&FROM, 1), "Any of these sources"),
        may("to", List(&TO, 1), "Any of these operations"),
        may("when", List(&CONDITION, 1), "All of these conditions"),
    ],
};

/// An entry of `from`.
pub(crate) static FROM: Shape = Shape {
    fields: &[must("source", Object(&SOURCE), "All of its fields hold")],
};

/// An entry of `to`.
pub(crate) static TO: Shape = Shape {
    fields: &[must(
        "operation",
        Object(&OPERATION),
        "All of its fields hold",
    )],
};

const fn values(name: &'static str, about: &'static str) -> FieldShape {
    may(name, Texts(1), about)
}

/// `source`.
pub(crate) static SOURCE: Shape = Shape {
    fields: &[
        values(
            "principals",
            "Peers: `TRUST_DOMAIN/ns/NAMESPACE/sa/NAME`, `prefix*`, `*suffix`, `*`",
        ),
        values(
            "notPrincipals",
            "Not these peers; also peers without identity",
        ),
        values(
            "requestPrincipals",
            "Tokens: `ISSUER/SUBJECT`, `ISSUER/*`, `*`",
        ),
        values(
            "notRequestPrincipals",
            "Not these tokens; also calls without token",
        ),
        values("namespaces", "Namespaces of peers, in any trust domain"),
        values("notNamespaces", "Not these namespaces"),
        values(
            "serviceAccounts",
            "`NAME` or `NAMESPACE/NAME`, in any trust domain",
        ),
        values("notServiceAccounts", "Not these service accounts"),
        values("trustDomains", "Trust domains of peers"),
        values("notTrustDomains", "Not these trust domains"),
        values("ipBlocks", "Address of the direct peer: IP or CIDR"),
        values("notIpBlocks", "Not these addresses"),
        values(
            "remoteIpBlocks",
            "Address of the client behind trusted proxies",
        ),
        values("notRemoteIpBlocks", "Not these addresses"),
    ],
};

/// `operation`.
pub(crate) static OPERATION: Shape = Shape {
    fields: &[
        values(
            "hosts",
            "Host of the request, in any case, with or without port",
        ),
        values("notHosts", "Not these hosts"),
        may("ports", TextsOrNumbers, "Ports of the workload"),
        may("notPorts", TextsOrNumbers, "Not these ports"),
        values("methods", "Methods in upper case"),
        values("notMethods", "Not these methods"),
        values(
            "paths",
            "Normalized paths: `/a`, `/a*`, `*.css`, `/a/{*}/b/{**}`",
        ),
        values("notPaths", "Not these paths"),
    ],
};

/// An entry of `when`.
pub(crate) static CONDITION: Shape = Shape {
    fields: &[
        must("key", ConditionKey, "What is looked at"),
        may("values", TextsOrNumbers, "Any of these"),
        may("notValues", TextsOrNumbers, "None of these"),
    ],
};

/// `spec` of a RequestAuthentication.
pub(crate) static REQUEST_AUTHENTICATION: Shape = Shape {
    fields: &[
        SELECTED,
        TARGET_REF,
        TARGET_REFS,
        may(
            "jwtRules",
            List(&JWT_RULE, 0),
            "Issuers whose tokens are accepted",
        ),
    ],
};

/// An entry of `jwtRules`.
pub(crate) static JWT_RULE: Shape = Shape {
    fields: &[
        may("issuer", Text, "`iss` of the tokens, exactly"),
        may("audiences", Texts(0), "Any of them has to be in `aud`"),
        may(
            "jwksUri",
            Text,
            "Where the keys are fetched; `spiffe://TRUST_DOMAIN` for JWT-SVIDs",
        ),
        may("jwks", Text, "The keys themselves, as a JWK set"),
        may("jwksFile", Text, "A file of the mesh folder with the keys"),
        may(
            "fromHeaders",
            List(&TOKEN_HEADER, 0),
            "Headers with tokens, instead of `Authorization: Bearer`",
        ),
        may("fromParams", Texts(0), "Query parameters with tokens"),
        may("fromCookies", Texts(0), "Cookies with tokens"),
        may(
            "outputPayloadToHeader",
            Text,
            "Header that takes the payload as base64url",
        ),
        may(
            "outputClaimToHeaders",
            List(&CLAIM_HEADER, 0),
            "Headers that take claims",
        ),
        may(
            "forwardOriginalToken",
            Bool,
            "The application gets the token too",
        ),
        may(
            "timeout",
            Duration,
            "How long one fetch of the keys may take",
        ),
        may(
            "spaceDelimitedClaims",
            Texts(0),
            "Claims that are split at spaces, besides `scope` and `permission`",
        ),
    ],
};

/// An entry of `fromHeaders`.
pub(crate) static TOKEN_HEADER: Shape = Shape {
    fields: &[
        must("name", Text, "Name of the header"),
        may("prefix", Text, "What stands before the token"),
    ],
};

/// An entry of `outputClaimToHeaders`.
pub(crate) static CLAIM_HEADER: Shape = Shape {
    fields: &[
        must("header", Text, "Name of the header"),
        must("claim", Text, "The claim; `a.b` for a nested one"),
    ],
};

/// `spec` of a PeerAuthentication.
pub(crate) static PEER_AUTHENTICATION: Shape = Shape {
    fields: &[
        SELECTED,
        may("mtls", Object(&MTLS), "How connections are accepted"),
        may(
            "portLevelMtls",
            Map(&Object(&MTLS)),
            "By port of the workload; needs a `selector`",
        ),
    ],
};

/// `mtls`.
pub(crate) static MTLS: Shape = Shape {
    fields: &[may("mode", MODE_WORDS, "STRICT: with an identity alone")],
};

/// `spec` of a PolicyTest.
pub(crate) static POLICY_TEST: Shape = Shape {
    fields: &[
        must(
            "workload",
            Text,
            "The destination: `NAME`, `NAMESPACE/NAME`, a path or a SPIFFE ID",
        ),
        must(
            "cases",
            List(&CASE, 1),
            "Calls, and what must become of each",
        ),
    ],
};

/// An entry of `cases`.
pub(crate) static CASE: Shape = Shape {
    fields: &[
        must("name", Text, "A sentence"),
        may("at", Text, "When, in RFC 3339"),
        may("from", Text, "Who calls; without it plain text"),
        may("sourceIp", Text, "Address of the direct peer"),
        may("remoteIp", Text, "Address of the client"),
        may("destinationIp", Text, "Address of the workload"),
        may("port", Integer(0, 65_535), "Port of the workload"),
        may("sni", Text, "Server name of the handshake"),
        may(
            "protocol",
            Words(|| words::names(&words::CASE_PROTOCOLS)),
            "`tcp` for a bare connection",
        ),
        may("method", Text, "Method; GET when left out"),
        may("host", Text, "Host; the workload's name when left out"),
        may("path", Text, "Path as it comes over the wire"),
        may("headers", Map(&TextOrTexts), "Headers"),
        may("claims", Anything, "Claims of a token that was accepted"),
        must(
            "expect",
            Words(|| words::names(&words::EXPECTATIONS)),
            "What must become of it",
        ),
        may("policy", Text, "The policy that must decide"),
        may(
            "rule",
            Integer(1, 512),
            "The rule of it that must decide, from 1",
        ),
        may("code", Text, "The code of the decision"),
        may("audited", Bool, "If it must be marked for the audit"),
        may(
            "shadow",
            Words(|| words::names(&words::SHADOWS)),
            "What dry-run policies must make of it",
        ),
        may(
            "custom",
            TextOrFalse,
            "The provider that must be asked; `false` for none",
        ),
    ],
};
