//! What is measured: the scenarios, and what hythe is held to in them.

use std::fmt;

use crate::peers::{BY_HAND, WITH_BYTES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
    Udp,
    /// TCP with TLS; only hythe and the hand-written loop, and only with the feature.
    Tls,
}

impl Transport {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Unix, Self::Udp, Self::Tls];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Unix => "Unix",
            Self::Udp => "UDP",
            Self::Tls => "TLS",
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
    /// Every socket keeps so many datagrams in flight.
    Datagrams { sockets: usize, size: usize, in_flight: usize },
    /// So many at a time connect, echo one frame and close.
    Connect { at_once: usize, size: usize },
    /// One member sends; so many frames at most are short of full delivery.
    FanOut { members: usize, size: usize, in_flight: usize },
    /// Connections that do nothing, or have echoed one frame of 64 bytes.
    Idle { connections: usize, touched: bool },
}

/// What hythe is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// CPU time per message, as a multiple of that of the server with this name.
    Ratio(&'static str, f64),
    /// Resident memory per connection, in KiB.
    KiB(f64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) transport: Transport,
    pub(crate) load: Load,
    pub(crate) bar: Bar,
}

impl Scenario {
    pub(crate) fn service(&self) -> Service {
        match self.load {
            Load::FanOut { .. } => Service::FanOut,
            _ => Service::Echo,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.load, Load::Idle { .. })
    }

    /// What servers of other programs call it.
    pub(crate) fn mode(&self) -> &'static str {
        match (self.service(), self.transport) {
            (Service::FanOut, _) => "fan-out",
            (_, Transport::Tcp) => "tcp",
            (_, Transport::Unix) => "unix",
            (_, Transport::Udp) => "udp",
            (_, Transport::Tls) => "tls",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |size: usize| match size {
            size if size >= 1024 && size % 1024 == 0 => format!("{} KiB", size / 1024),
            _ => format!("{size} B"),
        };
        write!(f, "{}, ", self.transport.name())?;
        match self.load {
            Load::Echo { connections: n, size, in_flight } | Load::Datagrams { sockets: n, size, in_flight } => {
                write!(f, "{n} × {}, {in_flight} in flight", bytes(size))
            }
            Load::Connect { size, .. } => write!(f, "connect, {}, close", bytes(size)),
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
    use Transport::{Tcp, Tls, Udp, Unix};
    let echo = |transport, connections, size, in_flight, bar| Scenario {
        transport,
        load: Load::Echo { connections, size, in_flight },
        bar: Bar::Ratio(BY_HAND, bar),
    };
    let datagrams = |size| Scenario {
        transport: Udp,
        load: Load::Datagrams { sockets: 16, size, in_flight: 32 },
        bar: Bar::Ratio(BY_HAND, 1.0),
    };
    let fan_out = |in_flight, bar| Scenario {
        transport: Tcp,
        load: Load::FanOut { members: 200, size: 64, in_flight },
        bar: Bar::Ratio(BY_HAND, bar),
    };
    let connect =
        Scenario { transport: Tcp, load: Load::Connect { at_once: 16, size: 64 }, bar: Bar::Ratio(BY_HAND, 1.05) };
    let silent = |transport, touched, kib| Scenario {
        transport,
        load: Load::Idle { connections: idle, touched },
        bar: Bar::KiB(kib),
    };
    let mut all = vec![
        echo(Tcp, 1, 64, 1, 1.04),
        echo(Tcp, 50, 64, 1, 1.04),
        Scenario { bar: Bar::Ratio(WITH_BYTES, 1.3), ..echo(Tcp, 50, 64, 64, 0.0) },
        echo(Tcp, 50, 16 << 10, 4, 0.9),
        echo(Tcp, 1000, 256, 1, 1.04),
        connect,
        echo(Unix, 1, 64, 1, 1.04),
        echo(Unix, 50, 64, 1, 1.04),
        Scenario { bar: Bar::Ratio(WITH_BYTES, 1.3), ..echo(Unix, 50, 64, 64, 0.0) },
        datagrams(64),
        datagrams(1200),
        fan_out(1, 0.97),
        fan_out(16, 0.85),
        silent(Tcp, false, 1.5),
        silent(Tcp, true, 1.5),
    ];
    if cfg!(feature = "tls") {
        all.push(silent(Tls, true, 20.0));
    }
    all.retain(|scenario| match scenario.transport {
        Tcp => cfg!(feature = "tcp"),
        Unix => cfg!(feature = "unix"),
        Udp => cfg!(feature = "udp"),
        Tls => true,
    });
    all
}
