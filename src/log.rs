//! What may go into the log: nothing that a peer can write as it likes, nor as often as it likes.

use std::error::Error;
use std::fmt::{self, Display, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;
use tracing::span::Entered;

use crate::sync::{Mutex, lock};

/// How much of a text that may be a peer's is shown, in bytes.
const LONGEST: usize = 200;

/// How often something is said.
pub(crate) struct Limiter {
    most: u32,
    window: Mutex<Window>,
}

struct Window {
    /// Its first one was said then.
    since: Option<Instant>,
    said: u32,
    suppressed: u64,
}

impl Limiter {
    /// At most so often in one second.
    pub(crate) const fn new(most: u32) -> Self {
        Self { most, window: Mutex::new(Window { since: None, said: 0, suppressed: 0 }) }
    }

    /// Whether it may be said once more; then, how often it was not since the last time.
    pub(crate) fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut window = lock(&self.window);
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if window.since.is_none_or(is_over) {
            (window.since, window.said) = (Some(now), 0);
        }
        if window.said >= self.most {
            window.suppressed += 1;
            return None;
        }
        window.said += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// As the field of an event: absent where nothing was left out.
pub(crate) fn suppressed(times: u64) -> Option<u64> {
    (times > 0).then_some(times)
}

/// A text that may hold what a peer sent: without control characters, and cut. It may be made by the user's code, whose
/// panic is not ours.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Escaping { text: String::new(), left: LONGEST, cut: false };
        let written = catch_unwind(AssertUnwindSafe(|| write!(out, "{}", self.0)));
        f.write_str(&out.text)?;
        match written {
            Ok(_) if out.cut => f.write_str("…"),
            Ok(_) => Ok(()),
            Err(_) => f.write_str("… (a panic)"),
        }
    }
}

struct Escaping {
    text: String,
    left: usize,
    cut: bool,
}

impl Write for Escaping {
    /// Never an error: whoever writes may not expect one.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.cut || char.len_utf8() > self.left {
                self.cut = true;
                break;
            }
            self.left -= char.len_utf8();
            match char {
                '"' | '\'' => self.text.push(char),
                _ => self.text.extend(char.escape_debug()),
            }
        }
        Ok(())
    }
}

/// An error and what is behind it.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

/// A type without the modules that it and its parameters are in.
pub(crate) struct TypeName(pub(crate) &'static str);

impl Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_part = |char: char| char.is_alphanumeric() || matches!(char, '_' | ':');
        let mut rest = self.0;
        while !rest.is_empty() {
            let (path, after) = rest.split_at(rest.find(|char| !is_part(char)).unwrap_or(rest.len()));
            f.write_str(path.rsplit("::").next().unwrap_or(path))?;
            let (between, after) = after.split_at(after.find(is_part).unwrap_or(after.len()));
            f.write_str(between)?;
            rest = after;
        }
        Ok(())
    }
}

/// A span that takes no room where nobody wants to know.
pub(crate) struct Scope(Option<Box<Span>>);

impl Scope {
    pub(crate) fn new(span: Span) -> Self {
        Self((!span.is_disabled()).then(|| Box::new(span)))
    }

    /// What is left of it here is none.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    #[inline]
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        self.0.as_deref().map(Span::enter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_times_a_second_and_the_next_one_tells_what_was_left_out() {
        let limiter = Limiter::new(10);
        let said = || (0..25).filter_map(|_| limiter.admit()).collect::<Vec<_>>();
        assert_eq!(said(), [0; 10]);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(limiter.admit(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(limiter.admit(), Some(16));
        assert_eq!(limiter.admit(), Some(0));
        assert_eq!((suppressed(0), suppressed(16)), (None, Some(16)));
    }

    #[test]
    fn control_characters_are_escaped_and_a_long_text_is_cut() {
        let escaped = |text: &str| Escaped(text.to_owned()).to_string();
        assert_eq!(escaped("it's \"plain\", Grüße"), "it's \"plain\", Grüße");
        assert_eq!(escaped("a\nb\r\t\x1b[31m\0\u{202e}"), r"a\nb\r\t\u{1b}[31m\0\u{202e}");
        assert_eq!(escaped(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(escaped(&"x".repeat(201)), format!("{}…", "x".repeat(200)));
        // not through the middle of a character, and nothing after the cut
        assert_eq!(escaped(&format!("{}ü{}", "x".repeat(199), "y".repeat(9))), format!("{}…", "x".repeat(199)));
    }

    #[test]
    fn a_text_that_panics_is_cut_there() {
        struct Bad;
        impl Display for Bad {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("begin")?;
                panic!("by the user's code")
            }
        }
        assert_eq!(Escaped(Bad).to_string(), "begin… (a panic)");
    }

    #[test]
    fn an_error_is_shown_with_what_is_behind_it() {
        let error = anyhow::anyhow!("the cause").context("what failed");
        let error: Box<dyn Error + Send + Sync> = error.into();
        assert_eq!(Chain(&*error).to_string(), "what failed: the cause");
    }

    #[test]
    fn a_type_is_named_without_its_modules() {
        let name = |full| TypeName(full).to_string();
        assert_eq!(name("hythe::codec::lines::Lines"), "Lines");
        assert_eq!(name("hythe::codec::text::Text<hythe::codec::datagram::Datagram>"), "Text<Datagram>");
        assert_eq!(name("(a::B, [c::D; 3])"), "(B, [D; 3])");
    }
}
