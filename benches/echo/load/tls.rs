//! Clients that speak TLS.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// That trust the certificate in a file.
pub(super) fn config(certificate: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(std::fs::read(certificate)?.into())?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

pub(super) fn connect(
    config: &Arc<ClientConfig>,
    socket: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let connection = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    Ok(StreamOwned::new(connection, socket))
}
