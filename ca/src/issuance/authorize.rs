//! Who may get which SVID: agent x entry x registry snapshot -> `Grant`. Pure, and the only maker of grants for workloads.
//!
//! Not found and not yours are one answer outside: an agent learns nothing about entries that are not its own.

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::entry::{RegistrationEntry, is_dns_name};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};

use crate::registry::{SERVER_PATH, Snapshot};

/// Why nothing is granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// The agent is unknown or banned.
    #[error("the agent is not attested or is banned")]
    Agent,
    /// No such entry below this agent.
    #[error("the agent may not hand out entry `{0}`")]
    Entry(String),
    /// The ID is of another trust domain.
    #[error("`{0}` is not of this trust domain")]
    ForeignTrustDomain(SpiffeId),
    /// The ID belongs to a server or an agent.
    #[error("`{0}` is reserved: paths below `/spire` belong to servers and agents")]
    Reserved(SpiffeId),
    /// The trust domain itself.
    #[error("`{0}` is the ID of the trust domain; an SVID's ID has a path")]
    Root(SpiffeId),
    /// A DNS name that is none.
    #[error("`{0}` is not a DNS name")]
    DnsName(String),
}

impl GrantRefusal {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Agent => "agent_not_active",
            Self::Entry(_) => "entry_not_authorized",
            Self::ForeignTrustDomain(_) => "id_foreign",
            Self::Reserved(_) => "id_reserved",
            Self::Root(_) => "id_root",
            Self::DnsName(_) => "dns_name",
        }
    }
}

/// Proof that an identity may be issued, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    id: SpiffeId,
    dns_names: Vec<String>,
    x509_life: Option<Duration>,
    jwt_life: Option<Duration>,
    entry_id: String,
    agent_id: Option<SpiffeId>,
}

impl Grant {
    /// To an agent, for one of the entries that it may hand out.
    pub fn to_agent(
        registry: &Snapshot,
        agent_id: &SpiffeId,
        entry_id: &str,
    ) -> Result<Self, GrantRefusal> {
        if registry.agent(agent_id).is_none_or(|agent| agent.is_banned) {
            return Err(GrantRefusal::Agent);
        }
        if !registry.is_authorized(agent_id, entry_id) {
            return Err(refuse_entry(entry_id));
        }
        let entry = registry
            .entry(entry_id)
            .ok_or_else(|| refuse_entry(entry_id))?;
        Ok(Self::of_entry(entry, agent_id))
    }

    /// Whether the registry, as it is by now, still gives this: the agent is active and the entry still means this
    /// identity.
    pub(crate) fn check_still(&self, registry: &Snapshot) -> Result<(), GrantRefusal> {
        let Some(agent_id) = self.agent_id.as_ref().filter(|_| !self.entry_id.is_empty()) else {
            return Ok(());
        };
        if registry.agent(agent_id).is_none_or(|agent| agent.is_banned) {
            return Err(GrantRefusal::Agent);
        }
        registry
            .entry(&self.entry_id)
            .filter(|entry| entry.spiffe_id == self.id && entry.dns_names == self.dns_names)
            .map(|_| ())
            .ok_or_else(|| refuse_entry(&self.entry_id))
    }

    fn of_entry(entry: &Arc<RegistrationEntry>, agent_id: &SpiffeId) -> Self {
        let life = |secs: u32| (secs > 0).then(|| Duration::from_secs(u64::from(secs)));
        Self {
            id: entry.spiffe_id.clone(),
            dns_names: entry.dns_names.clone(),
            x509_life: life(entry.x509_svid_ttl_secs),
            jwt_life: life(entry.jwt_svid_ttl_secs),
            entry_id: entry.id.clone(),
            agent_id: Some(agent_id.clone()),
        }
    }

    /// To an administrator, who chose the name.
    pub fn to_administrator(
        trust_domain: &TrustDomain,
        id: SpiffeId,
        dns_names: Vec<String>,
        life: Option<Duration>,
    ) -> Result<Self, GrantRefusal> {
        if !id.is_member_of(trust_domain) {
            return Err(GrantRefusal::ForeignTrustDomain(id));
        }
        if id.is_root() {
            return Err(GrantRefusal::Root(id));
        }
        if id.path() == "/spire" || id.path().starts_with("/spire/") {
            return Err(GrantRefusal::Reserved(id));
        }
        if let Some(name) = dns_names.iter().find(|name| !is_dns_name(name)) {
            return Err(GrantRefusal::DnsName(name.chars().take(256).collect()));
        }
        Ok(Self {
            dns_names,
            x509_life: life,
            jwt_life: life,
            ..Self::bare(id)
        })
    }

    /// To an agent for itself; the caller has attested it.
    pub(crate) fn to_attested_agent(id: SpiffeId, life: Duration) -> Self {
        Self {
            x509_life: Some(life),
            agent_id: Some(id.clone()),
            ..Self::bare(id)
        }
    }

    /// To this server.
    pub(crate) fn to_server(id: SpiffeId, life: Duration) -> Self {
        debug_assert_eq!(id.path(), SERVER_PATH);
        Self {
            x509_life: Some(life),
            ..Self::bare(id)
        }
    }

    fn bare(id: SpiffeId) -> Self {
        Self {
            id,
            dns_names: Vec::new(),
            x509_life: None,
            jwt_life: None,
            entry_id: String::new(),
            agent_id: None,
        }
    }

    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Its DNS names.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The wished life of an X509-SVID; `None` for the default.
    pub fn x509_life(&self) -> Option<Duration> {
        self.x509_life
    }

    /// The wished life of a JWT-SVID; `None` for the default.
    pub fn jwt_life(&self) -> Option<Duration> {
        self.jwt_life
    }

    /// The entry behind it; empty when there is none.
    pub fn entry_id(&self) -> &str {
        &self.entry_id
    }

    /// The agent that it goes through.
    pub fn agent_id(&self) -> Option<&SpiffeId> {
        self.agent_id.as_ref()
    }
}

fn refuse_entry(entry_id: &str) -> GrantRefusal {
    GrantRefusal::Entry(entry_id.chars().take(256).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegisteredAgent;

    #[test]
    fn threat_20_a_grant_ends_with_its_agent_and_its_entry() {
        let agent = crate::sync::tests::agent("a");
        let entry = |path: &str| crate::store::tests::entry("e", path, "/spire/agent/a");
        let registry = |entries: Vec<RegistrationEntry>, is_banned: bool| {
            let mut registry = Snapshot::of_entries(1, entries);
            registry.replace_agents(vec![RegisteredAgent {
                is_banned,
                ..agent.clone()
            }]);
            registry
        };
        let held = Grant::to_agent(&registry(vec![entry("/w")], false), &agent.id, "e").unwrap();
        let rows = [
            ("as before", vec![entry("/w")], false, None),
            ("banned", vec![entry("/w")], true, Some("agent_not_active")),
            ("deleted", vec![], false, Some("entry_not_authorized")),
            (
                "renamed",
                vec![entry("/x")],
                false,
                Some("entry_not_authorized"),
            ),
        ];
        for (name, entries, is_banned, want) in rows {
            let checked = held.check_still(&registry(entries, is_banned));
            assert_eq!(checked.err().map(|refusal| refusal.code()), want, "{name}");
        }
    }

    #[test]
    fn an_administrator_may_not_take_the_identity_of_an_agent_a_server_or_a_stranger() {
        let td = TrustDomain::parse("td").unwrap();
        let grant = |id: &str, dns: &[&str]| {
            let dns = dns.iter().map(|name| (*name).to_owned()).collect();
            Grant::to_administrator(&td, SpiffeId::parse(id).unwrap(), dns, None)
                .map(|grant| grant.id().to_string())
                .map_err(|refusal| refusal.code())
        };
        let rows = [
            (
                "spiffe://td/a",
                &["a.test", "*.b.test"][..],
                Ok("spiffe://td/a".to_owned()),
            ),
            ("spiffe://td", &[], Err("id_root")),
            ("spiffe://other/a", &[], Err("id_foreign")),
            ("spiffe://td/spire/server", &[], Err("id_reserved")),
            (
                "spiffe://td/spire/agent/join_token/x",
                &[],
                Err("id_reserved"),
            ),
            ("spiffe://td/spire", &[], Err("id_reserved")),
            ("spiffe://td/a", &["a b"], Err("dns_name")),
            ("spiffe://td/a", &[""], Err("dns_name")),
            ("spiffe://td/a", &["a..b"], Err("dns_name")),
            ("spiffe://td/a", &["a_b.test"], Err("dns_name")),
        ];
        for (id, dns, want) in rows {
            assert_eq!(grant(id, dns), want, "{id} {dns:?}");
        }
    }
}
