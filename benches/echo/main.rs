//! What hythe costs beside two tokio servers: a hand-written loop, and the canonical one over tokio-util's `Framed`.
//!
//! ```text
//! cargo bench --bench echo                            # everything, in four to eight minutes
//! cargo bench --bench echo -- --only 'TCP, 50'        # scenarios whose name contains this
//! cargo bench --bench echo -- --only fan-out --rounds 9
//! cargo bench --bench echo -- --server hythe          # this one alone, for a profiler
//! cargo bench --bench echo -- --quick                 # does it work? The figures mean little
//! ```
//!
//! The cost is the server process's CPU time (user and system) for each message; for idle connections, what each adds
//! to its resident memory. The servers run on one thread each, in a process of their own, on one core; the load
//! generator runs on another core. They take turns, round by round, and the ratio is that of two neighbours: what else
//! the machine does, it does to both. Compare the ratios; the nanoseconds are this machine's. Where the load generator
//! is busy all the time, the server could answer more messages a second than it is shown to.
//!
//! `plan` says what is measured, `servers` are the servers, `load` is the load generator, `measure` has the clocks.

#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
use linux::run;

#[cfg(not(target_os = "linux"))]
fn run() -> anyhow::Result<()> {
    println!("this benchmark needs Linux: epoll and /proc");
    Ok(())
}

fn main() -> anyhow::Result<()> {
    run()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::time::Duration;

    use anyhow::{Context, Result, bail};

    use crate::measure::{self, Sample, Server};
    use crate::plan::{Peer, Scenario, Service, Transport, scenarios};
    use crate::table::Results;
    use crate::{load, servers, table};

    /// A run is repeated when one of the cores had other work for more than this part of it.
    const FOREIGN: f64 = 0.1;
    /// How often at most.
    const REPEATS: usize = 1;

    struct Options {
        only: String,
        server: Option<Peer>,
        rounds: usize,
        warm_up: Duration,
        length: Duration,
        idle: usize,
        repeats: usize,
    }

    impl Options {
        fn full() -> Self {
            let (warm_up, length) = (Duration::from_millis(300), Duration::from_secs(1));
            Self { only: String::new(), server: None, rounds: 5, warm_up, length, idle: 10_000, repeats: REPEATS }
        }

        fn quick() -> Self {
            let (warm_up, length) = (Duration::from_millis(50), Duration::from_millis(200));
            Self { rounds: 1, warm_up, length, idle: 1000, repeats: 0, ..Self::full() }
        }

        /// `cargo bench` adds `--bench`; without it, this is `cargo test`, which only wants to know whether it works.
        fn parse(args: &[String]) -> Result<Self> {
            let has = |name: &str| args.iter().any(|arg| arg == name);
            let mut options = if has("--quick") || !has("--bench") { Self::quick() } else { Self::full() };
            let mut args = args.iter();
            while let Some(arg) = args.next() {
                let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
                match arg.as_str() {
                    "--only" => options.only.clone_from(value()?),
                    "--server" => options.server = Some(peer(value()?)?),
                    "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                    "--quick" | "--bench" | "--test" => {}
                    _ => bail!("what is {arg}? There are --quick, --rounds N, --only TEXT and --server NAME"),
                }
            }
            Ok(options)
        }
    }

    fn peer(name: &str) -> Result<Peer> {
        let known = Peer::ALL.map(Peer::name).join(", ");
        Peer::ALL.into_iter().find(|peer| peer.name() == name).with_context(|| format!("the servers are {known}"))
    }

    pub(crate) fn run() -> Result<()> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--serve", peer, service, transport, socket, ref core @ ..] => {
                let service =
                    Service::ALL.into_iter().find(|known| known.name() == service).context("what service?")?;
                let transport =
                    Transport::ALL.into_iter().find(|known| known.name() == transport).context("what transport?")?;
                let core = core.first().map(|core| core.parse()).transpose()?;
                servers::run(self::peer(peer)?, service, transport, Path::new(socket), core)
            }
            _ => compare(&Options::parse(&args)?),
        }
    }

    fn compare(options: &Options) -> Result<()> {
        let cores = measure::cores()?;
        match cores {
            Some((server, load)) => {
                measure::pin(load)?;
                println!("servers on core {server}, load on core {load}");
            }
            None => println!("one core only, for servers and load: the ratios flatter the worse server"),
        }
        if cfg!(debug_assertions) {
            println!("not optimised: the figures mean nothing");
        }
        // some are for other things than connections
        let idle = options.idle.min(measure::raise_file_limit().saturating_sub(200));
        if idle < options.idle {
            println!("only {idle} idle connections: the limit of open files allows no more");
        }
        println!("medians of {} rounds of {:.1} s\n", options.rounds, options.length.as_secs_f64());
        table::head();
        let mut all = Vec::new();
        for scenario in scenarios(idle).into_iter().filter(|one| one.to_string().contains(&options.only)) {
            let results = compare_in(scenario, options, cores)?;
            results.print();
            all.push(results);
        }
        println!();
        all.iter().filter_map(Results::verdict).for_each(|verdict| println!("{verdict}"));
        let disturbed: Vec<String> = all.iter().filter_map(|results| results.disturbed(FOREIGN)).collect();
        if !disturbed.is_empty() {
            println!("\nother work on the cores ({:.0} % of the time or more):", FOREIGN * 100.0);
            disturbed.iter().for_each(|line| println!("  {line}"));
        }
        Ok(())
    }

    /// All rounds of a scenario: the servers take turns, and another one begins each time.
    fn compare_in(scenario: Scenario, options: &Options, cores: Option<(usize, usize)>) -> Result<Results> {
        let wanted = scenario.peers().iter().filter(|peer| options.server.is_none_or(|only| only == **peer));
        let mut peers: Vec<(Peer, Vec<Sample>)> = wanted.map(|peer| (*peer, Vec::new())).collect();
        for round in 0..options.rounds {
            for turn in 0..peers.len() {
                let place = (round + turn) % peers.len();
                let (peer, samples) = &mut peers[place];
                let sample = settled(*peer, scenario, options, cores);
                samples.push(sample.with_context(|| format!("{scenario}: {}", peer.name()))?);
            }
        }
        Ok(Results { scenario, peers })
    }

    /// One run, and another one if it was disturbed; the least disturbed one counts.
    fn settled(peer: Peer, scenario: Scenario, options: &Options, cores: Option<(usize, usize)>) -> Result<Sample> {
        let mut best = once(peer, scenario, options, cores)?;
        for _ in 0..options.repeats {
            if best.foreign <= FOREIGN {
                break;
            }
            let again = once(peer, scenario, options, cores)?;
            if again.foreign < best.foreign {
                best = again;
            }
        }
        Ok(best)
    }

    fn once(peer: Peer, scenario: Scenario, options: &Options, cores: Option<(usize, usize)>) -> Result<Sample> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("echo.sock");
        let mut server = Server::start(peer, scenario.service(), scenario.transport, &socket, cores)?;
        load::run(scenario.load, &mut server, options.warm_up, options.length)
    }
}
