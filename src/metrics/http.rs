//! As much of HTTP/1.1 (RFC 9112) as it takes to be scraped: one request without a body, one answer, and the end.

use bytes::{BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::codec::{CodecError, Delimited};

/// The longest head of a request, in bytes.
pub(super) const HEAD: usize = 8 << 10;

/// Heads of requests come in, whole answers go out.
#[derive(Clone, Debug)]
pub(super) struct Exchange(Delimited);

impl Exchange {
    pub(super) fn new() -> Self {
        Self(Delimited::new(b"\r\n\r\n").max_length(HEAD))
    }
}

impl Decoder for Exchange {
    type Item = Bytes;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        self.0.decode(src)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        self.0.decode_eof(src)
    }
}

impl Encoder<Bytes> for Exchange {
    type Error = CodecError;

    fn encode(&mut self, answer: Bytes, dst: &mut BytesMut) -> Result<(), CodecError> {
        dst.reserve(answer.len());
        dst.put_slice(&answer);
        Ok(())
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Get,
    /// The same, but for the body.
    Head,
}

/// What is answered instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    BadRequest,
    NotFound,
    MethodNotAllowed,
    HeadTooLarge,
    Failed,
}

/// Reads the head of a request, without the empty line at its end.
pub(super) fn parse(head: &[u8]) -> Result<Request, Refused> {
    let head = std::str::from_utf8(head).map_err(|_| Refused::BadRequest)?;
    // RFC 9112, section 2.2: an empty line before the request is to be ignored
    let mut lines = head.strip_prefix("\r\n").unwrap_or(head).split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refused::BadRequest);
    };
    let mut hosts = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Refused::BadRequest)?;
        if !is_token(name) || value.contains(|char: char| char.is_control() && char != '\t') {
            return Err(Refused::BadRequest);
        }
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
    }
    // section 3.2: exactly one, in HTTP/1.1
    let is_version = match version {
        "HTTP/1.1" => hosts == 1,
        "HTTP/1.0" => hosts <= 1,
        _ => false,
    };
    if !is_version || !is_token(method) || target.is_empty() || target.contains(char::is_control) {
        return Err(Refused::BadRequest);
    }
    if path(target) != "/metrics" {
        return Err(Refused::NotFound);
    }
    match method {
        "GET" => Ok(Request::Get),
        "HEAD" => Ok(Request::Head),
        _ => Err(Refused::MethodNotAllowed),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// The path of a target, which may be a whole URL (RFC 9112, section 3.2.2), without the query.
fn path(target: &str) -> &str {
    let scheme = ["http://", "https://"].into_iter().find_map(|scheme| target.strip_prefix(scheme));
    let path = match scheme {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    path.split('?').next().unwrap_or(path)
}

impl Refused {
    fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Failed => "500 Internal Server Error",
        }
    }

    /// The answer that says so.
    pub(super) fn answer(self) -> Bytes {
        let status = self.status();
        // RFC 9110, section 15.5.6
        let allow = if self == Self::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        let more = format!("Content-Type: text/plain; charset=utf-8\r\n{allow}");
        whole(status, &more, &format!("{status}\n"), true)
    }
}

/// The answer with `text`, in the format of <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub(super) fn answer(request: Request, text: &str) -> Bytes {
    whole("200 OK", "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", text, request == Request::Get)
}

fn whole(status: &str, more: &str, body: &str, with_body: bool) -> Bytes {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut answer = head.into_bytes();
    if with_body {
        answer.extend_from_slice(body.as_bytes());
    }
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str) -> Result<Request, Refused> {
        parse(head.as_bytes())
    }

    #[test]
    fn what_scrapers_send_is_understood() {
        for head in [
            "GET /metrics HTTP/1.1\r\nHost: localhost:9100\r\nUser-Agent: Prometheus/3.5.0\r\nAccept: a/b;q=0.5,*/*;q=0.1",
            "GET /metrics HTTP/1.0",
            "GET /metrics?name=x HTTP/1.1\r\nhost:",
            "GET http://example.org:9100/metrics HTTP/1.1\r\nHost: example.org:9100",
            "\r\nGET /metrics HTTP/1.1\r\nHost: a",
        ] {
            assert_eq!(of(head), Ok(Request::Get), "{head:?}");
        }
        assert_eq!(of("HEAD /metrics HTTP/1.1\r\nHost: a"), Ok(Request::Head));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for head in [
            "",
            "GET",
            "GET /metrics",
            "GET  /metrics HTTP/1.1\r\nHost: a",
            "GET /metrics HTTP/1.1 \r\nHost: a",
            "GET /metrics HTTP/2.0\r\nHost: a",
            "GET /metrics HTTP/1.1",
            "GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b",
            "GET /metrics HTTP/1.1\r\nHost : a",
            "GET /metrics HTTP/1.1\r\nHost: a\r\n folded",
            "GET /metrics HTTP/1.1\r\nHost: a\nX: b",
            "GET /met\0rics HTTP/1.1\r\nHost: a",
            "G\"ET /metrics HTTP/1.1\r\nHost: a",
            "\x16\x03\x01\x02\0\x01\0\x01\u{fc}",
        ] {
            assert_eq!(of(head), Err(Refused::BadRequest), "{head:?}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.0"), Err(Refused::BadRequest));
    }

    #[test]
    fn there_is_one_path_and_two_methods() {
        for target in ["/", "/metrics/", "/metricsx", "//metrics", "http://example.org", "*", "example.org:443"] {
            assert_eq!(of(&format!("GET {target} HTTP/1.0")), Err(Refused::NotFound), "{target}");
        }
        for method in ["POST", "PUT", "get", "OPTIONS", "BREW"] {
            assert_eq!(of(&format!("{method} /metrics HTTP/1.0")), Err(Refused::MethodNotAllowed), "{method}");
        }
    }

    #[test]
    fn an_answer_tells_its_length_and_a_head_has_no_body() {
        let text = |request| String::from_utf8(answer(request, "a 1\n").to_vec()).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 4\r\n\
                    Connection: close\r\n\r\n";
        assert_eq!(text(Request::Get), format!("{head}a 1\n"));
        assert_eq!(text(Request::Head), head);
        let refused = String::from_utf8(Refused::MethodNotAllowed.answer().to_vec()).unwrap();
        assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refused}");
        assert!(refused.contains("\r\nAllow: GET, HEAD\r\n") && refused.ends_with("\r\n\r\n405 Method Not Allowed\n"));
    }
}
