//! The servers, each a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hythe::codec::LengthDelimited;
use hythe::server::workers::Workers;
use hythe::{Bytes, Connection, Handler, Limits, Server as HytheServer};
use tokio::runtime::Builder;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    PerCore,
    MultiThread,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerCore => "Workers::PerCore",
            Self::MultiThread => "multi-thread runtime",
        }
    }
}

/// A part of a handler's work, the same however busy the cores are.
pub(crate) mod work {
    use std::hint::black_box;
    use std::time::Instant;

    pub(crate) fn run(steps: u64) {
        let mut state = black_box(1_u64);
        for _ in 0..steps {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        black_box(state);
    }

    /// How many steps take a microsecond here, where nothing else wants the core.
    pub(crate) fn calibrate() -> u64 {
        let steps = 2_000_000;
        let took = |_| {
            let begin = Instant::now();
            run(steps);
            begin.elapsed().as_secs_f64() * 1e6
        };
        let least = (0..20).map(took).fold(f64::INFINITY, f64::min);
        (steps as f64 / least).max(1.0) as u64
    }
}

#[derive(Clone)]
struct Working(u64);

impl Handler for Working {
    type In = Bytes;
    type Out = Bytes;

    async fn on_message(&mut self, conn: &mut Connection<Bytes>, message: Bytes) -> Result<()> {
        work::run(self.0);
        conn.send(message).await?;
        Ok(())
    }
}

/// In the other process: serves until it is killed, or nobody is there who would.
pub(crate) fn serve(kind: &str, threads: usize, steps: u64) -> Result<()> {
    let (runtime, workers) = match kind {
        "percore" => (Builder::new_current_thread().enable_all().build()?, Workers::per_core().threads(threads).into()),
        "multi" => (Builder::new_multi_thread().worker_threads(threads).enable_all().build()?, Workers::Ambient),
        _ => bail!("what is {kind}?"),
    };
    runtime.block_on(async {
        let running = HytheServer::new(Working(steps))
            .limits(Limits::internal())
            .workers(workers)
            .bind("tcp://127.0.0.1:0", LengthDelimited::new())
            .start()
            .await?;
        println!("{}", running.endpoints()[0].to_string().replace("tcp://", ""));
        let parent = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        parent.await??;
        Ok(())
    })
}

pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Server {
    pub(crate) fn start(kind: Kind, threads: usize, steps: u64) -> Result<Self> {
        let kind = match kind {
            Kind::PerCore => "percore",
            Kind::MultiThread => "multi",
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--server", kind, &threads.to_string(), &steps.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let addr = line.trim().parse().context("the server does not start")?;
        Ok(Self { child, addr })
    }

    /// What it has used of the cores.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        // each thread's is counted in nanoseconds, and none of them ends in the meantime
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            total += text.split(' ').next().context("no time")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
