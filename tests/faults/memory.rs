//! What one, a thousand and a hundred thousand series take: memory beside what `check` estimates, and the time to take them over.

use std::time::{Duration, Instant};

use crate::fleet::resident_kib;
use crate::stream::PARTITIONS;
use crate::support::{PATIENCE, Process, plant, residua, topic, wait_for};
use crate::{Lab, RECOVERY_MAX};

const SERIES: [usize; 3] = [1, 1_000, 100_000];
/// Records of each, at least, and of all together.
const STEPS: usize = 4;
const RECORDS: usize = 40_000;

/// Prints memory at rest, with all series, and after a kill -9 and a restore of all of them.
pub fn run(lab: &Lab<'_>) {
    SERIES.into_iter().for_each(|series| run_with(lab, series));
}

fn run_with(lab: &Lab<'_>, series: usize) {
    let broker = &lab.cluster.broker;
    let name = topic(&format!("memory-{series}"));
    let steps = (RECORDS / series).max(STEPS);
    broker.create_topic(&name, PARTITIONS as i32, &[]);
    let group = format!("{name}-one");
    let config = lab.config(&name, "one", &broker.bootstrap, "exactly-once", "one") + "[model]\nwindow = 3\n";
    let checked = residua(&["check", "--connect", "--create-topics"], &config).wait(PATIENCE);
    assert!(checked.status.success(), "{checked:?}");
    let estimate = checked.stdout.lines().find(|line| line.starts_with("memory:")).expect("an estimate").to_owned();
    // "about B bytes for each series (...), and Q while a checkpoint holds all of them"
    let numbers: Vec<u64> = estimate.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [each, queued, ..] = numbers.as_slice() else { panic!("no two numbers in {estimate:?}") };
    let expected_kib = series as u64 * (each + queued) / 1024;

    let process = start(&config);
    let idle = resident_kib(process.id());
    let at_once = (RECORDS / series).max(1);
    for step in (0..steps).step_by(at_once) {
        broker.produce(&name, plant::records_of(series, step as u64, step..steps.min(step + at_once), &[]));
    }
    let ends = lab.ends(&name);
    wait_for("the group to commit the end of the input", RECOVERY_MAX, || {
        let committed = broker.committed(&group, &name);
        // Of a partition without a record nothing is committed.
        ends.iter().zip(committed).all(|(end, c)| *end < 0 || c.is_some_and(|c| c > *end)).then_some(())
    });
    // So that a checkpoint holds all of them.
    std::thread::sleep(Duration::from_secs(5));
    let loaded = resident_kib(process.id());
    process.signal("KILL");
    process.wait(PATIENCE);

    let since = Instant::now();
    let process = start(&config);
    let taken = since.elapsed();
    let restored = resident_kib(process.id());
    process.signal("TERM");
    assert!(process.wait(PATIENCE).status.success());

    // What is in flight: two workers' queues from Kafka, and as much beside them.
    let most = idle + expected_kib + 2 * 16 * 1024 + 32 * 1024;
    for (when, kib) in [("with all series", loaded), ("restored", restored)] {
        assert!(kib <= most, "{series} series, {when}: {kib} KiB, expected at most {most}; {estimate}");
    }

    // Of few series, what is in flight takes most of it.
    let each = |kib: u64| match (kib.saturating_sub(idle) * 1024) as f64 / series as f64 {
        bytes if series >= 100_000 => format!(", {bytes:.0} bytes for each"),
        _ => String::new(),
    };
    println!("\n{series} series of 8 sensors, window 3, {} records; {estimate}", series * steps);
    println!("at rest             {:>6} MiB", idle / 1024);
    println!("with all series     {:>6} MiB{}", loaded / 1024, each(loaded));
    println!("restored            {:>6} MiB{}", restored / 1024, each(restored));
    println!("start to assignment {:>6.1} s after kill -9, all series restored", taken.as_secs_f64());
}

fn start(config: &str) -> Process {
    let process = residua(&["run"], config);
    process.wait_for_line("partitions assigned worker=\"0\"", PATIENCE * 4);
    process.wait_for_line("partitions assigned worker=\"1\"", PATIENCE * 4);
    process
}
