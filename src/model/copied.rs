//! How much of a sensor's own shift a network rebuilds as it is.
//!
//! Where sensors are few, or have little to do with each other, there is room in the code for the level of each: what a sensor reads is copied, however
//! far out it is, and its residual stays as it was. Such a sensor has to be judged by how far it lies from its mean, too.

use ndarray::Array2;

use super::network::Network;
use super::series::HeldOut;
use super::view::Inputs;

/// A shift, in standard deviations of the sensor, up and down: farther than it ordinarily goes.
const SHIFT: f32 = 3.0;
/// Numbers that are shifted, sensors times inputs times held-out windows; and so many windows at least and at most.
const NUMBERS: usize = 2_000_000;
const WINDOWS: (usize, usize) = (4, 64);

/// Of each feature the share of such a shift, all over the window, that is in what is rebuilt of it: 0 to 1. `held_out`: at least one.
pub fn copied(seen: &Inputs, held_out: &[HeldOut], network: &Network) -> Vec<f32> {
    let features = seen.rows.features;
    let count = (NUMBERS / (features * seen.width())).clamp(WINDOWS.0, WINDOWS.1);
    let mut inputs = seen.some(held_out, count);
    let of = |j: usize| (j..seen.width()).step_by(features);
    let shift = |inputs: &mut Array2<f32>, j: usize, by: f32| {
        of(j).for_each(|at| inputs.column_mut(at).mapv_inplace(|v| v + by))
    };
    let rebuilt = |inputs: &Array2<f32>, j: usize| {
        let rebuilt = network.decode(network.encode(inputs.view()).view());
        of(j).map(|at| f64::from(rebuilt.column(at).sum())).sum::<f64>()
    };
    let values = (inputs.nrows() * seen.view.window) as f64;
    let mut share = |j: usize| {
        shift(&mut inputs, j, SHIFT);
        let up = rebuilt(&inputs, j);
        shift(&mut inputs, j, -2.0 * SHIFT);
        let down = rebuilt(&inputs, j);
        shift(&mut inputs, j, SHIFT);
        let share = (up - down) / (2.0 * f64::from(SHIFT) * values);
        // What overflows is no copy.
        if share.is_finite() { share.clamp(0.0, 1.0) as f32 } else { 0.0 }
    };
    (0..features).map(&mut share).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::series::SeriesRows;
    use super::super::settings::Activation;
    use super::super::testing::{noise, table};
    use super::super::view::View;
    use super::*;
    use crate::record::vector;
    use rand::SeedableRng;

    #[test]
    fn a_sensor_that_the_network_copies_is_told_from_one_that_follows_others() {
        vector::on_each(|| {
            let n = 200;
            let table = table(3, noise(1, 3 * n));
            let rows = SeriesRows::new(&table, &Scaler { mean: vec![0.0; 3], scale: vec![1.0; 3] });
            let seen = Inputs::new(&rows, View { window: 2, context: false, clip: 0.0 });
            // The first is copied, the second is rebuilt as half of itself and half of the third, the third as the mean.
            let mut network = Network::new(6, 12, 6, Activation::Relu, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
            network.start_at(&[1.0; 6], &Array2::eye(6));
            let decode = network.layers.last_mut().unwrap();
            for record in [0, 3] {
                let half = &decode.weight.column(record + 1) * 0.5 + &decode.weight.column(record + 2) * 0.5;
                decode.weight.column_mut(record + 1).assign(&half);
                decode.weight.column_mut(record + 2).fill(0.0);
            }
            let held: Vec<HeldOut> = (1..n).map(|row| HeldOut { row, block: 0, series: 0 }).collect();
            let found = copied(&seen, &held, &network);
            assert!(found.iter().zip([1.0, 0.5, 0.0]).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
        });
    }
}
