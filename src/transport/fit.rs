//! Whether an endpoint can be used: with a codec, and by this build.

use std::any::TypeId;

use crate::codec::{Datagram, Text};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};

/// A codec without framing of its own has no meaning on a byte stream.
pub(crate) fn fits<C: 'static>(endpoint: &Endpoint) -> Result<(), Error> {
    let unframed = [TypeId::of::<Datagram>(), TypeId::of::<Text<Datagram>>()].contains(&TypeId::of::<C>());
    // of what a service manager passes it is only known when it is taken
    if unframed && endpoint.is_stream() && !matches!(endpoint, Endpoint::Fd(_)) {
        let text = format!(
            "a codec that takes a message for each datagram does not fit {endpoint}, a byte stream without message \
             boundaries; LengthDelimited or Lines do"
        );
        return Err(Error::new(ErrorKind::Config, text));
    }
    Ok(())
}

/// Certificates are for TLS, and TLS needs them.
#[cfg(feature = "tls")]
pub(crate) fn fits_tls(endpoint: &Endpoint, is_set: bool, setter: &str) -> Result<(), Error> {
    let text = match (endpoint, is_set) {
        // whether it is TCP is seen when the socket is
        (Endpoint::Tls(_) | Endpoint::Fd(_), true) => return Ok(()),
        (Endpoint::Tls(_), false) => format!("{endpoint} needs a certificate: {setter} sets it"),
        // to go on in the clear is not what whoever set it wants
        (_, true) => format!("{endpoint} is not encrypted, so it takes no {setter}; tls:// endpoints do"),
        (_, false) => return Ok(()),
    };
    Err(Error::new(ErrorKind::Config, text))
}

pub(crate) fn missing_feature(endpoint: &Endpoint) -> Error {
    let scheme = endpoint.scheme();
    Error::new(ErrorKind::Config, format!("{endpoint}: hythe was built without its feature {scheme:?}"))
}
