//! What a handshake agreed upon.

use std::fmt;

use bytes::Bytes;
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};

/// What the TLS handshake of a connection agreed upon, and what the peer showed of itself.
///
/// ```no_run
/// # fn example(info: &hythe::tls::TlsInfo) {
/// println!("{} with {}", info.version(), info.cipher_suite());
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TlsInfo {
    version: TlsVersion,
    cipher_suite: &'static str,
    alpn: Option<Bytes>,
    server_name: Option<Box<str>>,
    peer_certificates: Vec<Bytes>,
    resumed: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246)
    Tls12,
    /// TLS 1.3 (RFC 8446)
    Tls13,
}

impl TlsInfo {
    /// After a handshake. `server_name` is what the client asked for.
    pub(super) fn new(state: &CommonState, server_name: Option<&str>) -> Self {
        let certificates = state.peer_certificates().unwrap_or_default();
        Self {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            cipher_suite: suite_name(state),
            alpn: state.alpn_protocol().map(Bytes::copy_from_slice),
            server_name: server_name.map(Into::into),
            peer_certificates: certificates.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// The version of the protocol.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The cipher suite, by its name in the IANA registry: `TLS_AES_256_GCM_SHA384`.
    #[must_use]
    pub fn cipher_suite(&self) -> &str {
        self.cipher_suite
    }

    /// The protocol chosen by ALPN (RFC 7301): `h2`. `None` where one side named none.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The host name that the client asked for (SNI, RFC 6066), in lower case. `None` where it named none, as clients do
    /// that connect to an address.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The peer's certificates in DER, its own first. They were verified in the handshake, or, of a resumed session, in
    /// the one where the session began. Empty where it showed none, as clients do that are not asked.
    #[must_use]
    pub fn peer_certificates(&self) -> &[Bytes] {
        &self.peer_certificates
    }

    /// Whether the handshake resumed an earlier session: without certificates on the wire.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }
}

fn suite_name(state: &CommonState) -> &'static str {
    let Some(suite) = state.negotiated_cipher_suite() else { return "unknown" };
    match suite.suite() {
        // rustls has names of its own for these
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("version", &self.version)
            .field("cipher_suite", &self.cipher_suite)
            .field("alpn", &self.alpn)
            .field("server_name", &self.server_name)
            .field("peer_certificates", &self.peer_certificates.len())
            .field("resumed", &self.resumed)
            .finish()
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}
