//! What hythe costs beside tokio servers: hand-written loops, and the canonical ones over tokio-util's `Framed`. With
//! other frameworks as well, it is what `benches/run` runs.
//!
//! ```text
//! cargo bench --bench echo                            # everything, in ten to fifteen minutes
//! cargo bench --bench echo -- --only 'TCP, 50'        # scenarios whose name contains this
//! cargo bench --bench echo -- --only fan-out --rounds 9
//! cargo bench --bench echo -- --server hythe          # this one alone, for a profiler
//! cargo bench --bench echo -- --quick                 # does it work? The figures mean little
//! cargo bench --bench echo -- --syscalls              # and count system calls per message, with strace
//! cargo bench --bench echo -- --peers LIST --write benches/results
//! ```
//!
//! The cost is the server process's CPU time (user and system) for each message; for idle connections, what each adds
//! to its resident memory. The servers run on one thread each, in a process of their own, on one core; the load
//! generator runs on another core. They take turns, round by round, and the ratio is that of two neighbours: what else
//! the machine does, it does to both. Compare the ratios; the nanoseconds are this machine's. Where the load generator
//! is busy all the time, the server could answer more messages a second than it is shown to.
//!
//! The hand-written loop that the ratios are to copies whole frames and has no messages; the one `with Bytes` has.
//!
//! | file | what it has |
//! |---|---|
//! | `plan` | what is measured, and what hythe is held to |
//! | `peers` | who is compared |
//! | `servers` | the servers |
//! | `load` | the load generator |
//! | `measure`, `syscalls` | the clocks, and strace |
//! | `table`, `svg` | what is printed and drawn |

#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod svg;
#[cfg(target_os = "linux")]
mod syscalls;
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
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use anyhow::{Context, Result, bail, ensure};

    use crate::measure::{self, Sample, Server};
    use crate::peers::{Own, Peer};
    use crate::plan::{Scenario, Service, Transport, scenarios};
    use crate::syscalls::Strace;
    use crate::table::Results;
    use crate::{load, servers, svg, table};

    /// A run is repeated when one of the cores had other work for more than this part of it.
    const FOREIGN: f64 = 0.1;
    /// How often at most.
    const REPEATS: usize = 1;

    /// For how long system calls are counted, at least.
    const TRACED: Duration = Duration::from_secs(2);

    struct Options {
        only: String,
        server: Option<String>,
        /// Further servers.
        peers: Vec<Peer>,
        /// Where tables and picture go.
        write: Option<PathBuf>,
        syscalls: bool,
        rounds: usize,
        warm_up: Duration,
        length: Duration,
        idle: usize,
        repeats: usize,
    }

    impl Options {
        fn full() -> Self {
            Self {
                only: String::new(),
                server: None,
                peers: Vec::new(),
                write: None,
                syscalls: false,
                rounds: 5,
                warm_up: Duration::from_millis(300),
                length: Duration::from_secs(1),
                idle: 10_000,
                repeats: REPEATS,
            }
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
                    "--server" => options.server = Some(value()?.clone()),
                    "--peers" => options.peers = Peer::listed(Path::new(value()?))?,
                    "--write" => options.write = Some(value()?.into()),
                    "--syscalls" => options.syscalls = true,
                    "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                    "--quick" | "--bench" | "--test" => {}
                    _ => bail!(
                        "what is {arg}? There are --quick, --syscalls, --rounds N, --only TEXT, --server NAME, \
                         --peers LIST and --write FOLDER"
                    ),
                }
            }
            ensure!(!options.syscalls || Strace::is_there(), "there is no strace");
            Ok(options)
        }

        fn peers(&self, scenario: &Scenario) -> Vec<Peer> {
            let wanted = |peer: &Peer| self.server.as_ref().is_none_or(|only| *only == peer.name);
            let all = Peer::own().into_iter().chain(self.peers.iter().cloned());
            all.filter(|peer| wanted(peer) && peer.serves(scenario)).collect()
        }
    }

    pub(crate) fn run() -> Result<()> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--serve", own, service, transport, socket] => {
                let own = Own::ALL.into_iter().find(|known| known.name() == own).context("what server?")?;
                let service =
                    Service::ALL.into_iter().find(|known| known.name() == service).context("what service?")?;
                let transport =
                    Transport::ALL.into_iter().find(|known| known.name() == transport).context("what transport?")?;
                servers::run(own, service, transport, Path::new(socket))
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
        let (rounds, seconds) = (options.rounds, options.length.as_secs_f64());
        let mut report = format!("Medians of {rounds} rounds of {seconds:.1} s.\n\n") + &table::head();
        print!("{report}");
        let mut all = Vec::new();
        for scenario in scenarios(idle).into_iter().filter(|one| one.to_string().contains(&options.only)) {
            let results = compare_in(scenario, options, cores)?;
            print!("{}", results.rows());
            report += &results.rows();
            all.push(results);
        }
        let below = below(&all);
        print!("{below}");
        if let Some(folder) = &options.write {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("echo.md"), report + &below)?;
            if let Some(picture) = svg::draw(&all) {
                std::fs::write(folder.join("echo.svg"), picture)?;
            }
            println!("\nwritten to {}", folder.display());
        }
        Ok(())
    }

    /// What stands below the table.
    fn below(all: &[Results]) -> String {
        let mut text = String::new();
        let mut part = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                text += &format!("\n{title}\n\n{}\n", lines.join("\n"));
            }
        };
        let list = |lines: Vec<String>| lines.into_iter().map(|line| format!("- {line}")).collect();
        part("What hythe is held to:", list(all.iter().filter_map(Results::verdict).collect()));
        part("Datagrams lost, in all rounds:", list(all.iter().filter_map(Results::lost).collect()));
        let disturbed = all.iter().filter_map(|results| results.disturbed(FOREIGN)).collect();
        let title = format!("Runs with other work on the cores, {:.0} % of the time or more:", FOREIGN * 100.0);
        part(&title, list(disturbed));
        let calls: String = all.iter().map(Results::calls).collect();
        if !calls.is_empty() {
            let head = "| scenario | server | all | by name |\n|---|---|---|---|\n".to_owned();
            part("System calls per message:", vec![head + &calls]);
        }
        text
    }

    /// All rounds of a scenario: the servers take turns, and another one begins each time.
    fn compare_in(scenario: Scenario, options: &Options, cores: Option<(usize, usize)>) -> Result<Results> {
        let mut peers: Vec<(Peer, Vec<Sample>)> =
            options.peers(&scenario).into_iter().map(|peer| (peer, Vec::new())).collect();
        for round in 0..options.rounds {
            for turn in 0..peers.len() {
                let place = (round + turn) % peers.len();
                let (peer, samples) = &mut peers[place];
                match settled(peer, &scenario, options, cores) {
                    Ok(sample) => samples.push(sample),
                    // somebody else's server may fail; ours may not
                    Err(error) if !peer.tells() => println!("{scenario}: {}: {error:#}", peer.name),
                    Err(error) => return Err(error).with_context(|| format!("{scenario}: {}", peer.name)),
                }
            }
        }
        if options.syscalls && !scenario.is_idle() {
            for (peer, samples) in &mut peers {
                // a run of its own
                let calls = once(peer, &scenario, options, cores, true).map(|sample| sample.calls);
                match (calls, samples.first_mut()) {
                    (Ok(calls), Some(first)) => first.calls = calls,
                    (Err(error), _) => println!("{scenario}: {}: strace: {error:#}", peer.name),
                    _ => {}
                }
            }
        }
        Ok(Results { scenario, peers })
    }

    /// One run, and another one if it was disturbed; the least disturbed one counts.
    fn settled(peer: &Peer, scenario: &Scenario, options: &Options, cores: Option<(usize, usize)>) -> Result<Sample> {
        let mut best = once(peer, scenario, options, cores, false)?;
        for _ in 0..options.repeats {
            if best.foreign <= FOREIGN {
                break;
            }
            let again = once(peer, scenario, options, cores, false)?;
            if again.foreign < best.foreign {
                best = again;
            }
        }
        Ok(best)
    }

    fn once(
        peer: &Peer,
        scenario: &Scenario,
        options: &Options,
        cores: Option<(usize, usize)>,
        traced: bool,
    ) -> Result<Sample> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("echo.sock");
        let mut server = Server::start(peer, scenario, &socket, cores, traced)?;
        // strace makes everything slow
        let length = if traced { options.length.max(TRACED) } else { options.length };
        load::run(scenario.load, &mut server, options.warm_up.max(peer.warm_up), length)
    }
}
