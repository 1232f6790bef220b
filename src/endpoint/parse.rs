//! From text to an endpoint: the scheme, and who reads the rest.

use super::error::{Flaw, quoted};
use super::{Endpoint, EndpointPart, HostPort, MemName, PassedSocket, UnixAddress};

/// Schemes that hythe is going to have, and that people try. `quic:443` must not be taken for the
/// port 443 of a host named `quic`.
const NOT_YET: [&str; 12] =
    ["exec", "http", "https", "npipe", "pipe", "quic", "shm", "ssl", "stdio", "vsock", "ws", "wss"];

pub(super) fn parse(text: &str) -> Result<Endpoint, Flaw> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(no_scheme(text));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "tcp" => host_port("tcp", rest).map(Endpoint::Tcp),
        "tls" => host_port("tls", rest).map(Endpoint::Tls),
        "udp" => host_port("udp", rest).map(Endpoint::Udp),
        "unix" => UnixAddress::parse(rest).map(Endpoint::Unix),
        "mem" => MemName::parse(rest).map(Endpoint::Mem),
        "fd" => PassedSocket::parse(rest).map(Endpoint::Fd),
        other => Err(other_scheme(text, other, rest)),
    }
}

/// An endpoint to show to somebody whose `input` gave no idea of what was meant.
pub(super) fn example(input: &str, part: EndpointPart) -> &'static str {
    let scheme = input.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("tls" | "ssl") => "tls://127.0.0.1:9000",
        Some("udp") => "udp://127.0.0.1:9000",
        Some("unix") if part == EndpointPart::Name && UnixAddress::ABSTRACT => "unix:@app",
        Some("unix") => "unix:///run/app.sock",
        Some("mem") => "mem:app",
        Some("fd") => "fd:3",
        _ => "tcp://127.0.0.1:9000",
    }
}

fn host_port(scheme: &str, rest: &str) -> Result<HostPort, Flaw> {
    match rest.strip_prefix("//") {
        Some(authority) => HostPort::parse(scheme, authority),
        None => Err(Flaw::new(EndpointPart::Scheme, format!("the scheme {scheme}: needs // after it"))
            .meant(format!("{scheme}://{}", rest.trim_start_matches('/')))),
    }
}

fn no_scheme(text: &str) -> Flaw {
    let text = text.trim();
    let meant = match text.chars().next() {
        Some('/') => format!("unix://{text}"),
        Some('.' | '@') => format!("unix:{text}"),
        Some(':') => format!("tcp://0.0.0.0{text}"),
        _ => format!("tcp://{text}"),
    };
    Flaw::new(EndpointPart::Scheme, "the scheme is missing").meant(meant)
}

fn other_scheme(text: &str, scheme: &str, rest: &str) -> Flaw {
    let not_yet = NOT_YET.contains(&scheme);
    if !not_yet && HostPort::parse("tcp", text.trim()).is_ok() {
        return no_scheme(text);
    }
    let mut bytes = scheme.bytes();
    let well_formed = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if well_formed {
        let problem = format!(
            "the scheme {} is not supported by this version, which has tcp, tls, udp, unix, mem and fd",
            quoted(scheme),
        );
        let flaw = Flaw::new(EndpointPart::Scheme, problem);
        if scheme == "ssl" { flaw.meant(format!("tls:{rest}")) } else { flaw }
    } else if !scheme.is_empty() && rest.starts_with("//") {
        Flaw::new(EndpointPart::Scheme, format!("{} is no scheme", quoted(scheme)))
    } else {
        no_scheme(text)
    }
}
