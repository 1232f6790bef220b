//! The honest traffic: 20 connections with 200 requests of 64 bytes a second each.
//!
//! The load is open: a request is sent when it is due, whether or not the answers before it have come, and its time runs
//! from when it was due. A server that stalls is charged for every request that it kept waiting.
//!
//! An attack runs on the same thread, in small steps between the requests: two threads on one core would be told apart by
//! its scheduler, in slices of milliseconds, and what the attack costs its clients would pass for what it costs the server.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};

use crate::report::{Report, millis};
use crate::wire::{self, Inbox};

pub(crate) const CONNECTIONS: u32 = 20;
/// Between two requests of all connections together: 200 a second each.
const EVERY: Duration = Duration::from_micros(1_000_000 / (200 * CONNECTIONS as u64));
/// How long an answer is awaited when the traffic ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// In an event: the timer.
const TIMER: u64 = u64::MAX;

/// Honest traffic that runs on a thread of its own.
pub(crate) struct Honest {
    origin: Instant,
    stop: Arc<AtomicBool>,
    attacks: Sender<Attack>,
    thread: JoinHandle<Result<Traffic>>,
}

/// A step of an attack: some 100 µs at most, and never a wait.
type Attack = Box<dyn FnMut() -> Step + Send>;

/// What there is to do after a step of an attack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next one, as soon as can be.
    Busy,
    /// Nothing for the moment.
    Quiet,
    Done,
}

impl Honest {
    /// Connects, has every connection answered once, and begins.
    pub(crate) fn start(to: SocketAddr) -> Result<Self> {
        let clients: Vec<Client> = (0..CONNECTIONS).map(|who| Client::open(to, who)).collect::<Result<_>>()?;
        let (origin, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let (attacks, steps) = channel();
        let thread = std::thread::spawn(move || drive(clients, origin, &stopped, &steps));
        Ok(Self { origin, stop, attacks, thread })
    }

    /// The time, for [`Traffic::rows`].
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Runs an attack between the requests, step by step until it is done; gives back what it works on.
    pub(crate) fn during<T: Send + 'static>(
        &self,
        attack: T,
        mut step: impl FnMut(&mut T) -> Result<Step> + Send + 'static,
    ) -> Result<T> {
        let (over, outcome) = channel();
        let mut attack = Some(attack);
        let steps = move || {
            let next = attack.as_mut().map_or(Ok(Step::Done), &mut step);
            match next {
                Ok(Step::Done) => drop(attack.take().map(|attack| over.send(Ok(attack)))),
                Ok(step) => return step,
                Err(error) => drop(over.send(Err(error))),
            }
            Step::Done
        };
        self.attacks.send(Box::new(steps)).map_err(|_| anyhow!("the honest traffic has ended"))?;
        outcome.recv().context("the honest traffic has ended")?
    }

    /// Lets it run undisturbed.
    pub(crate) fn calm(&self, time: Duration) -> Duration {
        std::thread::sleep(time);
        self.now()
    }

    pub(crate) fn stop(self) -> Result<Traffic> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the honest traffic panicked"))?
    }
}

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Traffic {
    /// When each request was due, and how long its answer took from then.
    answers: Vec<(Duration, Duration)>,
    /// When each request was due, and how much later it was sent: the clients' own fault.
    lags: Vec<(Duration, Duration)>,
    errors: Vec<String>,
}

impl Traffic {
    fn p99(&self, from: Duration, to: Duration) -> Duration {
        quantile(&self.answers, from, to, 0.99)
    }

    /// How it was in a part of the attack.
    pub(crate) fn part(&self, what: &str, report: &mut Report, begin: Duration, end: Duration) {
        let count = self.answers.iter().filter(|(due, _)| (begin..end).contains(due)).count();
        let slowest = quantile(&self.answers, begin, end, 1.0);
        let (time, p99) = (millis(end - begin), millis(self.p99(begin, end)));
        report.note(format!("{what}: {count} honest answers in {time}, p99 {p99}, the slowest {}", millis(slowest)));
    }

    /// The rows that every attack on honest traffic has: before `begin` there was none, at `end` it was over.
    pub(crate) fn rows(&self, what: &str, report: &mut Report, begin: Duration, end: Duration) -> Result<()> {
        // the first half second: connections and caches that are new
        let since = Duration::from_millis(500);
        let count = |from, to| self.answers.iter().filter(|(due, _)| (from..to).contains(due)).count();
        ensure!(count(since, begin) > 1000 && count(begin, end) > 1000, "too few answers for a p99");
        let (before, during) = (self.p99(since, begin), self.p99(begin, end));
        let bar = report.latency((before * 2).max(before + Duration::from_millis(2)), before);
        report.within(format!("{what}honest p99 (before: {})", millis(before)), during, bar);
        report.exactly(format!("{what}honest errors"), self.errors.len(), 0);
        let at = |part| millis(quantile(&self.answers, begin, end, part));
        let lag = millis(quantile(&self.lags, begin, end, 0.99));
        let answers = count(begin, end);
        report.note(format!(
            "{what}{answers} honest answers in {:.1} s: p50 {}, p99.9 {}, the slowest {}; sent late by the clients, p99: {lag}",
            (end - begin).as_secs_f64(), at(0.5), at(0.999), at(1.0),
        ));
        self.errors.iter().take(3).for_each(|error| report.note(format!("honest error: {error}")));
        Ok(())
    }
}

fn quantile(samples: &[(Duration, Duration)], from: Duration, to: Duration, part: f64) -> Duration {
    let mut times: Vec<Duration> =
        samples.iter().filter(|(due, _)| (from..to).contains(due)).map(|(_, time)| *time).collect();
    times.sort_unstable();
    let place = (times.len() as f64 * part).ceil() as usize;
    times.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

struct Client {
    socket: TcpStream,
    who: u32,
    /// What is sent next.
    next: u32,
    /// Numbers of the requests that are not answered, and when they were due.
    due: VecDeque<(u32, Duration)>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    inbox: Inbox,
    broken: bool,
}

impl Client {
    fn open(to: SocketAddr, who: u32) -> Result<Self> {
        let mut socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let hello = wire::frame(who, 0);
        let mut answer = vec![0; hello.len()];
        socket.write_all(&hello)?;
        socket.read_exact(&mut answer).context("an honest client was not answered before the attack")?;
        ensure!(answer == hello, "an honest client was answered with something else");
        socket.set_nonblocking(true)?;
        let (due, unsent, inbox) = (VecDeque::new(), Vec::new(), Inbox::default());
        Ok(Self { socket, who, next: 1, due, unsent, inbox, broken: false })
    }

    fn request(&mut self, due: Duration) -> Result<()> {
        self.unsent.extend(wire::frame(self.who, self.next));
        self.due.push_back((self.next, due));
        self.next += 1;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        match (&self.socket).write(&self.unsent) {
            Ok(written) => drop(self.unsent.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("writing"),
        }
        Ok(())
    }

    /// Reads what is there; gives when each request that was answered was due.
    fn hear(&mut self, mut answered: impl FnMut(Duration)) -> Result<()> {
        let mut buffer = [0; 4096];
        match (&self.socket).read(&mut buffer) {
            Ok(0) => anyhow::bail!("the server closed an honest connection"),
            Ok(read) => self.inbox.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("reading"),
        }
        while let Some(message) = self.inbox.take() {
            let (number, due) = self.due.pop_front().context("an answer to nothing")?;
            ensure!(wire::read(&message)? == (self.who, number), "an answer to something else");
            answered(due);
        }
        Ok(())
    }
}

/// Runs until it is stopped and everything is answered.
fn drive(mut clients: Vec<Client>, origin: Instant, stop: &AtomicBool, attacks: &Receiver<Attack>) -> Result<Traffic> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let every = Timespec { tv_sec: 0, tv_nsec: i64::from(EVERY.subsec_nanos()) };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })?;
    epoll::add(&poll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
    for client in &clients {
        let token = epoll::EventData::new_u64(u64::from(client.who));
        epoll::add(&poll, &client.socket, token, epoll::EventFlags::IN)?;
    }
    let mut traffic = Traffic::default();
    let mut events = Vec::with_capacity(64);
    // the requests are due at multiples of EVERY after the origin, for one client after the other
    let mut turn = 0;
    let mut last = None;
    let mut attack: Option<Attack> = None;
    loop {
        let now = origin.elapsed();
        if last.is_none() && stop.load(Relaxed) {
            last = Some(now);
        }
        while last.is_none() && EVERY * turn <= now {
            let client = &mut clients[(turn % CONNECTIONS) as usize];
            if !client.broken {
                traffic.lags.push((EVERY * turn, origin.elapsed().saturating_sub(EVERY * turn)));
                traffic.note(client, |client, _| client.request(EVERY * turn));
            }
            turn += 1;
        }
        if let Some(last) = last {
            let waiting: usize = clients.iter().filter(|client| !client.broken).map(|client| client.due.len()).sum();
            if waiting > 0 && now > last + PATIENCE {
                traffic.errors.push(format!("{waiting} requests without an answer"));
            }
            if waiting == 0 || now > last + PATIENCE {
                return Ok(traffic);
            }
        }
        attack = attack.or_else(|| attacks.try_recv().ok());
        let step = attack.as_mut().map_or(Step::Quiet, |attack| attack());
        if step == Step::Done {
            attack = None;
        }
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        events.clear();
        // else until the timer at the latest
        let timeout = (step == Step::Busy).then_some(&at_once);
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), timeout)?;
        for event in events.drain(..) {
            if event.data.u64() == TIMER {
                let _ = rustix::io::read(&timer, &mut [0; 8]);
                continue;
            }
            let client = &mut clients[event.data.u64() as usize];
            traffic.note(client, |client, traffic| {
                client.hear(|due| traffic.answers.push((due, origin.elapsed().saturating_sub(due))))?;
                if client.unsent.is_empty() { Ok(()) } else { client.flush() }
            });
            if client.broken {
                epoll::delete(&poll, &client.socket)?;
            }
        }
    }
}

impl Traffic {
    fn note(&mut self, client: &mut Client, act: impl FnOnce(&mut Client, &mut Self) -> Result<()>) {
        if let Err(error) = act(client, self) {
            self.errors.push(format!("connection {}: {error:#}", client.who));
            client.broken = true;
        }
    }
}
