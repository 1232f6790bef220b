//! Which of the sockets that a service manager passes, what follows `fd:`.

use std::fmt;

use super::EndpointPart;
use super::error::{EndpointError, Flaw, quoted};

/// The first number that is passed: 0, 1 and 2 are the standard streams.
const FIRST: u32 = 3;
/// The longest name that systemd gives.
const NAME_MAX: usize = 255;

/// One of the sockets that a service manager passes to the process that it starts, as systemd does with `LISTEN_FDS`: by
/// its number, from 3 on, or by its name, as `FileDescriptorName=` gives it.
///
/// A name is of printable ASCII characters without `:`, up to 255 of them, and not of digits alone. Several sockets may
/// have the same one.
///
/// ```
/// use hythe::Endpoint;
///
/// let Endpoint::Fd(socket) = "fd:3".parse()? else { unreachable!() };
/// assert_eq!((socket.number(), socket.name()), (Some(3), None));
///
/// let Endpoint::Fd(socket) = "fd:http".parse()? else { unreachable!() };
/// assert_eq!((socket.number(), socket.name()), (None, Some("http")));
/// # Ok::<(), hythe::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PassedSocket(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Number(u32),
    Name(Box<str>),
}

impl PassedSocket {
    /// The number of the descriptor, or `None` if it goes by its name.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// # let Endpoint::Fd(socket) = "fd:4".parse()? else { unreachable!() };
    /// assert_eq!(socket.number(), Some(4));
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        match self.0 {
            Kind::Number(number) => Some(number),
            Kind::Name(_) => None,
        }
    }

    /// The name, or `None` if it goes by its number.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// # let Endpoint::Fd(socket) = "fd:app.socket".parse()? else { unreachable!() };
    /// assert_eq!(socket.name(), Some("app.socket"));
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Number(_) => None,
            Kind::Name(name) => Some(name),
        }
    }

    pub(super) fn new(text: &str) -> Result<Self, EndpointError> {
        Self::parse(text).map_err(|flaw| EndpointError::new(&format!("fd:{text}"), flaw))
    }

    /// Reads what follows `fd:`.
    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        let flaw = |problem| Flaw::new(EndpointPart::Name, problem);
        if let Some(rest) = text.strip_prefix("//") {
            return Err(flaw("a name or number has no // before it".into()).meant(format!("fd:{rest}")));
        }
        if text.is_empty() {
            return Err(flaw("the name or number is missing".into()));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // digits fail to parse only when they are too many
            return match text.parse() {
                Ok(number) if (FIRST..=i32::MAX as u32).contains(&number) => Ok(Self(Kind::Number(number))),
                Ok(number) if number < FIRST => {
                    Err(flaw(format!("the name or number {number} is below {FIRST}, the first that is passed")))
                }
                _ => Err(flaw(format!("the name or number {} is too high", quoted(text)))),
            };
        }
        if text.len() > NAME_MAX {
            return Err(flaw(format!("the name has {} bytes, at most {NAME_MAX} are allowed", text.len())));
        }
        if text.trim() != text {
            return Err(flaw("the name begins or ends with white space".into()));
        }
        match text.chars().find(|c| *c == ':' || !(c.is_ascii_graphic() || *c == ' ')) {
            Some(character) => Err(flaw(format!("the name has the character {character:?}"))),
            None => Ok(Self(Kind::Name(text.into()))),
        }
    }
}

/// As it stands after `fd:` in an endpoint.
///
/// ```
/// # use hythe::Endpoint;
/// let Endpoint::Fd(socket) = Endpoint::fd("http")? else { unreachable!() };
/// assert_eq!(socket.to_string(), "http");
/// # Ok::<(), hythe::EndpointError>(())
/// ```
impl fmt::Display for PassedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Number(number) => write!(f, "{number}"),
            Kind::Name(name) => f.write_str(name),
        }
    }
}
