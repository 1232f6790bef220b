//! Slots, places by address, the accept rate, the memory of all buffers and the handshakes, each against a simple count:
//! never above the limit, all comes back, and whoever waits hears of it.
#![no_main]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};
use std::time::Duration;

use arbitrary::Arbitrary;
use hythe::fuzzing::{Addresses, Handshake, Handshakes, Memory, Place, Rate, Slot, Slots};
use hythe_fuzz::limits;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance};

#[derive(Arbitrary, Debug)]
enum Input {
    Slots(Vec<SlotStep>),
    Addresses(Vec<AddressStep>),
    Rate(Option<u32>, Vec<RateStep>),
    Memory(usize, Vec<MemoryStep>),
    Handshakes(Vec<HandshakeStep>),
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

fn remove<T>(list: &mut Vec<T>, which: u8) -> Option<T> {
    let which = usize::from(which).checked_rem(list.len())?;
    Some(list.remove(which))
}

#[derive(Arbitrary, Debug)]
enum SlotStep {
    Take,
    Drop(u8),
    Limit(u8),
}

fn slots(steps: Vec<SlotStep>) {
    let mut limit = 2;
    let slots = Slots::new(limit);
    let mut held: Vec<Slot> = Vec::new();
    let mut waiting: Vec<Arc<Flag>> = Vec::new();
    for step in steps {
        match step {
            SlotStep::Take => {
                let flag = Arc::new(Flag::default());
                match slots.take(&Arc::clone(&flag).into()) {
                    Some(slot) => {
                        assert!(held.len() < limit);
                        held.push(slot);
                    }
                    None => {
                        assert!(held.len() >= limit);
                        waiting.push(flag);
                    }
                }
            }
            SlotStep::Drop(which) => drop(remove(&mut held, which)),
            SlotStep::Limit(to) => {
                limit = usize::from(to % 8);
                slots.set_limit(limit);
            }
        }
        assert_eq!(slots.used(), held.len());
        waiting.retain(|waits| !waits.0.load(Relaxed));
        assert!(waiting.is_empty() || held.len() >= limit, "somebody waits for a slot that is there");
    }
    held.clear();
    assert_eq!(slots.used(), 0);
}

#[derive(Arbitrary, Debug)]
enum AddressStep {
    Take(Ip, Option<u8>),
    Drop(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Ip {
    V4(u8),
    Mapped(u8),
    V6(u8, u64),
}

impl Ip {
    /// The address, and what counts as one.
    fn both(self) -> (IpAddr, u128) {
        let v4 = |last| Ipv4Addr::new(192, 0, 2, last);
        match self {
            Self::V4(last) => (v4(last).into(), v4(last).to_bits().into()),
            Self::Mapped(last) => (v4(last).to_ipv6_mapped().into(), v4(last).to_bits().into()),
            Self::V6(network, host) => {
                let network = 0x2001_0db8_u128 << 96 | u128::from(network) << 64;
                (Ipv6Addr::from_bits(network | u128::from(host)).into(), network)
            }
        }
    }
}

fn addresses(steps: Vec<AddressStep>) {
    let addresses = Addresses::default();
    let mut held: Vec<(u128, Place)> = Vec::new();
    let mut counts: HashMap<u128, usize> = HashMap::new();
    for step in steps {
        match step {
            AddressStep::Take(ip, limit) => {
                let (addr, network) = ip.both();
                let (count, limit) = (counts.entry(network).or_default(), limit.map(|limit| usize::from(limit).max(1)));
                let place = addresses.take(addr, limit);
                assert_eq!(place.is_some(), limit.is_none_or(|limit| *count < limit));
                if let Some(place) = place {
                    *count += 1;
                    held.push((network, place));
                }
            }
            AddressStep::Drop(which) => {
                if let Some((network, place)) = remove(&mut held, which) {
                    drop(place);
                    *counts.get_mut(&network).unwrap() -= 1;
                }
            }
        }
    }
    drop(held);
    for network in counts.into_keys() {
        let addr: IpAddr = match u32::try_from(network) {
            Ok(bits) => Ipv4Addr::from_bits(bits).into(),
            Err(_) => Ipv6Addr::from_bits(network).into(),
        };
        assert!(addresses.take(addr, Some(1)).is_some(), "a place of {addr} did not come back");
    }
}

#[derive(Arbitrary, Debug)]
enum RateStep {
    Take,
    GiveBack,
    Passes(u32),
    AwaitsTurn,
    OtherRate(Option<u32>),
}

async fn rate(mut limit: Option<u32>, steps: Vec<RateStep>) {
    let rate = Rate::default();
    // taken and not given back at this rate, since it is in force, and then
    let (mut taken, mut since) = (0_i128, Instant::now());
    let mut first = true;
    let mut turn = None;
    for step in steps {
        let each = limit.filter(|limit| *limit > 0).map_or(0, |limit| 1_000_000_000 / i128::from(limit));
        match step {
            RateStep::Take => match rate.take(limit) {
                Ok(()) => {
                    turn = None;
                    taken += 1;
                    let passed = (Instant::now() - since).as_nanos() as i128;
                    // a bucket of a second, what has flowed in since, and at most one second too much given back
                    let most = 1_000_000_000 + passed + if first { 0 } else { 1_000_000_000 };
                    assert!(taken * each <= most, "{taken} at {limit:?} in {passed} ns");
                }
                Err(at) => {
                    let wait = (at - Instant::now()).as_nanos() as i128;
                    assert!(wait > 0 && wait <= each, "{wait} ns at {limit:?}");
                    turn = Some(at);
                }
            },
            RateStep::GiveBack if taken > 0 => {
                rate.give_back(limit);
                taken -= 1;
            }
            RateStep::GiveBack => {}
            RateStep::Passes(micros) => advance(Duration::from_micros(micros.into())).await,
            RateStep::AwaitsTurn => {
                if let Some(at) = turn.take() {
                    advance(at.saturating_duration_since(Instant::now())).await;
                    assert!(rate.take(limit).is_ok(), "its turn has come");
                    taken += 1;
                }
            }
            RateStep::OtherRate(other) => {
                (limit, taken, since, first, turn) = (other, 0, Instant::now(), false, None);
            }
        }
    }
}

#[derive(Arbitrary, Debug)]
enum MemoryStep {
    Take(u16),
    Give(u8),
    Wait,
    Limit(usize),
}

fn memory(mut limit: usize, steps: Vec<MemoryStep>) {
    let memory = Memory::new(limits().with_memory(limit));
    let mut taken: Vec<usize> = Vec::new();
    let mut waiting: Vec<Arc<AtomicBool>> = Vec::new();
    let mut overdrawn = 0;
    for step in steps {
        let told = |waiting: &[Arc<AtomicBool>]| waiting.iter().filter(|told| told.load(Relaxed)).count();
        let relaxed = |used: usize, limit: usize| used <= limit - limit / 12;
        match step {
            MemoryStep::Take(bytes) => {
                memory.take(bytes.into());
                taken.push(bytes.into());
                overdrawn += usize::from(taken.iter().sum::<usize>() > limit.saturating_add(limit / 16));
                assert_eq!(told(&waiting), 0);
            }
            MemoryStep::Give(which) => {
                if let Some(bytes) = remove(&mut taken, which) {
                    memory.give(bytes);
                }
                let all = if relaxed(taken.iter().sum(), limit) { waiting.len() } else { 0 };
                assert_eq!(told(&waiting), all);
            }
            MemoryStep::Wait => {
                waiting.push(Arc::default());
                memory.wait(&waiting[waiting.len() - 1]);
                let all = if relaxed(taken.iter().sum(), limit) { waiting.len() } else { 0 };
                assert_eq!(told(&waiting), all);
            }
            MemoryStep::Limit(to) => {
                limit = to;
                memory.set_limits(limits().with_memory(to));
                assert_eq!(told(&waiting), waiting.len());
            }
        }
        waiting.retain(|told| !told.load(Relaxed));
        let used = taken.iter().sum();
        assert_eq!((memory.used(), memory.is_exhausted()), (used, used >= limit));
        assert_eq!(memory.overdrawn(), overdrawn);
    }
}

#[derive(Arbitrary, Debug)]
enum HandshakeStep {
    Begin(u8),
    Drop(u8),
    ShedAll,
}

fn handshakes(steps: Vec<HandshakeStep>) {
    let all = Handshakes::default();
    // in the order in which they began, and whether they had to go
    let mut begun: Vec<(Handshake, bool)> = Vec::new();
    let mut over = false;
    for step in steps {
        match step {
            HandshakeStep::Begin(limit) => {
                begun.push((all.begin(limit.into()), false));
                let limit = if over { 0 } else { usize::from(limit).max(1) };
                let excess = begun.iter().filter(|one| !one.1).count().saturating_sub(limit);
                begun.iter_mut().filter(|one| !one.1).take(excess).for_each(|one| one.1 = true);
                assert!(all.count() <= limit);
            }
            HandshakeStep::Drop(which) => drop(remove(&mut begun, which)),
            HandshakeStep::ShedAll => {
                all.shed_all();
                over = true;
                begun.iter_mut().for_each(|one| one.1 = true);
            }
        }
        assert_eq!(all.count(), begun.iter().filter(|one| !one.1).count());
        // a future that is through is not asked again
        begun.retain_mut(|(one, shed)| {
            assert_eq!(one.is_shed(Waker::noop()), *shed);
            !*shed
        });
    }
    begun.clear();
    assert_eq!(all.count(), 0);
}

thread_local! {
    static CLOCK: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

fuzz_target!(|input: Input| {
    match input {
        Input::Slots(steps) => slots(steps),
        Input::Addresses(steps) => addresses(steps),
        Input::Rate(limit, steps) => CLOCK.with(|clock| clock.block_on(rate(limit, steps))),
        Input::Memory(limit, steps) => memory(limit, steps),
        Input::Handshakes(steps) => handshakes(steps),
    }
});
