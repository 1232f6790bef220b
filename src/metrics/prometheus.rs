//! Where Prometheus finds what is measured.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::http::{self, Exchange, HEAD, Refused, Request};
use super::names;
use crate::connection::{CloseReason, Connection};
use crate::endpoint::{Endpoint, EndpointError};
use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::server::{Running, Server};
use crate::sync::lock;

/// The upper bounds of the buckets of [`names::HANDLING`], in seconds: from handlers that only compute to those that ask
/// others.
const HANDLING: [f64; 15] = [1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// Those of [`names::HANDSHAKE`]: from a PROXY header to what is cut by [`Limits::handshake`].
const HANDSHAKE: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Installs a recorder for Prometheus, and serves what it knows at `endpoint`: `GET /metrics` has the text format in the
/// answer. What others tell the facade `metrics` is in it as well; their histograms are summaries.
///
/// The server has limits of its own, small ones, and stops when what is returned is dropped; the recorder stays. A further
/// call serves the same at another endpoint. Who asks is not asked who it is: bind it where only those come who may know.
///
/// ```no_run
/// # async fn example() -> Result<(), hythe::Error> {
/// let _metrics = hythe::metrics::prometheus("tcp://127.0.0.1:9100").await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the endpoint cannot be bound, or another recorder is installed already: then there is [`prometheus_with`].
pub async fn prometheus(endpoint: impl TryInto<Endpoint, Error: Into<EndpointError>>) -> Result<Running, Error> {
    let handle = install()?;
    crate::server::set_upkeep(upkeep);
    prometheus_with(endpoint, move || handle.render()).await
}

/// As [`prometheus`], with the text of a recorder of one's own, such as one of `metrics-exporter-prometheus` with other
/// buckets. Whether that wants something done now and then is between it and its owner.
///
/// ```no_run
/// # fn text() -> String { String::new() }
/// # async fn example() -> Result<(), hythe::Error> {
/// // let handle = PrometheusBuilder::new().add_global_label("zone", "a").install_recorder()?;
/// let render = move || text(); // handle.render()
/// let _metrics = hythe::metrics::prometheus_with("tcp://127.0.0.1:9100", render).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the endpoint cannot be bound.
pub async fn prometheus_with(
    endpoint: impl TryInto<Endpoint, Error: Into<EndpointError>>,
    render: impl Fn() -> String + Send + Sync + 'static,
) -> Result<Running, Error> {
    names::describe();
    let render = Arc::new(render);
    let session = move |conn: Connection<_>| {
        let render = Arc::clone(&render);
        async move { scraped(conn, render).await }
    };
    Server::serve(session).limits(limits()).bind(endpoint, Exchange::new()).start().await
}

fn limits() -> Limits {
    let short = Duration::from_secs(5);
    Limits::tiny()
        .with_first_byte(short)
        .with_message(short)
        .with_idle(short)
        .with_write_stall(2 * short)
        .with_handling(Some(2 * short))
        .with_max_message(HEAD)
        // one answer is one message, however long it is
        .with_memory(64 << 20)
}

fn install() -> Result<PrometheusHandle, Error> {
    let mut recorder = lock(&RECORDER);
    if let Some(handle) = &*recorder {
        return Ok(handle.clone());
    }
    let built = || -> Result<_, BuildError> {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(names::HANDLING.into()), &HANDLING)?
            .set_buckets_for_metric(Matcher::Full(names::HANDSHAKE.into()), &HANDSHAKE)?
            .install_recorder()
    };
    let failed =
        |error| Error::new(ErrorKind::Config, "the recorder for Prometheus cannot be installed").because(error);
    let handle = built().map_err(|error| failed(Box::new(error)))?;
    *recorder = Some(handle.clone());
    Ok(handle)
}

/// What was measured is kept one by one until it is looked at: that must not wait for a scrape that may never come.
fn upkeep() {
    let handle = lock(&RECORDER).clone();
    if let Some(handle) = handle {
        handle.run_upkeep();
    }
}

/// One request, one answer.
async fn scraped(
    mut conn: Connection<bytes::Bytes>,
    render: Arc<impl Fn() -> String + Send + Sync + 'static>,
) -> anyhow::Result<()> {
    let request = match conn.recv().await {
        Ok(Some(head)) => http::parse(&head),
        Ok(None) => return Ok(()),
        Err(error) if error.close_reason() == Some(CloseReason::TooLarge) => Err(Refused::HeadTooLarge),
        Err(_) => return Ok(()),
    };
    let answer = match request {
        Ok(request) => text(render, request).await.unwrap_or_else(|| Refused::Failed.answer()),
        Err(refused) => refused.answer(),
    };
    conn.send(answer).await?;
    Ok(())
}

/// The text, from a thread where it may take its time; none where making it panics.
async fn text(render: Arc<impl Fn() -> String + Send + Sync + 'static>, request: Request) -> Option<bytes::Bytes> {
    let rendered = tokio::task::spawn_blocking(move || {
        crate::server::publish();
        http::answer(request, &render())
    });
    rendered.await.ok()
}
