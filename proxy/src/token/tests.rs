//! What is remembered of tokens against the same question asked anew, whatever changes in between.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ravelin_policies::{SourceFile, load};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::crypto::JwsSigner;
use serde_json::{Value, json};
use std::sync::LazyLock;

use super::*;
use crate::limits;

const NOW: i64 = 1_800_000_000;
const ADDRESS: &str = "https://idp.example/keys";

/// Two keys of one id, so that a change of keys is not seen by the id alone.
static SIGNERS: LazyLock<[JwsSigner; 2]> = LazyLock::new(|| {
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519].map(|algorithm| {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        JwsSigner::from_pkcs8(pair.serialized_der()).unwrap()
    })
});

/// Every token that the property draws from; signing is the dear part.
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let good = json!({"iss": "idp", "sub": "alice", "jti": "t1", "iat": NOW, "exp": NOW + 100});
    let with = |changes: Value| {
        let mut claims = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let claims = [
        good.clone(),
        with(json!({"jti": "t2", "exp": NOW + 200, "nbf": NOW + 50})),
        with(json!({"sub": "bob", "jti": "t3"})),
        with(json!({"iss": "remote", "jti": "t4"})),
        with(json!({"iss": "remote", "jti": "t5", "exp": NOW - 100})),
        with(json!({"iss": "nobody"})),
    ];
    SIGNERS
        .iter()
        .flat_map(|signer| claims.iter().map(|claims| token(signer, claims)))
        .collect()
});

fn token(signer: &JwsSigner, claims: &Value) -> String {
    let header = json!({"alg": signer.algorithm().name(), "kid": "k"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(&header), part(claims));
    let signature = signer.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn set(signer: usize) -> JwkSet {
    let key = Jwk::from_spki(Some("k"), Some("sig"), SIGNERS[signer].spki()).unwrap();
    JwkSet {
        keys: vec![key],
        ..JwkSet::default()
    }
}

/// Policies whose inline keys are those of `signer`.
fn policies(signer: usize) -> Arc<WorkloadPolicies> {
    let text = format!(
        "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: shop}}
spec:
  jwtRules:
  - issuer: idp
    jwks: '{}'
    outputClaimToHeaders: [{{header: x-sub, claim: sub}}]
    fromHeaders: [{{name: authorization, prefix: 'Bearer '}}]
    fromCookies: [session]
  - {{issuer: remote, jwksUri: '{ADDRESS}'}}
",
        set(signer).to_json()
    );
    let config =
        "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example}\n";
    let identity = "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata: {name: payments, namespace: shop}\nspec: {selectors: ['unix:uid:1']}\n";
    let file = |path: &str, content: &str| SourceFile {
        path: path.into(),
        content: content.into(),
    };
    let set = load(&[
        file("ravelin.yaml", config),
        file("identities/all.yaml", identity),
        file("policies/all.yaml", &text),
    ]);
    let set = set.unwrap_or_else(|found| panic!("{found}"));
    let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/payments").unwrap();
    Arc::new(WorkloadPolicies::compile(&set, &set.workload(&id), 1).unwrap())
}

fn fetched(signer: Option<usize>) -> Arc<FetchedKeys> {
    let address = policies(0).authentication().remote_keys();
    let address = address.keys().next().unwrap().clone();
    let sets = signer.map(|signer| (address, Arc::new(set(signer))));
    Arc::new(sets.into_iter().collect())
}

fn denylist(jti: Option<&str>) -> Denylist {
    let entries = jti.map(|jti| pb::DenylistEntry {
        subject: Some(pb::denylist_entry::Subject::Jti(jti.to_owned())),
        ..pb::DenylistEntry::default()
    });
    Denylist::from_pb(&pb::Denylist {
        number: 1,
        entries: entries.into_iter().collect(),
    })
    .unwrap()
}

struct World {
    tokens: Tokens,
    missed: mpsc::Receiver<KeyAddress>,
    _keys: watch::Sender<Arc<FetchedKeys>>,
    policies: [Arc<WorkloadPolicies>; 2],
    bundles: Arc<TrustDomainKeys>,
    fetched: [Arc<FetchedKeys>; 3],
    denylists: [Denylist; 3],
}

impl World {
    fn new() -> Self {
        let (keys, receiver) = watch::channel(Arc::default());
        let (missing, missed) = mpsc::channel(1);
        Self {
            tokens: Tokens::new(receiver, missing),
            missed,
            _keys: keys,
            policies: [policies(0), policies(1)],
            bundles: Arc::default(),
            fetched: [fetched(None), fetched(Some(0)), fetched(Some(1))],
            denylists: [denylist(None), denylist(Some("t1")), denylist(Some("t4"))],
        }
    }

    fn basis(&self, step: &Step) -> Basis<'_> {
        Basis {
            policies: &self.policies[step.policies],
            bundles: &self.bundles,
            fetched: &self.fetched[step.fetched],
        }
    }

    fn remembered(
        &self,
        step: &Step,
        basis: Basis<'_>,
    ) -> Result<Arc<RequestIdentity>, TokenRefusal> {
        let headers = step.headers();
        let request = view(&headers);
        let now = Timestamp::from_unix_secs(step.now);
        self.tokens
            .judge(basis, &self.denylists[step.denylist], &request, now)
            .map(|authenticated| authenticated.identity)
    }

    /// The same question to an engine without a memory.
    fn anew(&self, step: &Step, basis: Basis<'_>) -> Result<RequestIdentity, TokenRefusal> {
        let headers = step.headers();
        let keys = Keys {
            basis,
            missing: &self.tokens.missing,
        };
        let now = Timestamp::from_unix_secs(step.now);
        let identity = basis
            .policies
            .authentication()
            .authenticate(&view(&headers), &keys, &Verifier, now)
            .map_err(TokenRefusal::new)?;
        if is_denied(&self.denylists[step.denylist], &identity, now) {
            return Err(TokenRefusal {
                refusal: Refusal::token(StatusCode::UNAUTHORIZED, "token_denied"),
                text: "the token has been revoked".to_owned(),
            });
        }
        Ok(identity)
    }
}

fn view(headers: &Vec<(String, String)>) -> RequestView<'_> {
    RequestView {
        method: "GET",
        query: None,
        headers,
    }
}

#[derive(Clone, Debug)]
struct Step {
    bearer: Option<usize>,
    cookie: Option<usize>,
    now: i64,
    policies: usize,
    fetched: usize,
    denylist: usize,
}

impl Step {
    fn headers(&self) -> Vec<(String, String)> {
        let bearer = self.bearer.map(|token| {
            (
                "authorization".to_owned(),
                format!("Bearer {}", TOKENS[token]),
            )
        });
        let cookie = self.cookie.map(|token| {
            (
                "cookie".to_owned(),
                format!("a=b; session={}", TOKENS[token]),
            )
        });
        bearer.into_iter().chain(cookie).collect()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let token = || prop_oneof![1 => Just(None), 3 => (0..TOKENS.len()).prop_map(Some)];
    let times = prop::sample::select(vec![
        -300_i64, -61, -11, -10, 0, 49, 159, 160, 259, 260, 400,
    ]);
    (
        token(),
        prop_oneof![4 => Just(None), 1 => token()],
        times,
        0..2_usize,
        0..3_usize,
        0..3_usize,
    )
        .prop_map(|(bearer, cookie, at, policies, fetched, denylist)| Step {
            bearer,
            cookie,
            now: NOW + at,
            policies,
            fetched,
            denylist,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_remembered_of_a_token_is_what_would_be_judged_anew(
        steps in prop::collection::vec((step(), any::<bool>()), 1..40)
    ) {
        let world = World::new();
        let mut last: Option<Step> = None;
        for (mut step, keeps_basis) in steps {
            // WHY: drawn freely, rules and keys would change at nearly every step, and nothing would be remembered.
            if let (true, Some(last)) = (keeps_basis, &last) {
                (step.policies, step.fetched) = (last.policies, last.fetched);
                step.bearer = last.bearer;
            }
            let basis = world.basis(&step);
            let want = world.anew(&step, basis);
            let found = world.remembered(&step, basis);
            prop_assert_eq!(found.map(Arc::unwrap_or_clone), want, "{:?}", step);
            last = Some(step);
        }
    }
}

/// A step of one token by bearer.
fn of(token: usize) -> Step {
    Step {
        bearer: Some(token),
        cookie: None,
        now: NOW,
        policies: 0,
        fetched: 1,
        denylist: 0,
    }
}

#[test]
fn a_repeated_token_is_neither_parsed_nor_checked_again_and_its_identity_is_shared() {
    let world = World::new();
    let step = of(0);
    let judge = |step: &Step| world.remembered(step, world.basis(step));
    let (first, second) = (judge(&step).unwrap(), judge(&step).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    let others = [
        (
            "expired",
            Step {
                now: NOW + 160,
                ..step.clone()
            },
            "token_expired",
        ),
        (
            "denied",
            Step {
                denylist: 1,
                ..step.clone()
            },
            "token_denied",
        ),
        (
            "other keys in the policy",
            Step {
                policies: 1,
                ..step.clone()
            },
            "token_key_missing",
        ),
    ];
    for (name, other, want) in others {
        let refused = judge(&other).unwrap_err();
        assert_eq!(refused.refusal.code, want, "{name}");
        assert!(judge(&step).is_ok(), "{name}: and good again");
    }
    let again = judge(&step).unwrap();
    assert_eq!(*again, *first);
    assert!(!Arc::ptr_eq(&again, &first), "other rules came between");
}

#[test]
fn threat_48_a_change_of_fetched_keys_is_a_change_of_the_answer() {
    let mut world = World::new();
    let remote = of(3);
    for (name, fetched, want) in [
        ("its key", 1, None),
        ("another key of the same id", 2, Some("token_key_missing")),
        ("no keys", 0, Some("token_keys_missing")),
        ("its key again", 1, None),
    ] {
        let step = Step {
            fetched,
            ..remote.clone()
        };
        let found = world.remembered(&step, world.basis(&step));
        assert_eq!(
            found.err().map(|refused| refused.refusal.code),
            want,
            "{name}"
        );
        let is_missed = world.missed.try_recv().is_ok();
        assert_eq!(is_missed, want.is_some(), "{name}");
    }
}

#[test]
fn wishes_for_keys_are_bounded() {
    let mut world = World::new();
    let step = Step {
        fetched: 0,
        ..of(3)
    };
    for _ in 0..100 {
        assert!(world.remembered(&step, world.basis(&step)).is_err());
    }
    assert!(world.missed.try_recv().is_ok());
    assert!(world.missed.try_recv().is_err());
}

#[test]
fn memory_is_bounded_by_the_bytes_of_its_tokens() {
    let world = World::new();
    let signer = &SIGNERS[0];
    let filler = "x".repeat(8 * 1024);
    let step = of(0);
    let basis = world.basis(&step);
    for number in 0..1200 {
        let claims =
            json!({"iss": "idp", "sub": number.to_string(), "exp": NOW + 100, "filler": filler});
        let headers = vec![(
            "authorization".to_owned(),
            format!("Bearer {}", token(signer, &claims)),
        )];
        let now = Timestamp::from_unix_secs(NOW);
        let found = world
            .tokens
            .judge(basis, &world.denylists[0], &view(&headers), now);
        assert!(found.is_ok());
    }
    assert!(world.tokens.memory.borrow().bytes() <= limits::TOKEN_BYTES_REMEMBERED_MAX);
}
