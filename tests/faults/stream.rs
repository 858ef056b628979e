//! The input while it is disturbed: a plant of 200 machines at an even pace, and how far its scores have come.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::plant::{self, Fault};
use crate::support::{Broker, Outgoing, send};

pub const MACHINES: usize = 200;
pub const PARTITIONS: usize = 8;
/// Records per second: more than the 3,000 that are asked for.
pub const RATE: f64 = 3_400.0;
/// Of the short run: three brokers that have just started, and programs that are not optimised, leave no time for more on two cores.
pub const RATE_SHORT: f64 = 1_000.0;
/// Steps made at a time.
const STEPS: usize = 2;

/// Writes records until it is stopped.
pub struct Stream {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    since: Instant,
    thread: JoinHandle<()>,
}

impl Stream {
    /// `rate`: records per second.
    pub fn start(broker: &Broker, topic: &str, seed: u64, rate: f64) -> Stream {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, count, topic) = (Arc::clone(&stop), Arc::clone(&written), topic.to_owned());
        // Brokers come and go: whatever it takes, and each record once.
        let producer = broker.producer(&[("linger.ms", "5"), ("message.timeout.ms", "600000")]);
        let since = Instant::now();
        let thread = thread::spawn(move || {
            let mut step = 0;
            while !ended.load(Ordering::Relaxed) {
                // A machine is off now and then, so that there are alerts too.
                let fault = Fault {
                    machine: step / 40 * 7 % MACHINES,
                    sensor: step / 40 % 8,
                    from: step,
                    to: step + 8,
                    size: 0.6,
                };
                for record in plant::records_of(MACHINES, seed + step as u64, step..step + STEPS, &[fault]) {
                    send(&producer, &topic, &record);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // And one message in some hundreds is no record.
                send(&producer, &topic, &Outgoing::new(plant::name(step % MACHINES), format!("{{\"flow\":{step}")));
                count.fetch_add(1, Ordering::Relaxed);
                step += STEPS;
                producer.poll(Duration::ZERO);
                let due = since + Duration::from_secs_f64((step * MACHINES) as f64 / rate);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            producer.flush(Duration::from_secs(300)).expect("write what is left of the stream");
        });
        Stream { stop, written, since, thread }
    }

    pub fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Records written, and how many per second.
    pub fn end(self) -> (usize, f64) {
        let time = self.since.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the stream's thread");
        let written = self.written.load(Ordering::Relaxed);
        (written, written as f64 / time.as_secs_f64())
    }
}

/// Follows a scores topic: the newest record of each partition of the input that has its score.
pub struct Watch {
    seen: Arc<Mutex<[i64; PARTITIONS]>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub fn start(broker: &Broker, topic: &str) -> Watch {
        let (seen, stop) = (Arc::new(Mutex::new([-1; PARTITIONS])), Arc::new(AtomicBool::new(false)));
        let (into, ended, topic) = (Arc::clone(&seen), Arc::clone(&stop), topic.to_owned());
        let mut config = broker.client();
        config.set("group.id", "watch").set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("create a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&topic, partition as i32, Offset::Beginning).expect("a valid start");
        }
        consumer.assign(&list).expect("assign all partitions");
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let (partition, offset) = position(message.payload().unwrap_or_default());
                let newest = &mut into.lock().expect("a sound lock")[partition];
                *newest = offset.max(*newest);
            }
        });
        Watch { seen, stop }
    }

    pub fn seen(&self) -> [i64; PARTITIONS] {
        *self.seen.lock().expect("a sound lock")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Partition and offset in the id that a line begins with: `{"id":"topic-partition-offset",`.
pub fn position(line: &[u8]) -> (usize, i64) {
    let text = std::str::from_utf8(line).expect("a line in UTF-8");
    let id = text.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next()).expect("an id first");
    let mut parts = id.rsplit('-');
    let mut number = || parts.next().and_then(|part| part.parse().ok()).expect("a position in the id");
    let offset = number();
    (number() as usize, offset)
}
