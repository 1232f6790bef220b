//! Servers that speak TLS, with a certificate of their own, which lies beside the socket's path.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use hythe::tls::ServerTls;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::by_hand::{echo, tcp_listener};
use super::ready;
use crate::peers::Own;

fn certificate(socket: &Path) -> Result<CertifiedKey<KeyPair>> {
    let certified = generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(socket.with_file_name("certificate"), certified.cert.der())?;
    Ok(certified)
}

pub(super) fn hythe(socket: &Path) -> Result<ServerTls> {
    let CertifiedKey { cert, signing_key } = certificate(socket)?;
    Ok(ServerTls::from_pem(cert.pem(), signing_key.serialize_pem()).build()?)
}

pub(super) async fn by_hand(socket: &Path) -> Result<()> {
    let CertifiedKey { cert, signing_key } = certificate(socket)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tcp_listener()?;
    ready(&listener.local_addr()?.to_string())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                echo(Own::Hand, stream);
            }
        });
    }
}
