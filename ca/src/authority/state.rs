//! The state machine of a trust domain's authorities, one set a kind: prepared -> active -> retired -> revoked,
//! with tainted as a mark on a retired one. Pure: verbs take a set and return the next one or a typed No.
//!
//! INVARIANT: at most one is prepared and one active; the active one can be neither tainted nor revoked.

use std::fmt;

use ravelin_proto::time::{Timestamp, Validity};

use crate::limits::{AUTHORITIES_KEPT_MAX, EXPIRED_AUTHORITY_KEPT};

/// What an authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// X509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
}

impl Kind {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::X509, Self::Jwt];

    /// The word in the store, in events and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
        }
    }

    /// The kind that a word names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an authority stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// In the bundle, does not sign yet.
    Prepared,
    /// Signs.
    Active,
    /// Signs no more; what it signed is still trusted.
    Retired,
    /// Out of the bundle; its key is destroyed.
    Revoked,
}

impl State {
    /// The word in the store and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// The state that a word names.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Prepared, Self::Active, Self::Retired, Self::Revoked]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// The public side of one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// X.509: subject key identifier in lower-case hex. JWT: key id.
    pub id: String,
    /// What it signs.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// Everything that it signed is to be replaced.
    pub is_tainted: bool,
    /// When it may be used.
    pub validity: Validity,
    /// X.509: certificate, DER. JWT: `SubjectPublicKeyInfo`, DER.
    pub public: Vec<u8>,
}

impl Authority {
    /// Whether the bundle holds it.
    pub fn is_published(&self) -> bool {
        self.state != State::Revoked
    }
}

/// Why a verb is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerbRefusal {
    /// There is no such authority.
    #[error("there is no {kind} authority `{id}`")]
    Unknown {
        /// Which kind.
        kind: Kind,
        /// The id that was asked for.
        id: String,
    },
    /// One is prepared already.
    #[error("authority `{0}` is prepared already; activate it first")]
    PreparedAlready(String),
    /// The bundle would grow past its limit.
    #[error(
        "the bundle holds {AUTHORITIES_KEPT_MAX} {0} authorities already; revoke retired ones first"
    )]
    TooMany(Kind),
    /// The verb needs another state.
    #[error("authority `{id}` is {}; only a {} one can be {verb}", .found.name(), .needed.name())]
    WrongState {
        /// Which.
        id: String,
        /// The verb, as a participle.
        verb: &'static str,
        /// Its state.
        found: State,
        /// The state that the verb needs.
        needed: State,
    },
    /// The prepared one has expired.
    #[error("authority `{0}` has expired and cannot sign")]
    Expired(String),
}

impl VerbRefusal {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "authority_unknown",
            Self::PreparedAlready(_) => "authority_prepared_already",
            Self::TooMany(_) => "authority_too_many",
            Self::WrongState { .. } => "authority_wrong_state",
            Self::Expired(_) => "authority_expired",
        }
    }
}

/// The authorities of one kind, revoked ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthoritySet {
    kind: Kind,
    all: Vec<Authority>,
}

impl AuthoritySet {
    /// A set of these; those of another kind are left out.
    pub fn new(kind: Kind, all: Vec<Authority>) -> Self {
        let all = all
            .into_iter()
            .filter(|authority| authority.kind == kind)
            .collect();
        Self { kind, all }
    }

    /// What these sign.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// All, oldest first.
    pub fn all(&self) -> &[Authority] {
        &self.all
    }

    /// Those in the bundle.
    pub fn published(&self) -> impl Iterator<Item = &Authority> {
        self.all.iter().filter(|authority| authority.is_published())
    }

    /// One by its id.
    pub fn find(&self, id: &str) -> Option<&Authority> {
        self.all.iter().find(|authority| authority.id == id)
    }

    /// The newest in a state.
    pub fn newest(&self, state: State) -> Option<&Authority> {
        self.all
            .iter()
            .rev()
            .find(|authority| authority.state == state)
    }

    /// The one that signs.
    pub fn active(&self) -> Option<&Authority> {
        self.newest(State::Active)
    }

    /// The one that will sign next.
    pub fn prepared(&self) -> Option<&Authority> {
        self.newest(State::Prepared)
    }

    /// Takes a new authority into the bundle.
    pub fn prepare(mut self, authority: Authority) -> Result<Self, VerbRefusal> {
        if let Some(prepared) = self.prepared() {
            return Err(VerbRefusal::PreparedAlready(prepared.id.clone()));
        }
        if self.published().count() >= AUTHORITIES_KEPT_MAX {
            return Err(VerbRefusal::TooMany(self.kind));
        }
        self.all.push(Authority {
            state: State::Prepared,
            is_tainted: false,
            ..authority
        });
        Ok(self)
    }

    /// Lets the prepared authority sign and retires the active one.
    pub fn activate(mut self, id: &str, now: Timestamp) -> Result<Self, VerbRefusal> {
        let authority = self.require(id, State::Prepared, "activated")?;
        if now > authority.validity.not_after {
            return Err(VerbRefusal::Expired(id.to_owned()));
        }
        for authority in &mut self.all {
            if authority.state == State::Active {
                authority.state = State::Retired;
            } else if authority.id == id {
                authority.state = State::Active;
            }
        }
        Ok(self)
    }

    /// Marks a retired authority: everything that it signed is to be replaced.
    pub fn taint(mut self, id: &str) -> Result<Self, VerbRefusal> {
        self.require(id, State::Retired, "tainted")?;
        for authority in self.all.iter_mut().filter(|authority| authority.id == id) {
            authority.is_tainted = true;
        }
        Ok(self)
    }

    /// Takes a retired authority out of the bundle.
    pub fn revoke(mut self, id: &str) -> Result<Self, VerbRefusal> {
        self.require(id, State::Retired, "revoked")?;
        for authority in self.all.iter_mut().filter(|authority| authority.id == id) {
            authority.state = State::Revoked;
        }
        Ok(self)
    }

    /// Ids of authorities that can go: retired ones some time after all that they signed has expired, prepared ones at
    /// once, for they signed nothing.
    pub fn expired(&self, now: Timestamp) -> Vec<String> {
        let is_over = |authority: &&Authority| {
            let end = authority.validity.not_after;
            match authority.state {
                State::Retired => end.plus(EXPIRED_AUTHORITY_KEPT) < now,
                State::Prepared => end < now,
                State::Active | State::Revoked => false,
            }
        };
        self.all
            .iter()
            .filter(is_over)
            .map(|authority| authority.id.clone())
            .collect()
    }

    /// Takes an expired one out of the bundle, whatever its state but active.
    pub fn prune(mut self, id: &str) -> Self {
        for authority in self.all.iter_mut().filter(|authority| authority.id == id) {
            if authority.state != State::Active {
                authority.state = State::Revoked;
            }
        }
        self
    }

    fn require(
        &self,
        id: &str,
        needed: State,
        verb: &'static str,
    ) -> Result<&Authority, VerbRefusal> {
        let authority = self.find(id).ok_or_else(|| VerbRefusal::Unknown {
            kind: self.kind,
            id: id.chars().take(128).collect(),
        })?;
        if authority.state == needed {
            return Ok(authority);
        }
        Err(VerbRefusal::WrongState {
            id: authority.id.clone(),
            verb,
            found: authority.state,
            needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(id: &str) -> Authority {
        Authority {
            id: id.to_owned(),
            kind: Kind::X509,
            state: State::Prepared,
            is_tainted: false,
            validity: Validity {
                not_before: Timestamp::from_unix_secs(0),
                not_after: Timestamp::from_unix_secs(1000),
            },
            public: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_unix_secs(10)
    }

    fn rotated() -> AuthoritySet {
        AuthoritySet::new(Kind::X509, Vec::new())
            .prepare(authority("a"))
            .and_then(|set| set.activate("a", now()))
            .and_then(|set| set.prepare(authority("b")))
            .and_then(|set| set.activate("b", now()))
            .unwrap()
    }

    fn states(set: &AuthoritySet) -> Vec<(&str, State, bool)> {
        set.all()
            .iter()
            .map(|one| (one.id.as_str(), one.state, one.is_tainted))
            .collect()
    }

    #[test]
    fn the_whole_cycle_goes_in_order() {
        let set = rotated();
        assert_eq!(
            states(&set),
            [("a", State::Retired, false), ("b", State::Active, false)]
        );
        let set = set.taint("a").unwrap();
        assert_eq!(
            states(&set),
            [("a", State::Retired, true), ("b", State::Active, false)]
        );
        let set = set.revoke("a").unwrap();
        assert_eq!(
            states(&set),
            [("a", State::Revoked, true), ("b", State::Active, false)]
        );
        assert_eq!(set.published().count(), 1);
    }

    #[test]
    fn dangerous_orders_are_refused_by_name() {
        let set = || rotated().prepare(authority("c")).unwrap();
        let rows = [
            (
                "prepare twice",
                set().prepare(authority("d")),
                "authority_prepared_already",
            ),
            (
                "activate the active",
                set().activate("b", now()),
                "authority_wrong_state",
            ),
            (
                "activate the retired",
                set().activate("a", now()),
                "authority_wrong_state",
            ),
            (
                "activate nothing",
                set().activate("x", now()),
                "authority_unknown",
            ),
            (
                "activate the expired",
                set().activate("c", Timestamp::from_unix_secs(1001)),
                "authority_expired",
            ),
            (
                "taint the active",
                set().taint("b"),
                "authority_wrong_state",
            ),
            (
                "taint the prepared",
                set().taint("c"),
                "authority_wrong_state",
            ),
            (
                "revoke the active",
                set().revoke("b"),
                "authority_wrong_state",
            ),
            (
                "revoke the prepared",
                set().revoke("c"),
                "authority_wrong_state",
            ),
        ];
        for (name, got, want) in rows {
            assert_eq!(got.map_err(|refusal| refusal.code()), Err(want), "{name}");
        }
    }

    #[test]
    fn the_bundle_does_not_grow_past_its_limit() {
        let mut set = AuthoritySet::new(Kind::X509, Vec::new());
        for number in 0..AUTHORITIES_KEPT_MAX {
            let id = number.to_string();
            set = set
                .prepare(authority(&id))
                .and_then(|set| set.activate(&id, now()))
                .unwrap();
        }
        assert_eq!(
            set.prepare(authority("x")),
            Err(VerbRefusal::TooMany(Kind::X509))
        );
    }

    #[test]
    fn an_expired_authority_leaves_the_bundle_unless_it_is_the_active_one() {
        let set = rotated();
        assert!(set.expired(now()).is_empty());
        let later = Timestamp::from_unix_secs(1001).plus(EXPIRED_AUTHORITY_KEPT);
        assert_eq!(set.expired(later), ["a"]);
        assert_eq!(set.clone().prune("b"), set);
        assert_eq!(set.prune("a").published().count(), 1);
    }
}
