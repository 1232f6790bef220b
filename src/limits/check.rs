//! Whether limits make sense: each by itself, and together.

use super::{FOREVER, Limits};
use crate::error::{Error, ErrorKind};

impl Limits {
    /// Checked once, when a server starts or a connection is made.
    pub(crate) fn check(mut self) -> Result<Self, Error> {
        let counts = [
            ("max_connections", self.max_connections),
            ("per_address", self.per_address.unwrap_or(1)),
            ("accept_rate", self.accept_rate.unwrap_or(1) as usize),
            ("handshakes", self.handshakes),
            ("udp_per_address", self.udp_per_address.unwrap_or(1)),
            ("memory", self.memory),
            ("backlog", self.backlog as usize),
            ("max_message", self.max_message),
            ("outbox", self.outbox),
            ("udp_sessions", self.udp_sessions),
            ("udp_queue", self.udp_queue),
            ("udp_buffer", self.udp_buffer),
            ("max_datagram", self.max_datagram),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return Err(Error::new(ErrorKind::Config, format!("the limit {name} is 0; the least is 1")));
        }
        for (name, value) in [
            ("handshake", &mut self.handshake),
            ("first_byte", &mut self.first_byte),
            ("message", &mut self.message),
            ("idle", &mut self.idle),
            ("stall", &mut self.stall),
            ("write_stall", &mut self.write_stall),
            ("half_close", &mut self.half_close),
            ("drain", &mut self.drain),
            ("udp_idle", &mut self.udp_idle),
        ] {
            if value.is_zero() {
                return Err(Error::new(ErrorKind::Config, format!("the deadline {name} is 0 s; it must be longer")));
            }
            *value = (*value).min(FOREVER);
        }
        if self.handling.is_some_and(|handling| handling.is_zero()) {
            return Err(Error::new(ErrorKind::Config, "the deadline handling is 0 s; it must be longer, or None"));
        }
        for (name, value) in [("max_message", self.max_message), ("outbox", self.outbox)] {
            if self.memory < value {
                let text = format!("the limit memory, {} bytes, is less than {name}, {value} bytes", self.memory);
                return Err(Error::new(ErrorKind::Config, text));
            }
        }
        self.max_datagram = self.max_datagram.min(65_535);
        Ok(self)
    }

    /// Says what may be meant, but seldom is.
    pub(crate) fn warn(&self) {
        if let Some(files) = super::max_open_files().filter(|files| *files < self.max_connections) {
            let connections = self.max_connections;
            tracing::warn!(connections, files, "the system allows fewer open files than there may be connections");
        }
        if self.message < self.first_byte {
            let (message, first_byte) = (self.message, self.first_byte);
            tracing::warn!(?message, ?first_byte, "a whole message has less time than its first byte");
        }
    }
}
