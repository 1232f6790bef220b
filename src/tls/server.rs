//! A server's certificates, and what it asks of its clients.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::{fmt, io};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::task::AbortHandle;

use super::pem::{Content, Pem, certified};
use super::sni::BySni;
use super::{VERSIONS, alpn_protocols, provider};
use crate::error::{Error, ErrorKind};
use crate::sync::{Mutex, lock};

/// The TLS side of a server: certificates with their keys, and what clients must show.
///
/// It is a handle: its clones are one. Whoever keeps one can [`reload`](Self::reload) the files, or have them
/// [watched](Self::watch), while servers use it.
///
/// TLS 1.2 and 1.3 are spoken, without early data ("0-RTT"). Sessions are resumed by tickets whose keys are made here,
/// change every six hours and are never written anywhere; a reload that changes something begins with new ones.
///
/// ```no_run
/// # fn example() -> Result<(), hythe::Error> {
/// use hythe::tls::{Pem, ServerTls};
///
/// let tls = ServerTls::from_pem_files("/etc/app/chain.pem", "/etc/app/key.pem")
///     .certificate(Pem::file("/etc/app/other-chain.pem"), Pem::file("/etc/app/other-key.pem"))
///     .client_auth_required(Pem::file("/etc/app/clients-ca.pem"))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ServerTls {
    pub(super) shared: Arc<Shared>,
}

/// How to build a [`ServerTls`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is built"]
pub struct ServerTlsBuilder {
    recipe: Recipe,
}

/// What all the clones of a [`ServerTls`] share.
pub(super) struct Shared {
    recipe: Recipe,
    current: RwLock<Current>,
    /// One reload at a time: what was read first must not come last.
    pub(super) reloading: Mutex<()>,
    pub(super) watcher: Mutex<Option<AbortHandle>>,
}

struct Current {
    config: Arc<ServerConfig>,
    made_of: Mark,
}

/// Where everything comes from.
#[derive(Clone, Debug)]
struct Recipe {
    certificates: Vec<(Pem, Pem)>,
    clients: Option<Clients>,
    alpn: Vec<Vec<u8>>,
}

/// Who may connect.
#[derive(Clone, Debug)]
struct Clients {
    authorities: Pem,
    required: bool,
}

/// Tells contents apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl ServerTls {
    /// Begins with a certificate chain, the server's own certificate first, and the private key of that, from files.
    pub fn from_pem_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ServerTlsBuilder {
        Self::builder(Pem::file(chain), Pem::file(key))
    }

    /// As [`from_pem_files`](Self::from_pem_files), from PEM text.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> ServerTlsBuilder {
        Self::builder(Pem::text(chain), Pem::text(key))
    }

    fn builder(chain: Pem, key: Pem) -> ServerTlsBuilder {
        ServerTlsBuilder { recipe: Recipe { certificates: vec![(chain, key)], clients: None, alpn: Vec::new() } }
    }

    /// Reads all files again, and has new handshakes use what is in them from now on. Connections that are open, and
    /// handshakes that have begun, keep what they have. True if anything is new.
    ///
    /// It reads files, which blocks for a moment.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file and what is wrong with it, which is logged as well. Then everything stays
    /// as it is.
    pub fn reload(&self) -> Result<bool, Error> {
        let _one = lock(&self.shared.reloading);
        let contents = self.shared.read();
        self.shared.replace(&contents)
    }

    /// What a handshake that begins now uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.config)
    }
}

impl ServerTlsBuilder {
    /// Adds another certificate chain and its key. A client gets the first whose names, wildcards included, are for the
    /// host name that it asks for (SNI); if none is, or it asks for none, the very first. Several for one name with
    /// different kinds of keys are fine: a client gets one that it can check.
    pub fn certificate(mut self, chain: Pem, key: Pem) -> Self {
        self.recipe.certificates.push((chain, key));
        self
    }

    /// Refuses clients without a certificate that one of these authorities has issued, for use by clients. It is in
    /// [`TlsInfo::peer_certificates`](super::TlsInfo::peer_certificates). Default: clients are not asked.
    ///
    /// A handshake of TLS 1.3 is over for the client before the server has seen its certificate: the client learns of
    /// the refusal when it reads.
    pub fn client_auth_required(mut self, authorities: Pem) -> Self {
        self.recipe.clients = Some(Clients { authorities, required: true });
        self
    }

    /// As [`client_auth_required`](Self::client_auth_required), but lets clients in that show no certificate. One that
    /// is not good is refused.
    pub fn client_auth_optional(mut self, authorities: Pem) -> Self {
        self.recipe.clients = Some(Clients { authorities, required: false });
        self
    }

    /// The protocols that are spoken inside, the best first, by their names in ALPN (RFC 7301): `["h2", "http/1.1"]`. A
    /// client that names protocols, and none of these, is refused. Default: none, and what clients name is ignored.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.recipe.alpn = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// Reads the files, and checks that everything fits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file and what is wrong: it cannot be read, has no certificate or no key, the key
    /// is encrypted or belongs to another certificate, and the like.
    pub fn build(self) -> Result<ServerTls, Error> {
        let recipe = self.recipe;
        let contents: Vec<_> = recipe.sources().map(Content::of).collect();
        let current = Current { config: recipe.config(&contents)?, made_of: Mark::of(&contents) };
        let shared = Shared {
            recipe: recipe.clone(),
            current: RwLock::new(current),
            reloading: Mutex::new(()),
            watcher: Mutex::new(None),
        };
        Ok(ServerTls { shared: Arc::new(shared) })
    }
}

impl Recipe {
    /// All sources, in an order that [`config`](Self::config) knows.
    fn sources(&self) -> impl Iterator<Item = &Pem> {
        let certificates = self.certificates.iter().flat_map(|(chain, key)| [chain, key]);
        certificates.chain(self.clients.iter().map(|clients| &clients.authorities))
    }

    /// Made of the contents of all [`sources`](Self::sources).
    fn config(&self, contents: &[Content<'_>]) -> Result<Arc<ServerConfig>, Error> {
        let (pairs, authorities) = contents.split_at(contents.len().min(2 * self.certificates.len()));
        let mut certificates = Vec::new();
        for pair in pairs.chunks_exact(2) {
            if let [chain, key] = pair {
                certificates.push(Arc::new(certified(chain, key)?));
            }
        }
        let failed = |what: &'static str| move |error| Error::new(ErrorKind::Config, what).because(error);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(failed("the versions of TLS cannot be had"))?;
        let builder = match (&self.clients, authorities.first()) {
            (Some(clients), Some(authorities)) => {
                let mut roots = RootCertStore::empty();
                authorities.authorities(&mut roots)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| {
                    let text = format!("clients' certificates cannot be checked with {}", clients.authorities);
                    Error::new(ErrorKind::Config, text).because(error)
                })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(BySni(certificates)));
        config.alpn_protocols = alpn_protocols(&self.alpn)?;
        config.max_early_data_size = 0;
        // new for each configuration: a ticket from before a reload would spare its client the checks of after it
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(failed("no ticket keys can be made"))?;
        config.send_tls13_tickets = 2;
        Ok(Arc::new(config))
    }
}

impl Shared {
    pub(super) fn read(&self) -> Vec<Content<'_>> {
        self.recipe.sources().map(Content::of).collect()
    }

    pub(super) fn has_files(&self) -> bool {
        self.recipe.sources().any(Pem::is_file)
    }

    /// What is in use is made of this.
    pub(super) fn made_of(&self) -> Mark {
        self.current.read().unwrap_or_else(PoisonError::into_inner).made_of
    }

    /// Puts what was read to use; true if it is new. Under the lock `reloading`, as the reading was.
    pub(super) fn replace(&self, contents: &[Content<'_>]) -> Result<bool, Error> {
        let made_of = Mark::of(contents);
        if made_of == self.made_of() {
            return Ok(false);
        }
        match self.recipe.config(contents) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { config, made_of };
                tracing::info!("TLS certificates reloaded");
                Ok(true)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(tracing::field::display);
                tracing::error!(%error, cause, "TLS certificates not reloaded; those in use stay");
                Err(error)
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            watcher.abort();
        }
    }
}

impl Mark {
    pub(super) fn of(contents: &[Content<'_>]) -> Self {
        let mut hasher = DefaultHasher::new();
        for content in contents {
            content.bytes.as_ref().map_err(io::Error::kind).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// Without anything secret.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { certificates, clients, alpn } = &self.shared.recipe;
        let alpn: Vec<_> = alpn.iter().map(|name| String::from_utf8_lossy(name)).collect();
        f.debug_struct("ServerTls")
            .field("certificates", certificates)
            .field("clients", clients)
            .field("alpn", &alpn)
            .finish()
    }
}
