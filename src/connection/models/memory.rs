//! The memory that connections are charged comes back, however they end, and who waits for it is woken.

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use super::super::outlet::Outlet;
use super::{Pipe, Served};
use crate::codec::Lines;
use crate::connection::{CloseReason, Connection, Core, Outbox, Prototype, Silence, StreamIn};
use crate::limits::{Limits, Live, STEP};
use crate::peer::{Peer, PeerAddress};
use crate::sync::model::check;
use crate::transport::MaybeTlsRead;

#[test]
fn what_an_outbox_was_charged_comes_back() {
    check(1000, || {
        let pipe = Pipe::new(1);
        let served = Served::start(Limits::edge(), &pipe, pipe.stream(), async |conn| conn);
        let core = Arc::clone(served.out().core());
        let sending = [served.sender(), served.sender()].map(|sender| {
            thread::spawn(move || {
                let _ = sender.try_send("x".repeat(2 * STEP));
            })
        });
        let failing = thread::spawn({
            let core = Arc::clone(&core);
            move || core.fail(CloseReason::Aborted)
        });
        let budget = &core.limits.memory;
        assert!(budget.used() < 1 << 20, "{budget:?}");
        for one in sending {
            one.join().unwrap();
        }
        failing.join().unwrap();
        let Served { driver, end, .. } = served;
        let _ = end.send(());
        block_on(driver).unwrap();
        assert_eq!(core.limits.memory.used(), 0);
    });
}

/// As it happens where a session has given its connection to another task.
#[test]
fn what_is_charged_while_the_connection_ends_comes_back() {
    check(2000, || {
        let peer = Peer::new(Arc::new("mem:model".parse().unwrap()), PeerAddress::Memory(0));
        let core = Arc::new(Core::new(peer, Live::new(Limits::edge()), Silence::Allowed, None));
        let charging = thread::spawn({
            let core = Arc::clone(&core);
            move || {
                let mut charged = 0;
                for bytes in [STEP, 3 * STEP, 0, STEP] {
                    core.charge(&mut charged, bytes);
                }
            }
        });
        let closing = thread::spawn({
            let core = Arc::clone(&core);
            move || core.close(core.sum_up(Default::default()))
        });
        let used = core.limits.memory.used();
        assert!(used <= 3 * STEP, "{used}");
        charging.join().unwrap();
        closing.join().unwrap();
        assert_eq!(core.limits.memory.used(), 0);
        assert_eq!(core.held(), 0);
    });
}

/// The owner's task is not the one that drives the connection.
#[test]
fn who_cannot_read_for_want_of_memory_goes_on_when_there_is_some() {
    check(2000, || {
        let pipe = Pipe::with_input(1, format!("{}\n", "x".repeat(STEP + 1)).as_bytes());
        let peer = Peer::new(Arc::new("mem:model".parse().unwrap()), PeerAddress::Memory(0));
        let core = Arc::new(Core::new(peer, Live::new(Limits::edge()), Silence::Allowed, None));
        let memory = core.limits.get().memory;
        core.limits.memory.take(memory);
        let out = Outbox::new(Arc::clone(&core), Prototype::new(Lines::new()), pipe.stream());
        let link = Box::new(StreamIn::new(MaybeTlsRead::Plain(pipe.stream()), Lines::new(), ()));
        let mut conn: Connection<String> = Connection::new(link, out);
        let giving = thread::spawn(move || core.limits.memory.give(memory));
        let message = block_on(conn.recv()).unwrap().unwrap();
        assert_eq!(message.len(), STEP + 1);
        giving.join().unwrap();
    });
}
