//! Figures, the bars they are held against, and the table.

use std::fmt::Display;
use std::time::Duration;

/// What one scenario showed.
pub(crate) struct Report {
    name: &'static str,
    quick: bool,
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: String,
    figure: String,
    bar: String,
    /// Nothing where it could not be looked at.
    met: Option<bool>,
}

impl Report {
    pub(crate) fn new(name: &'static str, quick: bool) -> Self {
        Self { name, quick, rows: Vec::new(), notes: Vec::new() }
    }

    /// A figure, its bar, and whether it holds.
    pub(crate) fn row(&mut self, what: impl Into<String>, figure: impl Display, bar: impl Display, met: bool) {
        let row = Row { what: what.into(), figure: figure.to_string(), bar: bar.to_string(), met: Some(met) };
        println!("{} {}: {} (bar: {})", if met { "met   " } else { "MISSED" }, row.what, row.figure, row.bar);
        self.rows.push(row);
    }

    pub(crate) fn at_most<T: PartialOrd + Display>(&mut self, what: impl Into<String>, figure: T, bar: T) {
        let met = figure <= bar;
        self.row(what, figure, format!("≤ {bar}"), met);
    }

    pub(crate) fn exactly<T: PartialEq + Display>(&mut self, what: impl Into<String>, figure: T, bar: T) {
        let met = figure == bar;
        self.row(what, figure, bar, met);
    }

    pub(crate) fn within(&mut self, what: impl Into<String>, figure: Duration, bar: Duration) {
        self.row(what, millis(figure), format!("≤ {}", millis(bar)), figure <= bar);
    }

    /// The bar of a latency that was `before`. A quick run has a few hundred samples, and a machine that others use: there
    /// it finds an attack that gets through, not one that is felt.
    pub(crate) fn latency(&self, bar: Duration, before: Duration) -> Duration {
        if self.quick { bar.max(before * 10).max(before + Duration::from_millis(30)) } else { bar }
    }

    /// Something to know that is held against no bar.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("       {note}");
        self.notes.push(note);
    }

    /// What cannot be looked at here, and why. That is no failure, but it is seen.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Display) {
        let row = Row { what: what.into(), figure: why.to_string(), bar: String::new(), met: None };
        println!("SKIPPED {}: {}", row.what, row.figure);
        self.rows.push(row);
    }

    pub(crate) fn is_met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }
}

pub(crate) fn millis(duration: Duration) -> String {
    match duration.as_secs_f64() * 1000.0 {
        millis @ ..100.0 => format!("{millis:.2} ms"),
        millis => format!("{millis:.0} ms"),
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// All reports as a Markdown table, and the notes below it.
pub(crate) fn table(reports: &[Report]) {
    println!("\n| scenario | figure | bar | met |\n|---|---|---|---|");
    for report in reports {
        for Row { what, figure, bar, met } in &report.rows {
            let met = met.map_or("skipped", |met| if met { "yes" } else { "**NO**" });
            println!("| {}: {what} | {figure} | {bar} | {met} |", report.name);
        }
    }
    println!();
    for report in reports {
        report.notes.iter().for_each(|note| println!("- {}: {note}", report.name));
    }
}
