//! Which of several certificates a client gets.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of a server, in the order in which they were given.
#[derive(Debug)]
pub(super) struct BySni(pub(super) Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    /// The first one for the name that the client asks for, else the first one; of those, the first with a key that the
    /// client knows how to check.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let signs = |certified: &Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named: Vec<_> = match &name {
            Some(name) => self.0.iter().filter(|certified| is_for(certified, name)).collect(),
            None => Vec::new(),
        };
        let of = if named.is_empty() { self.0.iter().collect() } else { named };
        let found = of.iter().copied().find(|certified| signs(certified));
        found.or(of.first().copied()).cloned()
    }
}

/// Whether a certificate is for a name, by its subject alternative names, wildcards included.
fn is_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let Ok(parsed) = certified.end_entity_cert().and_then(ParsedCertificate::try_from) else { return false };
    verify_server_name(&parsed, name).is_ok()
}
