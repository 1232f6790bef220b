//! Looks after a server's files of certificates and keys.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::server::{Mark, ServerTls, Shared};
use crate::error::{Error, ErrorKind};
use crate::sync::lock;

/// Looks are at least this far apart.
const SHORTEST: Duration = Duration::from_millis(10);
/// A change is put to use when it has been the same for this long: a key and its certificate are two files, and a file is
/// not written at once.
const SETTLE: Duration = Duration::from_millis(100);

impl ServerTls {
    /// Has the files read every `interval`, and put to use as [`reload`](Self::reload) does it when they have changed
    /// and then stayed the same for 100 ms: so it does not matter which of a certificate and its key is written first.
    /// A change that cannot be used is logged once. A second call replaces the first one's interval.
    ///
    /// The watching ends with the last clone of this handle, servers' included, and with the runtime.
    ///
    /// The contents are compared, not the times of the files, so that this works on every file system and however a file
    /// is replaced; for files of the usual size an `interval` of 1 s costs nothing worth mentioning.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] outside of a tokio runtime.
    pub fn watch(&self, interval: Duration) -> Result<(), Error> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(Error::new(ErrorKind::Config, "files can only be watched in a tokio runtime"));
        };
        if !self.shared.has_files() {
            return Ok(());
        }
        let task = runtime.spawn(watch(Arc::downgrade(&self.shared), interval.max(SHORTEST)));
        if let Some(before) = lock(&self.shared.watcher).replace(task.abort_handle()) {
            before.abort();
        }
        Ok(())
    }
}

/// What has been seen of the files.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The last contents that were dealt with, well or not.
    done: Mark,
    /// Contents that have to last a little longer.
    unsettled: Option<Mark>,
}

async fn watch(shared: Weak<Shared>, interval: Duration) {
    let Some(mut seen) = shared.upgrade().map(|shared| Seen { done: shared.made_of(), unsettled: None }) else {
        return;
    };
    loop {
        let pause = if seen.unsettled.is_some() { SETTLE.min(interval) } else { interval };
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        // files can be slow, and this may be the thread of connections
        match tokio::task::spawn_blocking(move || look(&shared, seen)).await {
            Ok(now) => seen = now,
            Err(_) => return,
        }
    }
}

fn look(shared: &Shared, mut seen: Seen) -> Seen {
    let _one = lock(&shared.reloading);
    let contents = shared.read();
    let mark = Mark::of(&contents);
    if mark == seen.done {
        seen.unsettled = None;
    } else if seen.unsettled == Some(mark) {
        // an error has been logged, and nothing is different until the files are
        let _ = shared.replace(&contents);
        seen = Seen { done: mark, unsettled: None };
    } else {
        seen.unsettled = Some(mark);
    }
    seen
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(dir: &std::path::Path) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (chain, key) = (own.pem(), key.serialize_pem());
        std::fs::write(dir.join("chain.pem"), &chain).unwrap();
        std::fs::write(dir.join("key.pem"), &key).unwrap();
        (chain, key)
    }

    #[test]
    fn a_change_is_dealt_with_once_and_when_it_has_lasted() {
        let dir = tempfile::TempDir::new().unwrap();
        let dir = dir.path();
        write(dir);
        let tls = ServerTls::from_pem_files(dir.join("chain.pem"), dir.join("key.pem")).build().unwrap();
        let used = || tls.shared.made_of();
        let (first, seen) = (used(), Seen { done: used(), unsettled: None });
        let seen = look(&tls.shared, seen);
        assert!(seen.unsettled.is_none(), "nothing has changed");

        let (chain, key) = write(dir);
        let seen = look(&tls.shared, seen);
        assert!(seen.unsettled.is_some() && used() == first, "it may be half of a change");
        std::fs::write(dir.join("key.pem"), "torn").unwrap();
        let seen = look(&tls.shared, seen);
        assert!(seen.unsettled.is_some() && used() == first, "it is another change");
        let seen = look(&tls.shared, seen);
        assert!(seen.unsettled.is_none() && used() == first, "it is of no use, and that has been said");
        let again = look(&tls.shared, seen);
        assert!(again.unsettled.is_none() && again.done == seen.done, "and is not said again");

        std::fs::write(dir.join("key.pem"), &key).unwrap();
        let seen = look(&tls.shared, look(&tls.shared, again));
        assert!(used() != first && used() == seen.done);
        assert_eq!(std::fs::read_to_string(dir.join("chain.pem")).unwrap(), chain);
    }
}
