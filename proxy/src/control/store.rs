//! From the agent's messages to the next snapshot. Each part that is good is taken; a part that is not keeps its last
//! good state and is named in the refusal.
//!
//! INVARIANT: mesh revision and deny-list number never go back (threat 56). No IO.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ravelin_policies::{MeshSet, SourceFile, WorkloadPolicies, set_digest};
use ravelin_proto::jwks::JwkSet;
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::tls::X509Bundles;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer;

use crate::denylist::Denylist;
use crate::identity::{IdentityError, OwnSvid, ServerConfigs};
use crate::metrics::names::MeshNames;
use crate::route::Routes;
use crate::snapshot::Snapshot;
use crate::token::TrustDomainKeys;

/// Why a part of a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigRefusal {
    /// Older than what is in use.
    #[error("mesh revision {offered} is older than {known}")]
    MeshOlder {
        /// Offered by the agent.
        offered: u64,
        /// In use.
        known: u64,
    },
    /// A difference from a revision that is not in use.
    #[error("mesh revision {revision} is a difference from {base}, and {known} is in use")]
    MeshBase {
        /// Offered.
        revision: u64,
        /// What it changes.
        base: u64,
        /// In use.
        known: u64,
    },
    /// The files are not what the revision says.
    #[error("mesh revision {0} does not have the digest that it names")]
    MeshDigest(u64),
    /// Other files under the number that is in use.
    #[error("mesh revision {0} is in use with other files")]
    MeshOther(u64),
    /// The files have errors.
    #[error("mesh revision {revision} has errors: {first}")]
    MeshInvalid {
        /// Offered.
        revision: u64,
        /// The first error, rendered.
        first: String,
    },
    /// The policies of this workload do not compile.
    #[error("the policies of `{workload}` in mesh revision {revision} do not compile: {reason}")]
    Compile {
        /// For whom.
        workload: SpiffeId,
        /// Which revision.
        revision: u64,
        /// Why.
        reason: String,
    },
    /// Older than what is in use.
    #[error("deny-list {offered} is older than {known}")]
    DenylistOlder {
        /// Offered.
        offered: u64,
        /// In use.
        known: u64,
    },
    /// An entry is of a sort that this proxy does not know.
    #[error("deny-list {0} has an entry that this proxy does not understand")]
    DenylistUnknown(u64),
    /// A trust domain's name is none.
    #[error("`{0}` is not a trust domain")]
    TrustDomain(String),
    /// Token keys are not readable.
    #[error("the token keys of `{0}` are not readable")]
    TokenKeys(String),
    /// SVID or bundle.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What came of one message.
#[derive(Debug)]
pub struct Taken {
    /// The next snapshot; none while a part is still missing, or when nothing changed.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Parts that were not taken.
    pub refusals: Vec<ConfigRefusal>,
}

/// The parts in use.
#[derive(Debug)]
pub struct Store {
    clock: SharedClock,
    generation: u64,
    mesh: Option<Mesh>,
    policies: Option<Policies>,
    svid: Option<Arc<OwnSvid>>,
    identity_generation: u64,
    bundles: Option<Arc<X509Bundles>>,
    bundle_bytes: HashMap<String, Vec<u8>>,
    bundle_generation: u64,
    bundle_sequence: u64,
    server: Option<ServerConfigs>,
    token_keys: Arc<TrustDomainKeys>,
    token_bytes: HashMap<String, Vec<u8>>,
    denylist: Arc<Denylist>,
}

#[derive(Debug)]
struct Mesh {
    revision: u64,
    digest: String,
    files: BTreeMap<String, Vec<u8>>,
    set: MeshSet,
    routes: Arc<Routes>,
    names: Arc<MeshNames>,
}

/// Policies as one identity is judged by them.
#[derive(Debug)]
struct Policies {
    workload: SpiffeId,
    revision: u64,
    compiled: Arc<WorkloadPolicies>,
}

/// An SVID that is not in use yet, and the server that shows it.
#[derive(Debug)]
struct Offered {
    svid: Arc<OwnSvid>,
    server: Option<ServerConfigs>,
}

impl Store {
    /// Nothing in use yet.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            generation: 0,
            mesh: None,
            policies: None,
            svid: None,
            identity_generation: 0,
            bundles: None,
            bundle_bytes: HashMap::new(),
            bundle_generation: 0,
            bundle_sequence: 0,
            server: None,
            token_keys: Arc::default(),
            token_bytes: HashMap::new(),
            denylist: Arc::default(),
        }
    }

    /// Highest mesh revision in use.
    pub fn mesh_revision(&self) -> u64 {
        self.mesh.as_ref().map_or(0, |mesh| mesh.revision)
    }

    /// Takes what is good in `message`.
    pub fn take(&mut self, message: pb::ProxySnapshot) -> Taken {
        let mut refusals = Vec::new();
        let mut note = |result: Result<(), ConfigRefusal>| refusals.extend(result.err());
        if let Some(denylist) = message.denylist {
            note(self.take_denylist(&denylist));
        }
        let bundles = self.take_bundles(message.x509_bundles);
        let token_keys = self.take_token_keys(message.jwt_bundles);
        // WHY: the CA retires authorities by this number; it must not count a proxy that lacks a part of the bundles.
        if bundles.is_ok() && token_keys.is_ok() {
            self.bundle_sequence = message.bundle_sequence;
        }
        note(bundles);
        note(token_keys);
        let offered = message.svid.map(|svid| self.read_svid(&svid));
        let offered = offered.transpose().unwrap_or_else(|refusal| {
            note(Err(refusal));
            None
        });
        let offered = offered.flatten();
        if let Some(mesh) = message.mesh {
            note(self.take_mesh(mesh, offered.as_ref()));
        }
        if let Some(offered) = offered {
            note(self.take_svid(offered));
        }
        Taken {
            snapshot: self.next(),
            refusals,
        }
    }

    /// INVARIANT: taken only with the policies of the identity that this message brings, or else of the one in use.
    fn take_mesh(
        &mut self,
        revision: pb::MeshRevision,
        offered: Option<&Offered>,
    ) -> Result<(), ConfigRefusal> {
        let known = self.mesh_revision();
        if revision.revision < known {
            return Err(ConfigRefusal::MeshOlder {
                offered: revision.revision,
                known,
            });
        }
        if revision.revision == 0 {
            return Ok(());
        }
        if let Some(mesh) = &self.mesh
            && mesh.revision == revision.revision
        {
            // WHY: one revision has one meaning; policies and routes of two would be mixed here.
            return if mesh.digest == revision.digest {
                Ok(())
            } else {
                Err(ConfigRefusal::MeshOther(revision.revision))
            };
        }
        let files = self.files(&revision, known)?;
        let sources = sources(&files, revision.revision)?;
        if !revision.digest.is_empty() && set_digest(&sources) != revision.digest {
            return Err(ConfigRefusal::MeshDigest(revision.revision));
        }
        let set =
            ravelin_policies::load(&sources).map_err(|diagnostics| ConfigRefusal::MeshInvalid {
                revision: revision.revision,
                first: first_error(&diagnostics),
            })?;
        let mesh = Mesh {
            revision: revision.revision,
            digest: revision.digest,
            files,
            routes: Arc::new(Routes::new(&set.services)),
            names: Arc::new(MeshNames::new(&set)),
            set,
        };
        // WHY: an identity that cannot be taken is refused by itself, and must not keep out the policies of the one in use.
        let compiled = [offered.map(|offered| &offered.svid), self.svid.as_ref()]
            .into_iter()
            .flatten()
            .map(|svid| self.compile(&mesh, &svid.identity.id))
            .reduce(Result::or)
            .transpose()?;
        self.policies = compiled;
        self.mesh = Some(mesh);
        Ok(())
    }

    fn files(
        &self,
        revision: &pb::MeshRevision,
        known: u64,
    ) -> Result<BTreeMap<String, Vec<u8>>, ConfigRefusal> {
        let mut files = match &self.mesh {
            _ if revision.base_revision == 0 => BTreeMap::new(),
            Some(mesh) if mesh.revision == revision.base_revision => mesh.files.clone(),
            Some(_) | None => {
                return Err(ConfigRefusal::MeshBase {
                    revision: revision.revision,
                    base: revision.base_revision,
                    known,
                });
            }
        };
        for path in &revision.removed_paths {
            files.remove(path);
        }
        for file in &revision.files {
            files.insert(file.path.clone(), file.content.clone());
        }
        Ok(files)
    }

    fn take_denylist(&mut self, list: &pb::Denylist) -> Result<(), ConfigRefusal> {
        let known = self.denylist.number();
        if list.number < known {
            return Err(ConfigRefusal::DenylistOlder {
                offered: list.number,
                known,
            });
        }
        if list.number > known {
            let denylist =
                Denylist::from_pb(list).map_err(|_| ConfigRefusal::DenylistUnknown(list.number))?;
            self.denylist = Arc::new(denylist);
        }
        Ok(())
    }

    fn take_bundles(&mut self, bundles: HashMap<String, Vec<u8>>) -> Result<(), ConfigRefusal> {
        if !bundles.is_empty() && bundles != self.bundle_bytes {
            let read = Arc::new(read_bundles(&bundles)?);
            if let Some(svid) = &self.svid {
                self.server = self.server(svid, Some(&read))?;
            }
            self.bundles = Some(read);
            self.bundle_bytes = bundles;
            self.bundle_generation = self.bundle_generation.saturating_add(1);
        }
        Ok(())
    }

    fn take_token_keys(&mut self, keys: HashMap<String, Vec<u8>>) -> Result<(), ConfigRefusal> {
        if keys == self.token_bytes {
            return Ok(());
        }
        let mut read = BTreeMap::new();
        for (domain, jwks) in &keys {
            let unreadable = || ConfigRefusal::TokenKeys(domain.clone());
            let text = std::str::from_utf8(jwks).map_err(|_| unreadable())?;
            let set = JwkSet::parse(text).map_err(|_| unreadable())?;
            read.insert(trust_domain(domain)?, Arc::new(set));
        }
        self.token_keys = Arc::new(read);
        self.token_bytes = keys;
        Ok(())
    }

    /// The SVID of the message, if it is another than the one in use and a server can be built with it.
    fn read_svid(&self, svid: &pb::ProxySvid) -> Result<Option<Offered>, ConfigRefusal> {
        let own = OwnSvid::from_pb(svid)?;
        let is_same = self
            .svid
            .as_ref()
            .is_some_and(|known| known.identity.chain == own.identity.chain);
        if is_same {
            return Ok(None);
        }
        Ok(Some(Offered {
            server: self.server(&own, self.bundles.as_ref())?,
            svid: Arc::new(own),
        }))
    }

    /// Takes an SVID whose server is built, with the policies of its identity.
    fn take_svid(&mut self, offered: Offered) -> Result<(), ConfigRefusal> {
        let workload = &offered.svid.identity.id;
        let is_compiled = self
            .policies
            .as_ref()
            .is_some_and(|policies| policies.workload == *workload);
        if let Some(mesh) = &self.mesh
            && !is_compiled
        {
            self.policies = Some(self.compile(mesh, workload)?);
        }
        self.svid = Some(offered.svid);
        self.server = offered.server;
        self.identity_generation = self.identity_generation.saturating_add(1);
        Ok(())
    }

    fn server(
        &self,
        svid: &OwnSvid,
        bundles: Option<&Arc<X509Bundles>>,
    ) -> Result<Option<ServerConfigs>, ConfigRefusal> {
        let build = |bundles| ServerConfigs::build(&svid.identity, bundles, &self.clock);
        Ok(bundles.map(build).transpose()?)
    }

    fn compile(&self, mesh: &Mesh, workload: &SpiffeId) -> Result<Policies, ConfigRefusal> {
        let of = mesh.set.workload(workload);
        // What did not change since the last revision is shared.
        let compiled = match &self.policies {
            Some(before) => before.compiled.recompile(&mesh.set, &of, mesh.revision),
            None => WorkloadPolicies::compile(&mesh.set, &of, mesh.revision),
        };
        let compiled = compiled.map_err(|error| ConfigRefusal::Compile {
            workload: workload.clone(),
            revision: mesh.revision,
            reason: error.to_string(),
        })?;
        Ok(Policies {
            workload: workload.clone(),
            revision: mesh.revision,
            compiled: Arc::new(compiled),
        })
    }

    /// The snapshot of the parts in use, if none is missing and all fit to one identity.
    fn next(&mut self) -> Option<Arc<Snapshot>> {
        let mesh = self.mesh.as_ref()?;
        let svid = self.svid.as_ref()?;
        let policies = self.policies.as_ref()?;
        // WHY: policies of another identity must never judge for this one; the old snapshot stays in use.
        if policies.workload != svid.identity.id {
            return None;
        }
        self.generation = self.generation.saturating_add(1);
        Some(Arc::new(Snapshot {
            generation: self.generation,
            identity_generation: self.identity_generation,
            bundle_generation: self.bundle_generation,
            workload: svid.identity.id.clone(),
            svid: Arc::clone(svid),
            bundles: Arc::clone(self.bundles.as_ref()?),
            server: self.server.clone()?,
            token_keys: Arc::clone(&self.token_keys),
            denylist: Arc::clone(&self.denylist),
            policies: Arc::clone(&policies.compiled),
            routes: Arc::clone(&mesh.routes),
            names: Arc::clone(&mesh.names),
            mesh_revision: policies.revision,
            bundle_sequence: self.bundle_sequence,
        }))
    }
}

fn sources(
    files: &BTreeMap<String, Vec<u8>>,
    revision: u64,
) -> Result<Vec<SourceFile>, ConfigRefusal> {
    files
        .iter()
        .map(|(path, content)| {
            SourceFile::from_bytes(path, content).map_err(|diagnostic| ConfigRefusal::MeshInvalid {
                revision,
                first: diagnostic.render(),
            })
        })
        .collect()
}

fn first_error(diagnostics: &ravelin_policies::Diagnostics) -> String {
    diagnostics
        .iter()
        .find(|diagnostic| diagnostic.is_error)
        .map(ravelin_policies::Diagnostic::render)
        .unwrap_or_default()
}

fn trust_domain(name: &str) -> Result<TrustDomain, ConfigRefusal> {
    TrustDomain::parse(name).map_err(|_| ConfigRefusal::TrustDomain(name.to_owned()))
}

fn read_bundles(bundles: &HashMap<String, Vec<u8>>) -> Result<X509Bundles, ConfigRefusal> {
    let mut read = X509Bundles::new();
    for (name, der) in bundles {
        let domain = trust_domain(name)?;
        let authorities = split(der).ok_or_else(|| IdentityError::Bundle(name.clone()))?;
        let kept = read.insert(domain, &authorities);
        if kept < authorities.len() {
            tracing::warn!(
                domain = name,
                kept,
                offered = authorities.len(),
                "certificates of a bundle are left out"
            );
        }
    }
    Ok(read)
}

fn split(mut der: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, _) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
        let length = der.len().checked_sub(rest.len())?;
        certificates.push(CertificateDer::from(der.get(..length)?));
        der = rest;
    }
    Some(certificates)
}
