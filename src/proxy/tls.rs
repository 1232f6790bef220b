//! What a header says of the client's TLS.

use std::fmt;

use super::error::Excerpt;
use super::tlv::{self, TLS_FIXED, kind};

const CLIENT_TLS: u8 = 0x01;
const CLIENT_CERTIFICATE_CONNECTION: u8 = 0x02;
const CLIENT_CERTIFICATE_SESSION: u8 = 0x04;

/// The client's TLS, which the proxy took off (specification, §2.2.6).
///
/// It is the proxy's word: the texts are UTF-8, and may hold anything else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProxiedTls<'a> {
    client: u8,
    verify: u32,
    /// Checked.
    inner: &'a [u8],
}

impl<'a> ProxiedTls<'a> {
    /// From a value that was checked.
    pub(super) fn new(value: &'a [u8]) -> Option<Self> {
        let (&[client, verify @ ..], inner) = value.split_first_chunk::<TLS_FIXED>()?;
        Some(Self { client, verify: u32::from_be_bytes(verify), inner })
    }

    /// Whether the client connected with TLS at all.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.client & CLIENT_TLS != 0
    }

    /// Whether the client showed a certificate, on this connection or earlier in the same TLS session.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.client & (CLIENT_CERTIFICATE_CONNECTION | CLIENT_CERTIFICATE_SESSION) != 0
    }

    /// Whether the client showed a certificate and the proxy found it valid.
    ///
    /// A [`verify_result`](Self::verify_result) of 0 alone does not say that: HAProxy sends it without a certificate as
    /// well.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.has_certificate() && self.verify == 0
    }

    /// The flags as they were sent: 1 TLS, 2 a certificate on this connection, 4 one in this session.
    #[must_use]
    pub fn client_flags(&self) -> u8 {
        self.client
    }

    /// 0 if a certificate was shown and is valid, otherwise the proxy's error, usually OpenSSL's number of it.
    #[must_use]
    pub fn verify_result(&self) -> u32 {
        self.verify
    }

    /// The version, such as `TLSv1.3`. It is ASCII.
    #[must_use]
    pub fn version(&self) -> Option<&'a str> {
        self.text(kind::TLS_VERSION)
    }

    /// The common name in the client's certificate.
    #[must_use]
    pub fn common_name(&self) -> Option<&'a str> {
        self.text(kind::TLS_COMMON_NAME)
    }

    /// The cipher, such as `TLS_AES_256_GCM_SHA384`. It is ASCII.
    #[must_use]
    pub fn cipher(&self) -> Option<&'a str> {
        self.text(kind::TLS_CIPHER)
    }

    /// The first extension inside this one of a [type](kind), known or not.
    #[must_use]
    pub fn tlv(&self, kind: u8) -> Option<&'a [u8]> {
        tlv::find(self.inner, kind)
    }

    /// All extensions inside this one, types and values, in their order.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        tlv::all(self.inner).map(|tlv| (tlv.kind, tlv.value))
    }

    fn text(&self, kind: u8) -> Option<&'a str> {
        self.tlv(kind).and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl fmt::Debug for ProxiedTls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| Excerpt::new(text.as_bytes());
        f.debug_struct("ProxiedTls")
            .field("client_flags", &self.client)
            .field("verify_result", &self.verify)
            .field("version", &self.version().map(shown))
            .field("common_name", &self.common_name().map(shown))
            .finish_non_exhaustive()
    }
}
