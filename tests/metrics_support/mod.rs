//! To scrape, and to read what was scraped, strictly: as
//! <https://prometheus.io/docs/instrumenting/exposition_formats/> has it.
#![allow(dead_code, clippy::unwrap_used)] // Each test crate uses its own part.

use std::collections::{BTreeMap, BTreeSet};

use hythe::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::within;

/// The table of names in the documentation: name, kind, unit, labels.
pub(crate) fn documented() -> BTreeMap<String, (String, String, BTreeSet<String>)> {
    let lines = include_str!("../../src/metrics/mod.rs").lines();
    let rows = lines.filter(|line| line.starts_with("//! | `hythe_"));
    let words = |cell: &str| cell.split(", ").map(|word| word.trim().trim_matches('`').to_owned()).collect();
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), cells[3].to_owned(), words(cells[4])))
    })
    .collect()
}

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

#[derive(Debug)]
pub(crate) struct Scraped(pub(crate) BTreeMap<String, Family>);

impl Scraped {
    /// The sum of the samples of this name that have these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |of: &Labels| labels.iter().all(|(label, value)| of.get(*label).is_some_and(|other| other == value));
        let samples = self.0.values().flat_map(|family| &family.samples);
        let found: Vec<f64> =
            samples.filter(|(of, its, _)| of == name && has(its)).map(|(_, _, value)| *value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    !text.is_empty() && text.chars().all(is_part) && !text.starts_with(|char: char| char.is_ascii_digit())
}

/// `name="value",…` without the braces.
fn labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("no label: {text:?}"));
        assert!(is_name(name), "{name:?}");
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, char) in rest.char_indices() {
            match (escaped, char) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(char),
                (true, _) => panic!("an unknown escape: {text:?}"),
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (false, _) => value.push(char),
            }
            escaped = !escaped && char == '\\';
        }
        let end = end.unwrap_or_else(|| panic!("no end: {text:?}"));
        assert!(labels.insert(name.into(), value).is_none(), "twice: {text:?}");
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

pub(crate) fn parse(text: &str) -> Scraped {
    assert!(text.ends_with('\n') || text.is_empty(), "the last line has to end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.entry(name.into()).or_default().help = help.into();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let family = families.entry(name.into()).or_default();
            assert!(is_name(name) && family.kind.is_empty() && family.samples.is_empty(), "{line:?}");
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line:?}");
            family.kind = kind.into();
            current = name.into();
        } else {
            assert!(!line.starts_with('#'), "{line:?}");
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, inner) = match series.split_once('{') {
                Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
                None => (series, ""),
            };
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("of no family: {line:?}"));
            let parts: &[&str] = match &*family.kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            assert!(parts.iter().any(|part| *name == format!("{current}{part}")), "of another family: {line:?}");
            assert!(seen.insert(series.to_owned()), "twice: {line:?}");
            family.samples.push((name.into(), labels(inner), value));
        }
    }
    Scraped(families)
}

/// Sends bytes, and reads all there is: the head of the answer, and its body.
pub(crate) async fn exchange(running: &Running, request: &[u8]) -> (String, String) {
    let to = running.endpoints()[0].socket_addr().unwrap();
    let mut stream = within("a connection", TcpStream::connect(to)).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let length: usize = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    assert!(body.len() == length || (request.starts_with(b"HEAD") && body.is_empty()), "{head}");
    (head.into(), body.into())
}

pub(crate) async fn scrape(running: &Running) -> Scraped {
    let (head, body) = exchange(running, b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    parse(&body)
}
