//! The table, and the verdicts below it.

use crate::measure::Sample;
use crate::peers::{BY_HAND, HYTHE, Peer};
use crate::plan::{Bar, Load, Scenario};

/// What the rounds of one scenario gave, for each server.
pub(crate) struct Results {
    pub(crate) scenario: Scenario,
    pub(crate) peers: Vec<(Peer, Vec<Sample>)>,
}

const HEAD: [&str; 8] =
    ["scenario", "server", "cost (min–max)", "× hand-written (min–max)", "messages/s", "p50 µs", "p99 µs", "load"];
const WIDTHS: [usize; 8] = [38, 13, 25, 24, 10, 8, 8, 5];

pub(crate) fn head() -> String {
    line(&HEAD.map(str::to_owned)) + &line(&WIDTHS.map(|width| "-".repeat(width)))
}

fn line(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().zip(WIDTHS).map(|(cell, width)| format!(" {cell:width$} ")).collect();
    format!("|{}|\n", cells.join("|"))
}

impl Results {
    /// A row for each server: medians of the rounds, the least and the most in parentheses.
    pub(crate) fn rows(&self) -> String {
        let mut rows = String::new();
        for (i, (peer, samples)) in self.peers.iter().enumerate() {
            let scenario = if i == 0 { self.scenario.to_string() } else { String::new() };
            let cost = Spread::of(samples.iter().map(|sample| sample.cost));
            let ratios = self.ratios(&peer.name, BY_HAND);
            let mut cells = vec![scenario, peer.name.clone(), self.figure(cost), ratio(ratios)];
            if samples.is_empty() {
                cells.truncate(2);
                cells.push("failed".to_owned());
            } else if !self.scenario.is_idle() {
                let median = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).median;
                cells.push(count(median(|sample| sample.rate)));
                cells.push(format!("{:.1}", median(|sample| sample.p50)));
                cells.push(format!("{:.1}", median(|sample| sample.p99)));
                cells.push(format!("{:.0} %", 100.0 * median(|sample| sample.load)));
            }
            cells.resize(HEAD.len(), String::new());
            rows += &line(&cells);
        }
        rows
    }

    /// The median of a server's cost, in nanoseconds or bytes.
    pub(crate) fn cost(&self, name: &str) -> Option<f64> {
        let samples = self.samples(name)?;
        Some(Spread::of(samples.iter().map(|sample| sample.cost)).median)
    }

    fn samples(&self, name: &str) -> Option<&[Sample]> {
        let (_, samples) = self.peers.iter().find(|(peer, _)| peer.name == name)?;
        (!samples.is_empty()).then_some(samples)
    }

    /// Datagrams that never came back.
    pub(crate) fn lost(&self) -> Option<String> {
        if !matches!(self.scenario.load, Load::Datagrams { .. }) {
            return None;
        }
        let each = self.peers.iter().map(|(peer, samples)| {
            let lost: u64 = samples.iter().map(|sample| sample.lost).sum();
            format!("{} {lost}", peer.name)
        });
        Some(format!("{}: {}", self.scenario, each.collect::<Vec<_>>().join(", ")))
    }

    /// System calls per message, where they were counted.
    pub(crate) fn calls(&self) -> String {
        let mut lines = String::new();
        for (peer, samples) in &self.peers {
            let Some(calls) = samples.iter().map(|sample| &sample.calls).find(|calls| !calls.is_empty()) else {
                continue;
            };
            let all: f64 = calls.iter().map(|(_, count)| count).sum();
            let each: Vec<String> = calls
                .iter()
                .filter(|(_, count)| *count >= 0.0005)
                .map(|(name, count)| format!("{name} {count:.3}"))
                .collect();
            lines += &format!("| {} | {} | {all:.3} | {} |\n", self.scenario, peer.name, each.join(", "));
        }
        lines
    }

    fn figure(&self, Spread { median, least, most }: Spread) -> String {
        if self.scenario.is_idle() {
            let kib = 1024.0;
            return format!("{:.2} KiB ({:.2}–{:.2})", median / kib, least / kib, most / kib);
        }
        match median {
            1000.0.. => format!("{:.2} µs ({:.2}–{:.2})", median / 1e3, least / 1e3, most / 1e3),
            _ => format!("{median:.0} ns ({least:.0}–{most:.0})"),
        }
    }

    /// A server's cost as a multiple of another one's in the same round.
    fn ratios(&self, name: &str, base: &str) -> Option<Spread> {
        let pairs = self.samples(name)?.iter().zip(self.samples(base)?);
        Some(Spread::of(pairs.map(|(sample, base)| sample.cost / base.cost)))
    }

    /// Whether hythe is where it has to be.
    pub(crate) fn verdict(&self) -> Option<String> {
        let (figure, met) = match self.scenario.bar {
            Bar::Ratio(base, bar) => {
                let ratio = self.ratios(HYTHE, base)?.median;
                (format!("{ratio:.2} × {base}, bar {bar:.2}"), (ratio * 100.0).round() <= bar * 100.0)
            }
            Bar::KiB(bar) => {
                let kib = self.cost(HYTHE)? / 1024.0;
                (format!("{kib:.2} KiB a connection, bar {bar:.2}"), kib <= bar)
            }
        };
        Some(format!("{}: {}: {figure}", if met { "met   " } else { "MISSED" }, self.scenario))
    }

    /// The rounds in which either core had other work for more than `share` of the time.
    pub(crate) fn disturbed(&self, share: f64) -> Option<String> {
        let samples: Vec<&Sample> = self.peers.iter().flat_map(|(_, samples)| samples).collect();
        let disturbed = samples.iter().filter(|sample| sample.foreign > share).count();
        (disturbed > 0).then(|| format!("{}: {disturbed} of {} runs", self.scenario, samples.len()))
    }
}

fn ratio(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { median, least, most }) => format!("{median:.2} ({least:.2}–{most:.2})"),
        None => String::new(),
    }
}

fn count(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.0} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let (low, high) = (at(values.len().saturating_sub(1) / 2), at(values.len() / 2));
        Self { median: (low + high) / 2.0, least: at(0), most: at(values.len().saturating_sub(1)) }
    }
}
