//! The limits as text, for whoever runs the server.

use std::fmt;

use super::{Limits, Overload};

impl fmt::Display for Limits {
    /// One line for each limit: its name, its value with the unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |value: usize| value.to_string();
        let off = |value: Option<usize>| value.map_or("off".into(), |value| value.to_string());
        let overload = match &self.overload {
            Overload::Hold => "hold in the backlog".into(),
            Overload::Reset => "reset".into(),
            Overload::Answer(answer) => format!("answer {} bytes and close", answer.len()),
        };
        let lines = [
            ("max_connections", count(self.max_connections)),
            ("per_address", off(self.per_address)),
            ("accept_rate", self.accept_rate.map_or("off".into(), |rate| format!("{rate}/s"))),
            ("overload", overload),
            ("backlog", self.backlog.to_string()),
            ("handshakes", count(self.handshakes)),
            ("handshake", format!("{:?}", self.handshake)),
            ("first_byte", format!("{:?}", self.first_byte)),
            ("message", format!("{:?}", self.message)),
            ("idle", format!("{:?}", self.idle)),
            ("handling", self.handling.map_or("off".into(), |time| format!("{time:?}"))),
            ("stall", format!("{:?}", self.stall)),
            ("write_stall", format!("{:?}", self.write_stall)),
            ("half_close", format!("{:?}", self.half_close)),
            ("drain", format!("{:?}", self.drain)),
            ("max_message", bytes(self.max_message)),
            ("outbox", bytes(self.outbox)),
            ("memory", bytes(self.memory)),
            ("udp_sessions", count(self.udp_sessions)),
            ("udp_per_address", off(self.udp_per_address)),
            ("udp_idle", format!("{:?}", self.udp_idle)),
            ("udp_queue", count(self.udp_queue)),
            ("udp_buffer", bytes(self.udp_buffer)),
            ("max_datagram", bytes(self.max_datagram)),
            ("worst_case_memory", bytes(self.worst_case_memory())),
        ];
        for (i, (name, value)) in lines.iter().enumerate() {
            let end = if i + 1 < lines.len() { "\n" } else { "" };
            write!(f, "{name:<18} {value}{end}")?;
        }
        Ok(())
    }
}

fn bytes(value: usize) -> String {
    match value {
        _ if value >= 1 << 20 && value % (1 << 20) == 0 => format!("{} MiB", value >> 20),
        _ if value >= 1 << 10 && value % (1 << 10) == 0 => format!("{} KiB", value >> 10),
        _ => format!("{value} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_shown() {
        // the names of the fields, as the compiler knows them
        let debug = format!("{:?}", Limits::edge());
        let fields = debug.trim_start_matches("Limits { ").split(", ").filter_map(|field| field.split_once(": "));
        let shown = Limits::edge().to_string();
        for (name, _) in fields {
            assert!(shown.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in\n{shown}");
        }
        assert!(shown.contains("max_message        1 MiB\n"), "{shown}");
    }
}
