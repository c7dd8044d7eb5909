//! The policy engine, pure: files in, decisions out. No file system, no clock, no randomness.
//!
//! [`load`] turns the mesh folder's files into a [`MeshSet`] or says all that is wrong with them;
//! [`WorkloadPolicies::compile`] makes of it what one workload's proxy asks on every call: normalize the path,
//! authenticate the tokens, authorize. Rules are those of Istio's kinds, by their numbers in the tests' names.

mod analyze;
mod attached;
mod authenticate;
mod call;
mod clause;
mod compile;
mod decision;
mod diagnostic;
mod diff;
mod document;
mod evaluate;
mod explain;
mod fields;
mod index;
mod json_schema;
pub mod limits;
pub mod lint;
mod load;
mod matcher;
mod object;
mod path;
mod read;
mod schema;
mod set;
mod shape;
mod source;
mod template;
mod test_run;

pub use analyze::{
    Access, AdditionalCall, AnalyzeError, AnalyzeOptions, Answer, CallFacts, Condition, Coverage,
    CoverageRun, Difference, DifferenceReport, Generalize, HttpFacts, IdleRule, Idleness, LeftOut,
    LineError, LogLine, NotCompared, Note, PartCoverage, PartKind, Reach, ReachGroup, ReachQuery,
    RecordedCall, RecordedOutcome, RedundancyReport, Replay, ReplayExample, ReplayGroup,
    ReplayReport, RuleCoverage, Sample, Suggest, SuggestOptions, SuggestedOperation,
    SuggestedPolicy, SuggestedRule, SuggestedSource, SuggestedTemplate, Suggestion, TooManyCalls,
    Unanswered, difference, parse_log_line, reachable, redundancy, who_can,
};
pub use authenticate::{
    AuthRefusal, KeySource, Presented, RequestAuthentications, RequestView, SignatureVerifier,
    Verified,
};
pub use call::{Connection, HeaderView, HttpCall, RequestIdentity};
pub use compile::{CompileError, WorkloadPolicies};
pub use decision::{
    ALLOWED, BAD_PROVIDER, CustomCheck, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED,
    PolicyRef, RuleRef, Shadow,
};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use diff::{ChangeAction, ObjectChange, diff_sets};
pub use explain::{Explanation, NearestMiss};
pub use index::layers::ConnectionPolicies;
pub use json_schema::{schema_kinds, schema_of_all, schema_of_kind};
pub use load::{TRUST_DOMAIN_DEFAULT, load, load_with_defaults};
pub use object::{Labels, Location, Metadata, ObjectRecord, Workload};
pub use path::{NormalizedPath, PathNormalization, PathRefusal, normalize};
pub use schema::{
    AuthorizationPolicy, CheckProtocol, CheckedBody, Effect, Endpoint, Expectation, ExpectedCheck,
    ExtensionProvider, HeaderPattern, IdentityDefaults, JwtRule, KeyAddress, KeyOrigin, Launch,
    LaunchProtocol, MeshConfig, PeerAuthentication, PeerMode, PolicyTest, RemoteKeys,
    RequestAuthentication, Rule, Rules, ServiceEntry, ServicePort, ServiceProtocol, TestCase,
    TokenPlace, Window, WorkloadEntry, WorkloadIdentity,
};
pub use set::MeshSet;
pub use source::{SourceFile, set_digest};
pub use test_run::{CaseReport, TestReport, run_tests};
