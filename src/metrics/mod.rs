//! What servers count, through the facade of the crate [`metrics`](https://docs.rs/metrics), and where Prometheus finds it.
//!
//! With the feature `metrics`, every server of the process tells the recorder that is installed what it has counted, once a
//! second and at its end. No message pays for it: what goes over a connection is counted by the connection itself, and
//! collected. A recorder that is installed after a server's start hears of what happens from then on.
//!
//! With the feature `prometheus`, one line has the recorder installed and its text served, see [`prometheus`]:
//!
//! ```no_run
//! # #[cfg(feature = "prometheus")]
//! # async fn example() -> Result<(), hythe::Error> {
//! let _metrics = hythe::metrics::prometheus("tcp://127.0.0.1:9100").await?; // GET /metrics
//! # Ok(()) }
//! ```
//!
//! The example `metrics` shows it with a server beside it, and with a dashboard for Grafana.
//!
//! # Names
//!
//! | name | kind | unit | labels | what it is |
//! |---|---|---|---|---|
//! | `hythe_connections_accepted_total` | counter | | `endpoint` | connections and UDP sessions that were opened |
//! | `hythe_connections_refused_total` | counter | | `endpoint`, `reason` | peers that were turned away before that |
//! | `hythe_connections_closed_total` | counter | | `endpoint`, `reason` | connections and UDP sessions that were closed |
//! | `hythe_connections_open` | gauge | | `endpoint` | connections and UDP sessions that are open |
//! | `hythe_connections_busy` | gauge | | `endpoint` | of these, those whose session handles a message |
//! | `hythe_udp_sessions` | gauge | | `endpoint` | of these, UDP sessions; of UDP endpoints only |
//! | `hythe_bytes_in_total` | counter | bytes | `endpoint` | bytes read, of TLS what is inside |
//! | `hythe_bytes_out_total` | counter | bytes | `endpoint` | bytes written |
//! | `hythe_messages_in_total` | counter | | `endpoint` | messages handed to sessions |
//! | `hythe_messages_out_total` | counter | | `endpoint` | messages put into outboxes |
//! | `hythe_outbox_bytes` | gauge | bytes | `endpoint` | bytes that wait in all outboxes |
//! | `hythe_outbox_largest_bytes` | gauge | bytes | `endpoint` | bytes that wait in the fullest one |
//! | `hythe_message_handling_seconds` | histogram | seconds | `endpoint` | what sessions take over a message, until they ask for the next one; of each connection the first, and then one of 64 |
//! | `hythe_handshake_seconds` | histogram | seconds | `endpoint` | what handshakes that succeed take |
//! | `hythe_accept_errors_total` | counter | | `endpoint`, `class` | errors of accepting; not of UDP endpoints |
//! | `hythe_datagrams_dropped_total` | counter | | `endpoint`, `cause` | datagrams that were lost here; of UDP endpoints only |
//! | `hythe_datagrams_truncated_total` | counter | | `endpoint` | datagrams over the limit, lost as well; of UDP endpoints only |
//! | `hythe_receive_errors_total` | counter | | `endpoint` | errors of receiving; of UDP endpoints only |
//! | `hythe_handler_stalls_total` | counter | | `endpoint` | messages that a session took longer over than [`Limits::stall`](crate::Limits::stall) |
//! | `hythe_runtime_stalls_total` | counter | | `endpoint` | times that a session kept its thread for longer than a second |
//! | `hythe_handshakes` | gauge | | `server` | handshakes under way |
//! | `hythe_connections_limit` | gauge | | `server` | [`Limits::max_connections`](crate::Limits::max_connections) |
//! | `hythe_memory_bytes` | gauge | bytes | `server` | bytes of all buffers |
//! | `hythe_memory_limit_bytes` | gauge | bytes | `server` | [`Limits::memory`](crate::Limits::memory) |
//!
//! # Labels
//!
//! | label | what it is |
//! |---|---|
//! | `endpoint` | where the server listens, as [`Running::endpoints`](crate::Running::endpoints) tells it: `tcp://127.0.0.1:9000` |
//! | `server` | the first endpoint of a server, for what all of them share |
//! | `reason` | of a refusal, [`Refusal::as_str`](crate::Refusal::as_str); of an end, [`CloseReason::as_str`](crate::CloseReason::as_str) |
//! | `class` | [`AcceptFailure::as_str`](crate::AcceptFailure::as_str) |
//! | `cause` | `queue_full`: the session's queue or the listener's buffer was; `no_session`: there was none to be had; `send_error`: the system refused it |
//!
//! There is no label with a peer in it: how many series there are is up to the operator, not to peers.

#[cfg(feature = "prometheus")]
mod http;
pub(crate) mod names;
#[cfg(feature = "prometheus")]
mod prometheus;

#[cfg(feature = "prometheus")]
pub use prometheus::{prometheus, prometheus_with};
