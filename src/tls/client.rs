//! Whom a client trusts, and what it shows.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;

use super::pem::{Content, Pem, certified};
use super::{VERSIONS, alpn_protocols, provider, roots};
use crate::error::{Error, ErrorKind};

/// The TLS side of a client: which servers it trusts, and what it shows of itself.
///
/// The server's certificate is always verified, with its host name; there is no way to switch that off. A server with a
/// certificate of its own making is trusted by giving that to [`only_roots`](ClientTlsBuilder::only_roots); it must not be
/// marked as an authority's (`CA:TRUE`, which is what `openssl req -x509` does unless it is told otherwise).
///
/// Clones share the sessions that can be resumed, as do all connections made with one of them.
///
/// ```no_run
/// # fn example() -> Result<(), hythe::Error> {
/// use hythe::tls::{ClientTls, Pem};
///
/// let tls = ClientTls::builder()
///     .only_roots(Pem::file("/etc/app/ca.pem"))
///     .client_certificate(Pem::file("/etc/app/client.pem"), Pem::file("/etc/app/client.key"))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

static SYSTEM: OnceLock<ClientTls> = OnceLock::new();

/// How to build a [`ClientTls`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is built"]
pub struct ClientTlsBuilder {
    system: bool,
    roots: Vec<Pem>,
    certificate: Option<(Pem, Pem)>,
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
}

impl ClientTls {
    /// Begins with the operating system's authorities, and nothing to show.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder { system: true, roots: Vec::new(), certificate: None, alpn: Vec::new(), server_name: None }
    }

    /// What a `tls://` endpoint is connected to with unless something else is said: the operating system's authorities,
    /// nothing to show, no ALPN. Made once.
    ///
    /// The first call reads files, which blocks for a moment.
    ///
    /// # Errors
    /// As [`ClientTlsBuilder::build`].
    pub fn system() -> Result<Self, Error> {
        match SYSTEM.get() {
            Some(made) => Ok(made.clone()),
            None => {
                let made = Self::builder().build()?;
                Ok(SYSTEM.get_or_init(|| made).clone())
            }
        }
    }

    /// As [`system`](Self::system), elsewhere than in the thread of connections where files have to be read.
    pub(crate) async fn system_later() -> Result<Self, Error> {
        match SYSTEM.get() {
            Some(made) => Ok(made.clone()),
            None => tokio::task::spawn_blocking(Self::system).await.unwrap_or_else(|error| {
                let text = "the operating system's authorities could not be read";
                Err(Error::new(ErrorKind::Config, text).because(error))
            }),
        }
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name that the server's certificate must be for, of a server at `host`.
    pub(crate) fn name_for(&self, host: &str) -> Result<ServerName<'static>, Error> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(host),
        }
    }
}

impl ClientTlsBuilder {
    /// Also trusts these authorities.
    pub fn add_roots(mut self, authorities: Pem) -> Self {
        self.roots.push(authorities);
        self
    }

    /// Trusts these authorities instead of the operating system's. Called again, it adds.
    pub fn only_roots(mut self, authorities: Pem) -> Self {
        self.system = false;
        self.roots.push(authorities);
        self
    }

    /// Shows this certificate to servers that ask for one: the chain, the client's own first, and its private key.
    pub fn client_certificate(mut self, chain: Pem, key: Pem) -> Self {
        self.certificate = Some((chain, key));
        self
    }

    /// The protocols that may be spoken inside, the best first, by their names in ALPN (RFC 7301): `["h2", "http/1.1"]`.
    /// A server that speaks none of them ends the handshake, or goes on without. Default: none are named.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// The host name or the address that the server is asked for (SNI) and that its certificate must be for. Default:
    /// the endpoint's host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Reads the files, and checks that everything fits. The operating system's authorities are read once a process.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file and what is wrong with it, or saying that the operating system has no
    /// authorities.
    pub fn build(self) -> Result<ClientTls, Error> {
        let mut store = match self.system {
            true => RootCertStore::clone(&*roots::system()?),
            false => RootCertStore::empty(),
        };
        for authorities in &self.roots {
            Content::of(authorities).authorities(&mut store)?;
        }
        let failed = |error| Error::new(ErrorKind::Config, "the versions of TLS cannot be had").because(error);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(failed)?
            .with_root_certificates(store);
        let mut config = match &self.certificate {
            Some((chain, key)) => {
                let certified = certified(&Content::of(chain), &Content::of(key))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn_protocols(&self.alpn)?;
        config.enable_early_data = false;
        config.resumption = Resumption::in_memory_sessions(256);
        let server_name = self.server_name.as_deref().map(server_name).transpose()?;
        Ok(ClientTls { config: Arc::new(config), server_name })
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    // the zone of an IPv6 address is of this host's interest alone
    let name = host.split('%').next().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|error| {
        let text = format!("no certificate can be for the name {host:?}; `ClientTlsBuilder::server_name` sets another");
        Error::new(ErrorKind::Config, text).because(error)
    })
}

/// Without anything secret.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alpn: Vec<_> = self.config.alpn_protocols.iter().map(|name| String::from_utf8_lossy(name)).collect();
        f.debug_struct("ClientTls").field("server_name", &self.server_name).field("alpn", &alpn).finish_non_exhaustive()
    }
}
