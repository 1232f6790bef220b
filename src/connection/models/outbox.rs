//! Nothing that was taken is lost or torn, each sender's messages keep their order, and what waits is always written.

use std::sync::Arc;

use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use super::{Messages, Pipe, Served, lines, of};
use crate::connection::{Connection, Delivery, Overflow, Sender, TrySendError};
use crate::group::Group;
use crate::limits::Limits;
use crate::sync::model::check;
use crate::sync::{Mutex, lock};

/// Room for two or three messages.
fn narrow() -> Limits {
    Limits::edge().with_outbox(8)
}

/// Each message is two letters, with its end three bytes.
fn messages(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}{n}")).collect()
}

async fn silent(conn: Connection<String>) -> Connection<String> {
    conn
}

#[test]
fn a_transport_that_blocks_is_written_when_it_takes_more() {
    check(2000, || {
        let pipe = Pipe::new(2);
        let served = Served::start(Limits::edge(), &pipe, pipe.stream(), silent);
        let sender = served.sender();
        let sending = thread::spawn(move || messages("a", 3).into_iter().for_each(|m| sender.try_send(m).unwrap()));
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        served.out().assert_quiet_is_true();
        sending.join().unwrap();
        let seen = served.finish(reading, 9);
        assert_eq!(lines(&seen), messages("a", 3));
    });
}

#[test]
fn what_a_session_sends_alone_is_written() {
    check(1000, || {
        let pipe = Pipe::new(2);
        let session = |mut conn: Connection<String>| async move {
            for message in messages("s", 4) {
                conn.send(message).await.unwrap();
                // when all of it is out, the next one goes to the stage
                yield_now().await;
            }
            conn
        };
        let served = Served::start(narrow(), &pipe, pipe.stream(), session);
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        let seen = served.finish(reading, 12);
        assert_eq!(lines(&seen), messages("s", 4));
    });
}

#[test]
fn who_waits_for_room_gets_it() {
    check(2000, || {
        let pipe = Pipe::new(2);
        let session = |mut conn: Connection<String>| async move {
            for message in messages("s", 2) {
                conn.send(message).await.unwrap();
            }
            conn
        };
        let served = Served::start(narrow(), &pipe, pipe.stream(), session);
        let send = |name| {
            let sender = served.sender();
            thread::spawn(move || {
                for message in messages(name, 2) {
                    block_on(sender.send(message)).unwrap();
                }
            })
        };
        let sending = [send("a"), send("b")];
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        served.out().assert_quiet_is_true();
        for one in sending {
            one.join().unwrap();
        }
        let seen = lines(&served.finish(reading, 18));
        for name in ["s", "a", "b"] {
            assert_eq!(of(name, &seen), messages(name, 2));
        }
        assert_eq!(seen.len(), 6);
    });
}

#[test]
fn groups_and_batches_write_what_they_have_added() {
    check(2000, || {
        let pipe = Pipe::new(4);
        let group = Group::new(Overflow::DropNewest);
        let joins = group.clone();
        let (joined, wait) = shuttle::sync::mpsc::channel();
        let session = move |conn: Connection<String>| async move {
            joins.join(&conn);
            joined.send(()).unwrap();
            conn
        };
        let served = Served::start(Limits::edge().with_outbox(15), &pipe, pipe.stream(), session);
        wait.recv().unwrap();
        let group_sends = thread::spawn(move || {
            let sent = |message| group.send(message).sent == 1;
            messages("g", 2).into_iter().filter(|message| sent(message.clone())).collect::<Vec<_>>()
        });
        let sender = served.sender();
        let batch_sends = thread::spawn(move || {
            let sent = |message| sender.push(message, Overflow::DropNewest).unwrap() == Delivery::Sent;
            crate::batch(|| messages("b", 3).into_iter().filter(|message| sent(message.clone())).collect::<Vec<_>>())
        });
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        served.out().assert_quiet_is_true();
        let (of_group, of_batch) = (group_sends.join().unwrap(), batch_sends.join().unwrap());
        let seen = lines(&served.finish(reading, 3 * (of_group.len() + of_batch.len())));
        assert_eq!(of("g", &seen), of_group);
        assert_eq!(of("b", &seen), of_batch);
    });
}

#[test]
fn older_messages_that_make_room_go_whole() {
    check(2000, || {
        let pipe = Pipe::new(1);
        // on a message transport each is charged 64 bytes more
        let limits = Limits::edge().with_outbox(140);
        let served = Served::start(limits, &pipe, Messages(Arc::clone(&pipe)), silent);
        let send = |name| {
            let sender = served.sender();
            thread::spawn(move || {
                let push = |message| sender.push(message, Overflow::DropOldest).unwrap();
                messages(name, 3).into_iter().filter(|message| push(message.clone()) == Delivery::Dropped).count()
            })
        };
        let sending = [send("a"), send("b")];
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        let dropped: usize = sending.into_iter().map(|one| one.join().unwrap()).sum();
        // the last one is never among those that made room
        let seen = served.finish(reading, 6 - dropped);
        assert!(seen.iter().all(|message| message.len() == 3), "{seen:?}");
        let seen = lines(&seen);
        assert_eq!(seen.len(), 6 - dropped, "each time one made room for one");
        for name in ["a", "b"] {
            assert!(of(name, &seen).is_sorted());
        }
    });
}

#[test]
fn on_a_stream_a_message_on_its_way_is_never_torn_for_a_newer_one() {
    check(2000, || {
        let pipe = Pipe::new(1);
        let served = Served::start(narrow(), &pipe, pipe.stream(), silent);
        let send = |name| {
            let sender = served.sender();
            thread::spawn(move || {
                for message in messages(name, 3) {
                    sender.push(message, Overflow::DropOldest).unwrap();
                }
            })
        };
        let sending = [send("a"), send("b")];
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        for one in sending {
            one.join().unwrap();
        }
        let seen = lines(&served.finish(reading, 0));
        for name in ["a", "b"] {
            let seen = of(name, &seen);
            assert!(seen.is_sorted() && seen.iter().all(|message| messages(name, 3).contains(message)), "{seen:?}");
        }
        assert!(seen.iter().any(|message| message.ends_with('2')), "the newest is there: {seen:?}");
    });
}

#[test]
fn what_a_session_sent_before_it_gave_a_sender_away_comes_first() {
    check(2000, || {
        let pipe = Pipe::new(8);
        let given: Arc<Mutex<Option<Sender<String>>>> = Arc::default();
        let (give, told) = shuttle::sync::mpsc::channel();
        let slot = Arc::clone(&given);
        let session = move |mut conn: Connection<String>| async move {
            conn.send("s0".into()).await.unwrap();
            // when it is out, the next one goes to the stage
            yield_now().await;
            conn.send("s1".into()).await.unwrap();
            *lock(&slot) = Some(conn.sender());
            give.send(()).unwrap();
            conn.send("s2".into()).await.unwrap();
            conn
        };
        let served = Served::start(Limits::edge(), &pipe, pipe.stream(), session);
        let sending = thread::spawn(move || {
            told.recv().unwrap();
            let sender = lock(&given).take().unwrap();
            sender.try_send("a0".into()).unwrap();
        });
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        sending.join().unwrap();
        let seen = lines(&served.finish(reading, 12));
        assert_eq!(of("s", &seen), messages("s", 3));
        assert!(seen == ["s0", "s1", "s2", "a0"] || seen == ["s0", "s1", "a0", "s2"], "{seen:?}");
    });
}

#[test]
fn what_was_taken_before_the_end_goes_out() {
    check(2000, || {
        let pipe = Pipe::new(2);
        let served = Served::start(Limits::edge(), &pipe, pipe.stream(), silent);
        let send = |name| {
            let sender = served.sender();
            thread::spawn(move || {
                let taken = |message| match sender.try_send(message) {
                    Ok(()) => true,
                    Err(TrySendError::Closed(_)) => false,
                    Err(error) => panic!("{error}"),
                };
                messages(name, 3).into_iter().filter(|message| taken(message.clone())).collect::<Vec<_>>()
            })
        };
        let sending = [send("a"), send("b")];
        let reading = thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || pipe.read()
        });
        let out = served.out();
        let Served { driver, end, .. } = served;
        end.send(()).unwrap();
        let seen = lines(&reading.join().unwrap());
        for (name, one) in ["a", "b"].into_iter().zip(sending) {
            assert_eq!(of(name, &seen), one.join().unwrap());
        }
        block_on(driver).unwrap();
        out.assert_quiet_is_true();
    });
}
