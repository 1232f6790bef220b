//! The sockets that a service manager passes, as [sd_listen_fds(3)] says.
//!
//! [sd_listen_fds(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html

use std::os::fd::OwnedFd;
use std::process;
use std::sync::{Mutex, PoisonError};

use socket2::{SockRef, Socket};

use crate::endpoint::PassedSocket;
use crate::transport::given::{Given, Kind};

/// The number of the first one.
const FIRST: u32 = 3;
/// More than any service is passed: a number beyond is a mistake.
const MOST: u32 = 1024;

/// One that was passed.
struct Passed {
    number: u32,
    name: Option<String>,
    /// None, once it is taken. It is never closed otherwise: where the environment promises too much, a number is that of
    /// somebody else's descriptor.
    descriptor: Option<OwnedFd>,
}

/// What was passed to this process. `None` before somebody asks: who asks first owns all of them.
static PASSED: Mutex<Option<Vec<Passed>>> = Mutex::new(None);

/// Takes the socket of a number, or all that have a name. Each can be taken once.
///
/// # Errors
/// In words that go on after the endpoint.
pub(crate) fn take(which: &PassedSocket) -> Result<Vec<Given>, String> {
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    if passed.is_none() {
        *passed = Some(receive()?);
    }
    let list = passed.as_deref_mut().unwrap_or_default();
    let wanted = |passed: &&mut Passed| match (which.number(), which.name()) {
        (Some(number), _) => passed.number == number,
        (None, name) => passed.name.as_deref() == name,
    };
    let mut found: Vec<_> = list.iter_mut().filter(wanted).collect();
    if found.is_empty() {
        return Err(format!("is not among what was passed, which is {}", describe(list)));
    }
    let mut kinds = Vec::new();
    for passed in &found {
        let Some(descriptor) = &passed.descriptor else { return Err("is taken already".to_owned()) };
        let kind = Kind::of(&SockRef::from(descriptor)).map_err(|error| error.to_string())?;
        kinds.push(kind);
    }
    // now that nothing can go wrong
    let descriptors = found.iter_mut().filter_map(|passed| passed.descriptor.take());
    Ok(descriptors.zip(kinds).map(|(descriptor, kind)| Given { socket: Socket::from(descriptor), kind }).collect())
}

/// Takes over all that was passed.
fn receive() -> Result<Vec<Passed>, String> {
    let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    promised(variable("LISTEN_FDS").as_deref(), variable("LISTEN_PID").as_deref(), process::id())?;
    let list = sd_listen_fds::get().map_err(|error| format!("was not passed: {error}"))?;
    let list = list.into_iter().zip(FIRST..).map(|((name, descriptor), number)| {
        let descriptor = descriptor.into_std();
        // the processes that this one starts have no use for it. What is wrong with it is told when somebody wants it
        let _ = SockRef::from(&descriptor).set_cloexec(true);
        let name = name.filter(|name| !name.is_empty());
        Passed { number, name, descriptor: Some(descriptor) }
    });
    Ok(list.collect())
}

/// How many sockets the environment says were passed to the process `me`.
fn promised(count: Option<&str>, pid: Option<&str>, me: u32) -> Result<u32, String> {
    let Some(count) = count else { return Err("was not passed: LISTEN_FDS is not set".to_owned()) };
    let Some(pid) = pid else { return Err("was not passed: LISTEN_PID is not set".to_owned()) };
    let number = |name: &str, text: &str| {
        let shown: String = text.chars().take(20).collect();
        text.parse::<u32>().map_err(|_| format!("was not passed: {name} is {shown:?}, which is no number"))
    };
    let (count, pid) = (number("LISTEN_FDS", count)?, number("LISTEN_PID", pid)?);
    if pid != me {
        return Err(format!("was not passed: LISTEN_PID is for another process, {pid}, and this one is {me}"));
    }
    if count > MOST {
        return Err(format!("was not passed: LISTEN_FDS is {count}, more than the {MOST} that are taken"));
    }
    Ok(count)
}

fn describe(list: &[Passed]) -> String {
    if list.is_empty() {
        return "nothing".to_owned();
    }
    let one = |passed: &Passed| match &passed.name {
        Some(name) => format!("{} ({})", passed.number, name.escape_debug()),
        None => passed.number.to_string(),
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_to_another_process_is_not_ours() {
        assert_eq!(promised(Some("2"), Some("17"), 17), Ok(2));
        for (count, pid, why) in [
            (None, None, "LISTEN_FDS is not set"),
            (None, Some("17"), "LISTEN_FDS is not set"),
            (Some("2"), None, "LISTEN_PID is not set"),
            (Some("2"), Some("18"), "LISTEN_PID is for another process, 18, and this one is 17"),
            (Some("2"), Some("-1"), "LISTEN_PID is \"-1\", which is no number"),
            (Some("two\n"), Some("17"), r#"LISTEN_FDS is "two\n", which is no number"#),
            (Some("4294967295"), Some("17"), "more than the 1024 that are taken"),
        ] {
            let error = promised(count, pid, 17).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
