//! There are never more than the limit, all come back, and whoever waits for one gets it.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shuttle::future::block_on;
use shuttle::thread;

use crate::limits::Handshakes;
use crate::server::slots::Slots;
use crate::sync::model::check;

/// Takes a slot as a listener does, and holds it for a moment.
fn take(slots: &Arc<Slots>, held: &AtomicUsize, limit: usize) {
    let slot = block_on(poll_fn(|cx| slots.poll_take(cx)));
    let holders = held.fetch_add(1, Relaxed) + 1;
    assert!(holders <= limit, "{holders} of {limit}");
    thread::yield_now();
    held.fetch_sub(1, Relaxed);
    drop(slot);
}

#[test]
fn never_more_than_the_limit_and_nobody_waits_for_ever() {
    for limit in [1, 2] {
        check(2000, move || {
            let (slots, held) = (Slots::new(limit), Arc::new(AtomicUsize::new(0)));
            let takers = [(); 3].map(|()| {
                let (slots, held) = (Arc::clone(&slots), Arc::clone(&held));
                thread::spawn(move || {
                    take(&slots, &held, limit);
                    take(&slots, &held, limit);
                })
            });
            for taker in takers {
                taker.join().unwrap();
            }
            assert_eq!(slots.used(), 0);
            assert!(slots.try_take().is_some());
        });
    }
}

#[test]
fn a_limit_that_changes_is_kept_and_a_higher_one_lets_those_in_who_wait() {
    check(2000, || {
        let (slots, held) = (Slots::new(2), Arc::new(AtomicUsize::new(0)));
        let stays = slots.try_take().unwrap();
        let takers = [(); 2].map(|()| {
            let (slots, held) = (Arc::clone(&slots), Arc::clone(&held));
            thread::spawn(move || take(&slots, &held, 2))
        });
        let changes = thread::spawn({
            let slots = Arc::clone(&slots);
            move || {
                // nobody can get in now
                slots.set_limit(1);
                slots.set_limit(3);
            }
        });
        for one in takers.into_iter().chain([changes]) {
            one.join().unwrap();
        }
        assert_eq!(slots.used(), 1);
        drop(stays);
        assert_eq!(slots.used(), 0);
    });
}

#[test]
fn a_handshake_that_has_to_make_room_hears_of_it() {
    check(2000, || {
        let all = Arc::new(Handshakes::default());
        let (began, wait) = shuttle::sync::mpsc::channel();
        let running = [(); 3].map(|()| {
            let (all, began) = (Arc::clone(&all), began.clone());
            thread::spawn(move || {
                let one = all.begin(2);
                assert!(all.count() <= 2);
                began.send(()).unwrap();
                block_on(one.run(pending::<()>()))
            })
        });
        for _ in 0..3 {
            wait.recv().unwrap();
        }
        // of these one has gone already
        assert_eq!(all.count(), 2);
        all.shed_all();
        for one in running {
            assert_eq!(one.join().unwrap(), None);
        }
        assert_eq!(all.count(), 0);
    });
}

#[test]
fn no_handshake_outlives_the_end_of_all() {
    check(2000, || {
        let all = Arc::new(Handshakes::default());
        let running = [(); 2].map(|()| {
            let all = Arc::clone(&all);
            thread::spawn(move || block_on(all.begin(2).run(pending::<()>())))
        });
        // one of them may begin later
        all.shed_all();
        for one in running {
            assert_eq!(one.join().unwrap(), None);
        }
        assert_eq!(all.count(), 0);
    });
}
