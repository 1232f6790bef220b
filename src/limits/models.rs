//! Models of what connections share: places by address, and the memory of all buffers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shuttle::sync::Condvar;
use shuttle::thread;

use super::{Addresses, Budget, STEP, Waits};
use crate::sync::model::check;
use crate::sync::{Mutex, lock};

#[test]
fn an_address_has_never_more_than_its_places_and_all_come_back() {
    check(2000, || {
        let addresses = Arc::new(Addresses::default());
        let held = Arc::new(AtomicUsize::new(0));
        let addr: IpAddr = [192, 0, 2, 1].into();
        let takers = [(); 3].map(|()| {
            let (addresses, held) = (Arc::clone(&addresses), Arc::clone(&held));
            thread::spawn(move || {
                for _ in 0..2 {
                    let Some(place) = addresses.take(addr, Some(2)) else { continue };
                    assert!(held.fetch_add(1, Relaxed) < 2);
                    thread::yield_now();
                    held.fetch_sub(1, Relaxed);
                    drop(place);
                }
            })
        });
        for taker in takers {
            taker.join().unwrap();
        }
        let all = [(); 2].map(|()| addresses.take(addr, Some(2)));
        assert!(all.iter().all(Option::is_some), "a place did not come back");
        assert!(addresses.take(addr, Some(2)).is_none());
    });
}

/// A reader that waits for memory.
#[derive(Default)]
struct Reader {
    there: Mutex<bool>,
    told: Condvar,
}

impl Waits for Reader {
    fn memory_is_there(&self) {
        *lock(&self.there) = true;
        self.told.notify_all();
    }
}

/// Reads as a connection does: not while there is no memory.
fn read(budget: &Budget) {
    let reader = Arc::new(Reader::default());
    while budget.is_exhausted() {
        *lock(&reader.there) = false;
        budget.wait(Arc::clone(&reader) as _);
        let mut there = lock(&reader.there);
        while !*there {
            there = reader.told.wait(there).unwrap();
        }
    }
    budget.take(STEP);
    thread::yield_now();
    budget.give(STEP);
}

#[test]
fn who_waits_for_memory_hears_of_it_and_all_of_it_comes_back() {
    check(3000, || {
        let budget = Arc::new(Budget::new(STEP));
        let readers = [(); 3].map(|()| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || read(&budget))
        });
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn who_waits_for_memory_hears_of_a_higher_limit() {
    check(2000, || {
        let budget = Arc::new(Budget::new(STEP));
        budget.take(STEP);
        let readers = [(); 2].map(|()| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || read(&budget))
        });
        budget.set_limit(4 * STEP);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(budget.used(), STEP);
    });
}
