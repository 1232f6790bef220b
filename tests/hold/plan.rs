//! The scenarios, the options, and how they are run.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::machine::{self, Load};
use crate::report::{self, Report};
use crate::{burst, claims, errno, flood, panics, serve, sigterm, slow, worst_case};

/// A scenario that misses a bar while other work took more than this part of a core is run once more.
const FOREIGN: f64 = 0.1;

/// What every scenario is told.
pub(crate) struct Plan {
    /// Scaled down: 10 s at most.
    pub(crate) quick: bool,
    /// The server's and the clients' core, where there are two.
    pub(crate) cores: Option<(usize, usize)>,
    /// Options for the server, after its scenario's own: `backlog=128`.
    pub(crate) overrides: Vec<String>,
}

impl Plan {
    /// The one in a full run, the other in a quick one.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    pub(crate) fn seconds(&self, full: f64, quick: f64) -> Duration {
        Duration::from_secs_f64(self.pick(full, quick))
    }
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    about: &'static str,
    run: fn(&Plan, &mut Report) -> Result<()>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "slow", about: "idle and byte-a-second connections", run: slow::run },
    Scenario { name: "flood", about: "three times as many connects as the limit", run: flood::run },
    Scenario { name: "burst", about: "a burst of connects while the runtime is stalled", run: burst::run },
    Scenario { name: "claims", about: "connections that claim the largest message", run: claims::run },
    Scenario { name: "worst_case", about: "every connection holds what it may", run: worst_case::run },
    Scenario { name: "errno", about: "each error of accepting, injected", run: errno::run },
    Scenario { name: "panics", about: "panics in each callback", run: panics::run },
    Scenario { name: "sigterm", about: "SIGTERM under acknowledged messages", run: sigterm::run },
    #[cfg(feature = "handover")]
    Scenario { name: "handover", about: "one process after the other under load", run: crate::handover::run },
    #[cfg(feature = "tls")]
    Scenario { name: "tls_half", about: "half TLS handshakes", run: crate::tls_half::run },
    #[cfg(feature = "tls")]
    Scenario { name: "cert_swap", about: "certificates replaced under load", run: crate::cert_swap::run },
];

pub(crate) fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == serve::ROLE) {
        return serve::run(args.get(1..).unwrap_or_default());
    }
    let mut plan = Plan { quick: false, cores: machine::cores()?, overrides: Vec::new() };
    let mut wanted: Vec<&str> = Vec::new();
    for arg in &args {
        match arg.as_str() {
            "--quick" => plan.quick = true,
            "--list" => {
                SCENARIOS.iter().for_each(|scenario| println!("{:8} {}", scenario.name, scenario.about));
                return Ok(());
            }
            option if option.contains('=') => plan.overrides.push(option.to_owned()),
            name if SCENARIOS.iter().any(|scenario| scenario.name == name) => wanted.push(name),
            _ => bail!("what is {arg}? There are --quick, --list, name=value for the server, and the scenarios' names"),
        }
    }
    machine::raise_file_limit();
    machine::presize_descriptors(10_000)?;
    match plan.cores {
        Some((server, clients)) => {
            machine::pin(&[clients])?;
            println!("server on core {server}, clients on core {clients}");
        }
        None => println!("one core only, for server and clients: what the clients cost is the server's as well"),
    }
    if cfg!(debug_assertions) {
        println!("not optimised: the figures are worse than they need be");
    }
    for feature in missing() {
        println!("built without the feature {feature}: its scenarios are left out");
    }
    let mut all = Vec::new();
    for scenario in SCENARIOS.iter().filter(|one| wanted.is_empty() || wanted.contains(&one.name)) {
        all.push(settled(scenario, &plan)?);
    }
    report::table(&all);
    let missed = all.iter().filter(|report| !report.is_met()).count();
    if missed > 0 {
        bail!("{missed} of {} scenarios missed a bar", all.len());
    }
    Ok(())
}

/// The features that scenarios need and this program was built without.
fn missing() -> impl Iterator<Item = &'static str> {
    let features = [("handover", cfg!(feature = "handover")), ("tls", cfg!(feature = "tls"))];
    features.into_iter().filter(|(_, there)| !there).map(|(feature, _)| feature)
}

/// Runs a scenario; once more where it missed a bar on a machine that was busy with something else.
fn settled(scenario: &Scenario, plan: &Plan) -> Result<Report> {
    let (report, foreign) = once(scenario, plan)?;
    if report.is_met() || foreign <= FOREIGN {
        return Ok(report);
    }
    println!("{}: missed, with other work on the machine; once more", scenario.name);
    let (mut report, _) = once(scenario, plan)?;
    report.note("the second run: the first missed a bar while the machine had other work");
    Ok(report)
}

fn once(scenario: &Scenario, plan: &Plan) -> Result<(Report, f64)> {
    println!("\n## {}: {}", scenario.name, scenario.about);
    let (begin, load) = (Instant::now(), Load::now()?);
    let mut report = Report::new(scenario.name, plan.quick);
    if let Err(error) = (scenario.run)(plan, &mut report) {
        report.row("could not be run to its end", format!("{error:#}"), "no error", false);
    }
    let foreign = Load::now()?.foreign_since(&load, begin.elapsed());
    println!("took {:.1} s; other work on the machine: {:.2} of a core", begin.elapsed().as_secs_f64(), foreign);
    Ok((report, foreign))
}
