//! The authorities that the operating system trusts.

use std::sync::Arc;

use rustls::RootCertStore;

use crate::error::{Error, ErrorKind};
use crate::sync::{Mutex, lock};

/// Read once a process; an error is not kept.
pub(super) fn system() -> Result<Arc<RootCertStore>, Error> {
    static STORE: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    let mut kept = lock(&STORE);
    if let Some(store) = &*kept {
        return Ok(Arc::clone(store));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // some systems have certificates of long ago that nobody can read any more
    let (_, unusable) = store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let text = "the operating system has no certificates of authorities to check a server's with (on Debian they are \
                    in the package ca-certificates; `SSL_CERT_FILE` can name others)";
        let error = Error::new(ErrorKind::Config, text);
        return Err(match found.errors.into_iter().next() {
            Some(cause) => error.because(cause),
            None => error,
        });
    }
    for error in &found.errors {
        tracing::warn!(%error, "some authorities of the operating system cannot be read");
    }
    if unusable > 0 {
        tracing::debug!(unusable, "some authorities of the operating system cannot be used");
    }
    let store = Arc::new(store);
    *kept = Some(Arc::clone(&store));
    Ok(store)
}
