//! What a second worker is worth.

use std::fs;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::program::{PARTITIONS, RECORDS, TICKS, TIME_MAX, serve};
use crate::support::{self, Broker, PATIENCE};
use crate::table::{self, Goal};

const ROUNDS: usize = 3;
/// What lies between these shares of all records is timed: by then all workers have their partitions, and none has run out of records.
const FROM: f64 = 0.55;
const TO: f64 = 0.9;

/// Of a record: time, and processor time of the workers.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    workers: f64,
}

/// Prints lines of the table. `model`: a file.
pub fn measure(broker: &Broker, topic: &str, model: &str) {
    let mut best: [Option<Cost>; 2] = [None; 2];
    for round in 0..ROUNDS {
        for (workers, best) in (1..).zip(&mut best) {
            let cost = worked_off(broker, topic, model, workers, round);
            *best =
                Some(best.map_or(cost, |best| Cost {
                    wall: best.wall.min(cost.wall),
                    workers: best.workers.min(cost.workers),
                }));
        }
    }
    let [Some(one), Some(two)] = best else { unreachable!("every round has both") };
    let (what, rival) = ("two workers, thorough", "one worker, and the broker on these cores");
    table::line(what, rival, two.wall, one.wall, Goal::Faster(1.7));
    let rival = "one worker, by processor time of workers";
    table::line(what, rival, two.workers / 2.0, one.workers, Goal::Faster(1.7));
}

fn worked_off(broker: &Broker, topic: &str, model: &str, workers: usize, round: usize) -> Cost {
    let group = support::topic(&format!("peers-scaling-{workers}-{round}"));
    let process = serve(broker, topic, model, &group, workers);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.bootstrap)
        .set("group.id", &group)
        .create()
        .expect("a consumer");
    let id = process.id();
    let reached = |share: f64| {
        let since = Instant::now();
        loop {
            let done = committed(&consumer, topic);
            if done as f64 >= share * RECORDS as f64 {
                return (Instant::now(), done, processor_seconds(id));
            }
            assert!(since.elapsed() < TIME_MAX, "{done} of {RECORDS} records within {TIME_MAX:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let (start, from, busy) = reached(FROM);
    let assigned = process.stdout().matches("partitions assigned").count()
        + process.stderr().matches("partitions assigned").count();
    assert!(assigned >= workers, "{assigned} of {workers} workers have partitions: more records are needed");
    let (end, to, busy_then) = reached(TO);
    process.signal("TERM");
    assert!(process.wait(PATIENCE).status.success());
    let of_each = |seconds: f64| seconds / (to - from) as f64;
    Cost { wall: of_each((end - start).as_secs_f64()), workers: of_each(busy_then - busy) }
}

fn committed(consumer: &BaseConsumer, topic: &str) -> i64 {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, PARTITIONS - 1);
    let Ok(known) = consumer.committed_offsets(asked, PATIENCE) else { return 0 };
    known.elements().iter().filter_map(|element| element.offset().to_raw()).filter(|offset| *offset > 0).sum()
}

/// User and system time of the workers.
fn processor_seconds(process: u32) -> f64 {
    let mut seconds = 0.0;
    for task in fs::read_dir(format!("/proc/{process}/task")).expect("the process lives").flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        if let Some((_, times)) = stat.rsplit_once(')').filter(|(name, _)| name.contains("(worker")) {
            let ticks = times.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok());
            seconds += ticks.sum::<f64>() / TICKS;
        }
    }
    seconds
}
