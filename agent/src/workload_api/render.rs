//! Views into the messages of the Workload API: always full state, in the view's order. Pure.

use std::collections::HashMap;

use ravelin_proto::bundle::{Bundle, JwksContent};
use ravelin_proto::pb::{JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse};

use crate::cache::WorkloadView;

/// Why a view makes no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoResponse {
    /// No identity: PermissionDenied.
    Denied,
    /// The agent does not know its trust domain's bundle yet: Unavailable (E-5).
    Starting,
    /// Nothing is signed and nothing valid is left: Unavailable.
    Unsigned,
    /// On its way; look again.
    Pending,
}

/// FetchX509SVID.
pub(super) fn x509_svids(view: &WorkloadView) -> Result<X509svidResponse, NoResponse> {
    let bundle = own_bundle(view)?;
    if !super::session::is_settled(view) {
        return Err(NoResponse::Pending);
    }
    let own = x509_bundle(bundle);
    let svids: Vec<X509svid> = view
        .identities
        .iter()
        .filter_map(|identity| {
            let svid = identity.svid.as_ref()?;
            Some(X509svid {
                spiffe_id: svid.spiffe_id.as_str().to_owned(),
                x509_svid: svid.chain_der(),
                x509_svid_key: svid.key.to_vec(),
                bundle: own.clone(),
                hint: identity.hint.clone(),
            })
        })
        .collect();
    if svids.is_empty() {
        return Err(NoResponse::Unsigned);
    }
    Ok(X509svidResponse {
        svids,
        crl: Vec::new(),
        federated_bundles: federated(view, x509_bundle),
    })
}

/// FetchX509Bundles.
pub(super) fn x509_bundles(view: &WorkloadView) -> Result<X509BundlesResponse, NoResponse> {
    let bundle = own_bundle(view)?;
    let mut bundles = federated(view, x509_bundle);
    bundles.insert(key_of(bundle), x509_bundle(bundle));
    Ok(X509BundlesResponse {
        crl: Vec::new(),
        bundles,
    })
}

/// FetchJWTBundles.
pub(super) fn jwt_bundles(view: &WorkloadView) -> Result<JwtBundlesResponse, NoResponse> {
    let bundle = own_bundle(view)?;
    let mut bundles = federated(view, jwt_bundle);
    bundles.insert(key_of(bundle), jwt_bundle(bundle));
    Ok(JwtBundlesResponse { bundles })
}

fn own_bundle(view: &WorkloadView) -> Result<&Bundle, NoResponse> {
    let bundle = view.bundle.as_deref().ok_or(NoResponse::Starting)?;
    if view.identities.is_empty() {
        return Err(NoResponse::Denied);
    }
    Ok(bundle)
}

fn federated(view: &WorkloadView, render: fn(&Bundle) -> Vec<u8>) -> HashMap<String, Vec<u8>> {
    view.federated
        .values()
        .map(|bundle| (key_of(bundle), render(bundle)))
        .collect()
}

/// Bundles are named by the trust domain's SPIFFE ID.
fn key_of(bundle: &Bundle) -> String {
    bundle.trust_domain.id().as_str().to_owned()
}

fn x509_bundle(bundle: &Bundle) -> Vec<u8> {
    bundle
        .x509_authorities
        .iter()
        .flat_map(|authority| authority.der.iter().copied())
        .collect()
}

fn jwt_bundle(bundle: &Bundle) -> Vec<u8> {
    bundle.to_jwks(JwksContent::JwtOnly).into_bytes()
}
