//! Every bound of the policy engine in one place. Reaching one is a refusal that names it.

use std::time::Duration;

/// Longest file in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most files of a mesh folder.
pub const FILES_MAX: usize = 10_000;
/// Longest path of a file, relative to the mesh folder.
pub const FILE_PATH_BYTES_MAX: usize = 1024;
/// Most bytes of a whole set.
pub const SET_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most YAML documents of a file.
pub const DOCUMENTS_MAX: usize = 1_000;
/// Deepest nesting of a YAML document.
pub const DEPTH_MAX: usize = 32;
/// Most YAML nodes of a file, aliases counted as often as they are used.
pub const NODES_MAX: usize = 200_000;
/// Most YAML nodes of a whole set.
pub const SET_NODES_MAX: usize = 4_000_000;
/// Longest scalar in bytes; a key set may stand inline.
pub const SCALAR_BYTES_MAX: usize = 256 * 1024;
/// Most bytes that the aliases of a file may copy.
pub const ALIAS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most diagnostics that one load reports.
pub const DIAGNOSTICS_MAX: usize = 200;
/// Findings of a file after which long lists are no longer searched for near misses.
pub const NEAR_MISSES_MAX: usize = 50;
/// Most characters of a name that near misses are looked for.
pub const NEAR_MISS_CHARS_MAX: usize = 256;
/// Longest excerpt of the user's text in a message.
pub const EXCERPT_CHARS_MAX: usize = 120;

/// Most rules of one policy (rule 19).
pub const RULES_MAX: usize = 512;
/// Most rules of all policies of a set.
pub const SET_RULES_MAX: usize = 500_000;
/// Most `from` or `to` entries of one rule (rule 19).
pub const ALTERNATIVES_MAX: usize = 512;
/// Most conditions of one rule.
pub const CONDITIONS_MAX: usize = 512;
/// Most values of one list.
pub const VALUES_MAX: usize = 1_024;
/// Longest value of a list in bytes.
pub const VALUE_BYTES_MAX: usize = 2_048;
/// Most `serviceAccounts` of one source (rule 19).
pub const SERVICE_ACCOUNTS_MAX: usize = 16;
/// Most `targetRefs` of one policy (rule 19).
pub const TARGET_REFS_MAX: usize = 16;
/// Longest service account in characters (rule 19).
pub const SERVICE_ACCOUNT_CHARS_MAX: usize = 320;
/// Most JWT rules of one RequestAuthentication (rule 19).
pub const JWT_RULES_MAX: usize = 4_096;
/// Most space-delimited claims of one JWT rule (rule 19).
pub const SPACE_DELIMITED_CLAIMS_MAX: usize = 64;
/// Most labels or annotations of one object.
pub const LABELS_MAX: usize = 256;
/// Longest name or namespace (RFC 1123 subdomain).
pub const NAME_BYTES_MAX: usize = 253;
/// Longest claim path in steps.
pub const CLAIM_STEPS_MAX: usize = 16;
/// Most cases of one PolicyTest.
pub const CASES_MAX: usize = 1_000;

/// Most `extensionProviders` of a mesh.
pub const PROVIDERS_MAX: usize = 64;
/// How long an external authorizer may take when the file does not say.
pub const CHECK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// The longest that a file may let an external authorizer take (rule 62: Istio's own default).
pub const CHECK_TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// Most bytes of a body that a file may send to an external authorizer.
pub const CHECKED_BODY_BYTES_MAX: u32 = 10 * 1024 * 1024;

/// Most combinations of a `from` and a `to` entry of one workload's rules that are indexed.
pub const INDEX_ENTRIES_MAX: usize = 1_000_000;
/// Most patterns of one workload's rules; equal lists count once.
pub const INDEX_PATTERNS_MAX: usize = 4_000_000;
/// Most memory that the index of one workload's rules may take, about.
pub const INDEX_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Combinations of one rule that are indexed one by one; of a rule with more only `from` is.
pub const RULE_COMBINATIONS_MAX: usize = 64;
/// Most groups of rules that are remembered for one connection; where more are left, each request looks again.
pub const CONNECTION_GROUPS_MAX: usize = if cfg!(test) { 3 } else { 256 };
/// Most entries of small groups that are remembered with them, for each list; the groups of the others are.
pub const CONNECTION_ENTRIES_MAX: usize = if cfg!(test) { 4 } else { 32 };
/// Most places where the index names a rule; what goes beyond is tried rule by rule.
pub const INDEX_REFERENCES_MAX: usize = 4_000_000;
/// Most keys that are looked at to find the best index; what goes beyond is tried rule by rule.
pub const INDEX_WORK_MAX: usize = 32_000_000;

/// Longest request target that is judged.
pub const TARGET_BYTES_MAX: usize = 64 * 1024;
/// Most tokens that one request may present.
pub const TOKENS_MAX: usize = 8;
/// How long one fetch of keys may take where the rule does not say (rule 76).
pub const KEY_FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest and longest time that a rule may give one fetch of keys.
pub const KEY_FETCH_TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// See [`KEY_FETCH_TIMEOUT_MIN`].
pub const KEY_FETCH_TIMEOUT_MAX: Duration = Duration::from_mins(1);
/// Most keys that are tried for one token.
pub const KEY_TRIES_MAX: usize = 8;
/// Shortest and longest life of an SVID that a file may ask for.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_hours(365 * 24);
/// Largest clock skew that a file may ask for.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_mins(10);

/// Longest line of a recorded decision log.
pub const RECORD_BYTES_MAX: usize = 128 * 1024;
/// A text of a record from this length on may have been cut off by the proxy: it keeps 1,024 bytes, less a character.
pub const RECORDED_TEXT_BYTES_MAX: usize = 1_021;
/// Most missing attributes that an undetermined decision names.
pub const MISSING_ATTRIBUTES_MAX: usize = 8;
/// Most ways in which a recorded request principal is split into issuer and subject.
pub const PRINCIPAL_READINGS_MAX: usize = 64;
/// Most groups of changes, and of undetermined calls, that a replay keeps apart.
pub const REPLAY_GROUPS_MAX: usize = 10_000;
/// Most callers that a group of a replay names.
pub const REPLAY_CALLERS_MAX: usize = 8;
/// Most calls that a group of a replay shows.
pub const REPLAY_EXAMPLES_MAX: usize = 3;
/// Most different calls whose decision a replay keeps, so as not to judge them twice.
pub const REPLAY_KNOWN_MAX: usize = 200_000;
/// Most different calls that a suggestion is made from.
pub const SUGGEST_CALLS_MAX: usize = 1_000_000;
/// Most reasons with examples for calls that a suggestion leaves out.
pub const SUGGEST_LEFT_OUT_MAX: usize = 100;
/// Most recorded calls that are shown as additionally allowed by templates.
pub const SUGGEST_ADDITIONAL_MAX: usize = 1_000;
/// Most columns of a table for which the fewest rectangles are looked for; beyond it each column is its own.
pub const COVER_COLUMNS_MAX: usize = 256;
/// Most rectangles that are tried for a cover.
pub const COVER_CANDIDATES_MAX: usize = 256;
/// Most ones of such a table.
pub const COVER_CELLS_MAX: usize = 5_000;
/// Most ones of a table of which the fewest are searched for; larger ones are covered greedily.
pub const COVER_CELLS_SEARCHED_MAX: usize = 400;
/// Most steps of the search for a smaller cover than the greedy one.
pub const COVER_STEPS_MAX: u32 = 20_000;

/// Most steps of the set algebra for one question about one workload.
pub const ANALYSIS_STEPS_MAX: usize = 5_000_000;
/// Most states of the patterns of one field, side by side.
pub const ANALYSIS_STATES_MAX: usize = 100_000;
/// Most work for the classes of one field's texts, in characters.
pub const ANALYSIS_TEXT_WORK_MAX: usize = 20_000_000;
/// Most classes of a list's values.
pub const ANALYSIS_LIST_CLASSES_MAX: usize = 500;
/// Most sorts of tokens: issuer, key and place.
pub const ANALYSIS_TOKEN_SORTS_MAX: usize = 200;
/// Most regions of one answer.
pub const ANALYSIS_REGIONS_MAX: usize = 20_000;
/// Most requests that are written differently in search of a change of normalization.
pub const ANALYSIS_SPELLINGS_MAX: usize = 50;
/// Most steps of the set algebra for the idle rules of a whole set: a check has to stay fast.
pub const ANALYSIS_LINT_STEPS_MAX: usize = 1_000_000;
/// Most rules that cover one rule from which those that can be spared are left out.
pub const ANALYSIS_COVER_RULES_MAX: usize = 16;
