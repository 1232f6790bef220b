//! What is measured: names, kinds, units, and a line about each. The table in the documentation of the module is the same.

use metrics::{Unit, with_recorder};

macro_rules! names {
    ($($name:ident = $text:literal: $describe:ident $unit:ident, $what:literal;)*) => {
        $(pub(crate) const $name: &str = $text;)*

        /// Tells the recorder what each of them is. One that knows already does not mind.
        pub(crate) fn describe() {
            with_recorder(|recorder| {
                $(recorder.$describe($name.into(), Some(Unit::$unit), $what.into());)*
            });
        }

        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str, &str)] = &[$(($text, stringify!($describe), stringify!($unit))),*];
    };
}

names! {
    ACCEPTED = "hythe_connections_accepted_total": describe_counter Count, "Connections and UDP sessions that were opened";
    REFUSED = "hythe_connections_refused_total": describe_counter Count, "Peers that were turned away before that";
    CLOSED = "hythe_connections_closed_total": describe_counter Count, "Connections and UDP sessions that were closed";
    OPEN = "hythe_connections_open": describe_gauge Count, "Connections and UDP sessions that are open";
    BUSY = "hythe_connections_busy": describe_gauge Count, "Of these, those whose session handles a message";
    UDP_SESSIONS = "hythe_udp_sessions": describe_gauge Count, "Of these, UDP sessions";
    BYTES_IN = "hythe_bytes_in_total": describe_counter Bytes, "Bytes read";
    BYTES_OUT = "hythe_bytes_out_total": describe_counter Bytes, "Bytes written";
    MESSAGES_IN = "hythe_messages_in_total": describe_counter Count, "Messages handed to sessions";
    MESSAGES_OUT = "hythe_messages_out_total": describe_counter Count, "Messages put into outboxes";
    OUTBOX = "hythe_outbox_bytes": describe_gauge Bytes, "Bytes that wait in all outboxes";
    OUTBOX_LARGEST = "hythe_outbox_largest_bytes": describe_gauge Bytes, "Bytes that wait in the fullest outbox";
    HANDLING = "hythe_message_handling_seconds": describe_histogram Seconds, "What sessions take over a message, sampled";
    HANDSHAKE = "hythe_handshake_seconds": describe_histogram Seconds, "What handshakes that succeed take";
    ACCEPT_ERRORS = "hythe_accept_errors_total": describe_counter Count, "Errors of accepting";
    DROPPED = "hythe_datagrams_dropped_total": describe_counter Count, "Datagrams that were lost here";
    TRUNCATED = "hythe_datagrams_truncated_total": describe_counter Count, "Datagrams over the limit, lost as well";
    RECEIVE_ERRORS = "hythe_receive_errors_total": describe_counter Count, "Errors of receiving datagrams";
    STALLS = "hythe_handler_stalls_total": describe_counter Count, "Messages that a session took too long over";
    RUNTIME_STALLS = "hythe_runtime_stalls_total": describe_counter Count, "Times that a session blocked its thread";
    HANDSHAKES = "hythe_handshakes": describe_gauge Count, "Handshakes under way";
    CONNECTIONS_LIMIT = "hythe_connections_limit": describe_gauge Count, "The limit of open connections";
    MEMORY = "hythe_memory_bytes": describe_gauge Bytes, "Bytes of all buffers";
    MEMORY_LIMIT = "hythe_memory_limit_bytes": describe_gauge Bytes, "Their limit";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_this_one() {
        let documented: Vec<(String, String, String)> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `hythe_"))
            .map(|line| {
                let mut cells = line.split('|').map(str::trim);
                let mut cell = || cells.next().unwrap_or_default().to_owned();
                (format!("hythe_{}", cell().trim_end_matches('`')), cell(), cell())
            })
            .collect();
        let unit = |unit| if unit == "Count" { String::new() } else { str::to_lowercase(unit) };
        let here: Vec<_> =
            ALL.iter().map(|(name, kind, of)| ((*name).into(), kind.replace("describe_", ""), unit(of))).collect();
        assert_eq!(documented, here);
    }
}
