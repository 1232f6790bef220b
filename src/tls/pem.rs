//! Certificates and keys as PEM text, and what can be wrong with it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::provider;
use crate::error::{Error, ErrorKind};

/// No file of certificates is larger than this: it is something else.
const LARGEST: u64 = 4 << 20;

/// PEM text (RFC 7468): a file that has it, or the text itself.
///
/// A file is read when what it is given to is built, and again on [`ServerTls::reload`](super::ServerTls::reload).
///
/// ```
/// use hythe::tls::Pem;
///
/// let file = Pem::file("/etc/app/ca.pem");
/// assert_eq!(file.to_string(), "/etc/app/ca.pem");
/// let text = Pem::text("-----BEGIN CERTIFICATE-----\n…");
/// assert_eq!(text.to_string(), "the given PEM text");
/// ```
#[derive(Clone)]
pub struct Pem(Source);

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Text(Arc<[u8]>),
}

impl Pem {
    /// A file. A relative path is taken from the working directory of now, also when the file is read again.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self(Source::File(std::path::absolute(&path).unwrap_or(path)))
    }

    /// The text itself.
    #[must_use]
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self(Source::Text(text.as_ref().into()))
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.0, Source::File(_))
    }

    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let path = match &self.0 {
            Source::Text(text) => return Ok(text.to_vec()),
            Source::File(path) => path,
        };
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 4 MiB"));
        }
        Ok(bytes)
    }

    /// An error that names this.
    fn error(&self, what: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Config, format!("{self} {what}"))
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => path.display().fmt(f),
            Source::Text(_) => f.write_str("the given PEM text"),
        }
    }
}

/// Without the text: it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

/// PEM text that has been read, or why it could not be.
pub(super) struct Content<'a> {
    pub(super) pem: &'a Pem,
    pub(super) bytes: io::Result<Vec<u8>>,
}

impl Content<'_> {
    pub(super) fn of(pem: &Pem) -> Content<'_> {
        Content { pem, bytes: pem.read() }
    }

    fn bytes(&self) -> Result<&[u8], Error> {
        match &self.bytes {
            Ok(bytes) => Ok(bytes),
            // an error of the system cannot be cloned, but made again from its number
            Err(error) => Err(self.pem.error("cannot be read").because(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            })),
        }
    }

    /// All the certificates in it, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let bytes = self.bytes()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        let found = found.map_err(|error| self.pem.error(invalid(&error)))?;
        if found.is_empty() {
            return Err(self.pem.error(format!("contains no certificate{}", instead(bytes))));
        }
        Ok(found)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let bytes = self.bytes()?;
        // PKCS #8 says it in the label, the older format in a header
        if contains(bytes, b"ENCRYPTED PRIVATE KEY-----") || contains(bytes, b"Proc-Type: 4,ENCRYPTED") {
            let text =
                "contains an encrypted private key, which cannot be used: `openssl pkey -in` and `-out` decrypt it";
            return Err(self.pem.error(text));
        }
        match PrivateKeyDer::from_pem_slice(bytes) {
            Ok(key) => Ok(key),
            Err(PemError::NoItemsFound) => Err(self.pem.error(format!("contains no private key{}", instead(bytes)))),
            Err(error) => Err(self.pem.error(invalid(&error))),
        }
    }

    /// The certificates of authorities.
    pub(super) fn authorities(&self, store: &mut RootCertStore) -> Result<(), Error> {
        for certificate in self.certificates()? {
            store.add(certificate).map_err(|error| {
                self.pem.error("contains a certificate that cannot be an authority's").because(error)
            })?;
        }
        Ok(())
    }
}

/// A certificate chain with its key.
pub(super) fn certified(chain: &Content<'_>, key: &Content<'_>) -> Result<CertifiedKey, Error> {
    let certificates = chain.certificates()?;
    let usable = |certificate| {
        let error = |error| chain.pem.error("contains a certificate that cannot be used").because(error);
        ParsedCertificate::try_from(certificate).map(drop).map_err(error)
    };
    certificates.first().map_or(Ok(()), usable)?;
    let signing = provider().key_provider.load_private_key(key.key()?);
    let signing =
        signing.map_err(|error| key.pem.error("contains a private key that cannot be used").because(error))?;
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => {
            let fits = |other: &CertificateDer<'static>| {
                CertifiedKey::new(vec![other.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
            };
            let hint = if certified.cert.iter().skip(1).any(fits) {
                ": the one that it belongs to must come first"
            } else {
                ""
            };
            let text =
                format!("the private key in {} does not belong to the certificate in {}{hint}", key.pem, chain.pem);
            Err(Error::new(ErrorKind::Config, text))
        }
    }
}

/// What is in PEM text in which something was not found.
fn instead(bytes: &[u8]) -> &'static str {
    if contains(bytes, b"-----BEGIN CERTIFICATE REQUEST-----") {
        ", but a request for one"
    } else if contains(bytes, b"-----BEGIN CERTIFICATE-----") {
        ", but a certificate"
    } else if contains(bytes, b"PRIVATE KEY-----") {
        ", but a private key"
    } else if contains(bytes, b"-----BEGIN ") {
        ""
    } else if bytes.is_empty() {
        ": it is empty"
    } else if bytes.first() == Some(&0x30) {
        ": it is not PEM; it looks like DER, which `openssl x509` and `openssl pkey` convert"
    } else {
        ": it is not PEM"
    }
}

/// What is wrong with PEM text, without showing any of it.
fn invalid(error: &PemError) -> String {
    let what = match error {
        PemError::MissingSectionEnd { .. } => "a section has no end line",
        PemError::IllegalSectionStart { .. } => "a section's first line is malformed",
        PemError::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    format!("is no valid PEM: {what}")
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(bytes, what).is_some()
}
