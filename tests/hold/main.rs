//! What has to hold on an untrusted network, each against a server in a process of its own, with its figure.
//!
//! ```text
//! cargo test --release --all-features --test hold                       # everything, in about seven minutes
//! cargo test --release --all-features --test hold -- slow flood         # these scenarios alone
//! cargo test --release --all-features --test hold -- --quick            # scaled down: at most 10 s each, latencies wider
//! cargo test --release --all-features --test hold -- --list
//! cargo test --release --all-features --test hold -- burst backlog=128  # a server made worse: is it noticed?
//! ```
//!
//! It ends with a table, and with an error where a bar is missed. The server has one core and the clients another, where
//! there are two: what an attack costs its clients must not be taken for what it costs the server. Honest traffic is 20
//! connections with 200 requests of 64 bytes a second each, sent when they are due, whether or not the answers before
//! have come, and timed from when they were due; the bar is against the same figure just before the attack.
//!
//! | file | what it is |
//! |---|---|
//! | `plan` | the list of scenarios, the options, how they are run |
//! | `report` | figures against their bars, and the table |
//! | `process` | the server's process: started, asked, looked at from outside |
//! | `serve` | what runs in that process |
//! | `honest` | the honest traffic |
//! | `crowd`, `wire` | thousands of clients on one thread; the messages |
//! | `secure` | clients of TLS |
//! | `machine` | cores, limits, clocks |
//! | every other | a scenario |

#[cfg(target_os = "linux")]
mod burst;
#[cfg(all(target_os = "linux", feature = "tls"))]
mod cert_swap;
#[cfg(target_os = "linux")]
mod claims;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod errno;
#[cfg(target_os = "linux")]
mod flood;
#[cfg(all(target_os = "linux", feature = "handover"))]
mod handover;
#[cfg(target_os = "linux")]
mod honest;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod panics;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod report;
#[cfg(all(target_os = "linux", feature = "tls"))]
mod secure;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod sigterm;
#[cfg(target_os = "linux")]
mod slow;
#[cfg(all(target_os = "linux", feature = "tls"))]
mod tls_half;
#[cfg(target_os = "linux")]
mod wire;
#[cfg(target_os = "linux")]
mod worst_case;

#[cfg(target_os = "linux")]
use plan::run;

#[cfg(not(target_os = "linux"))]
fn run() -> anyhow::Result<()> {
    println!("this needs Linux: epoll and /proc");
    Ok(())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
