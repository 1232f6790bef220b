//! What is measured: the servers, the scenarios, the bars.

use std::fmt;

/// A server that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A tokio loop written for the purpose; the others are compared with it.
    Hand,
    Hythe,
    /// The canonical loop over tokio-util's `Framed`.
    Framed,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Hand, Self::Hythe, Self::Framed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hand => "hand-written",
            Self::Hythe => "hythe",
            Self::Framed => "Framed",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Tcp, Self::Unix];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Unix => "Unix",
        }
    }
}

/// What a server does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Gives it back.
    Echo,
    /// Gives it to every connection, also to the one it came from.
    FanOut,
}

impl Service {
    pub(crate) const ALL: [Self; 2] = [Self::Echo, Self::FanOut];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::FanOut => "fan-out",
        }
    }
}

/// What the load generator does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Every connection keeps so many frames in flight.
    Echo { connections: usize, size: usize, in_flight: usize },
    /// One member sends; so many frames at most are short of full delivery.
    FanOut { members: usize, size: usize, in_flight: usize },
    /// Connections that do nothing, or have echoed one frame of 64 bytes.
    Idle { connections: usize, touched: bool },
}

/// What hythe is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// CPU time per message, as a multiple of the hand-written server's.
    Ratio(f64),
    /// Resident memory per connection, in KiB.
    KiB(f64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) transport: Transport,
    pub(crate) load: Load,
    pub(crate) bar: Option<Bar>,
}

impl Scenario {
    pub(crate) fn service(&self) -> Service {
        match self.load {
            Load::FanOut { .. } => Service::FanOut,
            _ => Service::Echo,
        }
    }

    pub(crate) fn peers(&self) -> &'static [Peer] {
        match self.service() {
            Service::Echo => &Peer::ALL,
            // for this there is no canonical loop
            Service::FanOut => &[Peer::Hand, Peer::Hythe],
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.load, Load::Idle { .. })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |size: usize| match size {
            0..1024 => format!("{size} B"),
            _ => format!("{} KiB", size / 1024),
        };
        write!(f, "{}, ", self.transport.name())?;
        match self.load {
            Load::Echo { connections: n, size, in_flight } => {
                write!(f, "{n} × {}, {in_flight} in flight", bytes(size))
            }
            Load::FanOut { members, size, in_flight } => {
                write!(f, "fan-out {members} × {}, {in_flight} in flight", bytes(size))
            }
            Load::Idle { connections: n, touched: false } => write!(f, "{n} idle, never used"),
            Load::Idle { connections: n, touched: true } => write!(f, "{n} idle, after one echo"),
        }
    }
}

/// All scenarios, with so many idle connections.
pub(crate) fn scenarios(idle: usize) -> Vec<Scenario> {
    use Transport::{Tcp, Unix};
    let echo = |transport, connections, size, in_flight, bar: Option<f64>| Scenario {
        transport,
        load: Load::Echo { connections, size, in_flight },
        bar: bar.map(Bar::Ratio),
    };
    let fan_out = |in_flight| Scenario {
        transport: Tcp,
        load: Load::FanOut { members: 200, size: 64, in_flight },
        bar: Some(Bar::Ratio(1.0)),
    };
    let silent = |touched| Scenario {
        transport: Tcp,
        load: Load::Idle { connections: idle, touched },
        bar: Some(Bar::KiB(4.0)),
    };
    vec![
        echo(Tcp, 50, 64, 1, Some(1.08)),
        echo(Unix, 50, 64, 1, Some(1.08)),
        echo(Tcp, 50, 64, 64, Some(1.5)),
        echo(Unix, 50, 64, 64, Some(1.5)),
        echo(Tcp, 50, 16 << 10, 4, Some(1.0)),
        echo(Tcp, 1, 64, 1, None),
        fan_out(1),
        fan_out(16),
        silent(false),
        silent(true),
    ]
}
