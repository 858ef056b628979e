//! Machines with eight sensors that two hidden quantities drive, so that a fault of one sensor breaks what all others say.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Outgoing;

pub const MACHINES: usize = 40;
pub const SENSORS: usize = 8;

/// One machine's sensor is off by `size` while `from <= step < to`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub machine: usize,
    pub sensor: usize,
    pub from: usize,
    pub to: usize,
    pub size: f64,
}

pub fn name(machine: usize) -> String {
    format!("machine-{machine:02}")
}

/// Records `steps.start` to `steps.end` of all machines, in time order; each carries its number in the header `n`.
pub fn records(seed: u64, steps: std::ops::Range<usize>, faults: &[Fault]) -> Vec<Outgoing> {
    records_of(MACHINES, seed, steps, faults)
}

/// The same of any number of machines.
pub fn records_of(machines: usize, seed: u64, steps: std::ops::Range<usize>, faults: &[Fault]) -> Vec<Outgoing> {
    let mut noise = ChaCha8Rng::seed_from_u64(seed);
    let mut out = Vec::with_capacity(steps.len() * machines);
    for step in steps {
        for machine in 0..machines {
            let phase = machine as f64;
            let load = (step as f64 / 37.0 + phase).sin();
            let heat = (step as f64 / 91.0 + 2.0 * phase).cos();
            let mut values = [0.0; SENSORS];
            for (i, value) in values.iter_mut().enumerate() {
                let (a, b) = (0.5 + i as f64 * 0.3, 1.7 - i as f64 * 0.2);
                *value = 10.0 + a * load + b * heat + 0.05 * (noise.random::<f64>() - 0.5);
            }
            for f in faults.iter().filter(|f| f.machine == machine && (f.from..f.to).contains(&step)) {
                values[f.sensor] += f.size;
            }
            out.push(Outgoing {
                headers: vec![("n".to_owned(), format!("{machine}:{step}").into_bytes())],
                ..Outgoing::new(name(machine), json(&values))
            });
        }
    }
    out
}

fn json(v: &[f64; SENSORS]) -> String {
    format!(
        r#"{{"flow":{:.4},"speed":{:.4},"motor":{{"current":{:.4},"temp":{:.4}}},"in":{:.4},"out":{:.4},"vibration":{:.4},"valve":{:.4},"site":"north"}}"#,
        v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    )
}
