//! What training costs: a step of 64 records, forward, backward and AdamW, of autoencoders of three sizes. `make bench-peers` has it against torch.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[allow(dead_code, reason = "the peak and the kernel are for the other benchmarks")]
#[path = "support/network.rs"]
mod network;
#[path = "support/training.rs"]
mod training;

use network::SHAPES;
use training::{STEP, Training};

fn train(c: &mut Criterion) {
    let mut group = c.benchmark_group("train");
    group.throughput(Throughput::Elements(STEP as u64));
    for shape in SHAPES {
        let mut training = Training::new(shape);
        let name = shape.map(|width| width.to_string()).join("-");
        group.bench_function(format!("{name}, a step of {STEP}"), |b| b.iter(|| training.step()));
    }
    group.finish();
}

criterion_group!(benches, train);
criterion_main!(benches);
