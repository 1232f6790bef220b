//! The new process: asks the running one for its sockets, and starts with them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::channel::{Broken, Channel};
use super::offer::Offer;
use super::protocol::Message;
use super::{FIRST, STEP};
use crate::endpoint::{Endpoint, EndpointError, UnixAddress};
use crate::error::{Error, ErrorKind};
use crate::handler::Session;
use crate::server::Running;
use crate::server::accept::{Control, Door};
use crate::server::hub::Hub;
use crate::server::inherited::{Handed, Inherited};
use crate::server::listen::{Binding, Listening, listen};
use crate::transport::BindOptions;
use crate::transport::given::{Given, Kind};
use crate::transport::unix::{SocketFile, UnixTransport};

/// How often the running process may end while it is asked. It is about to stop then, or has crashed, and there will be
/// none.
const ATTEMPTS: u32 = 5;
/// Between two connects to a process whose backlog is full.
const BUSY: Duration = Duration::from_millis(50);

/// Why an attempt failed.
enum Failure {
    /// The running process has ended before it let go of anything: try without it.
    Alone,
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Starts a server with the sockets of the one that runs, if there is one.
pub(crate) async fn start<S: Session>(
    endpoint: Result<Endpoint, EndpointError>,
    hub: Arc<Hub>,
    session: Arc<S>,
    bindings: Vec<Box<dyn Binding<S>>>,
) -> Result<Running, Error> {
    let endpoint = endpoint.map_err(|error| Error::new(ErrorKind::Endpoint, error.to_string()))?;
    let Endpoint::Unix(address) = &endpoint else {
        return Err(Error::new(
            ErrorKind::Config,
            format!("a handover takes place at a Unix socket, not at {endpoint}"),
        ));
    };
    for _ in 0..ATTEMPTS {
        let once = bindings.iter().map(|binding| binding.again()).collect();
        match attempt(&endpoint, address, &hub, &session, once).await {
            Ok(running) => return Ok(running),
            Err(Failure::Other(error)) => return Err(error),
            Err(Failure::Alone) => tracing::info!(%endpoint, "the server there has ended; starting without it"),
        }
    }
    Err(Error::new(ErrorKind::Handover, format!("the servers at {endpoint} ended, one after the other")))
}

async fn attempt<S: Session>(
    endpoint: &Endpoint,
    address: &UnixAddress,
    hub: &Arc<Hub>,
    session: &Arc<S>,
    bindings: Vec<Box<dyn Binding<S>>>,
) -> Result<Running, Failure> {
    let failed = |broken: Broken| failed(endpoint, broken);
    let (channel, inherited) = match connect(endpoint, address).await? {
        Some(stream) => {
            let (channel, inherited) = ask(stream).await.map_err(failed)?;
            (Some(channel), inherited)
        }
        None => (None, Inherited::default()),
    };
    let listening = listen(bindings, hub, session, &inherited).await?;
    let door = open_door(endpoint, address, hub, &inherited)?;
    let unused = inherited.into_rest();
    let begin = || begin(endpoint, hub, listening, &door);
    let Some(mut channel) = channel else { return Ok(begin()) };
    for handed in &unused {
        tracing::info!(endpoint = handed.asked, "a socket of the server before has no use any more");
    }
    channel.send(&Message::Ready, STEP).await.map_err(failed)?;
    channel.expect(&Message::Switch, STEP).await.map_err(failed)?;

    let running = begin();
    if let Err(broken) = serving(&mut channel).await {
        running.abort();
        return Err(Failure::Other(refused(endpoint, broken)));
    }
    running.owns_names();
    for handed in unused {
        remove_file(&handed);
    }
    tracing::info!(%endpoint, "taken over");
    Ok(running)
}

/// From sockets to a server that serves.
fn begin(endpoint: &Endpoint, hub: &Arc<Hub>, listening: Vec<Listening>, door: &Arc<Door<UnixTransport>>) -> Running {
    let named = |listening: &Listening| (listening.asked.clone(), Arc::clone(&listening.control));
    let mut sockets: Vec<_> = listening.iter().map(named).collect();
    // the last: who finds nobody here must find the ports free
    sockets.push((endpoint.clone(), Arc::clone(door) as Arc<dyn Control>));
    let (sender, handed_over) = watch::channel(false);
    let mut running = Running::start(Arc::clone(hub), listening);
    door.adjust(&hub.limits.get());
    running.offers(Offer::new(Arc::clone(door), sockets, sender), handed_over, Arc::clone(door) as _);
    running
}

/// Connects to the running process. `None` if there is none.
async fn connect(endpoint: &Endpoint, address: &UnixAddress) -> Result<Option<UnixStream>, Error> {
    let give_up = Instant::now() + FIRST;
    loop {
        match crate::transport::unix::connect(address).await {
            Ok(stream) => return Ok(Some(stream)),
            // whether what is there may be replaced is looked at when this process binds there
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < give_up => sleep(BUSY).await,
            Err(error) => return Err(refused(endpoint, error.into())),
        }
    }
}

/// Asks for the sockets.
async fn ask(stream: UnixStream) -> Result<(Channel, Inherited), Broken> {
    let (mut channel, pid) = Channel::new(stream)?;
    channel.send(&Message::Hello, STEP).await?;
    let (mut handed, mut wait) = (Vec::new(), FIRST);
    loop {
        match channel.receive(wait).await? {
            (Message::Socket { asked, file }, Some(descriptor)) => handed.push(examine(asked, file, descriptor)?),
            (Message::Listed(count), _) if usize::from(count) == handed.len() => break,
            (Message::Listed(_), _) => return Err(Broken::Descriptors),
            (other, _) => return Err(Broken::Unexpected(other.name())),
        }
        wait = STEP;
    }
    tracing::info!(pid, sockets = handed.len(), "taking over");
    Ok((channel, Inherited::new(handed)))
}

fn examine(asked: String, file: Option<crate::transport::unix::FileId>, descriptor: OwnedFd) -> Result<Handed, Broken> {
    let socket = Socket::from(descriptor);
    let kind = Kind::of(&socket)
        .map_err(|error| io::Error::new(error.kind(), format!("what was sent as {} {error}", asked.escape_debug())))?;
    Ok(Handed { asked, file, given: Given { socket, kind } })
}

/// The socket where this process will hand over: the running one's, or its own.
fn open_door(
    endpoint: &Endpoint,
    address: &UnixAddress,
    hub: &Hub,
    inherited: &Inherited,
) -> Result<Arc<Door<UnixTransport>>, Error> {
    // nobody but this user gets the sockets
    let options = BindOptions::new().unix_mode(0o600);
    let opened = match inherited.unix(endpoint, &options) {
        Some((socket, file)) => UnixTransport::on(socket, file),
        None => UnixTransport::bind(address, &options, &hub.limits.get()),
    };
    let failed = |error| Error::new(ErrorKind::Bind, format!("cannot listen on {endpoint}")).because(error);
    opened.map(|unix| Door::new(0, unix)).map_err(failed)
}

/// Says that this process serves, and waits until the other one does not any more. Only its word that it goes on can
/// take this back: if it has ended or hangs, there must be somebody who serves.
async fn serving(channel: &mut Channel) -> Result<(), Broken> {
    let _ = channel.send(&Message::Serving, STEP).await;
    match channel.expect(&Message::Gone, STEP).await {
        Ok(()) | Err(Broken::Ended) => Ok(()),
        Err(refused @ Broken::Refused(_)) => Err(refused),
        Err(broken) => {
            tracing::warn!(error = %broken, "the server before was asked to go, and did not say that it does");
            Ok(())
        }
    }
}

/// Removes the file of a socket that nobody listens on any more.
fn remove_file(handed: &Handed) {
    if let (Some(id), Ok(Endpoint::Unix(address))) = (handed.file, handed.asked.parse()) {
        let file = address.path().and_then(|path| SocketFile::of_another(path, id, &BindOptions::new()));
        if let Some(mut file) = file {
            file.set_ours(true);
        }
    }
}

/// Before anything was taken: where the running process has gone, this one can do without.
fn failed(endpoint: &Endpoint, broken: Broken) -> Failure {
    match broken {
        Broken::Ended => Failure::Alone,
        broken => Failure::Other(refused(endpoint, broken)),
    }
}

fn refused(endpoint: &Endpoint, broken: Broken) -> Error {
    Error::new(ErrorKind::Handover, format!("the server at {endpoint} was not taken over")).because(broken)
}
