//! Names on this host: Unix sockets, and endpoints inside the process.

use std::fmt;
use std::path::Path;

use super::EndpointPart;
use super::error::{EndpointError, Flaw};

/// What fits in `sun_path` beside the NUL, which follows a path and leads an abstract name.
const SUN_PATH_MAX: usize = if cfg!(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
)) {
    103
} else {
    107
};

/// The address of a Unix socket: a path, or on Linux an abstract name.
///
/// A path is taken byte for byte: nothing in it is percent-decoded, spaces are as good as
/// letters, and `~` and `$` mean nothing. It must be UTF-8, name a file rather than a directory,
/// hold no control character (NUL among them), not begin or end with white space, and fit in
/// the system's address: 107 bytes, on BSD and macOS 103. A relative path counts from
/// the working directory at the time of binding or connecting.
///
/// ```
/// use std::path::Path;
/// use hythe::Endpoint;
///
/// let Endpoint::Unix(address) = "unix:///run/my app.sock".parse()? else { unreachable!() };
/// assert_eq!(address.path(), Some(Path::new("/run/my app.sock")));
/// # Ok::<(), hythe::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixAddress(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Path(Box<str>),
    Abstract(Box<str>),
}

impl UnixAddress {
    pub(super) const ABSTRACT: bool = cfg!(any(target_os = "linux", target_os = "android"));

    /// The path, or `None` if the name is abstract.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// let Endpoint::Unix(address) = "unix:app.sock".parse()? else { unreachable!() };
    /// assert!(address.path().is_some_and(|path| path.is_relative()));
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Path(path) => Some(Path::new(&**path)),
            Kind::Abstract(_) => None,
        }
    }

    /// The abstract name, without the `@` or the NUL before it, or `None` if this is a path.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// # if cfg!(target_os = "linux") {
    /// let Endpoint::Unix(address) = "unix:@app".parse()? else { unreachable!() };
    /// assert_eq!(address.abstract_name(), Some("app"));
    /// # }
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn abstract_name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Path(_) => None,
            Kind::Abstract(name) => Some(name),
        }
    }

    pub(super) fn from_path(path: &Path) -> Result<Self, EndpointError> {
        let checked = match path.to_str() {
            Some(text) if text.starts_with('@') => {
                Err(Flaw::new(EndpointPart::Path, "a path that begins with @ would be read as an abstract name")
                    .meant(format!("unix:./{text}")))
            }
            Some(text) => Self::checked_path(text),
            None => Err(Flaw::new(EndpointPart::Path, "the path is not UTF-8")),
        };
        checked.map_err(|flaw| EndpointError::new(&format!("unix:{}", path.display()), flaw))
    }

    pub(super) fn from_abstract_name(name: &str) -> Result<Self, EndpointError> {
        Self::checked_name(name).map_err(|flaw| EndpointError::new(&format!("unix:@{name}"), flaw))
    }

    /// Reads what follows `unix:`.
    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        if let Some(name) = text.strip_prefix('@') {
            return Self::checked_name(name);
        }
        match text.strip_prefix("//") {
            None => Self::checked_path(text),
            Some(path) if path.is_empty() || path.starts_with('/') => Self::checked_path(path),
            Some(name) if name.starts_with('@') => {
                Err(Flaw::new(EndpointPart::Name, "an abstract name has no // before it").meant(format!("unix:{name}")))
            }
            Some(path) => Err(Flaw::new(
                EndpointPart::Path,
                "the path after unix:// begins with /, and a relative one comes after unix: alone",
            )
            .meant(format!("unix:///{path}"))),
        }
    }

    fn checked_path(path: &str) -> Result<Self, Flaw> {
        check(EndpointPart::Path, path, SUN_PATH_MAX)?;
        if matches!(path.rsplit('/').next(), Some("" | "." | "..")) {
            return Err(Flaw::new(EndpointPart::Path, "the path is that of a directory"));
        }
        Ok(Self(Kind::Path(path.into())))
    }

    fn checked_name(name: &str) -> Result<Self, Flaw> {
        if !Self::ABSTRACT {
            return Err(Flaw::new(EndpointPart::Name, "an abstract name works on Linux only"));
        }
        check(EndpointPart::Name, name, SUN_PATH_MAX)?;
        Ok(Self(Kind::Abstract(name.into())))
    }
}

/// As it stands after `unix:` in an endpoint.
///
/// ```
/// # use hythe::Endpoint;
/// let Endpoint::Unix(address) = Endpoint::unix("/run/app.sock")? else { unreachable!() };
/// assert_eq!(address.to_string(), "///run/app.sock");
/// # Ok::<(), hythe::EndpointError>(())
/// ```
impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Path(path) if path.starts_with('/') => write!(f, "//{path}"),
            Kind::Path(path) => f.write_str(path),
            Kind::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// The name of an endpoint inside this process.
///
/// Any text that is not empty, has no control character, does not begin with `//` and neither
/// begins nor ends with white space. Upper and lower case differ.
///
/// ```
/// use hythe::Endpoint;
///
/// let Endpoint::Mem(name) = "mem:orders".parse()? else { unreachable!() };
/// assert_eq!(name.as_str(), "orders");
/// # Ok::<(), hythe::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemName(Box<str>);

impl MemName {
    /// The name, without `mem:`.
    ///
    /// ```
    /// # use hythe::Endpoint;
    /// let Endpoint::Mem(name) = Endpoint::mem("orders")? else { unreachable!() };
    /// assert_eq!(name.as_str(), "orders");
    /// # Ok::<(), hythe::EndpointError>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn new(name: &str) -> Result<Self, EndpointError> {
        Self::parse(name).map_err(|flaw| EndpointError::new(&format!("mem:{name}"), flaw))
    }

    /// Reads what follows `mem:`.
    pub(super) fn parse(name: &str) -> Result<Self, Flaw> {
        if let Some(rest) = name.strip_prefix("//") {
            return Err(Flaw::new(EndpointPart::Name, "a name has no // before it").meant(format!("mem:{rest}")));
        }
        check(EndpointPart::Name, name, usize::MAX)?;
        Ok(Self(name.into()))
    }
}

/// The name, without `mem:`.
///
/// ```
/// # use hythe::Endpoint;
/// let Endpoint::Mem(name) = Endpoint::mem("orders")? else { unreachable!() };
/// assert_eq!(name.to_string(), "orders");
/// # Ok::<(), hythe::EndpointError>(())
/// ```
impl fmt::Display for MemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What holds for paths and names alike.
fn check(part: EndpointPart, text: &str, most: usize) -> Result<(), Flaw> {
    let problem = if text.is_empty() {
        format!("the {part} is missing")
    } else if text.len() > most {
        format!("the {part} has {} bytes, at most {most} are allowed", text.len())
    } else if text.trim() != text {
        // Nearly always the line end of the file that it was read from.
        format!("the {part} begins or ends with white space")
    } else if let Some(control) = text.chars().find(|c| c.is_control()) {
        format!("the {part} has the character {control:?}")
    } else {
        return Ok(());
    };
    Err(Flaw::new(part, problem))
}
