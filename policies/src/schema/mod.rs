//! The kinds of objects, each as a typed value.

mod authentication;
mod authorization;
mod config;
mod identity;
mod policy_test;
mod rules;
mod service_entry;

pub use authentication::{
    JwtRule, KeyAddress, KeyOrigin, PeerAuthentication, PeerMode, RemoteKeys,
    RequestAuthentication, TokenPlace,
};
pub use authorization::{AuthorizationPolicy, Effect, Rule, Window};
pub(crate) use authorization::{Clause, Field};
pub use config::{
    CheckProtocol, CheckedBody, ExtensionProvider, HeaderPattern, IdentityDefaults, MeshConfig,
};
pub use identity::{Launch, LaunchProtocol, WorkloadIdentity};
pub use policy_test::{Expectation, ExpectedCheck, PolicyTest, TestCase};
pub use rules::Rules;
pub use service_entry::{Endpoint, ServiceEntry, ServicePort, ServiceProtocol, WorkloadEntry};
