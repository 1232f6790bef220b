//! UDP in bulk, one way: 1,200-byte datagrams between two hythe endpoints, and between two bare tokio sockets.
//!
//! `cargo bench --bench udp_bulk`. Each end has a thread and a runtime of its own; the table says how much CPU time each
//! end took per datagram. On the loopback interface most of the kernel's work for the receiver is done by the sender.

#![allow(clippy::unwrap_used)] // A bench may.

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the CPU time of a thread is only measured on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::thread::{JoinHandle, scope, spawn};
    use std::time::{Duration, Instant};

    use hythe::codec::Datagram;
    use hythe::{Bytes, Connection, Handler, Limits, Server};
    use rustix::time::{ClockId, clock_gettime};
    use tokio::net::UdpSocket;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    const SIZE: usize = 1200;
    /// Sent without a look at how many have arrived.
    const BURST: u64 = 64;
    /// On their way at most: what the kernel's default receive buffer holds.
    const WINDOW: u64 = 2 * BURST;
    const ROUNDS: usize = 5;
    const SPAN: Duration = Duration::from_secs(1);

    /// What both ends know.
    struct Shared {
        received: AtomicU64,
        /// Room on the way.
        room: Semaphore,
        over: AtomicBool,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            let (received, over) = (AtomicU64::new(0), AtomicBool::new(false));
            Arc::new(Self { received, room: Semaphore::new(WINDOW as usize), over })
        }

        fn got_one(&self) {
            let received = self.received.load(Relaxed) + 1;
            self.received.store(received, Relaxed);
            if received % BURST == 0 {
                self.room.add_permits(BURST as usize);
            }
        }

        /// Room for one burst. What does not arrive is lost, and no longer on its way.
        async fn room(&self) {
            if let Ok(permits) = timeout(Duration::from_millis(50), self.room.acquire_many(BURST as u32)).await {
                permits.unwrap().forget();
            }
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// CPU time of the current thread.
    fn cpu() -> Duration {
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
    }

    #[derive(Clone)]
    struct Count(Arc<Shared>);

    impl Handler for Count {
        type In = Bytes;
        type Out = Bytes;

        async fn on_message(&mut self, _: &mut Connection<Bytes>, message: Bytes) -> anyhow::Result<()> {
            assert_eq!(message.len(), SIZE);
            self.0.got_one();
            Ok(())
        }
    }

    type End = JoinHandle<Duration>;

    fn hythe_receiver(shared: Arc<Shared>) -> (SocketAddr, End) {
        let (told, addr) = std::sync::mpsc::channel();
        let end = spawn(move || {
            runtime().block_on(async {
                let server = Server::new(Count(Arc::clone(&shared))).limits(Limits::edge());
                let running = server.bind("udp://127.0.0.1:0", Datagram::new()).start().await.unwrap();
                told.send(running.endpoints()[0].socket_addr().unwrap()).unwrap();
                until_over(&shared).await;
                assert_eq!(running.counters().datagrams_dropped, 0);
            });
            cpu()
        });
        (addr.recv().unwrap(), end)
    }

    fn hythe_sender(shared: &Shared, to: SocketAddr) -> (u64, Duration) {
        let sent = runtime().block_on(async {
            let mut conn: Connection<Bytes> =
                hythe::connect(format!("udp://{to}").as_str(), Datagram::new()).await.unwrap();
            let (message, mut sent, began) = (Bytes::from(vec![7; SIZE]), 0, Instant::now());
            while began.elapsed() < SPAN {
                shared.room().await;
                for _ in 0..BURST {
                    conn.feed(message.clone()).await.unwrap();
                }
                conn.flush().await.unwrap();
                sent += BURST;
            }
            sent
        });
        (sent, cpu())
    }

    fn bare_receiver(shared: Arc<Shared>) -> (SocketAddr, End) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let end = spawn(move || {
            runtime().block_on(async {
                socket.set_nonblocking(true).unwrap();
                let socket = UdpSocket::from_std(socket).unwrap();
                let mut buffer = vec![0; 65_536];
                let receive = async {
                    loop {
                        let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
                        assert_eq!(length, SIZE);
                        shared.got_one();
                    }
                };
                tokio::select! {
                    () = receive => {}
                    () = until_over(&shared) => {}
                }
            });
            cpu()
        });
        (addr, end)
    }

    fn bare_sender(shared: &Shared, to: SocketAddr) -> (u64, Duration) {
        let sent = runtime().block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (message, mut sent, began) = (vec![7; SIZE], 0, Instant::now());
            while began.elapsed() < SPAN {
                shared.room().await;
                for _ in 0..BURST {
                    socket.send_to(&message, to).await.unwrap();
                }
                sent += BURST;
            }
            sent
        });
        (sent, cpu())
    }

    async fn until_over(shared: &Shared) {
        while !shared.over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nanoseconds per datagram of both ends, datagrams a second, and how many were lost.
    struct Figures {
        sender: f64,
        receiver: f64,
        rate: f64,
        lost: u64,
    }

    fn measure(
        receiver: fn(Arc<Shared>) -> (SocketAddr, End),
        sender: fn(&Shared, SocketAddr) -> (u64, Duration),
    ) -> Figures {
        let shared = Shared::new();
        let (to, end) = receiver(Arc::clone(&shared));
        let (sent, sender_cpu) = scope(|scope| scope.spawn(|| sender(&shared, to)).join().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        shared.over.store(true, Relaxed);
        let receiver_cpu = end.join().unwrap();
        let received = shared.received.load(Relaxed);
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e9 / received as f64;
        Figures {
            sender: each(sender_cpu),
            receiver: each(receiver_cpu),
            rate: received as f64 / SPAN.as_secs_f64(),
            lost: sent - received,
        }
    }

    fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
        let mut values: Vec<_> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    pub(super) fn main() {
        let (mut bare, mut hythe) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(measure(bare_receiver, bare_sender));
            hythe.push(measure(hythe_receiver, hythe_sender));
        }
        println!("| {SIZE} B, one way | sender ns | receiver ns | both ns | × bare | datagrams/s | lost |");
        println!("|---|---|---|---|---|---|---|");
        let both = |figures: &Figures| figures.sender + figures.receiver;
        let base = median(&bare, both);
        for (name, figures) in [("bare tokio", &bare), ("hythe", &hythe)] {
            println!(
                "| {name} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0}k | {} |",
                median(figures, |figures| figures.sender),
                median(figures, |figures| figures.receiver),
                median(figures, both),
                median(figures, both) / base,
                median(figures, |figures| figures.rate) / 1e3,
                figures.iter().map(|figures| figures.lost).sum::<u64>(),
            );
        }
    }
}
