//! What the tests of TLS share: authorities and certificates made for the test, and a client that is rustls alone.
#![allow(dead_code, clippy::unwrap_used)] // Each test crate uses its own part.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hythe::tls::{ClientTls, ClientTlsBuilder, Pem, ServerTls, ServerTlsBuilder};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::with(KeyPair::generate().unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        Self::with(KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap())
    }

    fn with(key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // two authorities of one name would be taken for each other
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    /// A server's certificate.
    pub(crate) fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, KeyPair::generate().unwrap())
    }

    /// A server's certificate, with a key of another kind than the others.
    pub(crate) fn server_ed25519(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, key)
    }

    pub(crate) fn client(&self, name: &str) -> Identity {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, KeyPair::generate().unwrap())
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, key: KeyPair) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    pub(crate) fn as_pem(&self) -> Pem {
        Pem::text(&self.pem)
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client_tls(&self) -> ClientTlsBuilder {
        ClientTls::builder().only_roots(self.as_pem())
    }
}

impl Identity {
    pub(crate) fn server_tls(&self) -> ServerTlsBuilder {
        ServerTls::from_pem(&self.chain, &self.key)
    }

    pub(crate) fn pems(&self) -> (Pem, Pem) {
        (Pem::text(&self.chain), Pem::text(&self.key))
    }

    /// Writes it to `chain.pem` and `key.pem`.
    pub(crate) fn write(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
        std::fs::write(&chain, &self.chain).unwrap();
        std::fs::write(&key, &self.key).unwrap();
        (chain, key)
    }
}

/// The configuration of a client that is rustls alone.
pub(crate) fn plain_config(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    plain_config_with(authority, versions, rustls::crypto::ring::default_provider())
}

pub(crate) fn plain_config_with(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    provider: CryptoProvider,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone().into()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(crate) async fn plain_connect(
    to: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}
