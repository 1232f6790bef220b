//! The dashboard beside the example asks for what is told: every name of the table, and nothing else.

#![cfg(all(feature = "prometheus", feature = "tcp", feature = "udp", feature = "unix"))]
#![allow(clippy::unwrap_used)] // Tests may.

mod metrics_support;
mod support;

use std::collections::BTreeSet;

use metrics_support::documented;
use serde_json::Value;

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../examples/metrics_dashboard.json")).unwrap()
}

fn names(expr: &str) -> BTreeSet<String> {
    let words = expr.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let documented = documented();
    let histogram = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part));
        base.filter(|base| documented.get(*base).is_some_and(|(kind, _, _)| kind == "histogram")).map(str::to_owned)
    };
    words
        .filter(|word| word.starts_with("hythe_"))
        .map(|word| histogram(word).unwrap_or_else(|| word.to_owned()))
        .collect()
}

#[test]
fn the_dashboard_asks_for_what_is_documented() {
    let dashboard = dashboard();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let targets: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let asked: BTreeSet<_> = targets.iter().flat_map(|expr| names(expr)).collect();
    assert_eq!(asked, documented().into_keys().collect());
    let variable = dashboard["templating"]["list"][1]["query"].as_str().unwrap();
    assert!(names(variable).is_subset(&asked), "{variable}");
}

#[test]
fn what_it_shows_is_a_label_of_what_it_asks_for() {
    for panel in dashboard()["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let (expr, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let label = legend.split_once("{{").unwrap().1.trim_end_matches("}}");
            assert!(expr.contains(&format!("by ({label})")) || expr.contains(&format!("by (le, {label})")), "{expr}");
            for name in names(expr) {
                assert!(documented()[&name].2.contains(label), "{name} has no {label}");
            }
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let places: Vec<[u64; 4]> = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|panel| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap()))
        .collect();
    for (i, [x, y, w, h]) in places.iter().enumerate() {
        assert!(x + w <= 24);
        for [other_x, other_y, other_w, other_h] in &places[..i] {
            assert!(x + w <= *other_x || other_x + other_w <= *x || y + h <= *other_y || other_y + other_h <= *y);
        }
    }
}
