//! The servers that are compared: those of this program, and those of other programs that a list names.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::plan::{Scenario, Service, Transport};

pub(crate) const BY_HAND: &str = "hand-written";
pub(crate) const WITH_BYTES: &str = "with Bytes";
pub(crate) const HYTHE: &str = "hythe";

/// A server of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// A tokio loop written for the purpose; the others are compared with it. It knows frames, and no messages: all
    /// whole frames of a read are one copy.
    Hand,
    /// The same with a `Bytes` for each message, as one who does something with messages would write it.
    HandBytes,
    Hythe,
    /// hythe with a batched codec: all messages that arrived together at once, borrowed.
    HytheBatched,
    /// The canonical loop over tokio-util's `Framed`: `next`, `send`.
    Framed,
    /// The same with `feed` for as long as there are messages, then `flush`.
    FramedFeed,
}

impl Own {
    pub(crate) const ALL: [Self; 6] =
        [Self::Hand, Self::Hythe, Self::HytheBatched, Self::HandBytes, Self::Framed, Self::FramedFeed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hand => BY_HAND,
            Self::HandBytes => WITH_BYTES,
            Self::Hythe => HYTHE,
            Self::HytheBatched => "hythe, batched",
            Self::Framed => "Framed",
            Self::FramedFeed => "Framed, feed",
        }
    }

    fn serves(self, scenario: &Scenario) -> bool {
        let alone = matches!(self, Self::Hand | Self::Hythe);
        alone || (scenario.service() == Service::Echo && matches!(scenario.transport, Transport::Tcp | Transport::Unix))
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Own(Own),
    /// `COMMAND MODE PATH`, and the modes it knows. It tells where it listens, and ends with its standard input.
    Other {
        command: Vec<String>,
        modes: Vec<String>,
    },
}

/// A server that is compared.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// It has to run so long before it is as fast as it gets.
    pub(crate) warm_up: Duration,
    kind: Kind,
}

impl Peer {
    pub(crate) fn own() -> Vec<Self> {
        Own::ALL.map(|own| Self { name: own.name().to_owned(), warm_up: Duration::ZERO, kind: Kind::Own(own) }).to_vec()
    }

    /// From a list that `benches/peers/build` has written: a line for each, with tabs: name, modes, the least
    /// warm-up in seconds, command.
    pub(crate) fn listed(list: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))?;
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let peer = |line: &str| {
            let mut fields = line.split('\t');
            let (name, modes) = (fields.next()?.to_owned(), words(fields.next()?));
            let warm_up = Duration::from_secs(fields.next()?.parse().ok()?);
            Some(Self { name, warm_up, kind: Kind::Other { command: words(fields.next()?), modes } })
        };
        text.lines().map(|line| peer(line).with_context(|| format!("{line:?}"))).collect()
    }

    pub(crate) fn serves(&self, scenario: &Scenario) -> bool {
        match &self.kind {
            Kind::Own(own) => own.serves(scenario),
            Kind::Other { modes, .. } => modes.iter().any(|mode| mode == scenario.mode()),
        }
    }

    /// Whether its server tells the CPU time it has used.
    pub(crate) fn tells(&self) -> bool {
        matches!(self.kind, Kind::Own(_))
    }

    /// Program and arguments.
    pub(crate) fn command(&self, scenario: &Scenario, socket: &Path) -> Result<Vec<String>> {
        let socket = socket.display().to_string();
        Ok(match &self.kind {
            Kind::Own(own) => {
                let program = std::env::current_exe()?.display().to_string();
                let (service, transport) = (scenario.service().name(), scenario.transport.name());
                let args = ["--serve", own.name(), service, transport, socket.as_str()];
                std::iter::once(program).chain(args.map(str::to_owned)).collect()
            }
            Kind::Other { command, .. } => {
                let mut command = command.clone();
                command.extend([scenario.mode().to_owned(), socket]);
                command
            }
        })
    }
}
