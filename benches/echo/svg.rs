//! The picture: a panel for each scenario, a bar for each server, as a multiple of the hand-written loop.

use std::fmt::Write;

use crate::peers::{BY_HAND, HYTHE};
use crate::table::Results;

const COLUMNS: usize = 3;
/// Of a panel; names, bars and figures beside each other.
const WIDTH: f64 = 300.0;
const NAMES: f64 = 92.0;
const BARS: f64 = 150.0;
/// Of a bar with the space below it, and of what else a panel has.
const BAR: f64 = 15.0;
const HEADING: f64 = 34.0;
const MARGIN: f64 = 16.0;
/// What a bar shows at most.
const MOST: f64 = 3.0;

const STYLE: &str = "\
text{font:11px system-ui,sans-serif;fill:#57606a}.h{font-weight:600;font-size:12px;fill:#24292f}.p{fill:#8c959f}\
.y{fill:#0969da}.b{fill:#57606a}.n{font-weight:600;fill:#0969da}line{stroke:#d0d7de}\
@media(prefers-color-scheme:dark){text{fill:#9198a1}.h{fill:#f0f6fc}.p{fill:#656c76}.y{fill:#4493f8}.b{fill:#9198a1}\
.n{fill:#4493f8}line{stroke:#3d444d}}";

struct Panel {
    title: String,
    /// Names and multiples, the least first.
    bars: Vec<(String, f64)>,
}

fn panel(results: &Results) -> Option<Panel> {
    let base = results.cost(BY_HAND)?;
    let mut bars: Vec<(String, f64)> = results
        .peers
        .iter()
        .filter_map(|(peer, _)| Some((peer.name.clone(), results.cost(&peer.name)? / base)))
        .collect();
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    Some(Panel { title: results.scenario.to_string(), bars })
}

/// All of it in words, for those who cannot see it.
fn description(panels: &[Panel]) -> String {
    let mut text = String::from("Cost as a multiple of a hand-written tokio loop.");
    for panel in panels {
        let bars: Vec<String> = panel.bars.iter().map(|(name, multiple)| format!("{name} {multiple:.2}")).collect();
        let _ = write!(text, " {}: {}.", panel.title, bars.join(", "));
    }
    text
}

/// `None` where nothing was measured beside the hand-written loop.
pub(crate) fn draw(all: &[Results]) -> Option<String> {
    let panels: Vec<Panel> = all.iter().filter_map(panel).filter(|panel| panel.bars.len() > 1).collect();
    if panels.is_empty() {
        return None;
    }
    let (mut body, mut top) = (String::new(), 40.0);
    for row in panels.chunks(COLUMNS) {
        let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        for (column, panel) in row.iter().enumerate() {
            let _ =
                write!(body, "<g transform=\"translate({:.0} {top:.0})\">", column as f64 * (WIDTH + MARGIN) + MARGIN);
            draw_panel(&mut body, panel);
            body.push_str("</g>\n");
        }
        top += HEADING + bars as f64 * BAR + MARGIN;
    }
    let width = COLUMNS as f64 * (WIDTH + MARGIN) + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {top:.0}\" role=\"img\" aria-labelledby=\"t d\">\n\
         <title id=\"t\">What a message costs in hythe and in other frameworks</title>\n<desc id=\"d\">{}</desc>\n\
         <style>{STYLE}</style>\n",
        escape(&description(&panels))
    );
    let _ = writeln!(
        text,
        "<text x=\"{MARGIN}\" y=\"22\">CPU time of the server for each message (memory, where connections are idle), as a \
         multiple of a hand-written tokio loop: less is better</text>"
    );
    text.push_str(&body);
    text.push_str("</svg>\n");
    Some(text)
}

fn draw_panel(body: &mut String, panel: &Panel) {
    let unit = BARS / MOST;
    let bottom = HEADING - 8.0 + panel.bars.len() as f64 * BAR;
    let _ = write!(body, "<text class=\"h\" y=\"12\">{}</text>", escape(&panel.title));
    let one = NAMES + unit;
    let _ = write!(body, "<line x1=\"{one:.0}\" y1=\"{:.0}\" x2=\"{one:.0}\" y2=\"{bottom:.0}\"/>", HEADING - 12.0);
    for (i, (name, multiple)) in panel.bars.iter().enumerate() {
        let y = HEADING - 8.0 + i as f64 * BAR;
        let class = match name.as_str() {
            HYTHE => "y",
            BY_HAND => "b",
            _ => "p",
        };
        let label = if class == "y" { " class=\"n\"" } else { "" };
        let length = multiple.min(MOST) * unit;
        let more = if *multiple > MOST { "» " } else { "" };
        let figure = if *multiple < 10.0 { format!("{multiple:.2}") } else { format!("{multiple:.0}") };
        let _ = write!(
            body,
            "<text{label} x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{NAMES:.0}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"11\" rx=\"2\"/>\
             <text{label} x=\"{:.1}\" y=\"{:.0}\">{more}{figure}</text>",
            NAMES - 6.0,
            y + 9.5,
            escape(name),
            // not across the line
            NAMES + length.max(unit) + 5.0,
            y + 9.5,
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
