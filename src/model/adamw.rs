//! One step of training: AdamW (Loshchilov & Hutter 2019) under a one-cycle learning rate (Smith & Topin 2019).

use std::f64::consts::PI;

use fearless_simd::{Simd, dispatch, f32x16, prelude::*};

use super::lanes::{self, read, write};
use super::network::{Dense, Network};
use super::settings::ModelSettings;
use crate::record::vector;

/// Decay of the two moments, and what keeps the division finite.
const BETA: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;
/// One cycle: from 1/25 of the highest rate up over the first tenth of the steps, then down to zero.
const WARM_UP: f64 = 0.1;
const START: f64 = 1.0 / 25.0;
/// Largest Euclidean length of a step's gradient; a longer one is scaled down. Records far outside the others
/// (scaled values go up to 1e6) must not throw the weights away.
const GRADIENT_MAX: f64 = 10.0;

pub struct AdamW {
    mean: Vec<Dense>,
    square: Vec<Dense>,
    steps: usize,
    rate_max: f64,
    weight_decay: f64,
}

impl AdamW {
    pub fn new(network: &Network, settings: &ModelSettings) -> Self {
        Self {
            mean: network.zeros(),
            square: network.zeros(),
            steps: settings.steps,
            rate_max: settings.learning_rate,
            weight_decay: settings.weight_decay,
        }
    }

    /// Learning rate of a step: cosine up, cosine down.
    fn rate(&self, step: usize) -> f64 {
        let warm = (WARM_UP * self.steps as f64).max(1.0);
        let t = step as f64;
        let rise = |share: f64| 0.5 * (1.0 - (PI * share).cos());
        if t < warm {
            self.rate_max * (START + (1.0 - START) * rise(t / warm))
        } else {
            let share = (t - warm) / (self.steps as f64 - warm).max(1.0);
            self.rate_max * (1.0 - rise(share.min(1.0)))
        }
    }

    /// `step` counts from 0.
    pub fn step(&mut self, network: &mut Network, gradients: &[Dense], step: usize) {
        let rate = self.rate(step);
        let t = step as i32 + 1;
        let Some(factor) = factor(gradients) else { return };
        let update = Update {
            factor,
            rate: (rate / f64::from(1.0 - BETA[0].powi(t))) as f32,
            unbias: (1.0 / f64::from(1.0 - BETA[1].powi(t)).sqrt()) as f32,
            keep: (1.0 - rate * self.weight_decay) as f32,
        };
        for (((layer, g), m), v) in network.layers.iter_mut().zip(gradients).zip(&mut self.mean).zip(&mut self.square) {
            for (((values, g), m), v) in
                layer.parts_mut().into_iter().zip(g.parts()).zip(m.parts_mut()).zip(v.parts_mut())
            {
                update.apply(values, g, m, v);
            }
        }
    }
}

/// One step's numbers, the same for every parameter.
struct Update {
    /// Of the gradients.
    factor: f32,
    rate: f32,
    unbias: f32,
    keep: f32,
}

impl Update {
    fn apply(&self, values: &mut [f32], gradients: &[f32], means: &mut [f32], squares: &mut [f32]) {
        dispatch!(vector::level(), simd => self.apply_with(simd, values, gradients, means, squares));
    }

    #[inline(always)]
    fn apply_with<S: Simd>(
        &self,
        simd: S,
        values: &mut [f32],
        gradients: &[f32],
        means: &mut [f32],
        squares: &mut [f32],
    ) {
        let n = values.len();
        let c = |value: f32| f32x16::splat(simd, value);
        for at in (0..n).step_by(lanes::LANES) {
            let g = read(simd, &gradients[at..], 0.0) * c(self.factor);
            let (m, v) = (read(simd, &means[at..], 0.0), read(simd, &squares[at..], 0.0));
            let m = m + c(1.0 - BETA[0]) * (g - m);
            let v = v + c(1.0 - BETA[1]) * (g * g - v);
            let step = c(self.rate) * m / (v.sqrt() * c(self.unbias) + c(EPSILON));
            write(n - at, c(self.keep) * read(simd, &values[at..], 0.0) - step, &mut values[at..]);
            write(n - at, m, &mut means[at..]);
            write(n - at, v, &mut squares[at..]);
        }
    }
}

/// That all gradients are scaled by together: down where they are too long. None where they are not finite: such a step is not done.
fn factor(gradients: &[Dense]) -> Option<f32> {
    let parts = gradients.iter().flat_map(Dense::parts);
    let length = parts.map(|values| lanes::squares(values.len(), values)).sum::<f64>().sqrt();
    length.is_finite().then(|| if length > GRADIENT_MAX { (GRADIENT_MAX / length) as f32 } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::settings::Activation;
    use super::*;

    fn network() -> Network {
        Network::new(5, 7, 3, Activation::Relu, &mut ChaCha8Rng::seed_from_u64(0))
    }

    #[test]
    fn one_cycle_rises_then_falls_to_zero() {
        let settings = ModelSettings { steps: 100, learning_rate: 1.0, ..Default::default() };
        let optimiser = AdamW::new(&network(), &settings);
        assert_eq!(optimiser.rate(0), START);
        assert_eq!(optimiser.rate(10), 1.0);
        assert!((optimiser.rate(55) - 0.5).abs() < 1e-12);
        assert!(optimiser.rate(99) < 1e-3);
    }

    /// Algorithm 2 of Loshchilov & Hutter, parameter by parameter.
    #[test]
    fn a_step_is_what_the_paper_says() {
        vector::on_each(|| {
            let settings = ModelSettings { weight_decay: 0.1, ..Default::default() };
            let mut network = network();
            let mut optimiser = AdamW::new(&network, &settings);
            let mut expected: Vec<(f64, f64, f64)> =
                network.layers.iter().flat_map(Dense::parts).flatten().map(|p| (f64::from(*p), 0.0, 0.0)).collect();
            let mut gradients = network.zeros();
            for step in 0..3 {
                let numbers = gradients.iter_mut().flat_map(Dense::parts_mut).flatten();
                numbers.enumerate().for_each(|(i, g)| *g = ((i * (step + 2)) as f32).sin() * 0.1);
                let (rate, t) = (optimiser.rate(step), step as i32 + 1);
                for (g, (p, m, v)) in gradients.iter().flat_map(Dense::parts).flatten().zip(&mut expected) {
                    let g = f64::from(*g);
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    let (mean, square) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.999f64.powi(t)));
                    *p -= rate * (mean / (square.sqrt() + 1e-8) + 0.1 * *p);
                }
                optimiser.step(&mut network, &gradients, step);
            }
            let got = network.layers.iter().flat_map(Dense::parts).flatten();
            let off = got.zip(&expected).map(|(got, (p, ..))| (f64::from(*got) - p).abs()).fold(0.0, f64::max);
            assert!(off < 1e-5, "{off}");
        });
    }

    #[test]
    fn long_gradients_are_cut_and_those_without_a_length_are_left_out() {
        let network = network();
        let mut gradients = network.zeros();
        gradients[1].weight[[2, 1]] = 40.0;
        gradients[3].bias[4] = -30.0;
        assert!((factor(&gradients).unwrap() - 0.2).abs() < 1e-6);
        gradients[1].weight[[2, 1]] = 4.0;
        gradients[3].bias[4] = -3.0;
        assert_eq!(factor(&gradients), Some(1.0));
        for strange in [f32::NAN, f32::INFINITY, 1e30] {
            gradients[0].bias[0] = strange;
            assert_eq!(factor(&gradients), None, "{strange}");
            let mut copy = network.clone();
            AdamW::new(&network, &ModelSettings::default()).step(&mut copy, &gradients, 0);
            assert_eq!(copy, network);
        }
    }
}
