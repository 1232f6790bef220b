//! Clients of TLS: an authority with certificates, and honest handshakes at a steady rate.
//!
//! As with the honest traffic, a handshake begins when it is due and is timed from then on, until it is through. A
//! message is echoed inside before the connection is closed. No session is resumed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::honest::Step;
use crate::wire;

/// A handshake that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Issues certificates for `localhost`.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate with its key, as PEM, and as its clients see it.
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) seen: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    pub(crate) fn issue(&self) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok(Identity { chain: certificate.pem(), key: key.serialize_pem(), seen: certificate.der().to_vec() })
    }

    /// What a client needs that trusts this authority.
    pub(crate) fn trusting(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

impl Identity {
    /// Writes it to two files, each of which is replaced at once.
    pub(crate) fn write(&self, chain: &Path, key: &Path) -> Result<()> {
        replace(chain, self.chain.as_bytes())?;
        replace(key, self.key.as_bytes())
    }
}

/// The files of a server's certificate.
pub(crate) fn files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("chain.pem"), folder.join("key.pem"))
}

/// Replaces a file at once.
pub(crate) fn replace(file: &Path, content: &[u8]) -> Result<()> {
    let other = file.with_extension("new");
    std::fs::write(&other, content)?;
    Ok(std::fs::rename(other, file)?)
}

/// The first bytes that a client sends.
pub(crate) fn client_hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(config), name()?)?.write_tls(&mut hello)?;
    Ok(hello)
}

fn name() -> Result<ServerName<'static>> {
    Ok(ServerName::try_from("localhost")?)
}

/// Handshakes at a steady rate.
pub(crate) struct Shaker {
    config: Arc<ClientConfig>,
    to: SocketAddr,
    every: Duration,
    begin: Instant,
    begun: u32,
    running: Vec<Shake>,
    pub(crate) done: Vec<Shaken>,
}

/// One that is under way.
struct Shake {
    due: Instant,
    socket: TcpStream,
    tls: ClientConnection,
    /// When the handshake was through; then a message is awaited.
    through: Option<Instant>,
    echo: Vec<u8>,
}

/// What became of one.
pub(crate) struct Shaken {
    pub(crate) due: Instant,
    /// How long it took.
    pub(crate) result: Result<Duration>,
    /// When, and the server's certificate.
    pub(crate) through: Instant,
    pub(crate) certificate: Vec<u8>,
}

impl Shaker {
    pub(crate) fn new(config: Arc<ClientConfig>, to: SocketAddr, rate: u32) -> Self {
        let every = Duration::from_secs(1) / rate;
        Self { config, to, every, begin: Instant::now(), begun: 0, running: Vec::new(), done: Vec::new() }
    }

    /// Begins anew, after a pause.
    pub(crate) fn restart(&mut self) {
        (self.begin, self.begun) = (Instant::now(), 0);
    }

    pub(crate) fn step(&mut self) -> Result<Step> {
        let due = self.begin + self.every * self.begun;
        if Instant::now() >= due {
            self.begun += 1;
            match Shake::begin(&self.config, self.to, due) {
                Ok(shake) => self.running.push(shake),
                Err(error) => self.done.push(Shaken::failed(due, error)),
            }
        }
        let mut place = 0;
        while let Some(shake) = self.running.get_mut(place) {
            match shake.advance() {
                Ok(None) => place += 1,
                Ok(Some(shaken)) => {
                    self.done.push(shaken);
                    self.running.swap_remove(place);
                }
                Err(error) => {
                    self.done.push(Shaken::failed(shake.due, error));
                    self.running.swap_remove(place);
                }
            }
        }
        Ok(if self.running.is_empty() { Step::Quiet } else { Step::Busy })
    }

    /// Waits for those that are under way.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.begun = u32::MAX / 2;
        while !self.running.is_empty() {
            self.step()?;
        }
        Ok(())
    }

    /// The 99th percentile of those that were due in a time, how many these were, and how many of them failed.
    pub(crate) fn p99(&self, from: Instant, to: Instant) -> (Duration, usize, usize) {
        let all: Vec<&Shaken> = self.done.iter().filter(|shaken| (from..to).contains(&shaken.due)).collect();
        let mut times: Vec<Duration> = all.iter().filter_map(|shaken| shaken.result.as_ref().ok()).copied().collect();
        times.sort_unstable();
        let place = (times.len() as f64 * 0.99).ceil() as usize;
        let p99 = times.get(place.saturating_sub(1)).copied().unwrap_or(Duration::MAX);
        (p99, all.len(), all.len() - times.len())
    }

    /// The first errors.
    pub(crate) fn errors(&self) -> impl Iterator<Item = String> {
        self.done.iter().filter_map(|shaken| Some(format!("{:#}", shaken.result.as_ref().err()?))).take(3)
    }
}

impl Shaken {
    fn failed(due: Instant, error: anyhow::Error) -> Self {
        Self { due, result: Err(error), through: Instant::now(), certificate: Vec::new() }
    }
}

impl Shake {
    fn begin(config: &Arc<ClientConfig>, to: SocketAddr, due: Instant) -> Result<Self> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let tls = ClientConnection::new(Arc::clone(config), name()?)?;
        Ok(Self { due, socket, tls, through: None, echo: Vec::new() })
    }

    /// Goes on as far as it can now.
    fn advance(&mut self) -> Result<Option<Shaken>> {
        ensure!(self.due.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        loop {
            let mut moved = false;
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut self.socket) {
                    Ok(_) => moved = true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("writing"),
                }
            }
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("reading"),
            }
            self.tls.process_new_packets()?;
            if self.through.is_none() && !self.tls.is_handshaking() {
                self.through = Some(Instant::now());
                self.tls.writer().write_all(&wire::frame(1, 1))?;
                moved = true;
            }
            if let Some(through) = self.through {
                let mut buffer = [0; 256];
                match self.tls.reader().read(&mut buffer) {
                    Ok(read) => self.echo.extend_from_slice(&buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("reading inside"),
                }
                if self.echo.len() >= wire::frame(1, 1).len() {
                    return self.end(through).map(Some);
                }
            }
            if !moved {
                return Ok(None);
            }
        }
    }

    fn end(&mut self, through: Instant) -> Result<Shaken> {
        ensure!(self.echo == wire::frame(1, 1), "something else came back");
        self.tls.send_close_notify();
        let _ = self.tls.write_tls(&mut self.socket);
        let certificate = self.tls.peer_certificates().and_then(<[_]>::first).context("no certificate")?.to_vec();
        Ok(Shaken { due: self.due, result: Ok(through - self.due), through, certificate })
    }
}
