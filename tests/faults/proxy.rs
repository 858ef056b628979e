//! Proxies between residua and the brokers of a cluster, which know where a request and an answer begin and end.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Kafka's number for the request that ends a transaction.
const END_TXN: i16 = 26;
/// Larger than any request or answer of the tests.
const FRAME_MAX: usize = 128 << 20;

/// One proxy for each broker; ends with the process.
pub struct Proxies {
    pub bootstrap: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: Mutex<Vec<(u64, TcpStream, TcpStream)>>,
    next: AtomicU64,
    /// No new connections.
    closed: AtomicBool,
    /// Wait before each frame, ms.
    delay_ms: AtomicU64,
    /// Connections with lower numbers take everything and pass nothing on.
    silent_below: AtomicU64,
    /// So many answers to the end of a transaction are still to be lost, each with its connection.
    lose: AtomicUsize,
}

impl Proxies {
    pub fn start(cluster: &Path, brokers: usize) -> io::Result<Proxies> {
        let state = Arc::new(State::default());
        let mut addresses = Vec::new();
        for broker in 1..=brokers {
            let port = |name: &str| fs::read_to_string(cluster.join(format!("broker-{broker}/{name}")));
            let (here, there) = (port("proxy-port")?.trim().to_owned(), port("proxied-port")?.trim().to_owned());
            let listener = TcpListener::bind(format!("127.0.0.1:{here}"))?;
            addresses.push(format!("127.0.0.1:{here}"));
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if !state.closed.load(Ordering::Relaxed)
                        && let Ok(server) = TcpStream::connect(format!("127.0.0.1:{there}"))
                    {
                        let _ = connect(&state, client, server);
                    }
                }
            });
        }
        Ok(Proxies { bootstrap: addresses.join(","), state })
    }

    /// Ends every connection, and takes none for a while.
    pub fn cut(&self, silence: Duration) {
        self.state.closed.store(true, Ordering::Relaxed);
        self.end(false);
        thread::sleep(silence);
        self.state.closed.store(false, Ordering::Relaxed);
    }

    /// Ends every connection with a reset.
    pub fn reset(&self) {
        self.end(true);
    }

    /// Delays everything for a while.
    pub fn slow(&self, by: Duration, time: Duration) {
        self.state.delay_ms.store(by.as_millis() as u64, Ordering::Relaxed);
        thread::sleep(time);
        self.state.delay_ms.store(0, Ordering::Relaxed);
    }

    /// Present connections stay, and nothing comes through them any more.
    pub fn silence(&self) {
        self.state.silent_below.store(self.state.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The next end of a transaction is carried out, and its answer lost with the connection. Whether one came within `patience`.
    pub fn lose_end_of_transaction(&self, patience: Duration) -> bool {
        self.state.lose.store(1, Ordering::Relaxed);
        for _ in 0..patience.as_millis() / 10 {
            if self.state.lose.load(Ordering::Relaxed) == 0 {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.state.lose.swap(0, Ordering::Relaxed) == 0
    }

    fn end(&self, reset: bool) {
        for (_, client, server) in self.state.connections.lock().expect("a sound lock").drain(..) {
            if reset {
                let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            }
            let _ = client.shutdown(if reset { Shutdown::Read } else { Shutdown::Both });
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn connect(state: &Arc<State>, client: TcpStream, server: TcpStream) -> io::Result<()> {
    let number = state.next.fetch_add(1, Ordering::Relaxed);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = (client.try_clone()?, client.try_clone()?);
    let (from_server, to_server) = (server.try_clone()?, server.try_clone()?);
    state.connections.lock().expect("a sound lock").push((number, client, server));
    let ends: Arc<Mutex<HashSet<[u8; 4]>>> = Arc::default();
    let (requests, asked, answered) = (Arc::clone(state), Arc::clone(&ends), ends);
    thread::spawn(move || {
        pump(&requests, number, from_client, to_server, |frame| {
            // api key, version, correlation id
            if frame.len() >= 8 && frame[..2] == END_TXN.to_be_bytes() {
                asked.lock().expect("a sound lock").extend(frame[4..8].try_into().ok() as Option<[u8; 4]>);
            }
            true
        });
    });
    let answers = Arc::clone(state);
    thread::spawn(move || {
        pump(&answers, number, from_server, to_client, |frame| {
            let ends_one = frame.len() >= 4 && answered.lock().expect("a sound lock").remove(&frame[..4]);
            !(ends_one && answers.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok())
        });
    });
    Ok(())
}

/// Passes frames on until one end is gone or `pass` says no; then both ends are.
fn pump(state: &State, number: u64, mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut frame = Vec::new();
    loop {
        let mut size = [0; 4];
        if from.read_exact(&mut size).is_err() {
            break;
        }
        let length = u32::from_be_bytes(size) as usize;
        assert!(length <= FRAME_MAX, "a frame of {length} bytes is none of Kafka's");
        frame.resize(length, 0);
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        if number < state.silent_below.load(Ordering::Relaxed) {
            continue;
        }
        match state.delay_ms.load(Ordering::Relaxed) {
            0 => {}
            ms => thread::sleep(Duration::from_millis(ms)),
        }
        if !pass(&frame) || to.write_all(&size).and_then(|()| to.write_all(&frame)).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    state.connections.lock().expect("a sound lock").retain(|c| c.0 != number);
}
