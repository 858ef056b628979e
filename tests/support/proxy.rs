//! Proxies between residua and the brokers of a cluster, which know where a request and an answer begin and end.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Kafka's numbers for the requests that add partitions to a transaction, that end it, and that ask for brokers and topics.
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const END_TXN: i16 = 26;
const METADATA: i16 = 3;
/// The first version of an answer to it whose lengths are varints.
const COMPACT_METADATA: i16 = 9;
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
    /// Answers that list the brokers list none; how many did so far.
    unlisted: AtomicBool,
    emptied: AtomicUsize,
    /// So many answers to the end of a transaction are still to be lost, each with its connection.
    lose: AtomicUsize,
    late: Mutex<Late>,
}

/// What has become of a request to end a transaction that arrives late.
#[derive(Default)]
enum Late {
    #[default]
    Unwanted,
    /// The next one is to be.
    Wanted,
    /// It is on its way to this broker, and its connection gone.
    Kept { frame: Vec<u8>, broker: SocketAddr },
    /// Asked for once more, and that is passed on.
    Repeated { frame: Vec<u8>, broker: SocketAddr },
    /// The same producer has begun another transaction.
    Due { frame: Vec<u8>, broker: SocketAddr },
}

impl Late {
    /// Looks at a request on its way. Whether to pass it on.
    fn pass(&mut self, request: &[u8], broker: SocketAddr) -> bool {
        let Some((key, [_, _, _, _, _, _, rest @ ..])) = key(request).zip(request.get(2..)) else { return true };
        *self = match std::mem::take(self) {
            Late::Wanted if key == END_TXN => {
                *self = Late::Kept { frame: request.to_vec(), broker };
                return false;
            }
            // All but the correlation id.
            Late::Kept { frame, broker } if key == END_TXN && frame[8..] == *rest => Late::Repeated { frame, broker },
            Late::Repeated { frame, broker } if key == ADD_PARTITIONS_TO_TXN && rest.starts_with(producer(&frame)) => {
                Late::Due { frame, broker }
            }
            other => other,
        };
        true
    }
}

/// The client's name, the transactional id and the producer's number in a request to end a transaction, as they are in one that adds
/// partitions; the epoch and whether to commit follow. In versions without tagged fields.
fn producer(end: &[u8]) -> &[u8] {
    assert!(end[2..4] < [0, 3][..], "EndTxn of version {:?}", &end[2..4]);
    &end[8..end.len() - 3]
}

/// Which request it is.
fn key(request: &[u8]) -> Option<i16> {
    request.first_chunk().map(|key| i16::from_be_bytes(*key))
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

    /// For a while, answers that list the brokers list none, as those of a broker do that has just started. How many did so far.
    pub fn unlist(&self, time: Duration) -> usize {
        self.state.unlisted.store(true, Ordering::Relaxed);
        thread::sleep(time);
        self.state.unlisted.store(false, Ordering::Relaxed);
        self.state.emptied.load(Ordering::Relaxed)
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

    /// The next request to end a transaction is under way until its producer has asked once more, and has begun another transaction. Kafka's
    /// answer to it then, an error code, if it came to that within `patience`.
    pub fn delay_end_of_transaction(&self, patience: Duration) -> Option<i16> {
        *self.state.late.lock().expect("a sound lock") = Late::Wanted;
        for _ in 0..patience.as_millis() / 10 {
            thread::sleep(Duration::from_millis(10));
            let mut late = self.state.late.lock().expect("a sound lock");
            match std::mem::take(&mut *late) {
                Late::Due { frame, broker } => {
                    drop(late);
                    // Something shall be in that transaction.
                    thread::sleep(Duration::from_millis(30));
                    return Some(ask(broker, &frame).expect("an answer to a late request"));
                }
                other => *late = other,
            }
        }
        *self.state.late.lock().expect("a sound lock") = Late::Unwanted;
        None
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
    let broker = server.peer_addr()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = (client.try_clone()?, client.try_clone()?);
    let (from_server, to_server) = (server.try_clone()?, server.try_clone()?);
    state.connections.lock().expect("a sound lock").push((number, client, server));
    // By correlation id, those requests whose answers matter.
    let waiting: Arc<Mutex<HashMap<[u8; 4], i16>>> = Arc::default();
    let (requests, asked, answered) = (Arc::clone(state), Arc::clone(&waiting), waiting);
    thread::spawn(move || {
        pump(&requests, number, from_client, to_server, |frame| {
            // api key, version, correlation id
            if let [k0, k1, v0, v1, c0, c1, c2, c3, ..] = frame[..] {
                let (key, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
                if key == END_TXN || key == METADATA && version >= COMPACT_METADATA {
                    asked.lock().expect("a sound lock").insert([c0, c1, c2, c3], key);
                }
            }
            requests.late.lock().expect("a sound lock").pass(frame, broker)
        });
    });
    let answers = Arc::clone(state);
    thread::spawn(move || {
        pump(&answers, number, from_server, to_client, |frame| {
            let to = frame.first_chunk::<4>().and_then(|id| answered.lock().expect("a sound lock").remove(id));
            if to == Some(METADATA) && answers.unlisted.load(Ordering::Relaxed) {
                *frame = without_brokers(frame).expect("an answer of Kafka's to a request for metadata");
                answers.emptied.fetch_add(1, Ordering::Relaxed);
            }
            let one_less = |n: usize| n.checked_sub(1);
            !(to == Some(END_TXN) && answers.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok())
        });
    });
    Ok(())
}

/// Sends one request to end a transaction; the error code of the answer.
fn ask(broker: SocketAddr, request: &[u8]) -> io::Result<i16> {
    let mut stream = TcpStream::connect(broker)?;
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(request)?;
    // Size, correlation id, throttle time, error.
    let mut answer = [0; 14];
    stream.read_exact(&mut answer)?;
    Ok(i16::from_be_bytes([answer[12], answer[13]]))
}

/// An answer to a request for metadata, version 9 or later, without its list of brokers.
fn without_brokers(frame: &[u8]) -> Option<Vec<u8>> {
    /// What follows a number in Kafka's unsigned varint.
    fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
        let last = bytes.iter().position(|b| b & 0x80 == 0)?;
        let number = bytes[..=last].iter().rev().fold(0, |sum, b| sum << 7 | usize::from(b & 0x7f));
        Some((number, &bytes[last + 1..]))
    }
    fn after_text(bytes: &[u8]) -> Option<&[u8]> {
        let (length, rest) = varint(bytes)?; // one more than that; 0: none
        rest.get(length.saturating_sub(1)..)
    }
    // Correlation id, no tagged fields, throttle time; then the list, with one more than its length first.
    let head = frame.get(..4 + 1 + 4)?;
    let (count, mut rest) = varint(&frame[head.len()..])?;
    for _ in 1..count {
        // Node id, host, port, rack, no tagged fields.
        rest = after_text(after_text(rest.get(4..)?)?.get(4..)?)?.get(1..)?;
    }
    Some([head, &[1], rest].concat())
}

/// Passes frames on until one end is gone or `pass` says no; then both ends are.
/// `pass` may change a frame.
fn pump(
    state: &State,
    number: u64,
    mut from: TcpStream,
    mut to: TcpStream,
    mut pass: impl FnMut(&mut Vec<u8>) -> bool,
) {
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
        if !pass(&mut frame) {
            break;
        }
        let size = (frame.len() as u32).to_be_bytes();
        if to.write_all(&size).and_then(|()| to.write_all(&frame)).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    state.connections.lock().expect("a sound lock").retain(|c| c.0 != number);
}
