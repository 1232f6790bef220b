//! What is left when all should be gone.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::Future;
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

/// How long tasks get to end, in steps.
const STEP: Duration = Duration::from_millis(2);
const STEPS: u32 = 10_000;

/// Checks that what was started is gone: tasks of this runtime and, if asked for, descriptors of this process.
///
/// [`Harness::finish`](super::Harness::finish) checks the tasks by itself. This is for servers on real sockets, and works
/// in any runtime, under a paused clock or not.
///
/// ```
/// use std::time::Duration;
/// use hythe::testing::LeakCheck;
/// use hythe::{Connection, Server, codec::Lines};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// let check = LeakCheck::start();
/// let running = Server::serve(|mut conn: Connection<String>| async move {
///     while let Some(line) = conn.recv().await? {
///         conn.send(line).await?;
///     }
///     Ok(())
/// })
/// .bind("mem:leak-check", Lines::new())
/// .start()
/// .await?;
/// let mut conn = hythe::connect("mem:leak-check", Lines::new()).await?;
/// conn.send("hello".to_string()).await?;
///
/// running.shutdown(Duration::from_secs(1)).await;
/// drop((running, conn));
/// check.finish().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is checked before `finish`"]
pub struct LeakCheck {
    tasks: usize,
    descriptors: Option<HashMap<String, String>>,
}

impl LeakCheck {
    /// What is there now may stay.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start() -> Self {
        Self { tasks: tasks(), descriptors: None }
    }

    /// Counts descriptors as well, on Linux. They are the whole process's: only a test that is alone in its process
    /// should ask for this, after the runtime has opened its own, which it does with the first socket or timer.
    pub fn with_descriptors(mut self) -> Self {
        self.descriptors = Some(descriptors());
        self
    }

    /// Waits until nothing is left that was not there at the start; tasks take a moment to end.
    ///
    /// # Panics
    /// If something is left after 20 s of tokio's clock, with what it is.
    #[track_caller]
    pub fn finish(self) -> impl Future<Output = ()> {
        let place = Location::caller();
        async move {
            let left = self.left().await;
            assert!(left.is_empty(), "{place}: {}", left.join("; "));
        }
    }

    /// What is left, in words.
    pub(super) async fn left(&self) -> Vec<String> {
        let mut left = self.look();
        for _ in 0..STEPS {
            if left.is_empty() {
                break;
            }
            sleep(STEP).await;
            left = self.look();
        }
        left
    }

    fn look(&self) -> Vec<String> {
        let mut left = Vec::new();
        let more = tasks().saturating_sub(self.tasks);
        if more > 0 {
            left.push(format!("{more} tasks run that were not there at the start"));
        }
        if let Some(before) = &self.descriptors {
            let new = descriptors().into_iter().filter(|(number, what)| before.get(number) != Some(what));
            left.extend(new.map(|(number, what)| format!("descriptor {number} is open: {what}")));
        }
        left
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// The open descriptors and what they are; none where the system does not tell.
fn descriptors() -> HashMap<String, String> {
    let list = Path::new("/proc/self/fd");
    let Ok(entries) = std::fs::read_dir(list) else { return HashMap::new() };
    // each entry holds the list open, whose own descriptor is to be gone when they are looked at
    let numbers: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let describe = |number: OsString| {
        let what = std::fs::read_link(list.join(&number)).ok()?;
        Some((number.to_string_lossy().into_owned(), what.to_string_lossy().into_owned()))
    };
    numbers.into_iter().filter_map(describe).collect()
}
