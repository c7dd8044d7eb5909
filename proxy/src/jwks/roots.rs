//! Whom TLS to the outside trusts: the machine's own roots, or those of one file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::tls;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::time::Instant;

use crate::limits;

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read, or is no PEM.
    #[error("`jwks.ca_file` `{path}` cannot be read: {source}")]
    File {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The file has no certificate that can be a root.
    #[error("`jwks.ca_file` `{0}` has no usable certificate")]
    Empty(PathBuf),
    /// The machine has none.
    #[error("this machine has no trusted roots: install them, or set `jwks.ca_file`")]
    NoSystemRoots,
    /// The provider cannot speak TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// Reads the roots when they are first needed, and again after a while.
#[derive(Debug)]
pub struct Roots {
    file: Option<PathBuf>,
    built: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

impl Roots {
    /// A file that is configured is read now, so that a bad one shows at start.
    pub fn new(file: Option<PathBuf>) -> Result<Self, RootsError> {
        if let Some(path) = &file {
            of_file(path)?;
        }
        Ok(Self {
            file,
            built: Mutex::new(None),
        })
    }

    pub(super) fn client_config(
        &self,
        clock: &SharedClock,
        now: Instant,
    ) -> Result<Arc<ClientConfig>, RootsError> {
        // WHY: one thread fetches; the lock is never waited for, and a poisoned one still holds a whole value.
        let mut built = self
            .built
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, config)) = &*built
            && now.saturating_duration_since(*at) < limits::KEY_ROOTS_AGE
        {
            return Ok(Arc::clone(config));
        }
        let roots = match &self.file {
            Some(path) => of_file(path)?,
            None => of_system()?,
        };
        let config = tls::web_client_config(roots, Arc::clone(clock))?;
        *built = Some((now, Arc::clone(&config)));
        Ok(config)
    }
}

fn of_file(path: &Path) -> Result<RootCertStore, RootsError> {
    let unreadable = |source| RootsError::File {
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    store(certificates).ok_or_else(|| RootsError::Empty(path.to_owned()))
}

fn of_system() -> Result<RootCertStore, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the machine's trusted roots cannot be read");
    }
    store(found.certs).ok_or(RootsError::NoSystemRoots)
}

fn store(certificates: Vec<CertificateDer<'static>>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    (added > 0).then_some(roots)
}
