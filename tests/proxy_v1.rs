//! PROXY protocol, version 1: what is a header, what is none, and what the error says then.
#![allow(clippy::unwrap_used)] // Tests may.

mod proxy_support;

use hythe::proxy::{LinePart, Progress, ProxiedAddresses, ProxyError, ProxyHeader};
use proxy_support::{accept, addr, cut, refuse};

fn line(text: &str) -> (std::net::SocketAddr, std::net::SocketAddr) {
    let proxied = accept(text.as_bytes());
    assert_eq!(proxied.version(), 1);
    assert_eq!(proxied.tlvs().count(), 0);
    (proxied.source().unwrap(), proxied.destination().unwrap())
}

#[test]
fn the_example_of_the_specification_is_read_up_to_its_end() {
    let input = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
    let Ok(Progress::Done(proxied, 47)) = cut(input) else { panic!() };
    assert_eq!(proxied.source(), Some(addr("192.168.0.1:56324")));
    assert_eq!(proxied.destination(), Some(addr("192.168.0.11:443")));
    assert_eq!(proxied.to_string(), "192.168.0.1:56324 to 192.168.0.11:443 (PROXY version 1)");
    assert!(!proxied.is_local() && !proxied.is_datagrams());
}

#[test]
fn the_longest_lines_of_the_specification_are_taken() {
    let max = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let text = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert_eq!((text.len(), line(text).0), (56, addr("255.255.255.255:65535")));
    let text = format!("PROXY TCP6 {max} {max} 65535 65535\r\n");
    assert_eq!((text.len(), line(&text).1), (104, addr(&format!("[{max}]:65535"))));
    let text = format!("PROXY UNKNOWN {max} {max} 65535 65535\r\n");
    assert_eq!(text.len(), 107);
    assert_eq!(accept(text.as_bytes()).addresses(), &ProxiedAddresses::Unknown);
    // 6 groups and dots, which only inet_ntop writes, up to 107 bytes.
    let text = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255 ::ffff:255.255.255.255 65535 65535\r\n";
    assert_eq!(line(text).1, addr("[::ffff:255.255.255.255]:65535"));
}

#[test]
fn the_shortest_lines_are_taken() {
    assert_eq!(line("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n").0, addr("0.0.0.0:0"));
    assert_eq!(line("PROXY TCP6 :: :: 0 0\r\n").0, addr("[::]:0"));
    accept(b"PROXY UNKNOWN\r\n");
}

#[test]
fn every_form_of_an_address_is_taken() {
    for text in ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::8", "2001:DB8::aF"] {
        assert_eq!(line(&format!("PROXY TCP6 {text} {text} 0 1\r\n")).0, addr(&format!("[{text}]:0")));
    }
    for text in ["0.0.0.0", "1.2.3.4", "127.0.0.1", "255.0.10.100"] {
        assert_eq!(line(&format!("PROXY TCP4 {text} {text} 10 9999\r\n")).1, addr(&format!("{text}:9999")));
    }
}

#[test]
fn of_an_unknown_connection_the_rest_of_the_line_is_ignored() {
    for text in ["", " ", " TCP4", "  1.2.3.4 a b c d e f g h", " \0\t\x7f\u{fffd}", " PROXY TCP4 1.2.3.4 1.2.3.4 1 1"]
    {
        let proxied = accept(format!("PROXY UNKNOWN{text}\r\n").as_bytes());
        assert_eq!(proxied.addresses(), &ProxiedAddresses::Unknown);
        assert_eq!((proxied.source(), proxied.is_local()), (None, false));
    }
}

/// What the error about a line says: the part, where it begins, and what was seen of it.
fn fault(input: &[u8]) -> (LinePart, usize, String) {
    match refuse(input) {
        ProxyError::Line { part, at, seen } => (part, at, seen.as_str().to_owned()),
        error => panic!("{}: {error:?}", input.escape_ascii()),
    }
}

#[test]
fn a_line_that_is_not_exactly_so_is_refused() {
    use LinePart::{Destination, DestinationPort, End, Protocol, Source, SourcePort};
    for (text, part, at, seen) in [
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", Protocol, 6, " "),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", Protocol, 6, "t"),
        ("PROXY TCP 1.2.3.4 1.2.3.4 1 1\r\n", Protocol, 6, "TCP "),
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", Protocol, 6, "TCP5"),
        ("PROXY TCP46 1.2.3.4 1.2.3.4 1 1\r\n", Protocol, 6, "TCP46"),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", Protocol, 6, "UD"),
        ("PROXY UNKNOWNS\r\n", Protocol, 6, "UNKNOWNS"),
        ("PROXY \r\n", Protocol, 6, "\\r"),
        ("PROXY TCP4\r\n", Protocol, 6, "TCP4\\r"),
        ("PROXY TCP4 \r\n", Source, 11, "\\r"),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", Source, 11, " "),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", Source, 11, "1.2.3 "),
        ("PROXY TCP4 1.2.3.4.5 1.2.3.4 1 1\r\n", Source, 11, "1.2.3.4.5 "),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n", Source, 11, "1.2.3.256 "),
        ("PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n", Source, 11, "01.2.3.4 "),
        ("PROXY TCP4 0x1.2.3.4 1.2.3.4 1 1\r\n", Source, 11, "0x"),
        ("PROXY TCP4 ::1 1.2.3.4 1 1\r\n", Source, 11, ":"),
        ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 1\r\n", Source, 11, "1.2.3.4\\t"),
        ("PROXY TCP4 1000.2000.3000.4000 1.2.3.4 1 1\r\n", Source, 11, "1000.2000.3000.4"),
        ("PROXY TCP6 1.2.3.4 ::1 1 1\r\n", Source, 11, "1.2.3.4 "),
        ("PROXY TCP6 ::g ::1 1 1\r\n", Source, 11, "::g"),
        ("PROXY TCP6 1::2::3 ::1 1 1\r\n", Source, 11, "1::2::3 "),
        ("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 1\r\n", Source, 11, "1:2:3:4:5:6:7 "),
        ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 1\r\n", Source, 11, "1:2:3:4:5:6:7:8:9 "),
        ("PROXY TCP6 12345:: ::1 1 1\r\n", Source, 11, "12345:: "),
        ("PROXY TCP6 fe80::1%2 ::1 1 1\r\n", Source, 11, "fe80::1%"),
        ("PROXY TCP6 [::1] ::1 1 1\r\n", Source, 11, "["),
        ("PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n", Destination, 19, " "),
        ("PROXY TCP4 1.2.3.4 ::1 1 1\r\n", Destination, 19, ":"),
        ("PROXY TCP6 ::1 1.2.3.4 1 1\r\n", Destination, 15, "1.2.3.4 "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4\r\n", Destination, 19, "1.2.3.4\\r"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", SourcePort, 27, "01 "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 00 1\r\n", SourcePort, 27, "00 "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +80 1\r\n", SourcePort, 27, "+"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n", SourcePort, 27, "-"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n", SourcePort, 27, " "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", SourcePort, 27, "65536 "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 100000 1\r\n", SourcePort, 27, "100000"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", SourcePort, 27, "1\\r"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", DestinationPort, 29, "\\r"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", DestinationPort, 29, "99999\\r"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 010\r\n", DestinationPort, 29, "010\\r"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", DestinationPort, 29, "1 "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", DestinationPort, 29, "1 "),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\nGET", DestinationPort, 29, "1\\n"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n", End, 30, "\\r\\r"),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\rX", End, 30, "\\rX"),
        ("PROXY UNKNOWN\n\r\n", Protocol, 6, "UNKNOWN\\n"),
        ("PROXY UNKNOWN \nGET / HTTP/1.1\r\n", End, 14, "\\n"),
        ("PROXY UNKNOWN a\rb\r\n", End, 15, "\\rb"),
        ("PROXY UNKNOWN\r\r\n", End, 13, "\\r\\r"),
    ] {
        assert_eq!(fault(text.as_bytes()), (part, at, seen.to_owned()), "{text:?}");
    }
    assert_eq!(fault(b"PROXY TCP4 1.2.3.\xff 1.2.3.4 1 1\r\n"), (Source, 11, "1.2.3.\\xff".to_owned()));
    assert_eq!(fault(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\0\r\n"), (DestinationPort, 29, "1\\x00".to_owned()));
}

#[test]
fn a_line_of_more_than_107_bytes_is_refused() {
    let ignored = "x".repeat(107 - "PROXY UNKNOWN \r\n".len());
    accept(format!("PROXY UNKNOWN {ignored}\r\n").as_bytes());
    for text in [
        format!("PROXY UNKNOWN {ignored}x\r\n"),
        format!("PROXY UNKNOWN {ignored}xx\r\n"),
        format!("PROXY UNKNOWN {}", "x".repeat(9999)),
        // Of TCP6 no line can be so long but with dots in both addresses.
        format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"),
    ] {
        let error = refuse(text.as_bytes());
        assert_eq!(error.limit_and_seen(), Some((107, 108)), "{text:?}");
        assert_eq!(error.to_string(), "PROXY header too long: limit 107 bytes, seen 108");
    }
}

#[test]
fn other_protocols_are_no_header() {
    for (input, byte) in [
        (&b"GET / HTTP/1.1\r\n"[..], 0),
        (b"POST / HTTP/1.1\r\n", 1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 2),
        (b"PROXX", 4),
        (b"PROXY\tTCP4", 5),
        (b"PROXYTCP4", 5),
        (b" PROXY TCP4", 0),
        (b"proxy tcp4", 0),
        (b"\x16\x03\x01\x02\x00\x01", 0),
        (b"\0", 0),
        (b"\n", 0),
        (b"\r\n\r\nGET", 4),
        (b"\r\n\r\n\0\r\nQUIT\r", 11),
    ] {
        let error = refuse(input);
        assert!(matches!(error, ProxyError::NotProxy { at, .. } if at == byte), "{}: {error:?}", input.escape_ascii());
    }
}

#[test]
fn what_a_stranger_sent_is_shown_escaped_and_cut() {
    let error = refuse(b"GET /\x1b[31m\xff\"");
    assert_eq!(error.to_string(), r#"not a PROXY header from byte 0 on: "GET /\x1b[31m\xff\"""#);
    let error = refuse(&[b'a'; 500]);
    let ProxyError::NotProxy { seen, .. } = &error else { panic!("{error:?}") };
    assert_eq!(seen.as_str(), format!("{}…", "a".repeat(64)));
    let ProxyError::NotProxy { seen, .. } = refuse(&[0xff; 500]) else { panic!() };
    assert_eq!(seen.as_str(), format!("{}…", "\\xff".repeat(16)));
}

#[test]
fn a_line_written_is_as_the_specification_has_it() {
    for (source, destination, expected) in [
        ("192.0.2.1:1", "192.0.2.2:65535", "PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\n"),
        ("[2001:db8::1]:1", "[::]:2", "PROXY TCP6 2001:db8::1 :: 1 2\r\n"),
        ("[fe80::1%3]:1", "[::1]:2", "PROXY TCP6 fe80::1 ::1 1 2\r\n"),
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        ("192.0.2.1:1", "[2001:db8::1]:2", "PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n"),
        ("[2001:db8::1]:1", "[::ffff:192.0.2.2]:2", "PROXY TCP6 2001:db8::1 ::ffff:c000:202 1 2\r\n"),
    ] {
        let header = ProxyHeader::v1(addr(source), addr(destination)).to_bytes().unwrap();
        assert_eq!(header, expected);
        accept(&header);
    }
    assert_eq!(ProxyHeader::v1_unknown().to_bytes().unwrap(), "PROXY UNKNOWN\r\n");
}
