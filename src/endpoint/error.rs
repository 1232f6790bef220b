//! Why a text or a name is no endpoint.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;

use super::parse;

/// How much of a text that somebody else wrote goes into a message.
const SHOWN: usize = 64;

/// Which part of an endpoint is wrong.
///
/// ```
/// use hythe::endpoint::{Endpoint, EndpointPart};
///
/// let error = "tcp://127.0.0.1:70000".parse::<Endpoint>().unwrap_err();
/// assert_eq!(error.part(), EndpointPart::Port);
/// assert_eq!(error.part().to_string(), "port");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointPart {
    /// What stands before the first `:`, as in `tcp`.
    Scheme,
    /// The address or the host name of a `tcp`, `tls` or `udp` endpoint.
    Host,
    /// The port of a `tcp`, `tls` or `udp` endpoint.
    Port,
    /// The path of a `unix` endpoint, or a path where none belongs.
    Path,
    /// The name of a `mem` endpoint, of an abstract `unix` one, or of an `fd` one, and the latter's number.
    Name,
}

impl fmt::Display for EndpointPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Scheme => "scheme",
            Self::Host => "host",
            Self::Port => "port",
            Self::Path => "path",
            Self::Name => "name",
        })
    }
}

/// A text, a path or a name is no [`Endpoint`](super::Endpoint).
///
/// The message is one line that fits in a log: it shows what was given, escaped and cut to
/// 64 characters, says which part is wrong, and ends with an endpoint that is right.
///
/// ```
/// use hythe::Endpoint;
///
/// let error = "127.0.0.1:9000".parse::<Endpoint>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"endpoint "127.0.0.1:9000": the scheme is missing; did you mean tcp://127.0.0.1:9000?"#,
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointError {
    part: EndpointPart,
    problem: Cow<'static, str>,
    input: String,
    example: Cow<'static, str>,
    meant: bool,
}

impl EndpointError {
    pub(super) fn new(input: &str, flaw: Flaw) -> Self {
        let shown = without_password(input);
        // A suggestion must be accepted, fit in whole, and not bring the password back.
        let fits = |text: &String| {
            text.len() <= SHOWN
                && text.bytes().all(|byte| byte.is_ascii_graphic())
                && (shown == input || !text.contains('@'))
                && parse::parse(text).is_ok()
        };
        let (suggestion, meant) = match flaw.hint {
            Some(Hint::Meant(text)) => (Some(text), true),
            Some(Hint::Like(text)) => (Some(text), false),
            None => (Some(input.trim().to_owned()), true),
        };
        let suggestion = suggestion.filter(fits);
        Self {
            part: flaw.part,
            problem: flaw.problem,
            meant: meant && suggestion.is_some(),
            input: shown,
            example: suggestion.map_or_else(|| parse::example(input, flaw.part).into(), Cow::Owned),
        }
    }

    /// Which part is wrong.
    ///
    /// ```
    /// use hythe::endpoint::{Endpoint, EndpointPart};
    ///
    /// let error = "quic://127.0.0.1:9000".parse::<Endpoint>().unwrap_err();
    /// assert_eq!(error.part(), EndpointPart::Scheme);
    /// ```
    #[must_use]
    pub fn part(&self) -> EndpointPart {
        self.part
    }

    /// What was given, whole and not escaped; only a user name and password in it are replaced
    /// by `…`, because errors end up in logs.
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// let error = "tcp://127.0.0.1".parse::<Endpoint>().unwrap_err();
    /// assert_eq!(error.input(), "tcp://127.0.0.1");
    ///
    /// let error = "tcp://root:hunter2@127.0.0.1:80".parse::<Endpoint>().unwrap_err();
    /// assert_eq!(error.input(), "tcp://…@127.0.0.1:80");
    /// ```
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// An endpoint that is right, as near as could be guessed to the one that was given. It
    /// always parses.
    ///
    /// ```
    /// use hythe::Endpoint;
    ///
    /// let error = "udp://::1:53".parse::<Endpoint>().unwrap_err();
    /// assert_eq!(error.example(), "udp://[::1]:53");
    /// ```
    #[must_use]
    pub fn example(&self) -> &str {
        &self.example
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, example, .. } = self;
        write!(f, "endpoint {}: {problem}; ", quoted(&self.input))?;
        if self.meant { write!(f, "did you mean {example}?") } else { write!(f, "a right one is {example}") }
    }
}

impl Error for EndpointError {}

/// An [`Endpoint`](super::Endpoint) converts into itself without an error. With this, a function
/// that takes `impl TryInto<Endpoint, Error: Into<EndpointError>>` takes endpoints and texts.
///
/// ```
/// use hythe::{Endpoint, EndpointError};
///
/// fn listen(at: impl TryInto<Endpoint, Error: Into<EndpointError>>) -> Result<(), EndpointError> {
///     let _endpoint = at.try_into().map_err(Into::into)?;
///     Ok(())
/// }
///
/// listen("tcp://127.0.0.1:0")?;
/// listen(Endpoint::mem("test")?)?;
/// # Ok::<(), EndpointError>(())
/// ```
impl From<Infallible> for EndpointError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What a parser found, before the whole text is at hand.
#[derive(Debug)]
pub(super) struct Flaw {
    part: EndpointPart,
    problem: Cow<'static, str>,
    hint: Option<Hint>,
}

#[derive(Debug)]
enum Hint {
    /// Very likely what was meant.
    Meant(String),
    /// The same with what is missing made up.
    Like(String),
}

impl Flaw {
    pub(super) fn new(part: EndpointPart, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { part, problem: problem.into(), hint: None }
    }

    pub(super) fn meant(self, text: String) -> Self {
        Self { hint: Some(Hint::Meant(text)), ..self }
    }

    pub(super) fn like(self, text: String) -> Self {
        Self { hint: Some(Hint::Like(text)), ..self }
    }
}

/// `text` in quotes, escaped and cut.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    let mut room = SHOWN;
    for character in text.chars() {
        let escaped = character.escape_debug();
        let Some(left) = room.checked_sub(escaped.len()) else {
            shown.push('…');
            break;
        };
        room = left;
        shown.extend(escaped);
    }
    shown.push('"');
    shown
}

/// `scheme://user:password@host` with the user and the password replaced.
fn without_password(input: &str) -> String {
    let secret = input.split_once(':').and_then(|(scheme, rest)| {
        let local = ["unix", "mem", "fd"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        rest.rsplit_once('@').filter(|_| !local).map(|(user, host)| (scheme, user, host))
    });
    match secret {
        Some((scheme, user, host)) => {
            let slashes = if user.starts_with("//") { "//" } else { "" };
            format!("{scheme}:{slashes}…@{host}")
        }
        None => input.to_owned(),
    }
}
