//! What is counted in whole servers.

/// What a server does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Gives it back.
    Echo,
    /// The same with datagrams.
    Datagrams,
    /// Gives it to all members.
    FanOut,
    /// Gives it back, without hythe: when this changes, then tokio or the compiler did.
    ByHand,
}

/// One server under one load. The load writes a burst, reads all that is due, and does so again: what the server does
/// then does not depend on which of the two is faster.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) name: &'static str,
    pub(crate) service: Service,
    pub(crate) endpoint: &'static str,
    pub(crate) connections: u64,
    pub(crate) size: usize,
    /// Messages in one write.
    pub(crate) burst: u64,
    /// Bursts that are counted.
    pub(crate) bursts: u64,
    /// A connection for each burst.
    pub(crate) fresh: bool,
}

impl Counted {
    /// Bursts before those that are counted.
    pub(crate) const WARM_UP: u64 = 32;

    /// The message at which the count begins.
    pub(crate) fn begin(&self) -> u64 {
        // before that, each member has said hello
        let hellos = if self.service == Service::FanOut { self.connections } else { 0 };
        hellos + Self::WARM_UP * self.burst
    }

    pub(crate) fn end(&self) -> u64 {
        self.begin() + self.bursts * self.burst
    }

    /// What the instructions are shared among: messages, or deliveries.
    pub(crate) fn messages(&self) -> u64 {
        let members = if self.service == Service::FanOut { self.connections } else { 1 };
        self.bursts * self.burst * members
    }
}

pub(crate) fn servers() -> [Counted; 9] {
    const TCP: &str = "tcp://127.0.0.1:0";
    let echo = Counted {
        name: "",
        service: Service::Echo,
        endpoint: TCP,
        connections: 1,
        size: 64,
        burst: 1,
        bursts: 500,
        fresh: false,
    };
    let many = Counted { burst: 64, bursts: 200, ..echo };
    let fan_out = Counted { service: Service::FanOut, connections: 50, bursts: 100, ..echo };
    [
        Counted { name: "server, TCP: 64 B, 1 in flight", ..echo },
        Counted { name: "server, TCP: 64 B, 64 in flight", ..many },
        Counted { name: "server, TCP: 1 KiB, 16 in flight", size: 1024, burst: 16, ..many },
        Counted { name: "server, TCP: connect, 64 B, close", fresh: true, ..echo },
        Counted {
            name: "server, UDP: 64 B, 1 in flight",
            service: Service::Datagrams,
            endpoint: "udp://127.0.0.1:0",
            ..echo
        },
        Counted { name: "fan-out to 50, TCP: 64 B, 1 in flight", ..fan_out },
        Counted { name: "fan-out to 50, TCP: 64 B, 16 in flight", burst: 16, ..fan_out },
        Counted { name: "by hand, TCP: 64 B, 1 in flight", service: Service::ByHand, ..echo },
        Counted { name: "by hand, TCP: 64 B, 64 in flight", service: Service::ByHand, ..many },
    ]
}
