//! What checkpoints and transactions cost: the time to work off the same backlog with and without them, in turn, as ratios.

use std::time::{Duration, Instant};

use crate::stream::{MACHINES, PARTITIONS};
use crate::support::{PATIENCE, plant, residua, topic, wait_for};
use crate::{Lab, RECOVERY_MAX};

/// Records of the backlog, about.
const RECORDS: usize = 600_000;
const ROUNDS: usize = 3;
/// Longest the configuration takes: none within a run.
const NEVER: &str = "3600s";

/// Prints one line for each way to work.
pub fn run(lab: &Lab<'_>) {
    let broker = &lab.cluster.broker;
    let name = topic("cost");
    broker.create_topic(&name, PARTITIONS as i32, &[]);
    let steps = RECORDS / MACHINES;
    for from in (0..steps).step_by(100) {
        broker.produce(&name, plant::records_of(MACHINES, from as u64, from..from + 100, &[]));
    }
    let ways = [("at-least-once", NEVER), ("exactly-once", NEVER), ("exactly-once", "30s"), ("exactly-once", "1s")];
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for (i, (delivery, checkpoint)) in ways.iter().enumerate() {
            let config = lab.config(&name, &format!("way-{round}-{i}"), &broker.bootstrap, delivery, "one");
            // Without the scores topic: what a user runs.
            let config =
                config.replace("checkpoint_interval = \"2s\"", &format!("checkpoint_interval = \"{checkpoint}\""));
            let config = config.replace(&format!("scores = \"{name}-way-{round}-{i}.scores\"\n"), "");
            let made = residua(&["check", "--connect", "--create-topics"], &config).wait(PATIENCE);
            assert!(made.status.success(), "{made:?}");
            times[i].push(drained(lab, &name, &format!("{name}-way-{round}-{i}"), &config));
        }
    }
    let median = |of: &[Duration]| {
        let mut sorted = of.to_vec();
        sorted.sort();
        sorted[sorted.len() / 2].as_secs_f64()
    };
    let base = median(&times[0]);
    println!(
        "\n{steps} x {MACHINES} records, {MACHINES} series, one instance with two workers, {ROUNDS} rounds in turn"
    );
    for ((delivery, checkpoint), times) in ways.iter().zip(&times) {
        let time = median(times);
        let rate = (steps * MACHINES) as f64 / time;
        let every =
            if *checkpoint == NEVER { "no checkpoint".to_owned() } else { format!("checkpoint every {checkpoint}") };
        println!("{delivery:<14} {every:<22} {rate:>8.0} records/s  {:.2} of the first", base / time);
    }
}

/// Time from the assignment to the commit of the last record.
fn drained(lab: &Lab<'_>, name: &str, group: &str, config: &str) -> Duration {
    let process = residua(&["run"], config);
    process.wait_for_line("partitions assigned", PATIENCE);
    let since = Instant::now();
    let ends = lab.ends(name);
    wait_for("the group to commit the end of the input", RECOVERY_MAX, || {
        let committed = lab.cluster.broker.committed(group, name);
        ends.iter().zip(committed).all(|(end, c)| c.is_some_and(|c| c > *end)).then_some(())
    });
    let took = since.elapsed();
    process.signal("TERM");
    assert!(process.wait(PATIENCE).status.success());
    took
}
