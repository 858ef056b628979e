//! What a second worker is worth.

use std::fs;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};

use crate::program::{PARTITIONS, RECORDS, TICKS, TIME_MAX, serve};
use crate::support::{self, Broker, PATIENCE};

const ROUNDS: usize = 3;
/// What lies between these shares of all records is timed: by then all workers have their partitions, and none has run out of records.
const FROM: f64 = 0.55;
const TO: f64 = 0.9;

/// Of a record: time, and processor time of the workers and of the whole process.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    workers: f64,
    process: f64,
}

/// Prints a line for one worker, and one for two. `model`: a file.
pub fn measure(broker: &Broker, topic: &str, model: &str) {
    let mut best: [Option<Cost>; 2] = [None; 2];
    for round in 0..ROUNDS {
        for (workers, best) in (1..).zip(&mut best) {
            let cost = worked_off(broker, topic, model, workers, round);
            *best = Some(best.map_or(cost, |best| Cost {
                wall: best.wall.min(cost.wall),
                workers: best.workers.min(cost.workers),
                process: best.process.min(cost.process),
            }));
        }
    }
    let [Some(one), Some(two)] = best else { unreachable!("every round has both") };
    println!("{:<12} {:>14} {:>22} {:>22}", "a record", "time", "processor, workers", "processor, all");
    for (workers, cost) in [(1, one), (2, two)] {
        let [wall, busy, all] = [cost.wall, cost.workers, cost.process].map(|seconds| 1e9 * seconds);
        println!("{workers} worker(s)  {wall:>11.0} ns {busy:>19.0} ns {all:>19.0} ns");
    }
    println!(
        "two workers: {:.2}x as fast as one, with the broker on the same cores; {:.2}x by their processor time alone",
        one.wall / two.wall,
        (2.0 * one.workers / two.workers).min(2.0)
    );
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
    let (start, from, [busy, all]) = reached(FROM);
    let assigned = process.stdout().matches("partitions assigned").count()
        + process.stderr().matches("partitions assigned").count();
    assert!(assigned >= workers, "{assigned} of {workers} workers have partitions: more records are needed");
    let (end, to, [busy_then, all_then]) = reached(TO);
    process.signal("TERM");
    assert!(process.wait(PATIENCE).status.success());
    let of_each = |seconds: f64| seconds / (to - from) as f64;
    Cost {
        wall: of_each((end - start).as_secs_f64()),
        workers: of_each(busy_then - busy),
        process: of_each(all_then - all),
    }
}

fn committed(consumer: &BaseConsumer, topic: &str) -> i64 {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, PARTITIONS - 1);
    let Ok(known) = consumer.committed_offsets(asked, PATIENCE) else { return 0 };
    known.elements().iter().filter_map(|element| element.offset().to_raw()).filter(|offset| *offset > 0).sum()
}

/// User and system time of the workers, and of all threads.
fn processor_seconds(process: u32) -> [f64; 2] {
    let mut seconds = [0.0; 2];
    for task in fs::read_dir(format!("/proc/{process}/task")).expect("the process lives").flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let took: f64 =
            rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / TICKS;
        seconds[1] += took;
        if name.contains("(worker") {
            seconds[0] += took;
        }
    }
    seconds
}
