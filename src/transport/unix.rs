//! Unix sockets.

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::{io, process};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::AsyncWrite;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::{BindOptions, ByteStream, Listener};
use crate::connection::WriteHalf;
use crate::endpoint::UnixAddress;
use crate::limits::Limits;
use crate::peer::{Credentials, PeerAddress};
use crate::sync::{Mutex, lock};

/// The bytes that a path may have in `sockaddr_un`, without the final NUL.
const PATH_MAX: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

pub(crate) struct UnixTransport {
    listener: UnixListener,
    /// Removes the file after the listener is closed.
    #[cfg_attr(not(feature = "handover"), allow(dead_code, reason = "it is of use when it is dropped"))]
    file: Option<SocketFile>,
}

impl UnixTransport {
    pub(crate) fn bind(address: &UnixAddress, options: &BindOptions, limits: &Limits) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let (socket, file) = match (address.path(), address.abstract_name()) {
            (Some(path), _) => {
                let (socket, file) = SocketFile::bind(socket, path, options.unix_mode, limits)?;
                (socket, Some(file))
            }
            (None, name) => {
                let name = format!("\0{}", name.unwrap_or_default());
                socket.bind(&SockAddr::unix(name)?)?;
                socket.listen(limits.backlog())?;
                (socket, None)
            }
        };
        Self::on(socket, file)
    }

    /// Takes a socket that listens already, with the file that is this process's to remove.
    pub(crate) fn on(socket: Socket, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, file })
    }
}

impl Listener for UnixTransport {
    type Stream = UnixStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        Poll::Ready(Ok(ready!(self.listener.poll_accept(cx))?.0))
    }

    fn adjust(&self, limits: &Limits) {
        if let Err(error) = SockRef::from(&self.listener).listen(limits.backlog()) {
            tracing::warn!(%error, "a listener keeps its old backlog");
        }
    }

    fn move_here(&mut self) -> io::Result<()> {
        self.listener = UnixListener::from_std(SockRef::from(&self.listener).try_clone()?.into())?;
        Ok(())
    }

    #[cfg(feature = "handover")]
    fn duplicate(&self) -> io::Result<Option<super::Duplicate>> {
        use std::os::fd::AsFd;
        let descriptor = self.listener.as_fd().try_clone_to_owned()?;
        Ok(Some(super::Duplicate { descriptor, file: self.file.as_ref().map(|file| file.id) }))
    }

    #[cfg(feature = "handover")]
    fn owns_name(&mut self, owns: bool) {
        if let Some(file) = &mut self.file {
            file.set_ours(owns);
        }
    }
}

impl ByteStream for UnixStream {
    type Read = OwnedReadHalf;
    type Write = UnixWrite;

    fn address(&self) -> PeerAddress {
        let credentials = self.peer_cred().ok();
        let credentials = credentials.map(|cred| Credentials { pid: cred.pid(), uid: cred.uid(), gid: cred.gid() });
        PeerAddress::Unix(credentials)
    }

    fn split(self) -> (OwnedReadHalf, UnixWrite) {
        let (read, write) = self.into_split();
        (read, UnixWrite(Some(write)))
    }

    fn abort(self) {
        // a close with unread bytes is a reset already, and without them there is none
    }
}

pub(crate) async fn connect(address: &UnixAddress) -> io::Result<UnixStream> {
    match (address.path(), address.abstract_name()) {
        (Some(path), _) => UnixStream::connect(path).await,
        (None, name) => UnixStream::connect(format!("\0{}", name.unwrap_or_default())).await,
    }
}

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|file| Self { device: file.dev(), inode: file.ino() })
    }
}

/// A listening socket's file. It is bound under another name and moved to its own when it listens, so that nobody finds
/// it half done; and it never has a wider mode than asked for, not even for an instant.
pub(crate) struct SocketFile {
    path: PathBuf,
    id: FileId,
    #[cfg_attr(not(feature = "handover"), allow(dead_code, reason = "it is set when it is made"))]
    mode: u32,
    /// It is this process's to remove.
    ours: bool,
}

impl SocketFile {
    /// The file at `path`, which another process has made and still owns. None, if it is another one by now.
    #[cfg(feature = "handover")]
    pub(crate) fn of_another(path: &Path, id: FileId, options: &BindOptions) -> Option<Self> {
        let file = Self { path: path.to_owned(), id, mode: options.unix_mode, ours: false };
        file.is_there().then_some(file)
    }

    /// Whether its path still names it.
    fn is_there(&self) -> bool {
        FileId::of(&self.path).is_ok_and(|id| id == self.id)
    }

    #[cfg(feature = "handover")]
    pub(crate) fn set_ours(&mut self, ours: bool) {
        if ours && !self.ours && self.is_there() {
            if let Err(error) = fs::set_permissions(&self.path, Permissions::from_mode(self.mode)) {
                tracing::warn!(path = %self.path.display(), %error, "a socket's file keeps its mode");
            }
        }
        self.ours = ours;
    }

    fn bind(socket: Socket, path: &Path, mode: u32, limits: &Limits) -> io::Result<(Socket, Self)> {
        // two servers of this process must not find the same stale socket and both replace it
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = lock(&ONE_AT_A_TIME);

        is_stale(path)?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(".{:x}-{:x}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temporary = directory.join(&name);

        // a socket's file is made with the mode of its descriptor, less the umask
        let file = File::from(OwnedFd::from(socket));
        file.set_permissions(Permissions::from_mode(mode))?;
        let socket = Socket::from(OwnedFd::from(file));
        bind_in(&socket, directory, &temporary, &name)?;

        let finish = || {
            fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
            socket.listen(limits.backlog())?;
            let made = FileId::of(&temporary)?;
            // asked again, as late as can be: another process may have been quicker. And a name that was free must not
            // take anything's place
            let stale = is_stale(path)?;
            if stale || fs::hard_link(&temporary, path).is_err() {
                if !stale && fs::symlink_metadata(path).is_ok() {
                    return Err(in_use(path, "somebody has just made it"));
                }
                fs::rename(&temporary, path)?;
            }
            Ok(made)
        };
        let made = finish();
        // gone already, where it was renamed
        let _ = fs::remove_file(&temporary);
        Ok((socket, Self { path: path.to_owned(), id: made?, mode, ours: true }))
    }
}

/// Binds to `temporary`, which is `name` in `directory`, also where the whole of it is too long for the system.
fn bind_in(socket: &Socket, directory: &Path, temporary: &Path, name: &str) -> io::Result<()> {
    if temporary.as_os_str().as_bytes().len() <= PATH_MAX {
        return socket.bind(&SockAddr::unix(temporary)?);
    }
    use std::os::fd::AsRawFd;
    let directory = File::open(directory)?;
    socket.bind(&SockAddr::unix(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn in_use(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {why}", path.display()))
}

/// Whether there is a socket at `path` that nobody listens on. Anything else there is an error.
fn is_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return Err(in_use(path, "it is not a socket")),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        // gone in the meantime
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Ok(()) => Err(in_use(path, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(in_use(path, "another process listens there, and is busy"))
        }
        Err(error) => Err(error),
    }
}

pub(crate) struct UnixWrite(Option<OwnedWriteHalf>);

impl WriteHalf for UnixWrite {
    const MESSAGES: bool = false;

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write_vectored(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn ends_by_drop(&mut self) -> bool {
        if let Some(half) = self.0.take() {
            half.forget();
        }
        true
    }
}
