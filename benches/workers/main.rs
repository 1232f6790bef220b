//! What more threads bring: the same server with 1 and with 2 of them, as workers of its own and on tokio's multi-thread
//! runtime.
//!
//! ```text
//! cargo bench --bench workers                  # in about two minutes
//! cargo bench --bench workers -- --threads 8   # 1 and 8 threads
//! cargo bench --bench workers -- --rounds 5 --secs 3
//! cargo bench --bench workers -- --quick       # does it work? The figures mean little
//! ```
//!
//! The servers are processes of their own and take turns, round by round; each figure is the median of its rounds. The
//! load generator is one thread, nobody is pinned, and the cores are the kernel's to share out. So the machine needs one
//! core more than the server has threads, for the load; where it has not, the loads without work show the load generator
//! beside the server, and those with work, next to which the load is small, show what is left of the gain. `CPU` is the
//! server's, user and system: what it grows by is what the threads cost each other.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark needs Linux: epoll and /proc");
}

#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod servers;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Write;
    use std::time::Duration;

    use anyhow::{Context, Result, bail};

    use crate::load::{Load, Sample, run};
    use crate::servers::{Kind, Server, serve, work};

    /// What is asked of the servers: with how much work a message, in microseconds, over how many connections.
    const LOADS: [Load; 4] = [
        Load { name: "echo, 64 B x 64 connections, 1 in flight", work: 0, connections: 64, in_flight: 1 },
        Load { name: "echo, 64 B x 64 connections, 64 in flight", work: 0, connections: 64, in_flight: 64 },
        Load { name: "20 us of work a message, 64 connections", work: 20, connections: 64, in_flight: 4 },
        Load { name: "200 us of work a message, 64 connections", work: 200, connections: 64, in_flight: 1 },
    ];

    struct Options {
        threads: usize,
        rounds: usize,
        length: Duration,
    }

    pub(crate) fn main() -> Result<()> {
        let mut args = std::env::args().skip(1);
        let mut options = Options { threads: 2, rounds: 3, length: Duration::from_millis(2000) };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
            match &*arg {
                "--server" => return serve(&value()?, value()?.parse()?, value()?.parse()?),
                "--threads" => options.threads = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--secs" => options.length = Duration::from_secs_f64(value()?.parse()?),
                "--quick" => (options.rounds, options.length) = (1, Duration::from_millis(200)),
                "--bench" => {}
                _ => bail!("what is {arg}?"),
            }
        }
        let steps = work::calibrate();
        let cores = std::thread::available_parallelism()?;
        println!("{cores} cores; {} rounds of {:?}\n", options.rounds, options.length);
        for load in &LOADS {
            table(load, steps, &options)?;
        }
        Ok(())
    }

    fn table(load: &Load, steps_per_us: u64, options: &Options) -> Result<()> {
        let kinds = [Kind::PerCore, Kind::MultiThread];
        let plan: Vec<_> = kinds.iter().flat_map(|kind| [1, options.threads].map(|threads| (*kind, threads))).collect();
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); plan.len()];
        for _ in 0..options.rounds {
            for ((kind, threads), samples) in plan.iter().zip(&mut samples) {
                let server = Server::start(*kind, *threads, steps_per_us * load.work)?;
                samples.push(run(load, &server, options.length)?);
            }
        }
        println!("{}", load.name);
        println!("  {:<22} {:>7} {:>12} {:>14} {:>9}", "", "threads", "messages/s", "CPU us/message", "to one");
        let mut one = 0.0;
        for ((kind, threads), samples) in plan.iter().zip(&samples) {
            let rate = median(samples.iter().map(|sample| sample.rate));
            let cpu = median(samples.iter().map(|sample| sample.cpu));
            if *threads == 1 {
                one = rate;
            }
            println!("  {:<22} {threads:>7} {rate:>12.0} {cpu:>14.2} {:>8.2}x", kind.name(), rate / one);
        }
        println!();
        std::io::stdout().flush()?;
        Ok(())
    }

    fn median(figures: impl Iterator<Item = f64>) -> f64 {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }
}
