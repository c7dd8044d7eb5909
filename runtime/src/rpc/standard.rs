//! The two services that every listener of ours has beside its own: health and reflection.

use ravelin_proto::pb::DESCRIPTORS;
use tonic::service::Routes;

pub use tonic_health::server::HealthReporter;

/// Adds `grpc.health.v1` and server reflection (E-6), and gives the hand that reports health.
pub fn with_health_and_reflection(routes: Routes) -> (Routes, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = routes.add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors are compiled in: if they cannot be read, reflection is missing and nothing else.
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(newer), Ok(older)) => routes = routes.add_service(newer).add_service(older),
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no server reflection"),
    }
    (routes, reporter)
}
