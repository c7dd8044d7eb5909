//! Kinds that are not acted on: ignored with a warning where nothing is lost, refused where something would be.
//!
//! A file from the web often has the Deployment and the Service that a policy is about beside it. Leaving those
//! out grants nothing: no identity, no route and no permission comes of them. What restricts (NetworkPolicy,
//! Role, Gateway) or is secret is never ignored.

use crate::diagnostic::{Problems, Span, excerpt, near_miss};

use super::header::KINDS;

/// Kinds of Kubernetes that only run or describe something, each with what says so here.
pub(crate) const IGNORED: [(&str, &str, &str); 16] = [
    ("Namespace", "v1", "`metadata.namespace` says it"),
    ("ServiceAccount", "v1", "a WorkloadIdentity says it"),
    ("Service", "v1", "a ServiceEntry says it"),
    ("Endpoints", "v1", "a ServiceEntry says it"),
    (
        "EndpointSlice",
        "discovery.k8s.io/v1",
        "a ServiceEntry says it",
    ),
    ("Pod", "v1", "a WorkloadIdentity says who runs"),
    ("ConfigMap", "v1", ""),
    ("PersistentVolumeClaim", "v1", ""),
    ("Deployment", "apps/v1", "a WorkloadIdentity says who runs"),
    ("ReplicaSet", "apps/v1", "a WorkloadIdentity says who runs"),
    ("StatefulSet", "apps/v1", "a WorkloadIdentity says who runs"),
    ("DaemonSet", "apps/v1", "a WorkloadIdentity says who runs"),
    ("Job", "batch/v1", "a WorkloadIdentity says who runs"),
    ("CronJob", "batch/v1", "a WorkloadIdentity says who runs"),
    ("HorizontalPodAutoscaler", "autoscaling/v2", ""),
    ("Kustomization", "kustomize.config.k8s.io/v1beta1", ""),
];

/// Kinds that would be missed: they are refused by name, with what to do.
const REFUSED: [(&str, &str); 39] = [
    ("VirtualService", ""),
    ("DestinationRule", ""),
    ("Gateway", ""),
    ("GatewayClass", ""),
    ("Sidecar", ""),
    ("Telemetry", ""),
    ("ProxyConfig", ""),
    ("WorkloadGroup", ""),
    ("EnvoyFilter", ""),
    ("WasmPlugin", ""),
    ("TrafficExtension", ""),
    ("HTTPRoute", ""),
    ("GRPCRoute", ""),
    ("TLSRoute", ""),
    ("TCPRoute", ""),
    ("UDPRoute", ""),
    ("ReferenceGrant", ""),
    ("BackendTLSPolicy", ""),
    ("BackendTrafficPolicy", ""),
    ("ListenerSet", ""),
    ("Ingress", ""),
    (
        "IstioOperator",
        "its `meshConfig` belongs into the MeshConfig of `ravelin.yaml`",
    ),
    (
        "NetworkPolicy",
        "it would not be enforced here; write an AuthorizationPolicy, and keep it with your cluster",
    ),
    (
        "CiliumNetworkPolicy",
        "it would not be enforced here; write an AuthorizationPolicy, and keep it with your cluster",
    ),
    (
        "CiliumClusterwideNetworkPolicy",
        "it would not be enforced here; write an AuthorizationPolicy, and keep it with your cluster",
    ),
    (
        "Role",
        "it says who may use the cluster; keep it outside of the mesh folder",
    ),
    (
        "RoleBinding",
        "it says who may use the cluster; keep it outside of the mesh folder",
    ),
    (
        "ClusterRole",
        "it says who may use the cluster; keep it outside of the mesh folder",
    ),
    (
        "ClusterRoleBinding",
        "it says who may use the cluster; keep it outside of the mesh folder",
    ),
    (
        "CustomResourceDefinition",
        "keep it outside of the mesh folder",
    ),
    (
        "Secret",
        "every proxy would get it; keep secrets outside of the mesh folder",
    ),
    (
        "List",
        "put each of its items into a document of its own, with `---` between",
    ),
    (
        "ServiceRole",
        "Istio removed it; write an AuthorizationPolicy",
    ),
    (
        "ServiceRoleBinding",
        "Istio removed it; write an AuthorizationPolicy",
    ),
    (
        "ClusterRbacConfig",
        "Istio removed it; write an AuthorizationPolicy",
    ),
    (
        "RbacConfig",
        "Istio removed it; write an AuthorizationPolicy",
    ),
    (
        "Policy",
        "Istio removed it; write a PeerAuthentication and a RequestAuthentication",
    ),
    (
        "MeshPolicy",
        "Istio removed it; write a PeerAuthentication of the root namespace",
    ),
    ("ServerAuthorization", "write an AuthorizationPolicy"),
];

/// Reports an object of a kind that is not read here.
pub(super) fn report_foreign_kind(
    kind: &str,
    version: &str,
    at: Span,
    problems: &mut Problems<'_>,
) {
    let group = |version: &str| {
        version
            .split_once('/')
            .map_or("", |(group, _)| group)
            .to_owned()
    };
    let ignored = IGNORED
        .iter()
        .find(|(name, of, _)| *name == kind && group(of) == group(version));
    if let Some((_, _, instead)) = ignored {
        let help = match *instead {
            "" => "the file may be left out".to_owned(),
            instead => format!("the file may be left out: {instead} here"),
        };
        let message = format!("the kind {kind} of Kubernetes has no meaning here and is ignored");
        problems.warning(at, "ignored-kind", message, Some(help));
        return;
    }
    if let Some((_, instead)) = REFUSED.iter().find(|(name, _)| *name == kind) {
        let help = (!instead.is_empty()).then(|| (*instead).to_owned());
        let message = format!("the kind `{kind}` is not supported");
        problems.error_with_help(at, "kind-not-supported", message, help);
        return;
    }
    let names = KINDS.iter().map(|(_, name, _)| *name);
    let foreign = IGNORED.iter().map(|(name, _, _)| *name);
    let help = near_miss(kind, names.clone().chain(foreign)).or_else(|| {
        let names: Vec<&str> = names.collect();
        Some(format!("the kinds are {}", names.join(", ")))
    });
    let message = format!("unknown kind `{}`", excerpt(kind));
    problems.error_with_help(at, "unknown-kind", message, help);
}
