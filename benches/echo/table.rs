//! The table, and the verdicts below it.

use crate::measure::Sample;
use crate::plan::{Bar, Peer, Scenario};

/// What the rounds of one scenario gave, for each server.
pub(crate) struct Results {
    pub(crate) scenario: Scenario,
    pub(crate) peers: Vec<(Peer, Vec<Sample>)>,
}

const HEAD: [&str; 8] =
    ["scenario", "server", "cost (min–max)", "× hand-written (min–max)", "messages/s", "p50 µs", "p99 µs", "load"];
const WIDTHS: [usize; 8] = [38, 12, 25, 24, 10, 7, 7, 5];

pub(crate) fn head() {
    line(&HEAD.map(str::to_owned));
    line(&WIDTHS.map(|width| "-".repeat(width)));
}

fn line(cells: &[String]) {
    let cells: Vec<String> = cells.iter().zip(WIDTHS).map(|(cell, width)| format!(" {cell:width$} ")).collect();
    println!("|{}|", cells.join("|"));
}

impl Results {
    /// A row for each server: medians of the rounds, the least and the most in parentheses.
    pub(crate) fn print(&self) {
        for (i, (peer, samples)) in self.peers.iter().enumerate() {
            let scenario = if i == 0 { self.scenario.to_string() } else { String::new() };
            let cost = Spread::of(samples.iter().map(|sample| sample.cost));
            let mut cells = vec![scenario, peer.name().to_owned(), self.cost(cost), ratio(self.ratios(*peer))];
            if !self.scenario.is_idle() {
                let median = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).median;
                cells.push(count(median(|sample| sample.rate)));
                cells.push(format!("{:.1}", median(|sample| sample.p50)));
                cells.push(format!("{:.1}", median(|sample| sample.p99)));
                cells.push(format!("{:.0} %", 100.0 * median(|sample| sample.load)));
            }
            cells.resize(HEAD.len(), String::new());
            line(&cells);
        }
    }

    fn cost(&self, Spread { median, least, most }: Spread) -> String {
        if self.scenario.is_idle() {
            let kib = 1024.0;
            return format!("{:.2} KiB ({:.2}–{:.2})", median / kib, least / kib, most / kib);
        }
        match median {
            1000.0.. => format!("{:.2} µs ({:.2}–{:.2})", median / 1e3, least / 1e3, most / 1e3),
            _ => format!("{median:.0} ns ({least:.0}–{most:.0})"),
        }
    }

    /// A server's cost as a multiple of the hand-written one's in the same round.
    fn ratios(&self, peer: Peer) -> Option<Spread> {
        let of = |wanted| self.peers.iter().find(|(peer, _)| *peer == wanted).map(|(_, samples)| samples);
        let pairs = of(peer)?.iter().zip(of(Peer::Hand)?);
        Some(Spread::of(pairs.map(|(sample, hand)| sample.cost / hand.cost)))
    }

    /// Whether hythe is where it has to be.
    pub(crate) fn verdict(&self) -> Option<String> {
        let (_, samples) = self.peers.iter().find(|(peer, _)| *peer == Peer::Hythe)?;
        let (figure, met) = match self.scenario.bar? {
            Bar::Ratio(bar) => {
                let ratio = self.ratios(Peer::Hythe)?.median;
                (format!("{ratio:.2} × hand-written, bar {bar:.2}"), (ratio * 100.0).round() <= bar * 100.0)
            }
            Bar::KiB(bar) => {
                let kib = Spread::of(samples.iter().map(|sample| sample.cost)).median / 1024.0;
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
