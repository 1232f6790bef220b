//! The servers of this program. Each runs alone in a child process, on one thread.
//!
//! | file | what serves |
//! |---|---|
//! | `hythe` | hythe |
//! | `by_hand` | the hand-written loops, and those over tokio-util's `Framed` |
//! | `tls` | both of them, encrypted |

mod by_hand;
mod hythe;
#[cfg(feature = "tls")]
mod tls;

use std::io::{self, BufRead, Write};
use std::path::Path;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::peers::Own;
use crate::plan::{Service, Transport};

/// The child's whole life: serves until its standard input ends, which it does when the parent is gone, too.
pub(crate) fn run(own: Own, service: Service, transport: Transport, socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = socket.to_path_buf();
    runtime.block_on(async move {
        match (service, transport) {
            _ if own == Own::Hythe => hythe::run(service, transport, &socket).await,
            _ if own == Own::HytheBatched => hythe::batched(transport, &socket).await,
            (Service::Echo, Transport::Udp) => by_hand::datagrams().await,
            #[cfg(feature = "tls")]
            (Service::Echo, Transport::Tls) => tls::by_hand(&socket).await,
            _ => by_hand::streams(own, service, transport, &socket).await,
        }
    })
}

/// Says where the server listens, and from then on answers each line with the CPU time used so far, in nanoseconds.
/// On a thread of its own, which costs the server two wake-ups a run.
fn ready(address: &str) -> Result<()> {
    println!("{address}");
    io::stdout().flush()?;
    std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
        let mut line = String::new();
        while io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            println!("{}", time.tv_sec * 1_000_000_000 + time.tv_nsec);
            line.clear();
        }
        std::process::exit(0);
    })?;
    Ok(())
}
