//! Room for descriptors, made before it is needed.

use std::fs::File;
use std::io;

/// Beyond its connections: listeners, logs, whatever else the process has open.
const OTHERS: usize = 64;
/// No more room than this: whoever names a limit that will never be reached is not to pay for it.
const MOST: usize = 1 << 20;

/// Has the kernel make the process's table of descriptors large enough for so many connections.
///
/// Linux doubles that table when a descriptor does not fit into it. In a process with threads, the one that wants the
/// descriptor then waits until every core has been through the scheduler (`expand_fdtable` calls `synchronize_rcu`): some 10
/// ms, and far more on a busy machine, in which a thread of the runtime serves nobody, at 64, 128, 256, … connections. The
/// table never shrinks, so one descriptor with a high number, closed again, is enough. It takes 8 bytes for each.
pub(crate) fn make_room(connections: usize) {
    let Ok(file) = File::open("/dev/null") else { return };
    let mut number = i32::try_from(connections.saturating_add(OTHERS).min(MOST)).unwrap_or(0);
    // numbers end at the limit of open files
    while number > 0 {
        match rustix::io::fcntl_dupfd_cloexec(&file, number) {
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::InvalidInput => number /= 2,
            _ => return,
        }
    }
}
