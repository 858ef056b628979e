//! Training of the network: denoising autoencoder (Vincent et al. 2008) with AdamW (Loshchilov & Hutter 2019) under a
//! one-cycle learning rate (Smith & Topin 2019). Everything is allocated before the first step.

use std::f64::consts::PI;
use std::ops::ControlFlow;

use ndarray::{Array2, s};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::bottleneck::Principal;
use super::network::{Dense, LAYERS, Network, Pass};
use super::settings::ModelSettings;
use super::view::Inputs;

/// Decay of AdamW's two moments, and what keeps its division finite.
const BETA: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;
/// One cycle: from 1/25 of the highest rate up over the first tenth of the steps, then down to zero.
const WARM_UP: f64 = 0.1;
const START: f64 = 1.0 / 25.0;
/// Largest Euclidean length of a step's gradient; a longer one is scaled down. Records far outside the others
/// (scaled values go up to 1e6) must not throw the weights away.
const GRADIENT_MAX: f64 = 10.0;

/// Trains on the inputs that end at the rows `windows`, drawn with replacement. None if `progress` breaks off.
pub fn train(
    seen: &Inputs,
    windows: &[usize],
    sizes: (usize, usize),
    principal: &Principal,
    settings: &ModelSettings,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Option<Network> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let inputs = seen.width();
    let mut network = Network::new(inputs, sizes.0, sizes.1, settings.activation, &mut rng);
    if let Some((spread, axes)) = &principal.axes {
        network.start_at(spread, axes);
    }
    let batch = settings.batch.min(windows.len());
    let mut pass = Pass::new(&network, batch);
    let mut optimiser = AdamW::new(&network, settings);
    let mut gradients = network.zeros();
    let mut input = vec![0.0; inputs];
    let mut x = Array2::zeros((batch, inputs));
    let mut target = Array2::zeros((batch, inputs));
    for step in 0..settings.steps {
        for i in 0..batch {
            seen.write(windows[rng.random_range(0..windows.len())], &mut input);
            target.slice_mut(s![i, ..]).iter_mut().zip(&input).for_each(|(t, v)| *t = *v);
        }
        fill(&mut x, &target, settings.denoise as f32, &mut rng);
        network.forward(x.view(), &mut pass);
        network.backward(x.view(), target.view(), settings.sparsity as f32, &mut pass, &mut gradients);
        optimiser.step(&mut network, &mut gradients, step);
        if progress(step as u64 + 1, settings.steps as u64).is_break() {
            return None;
        }
    }
    Some(network)
}

/// Inputs from targets: a missing value becomes 0 (its mean), the others get noise.
fn fill(x: &mut Array2<f32>, target: &Array2<f32>, denoise: f32, rng: &mut impl Rng) {
    for (x, t) in x.iter_mut().zip(target) {
        *x = if t.is_nan() { 0.0 } else { *t };
        if denoise > 0.0 {
            let noise: f32 = StandardNormal.sample(rng);
            *x += if t.is_nan() { 0.0 } else { denoise * noise };
        }
    }
}

struct AdamW {
    mean: [Dense; LAYERS],
    square: [Dense; LAYERS],
    steps: usize,
    rate_max: f64,
    weight_decay: f64,
}

impl AdamW {
    fn new(network: &Network, settings: &ModelSettings) -> Self {
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
            self.rate_max * (1.0 - rise((t - warm) / (self.steps as f64 - warm).max(1.0)))
        }
    }

    fn step(&mut self, network: &mut Network, gradients: &mut [Dense; LAYERS], step: usize) {
        limit(gradients);
        let rate = self.rate(step);
        let t = step as i32 + 1;
        let update = Update {
            rate: (rate / f64::from(1.0 - BETA[0].powi(t))) as f32,
            unbias: (1.0 / f64::from(1.0 - BETA[1].powi(t)).sqrt()) as f32,
            keep: (1.0 - rate * self.weight_decay) as f32,
        };
        for (((layer, g), m), v) in network.layers.iter_mut().zip(gradients).zip(&mut self.mean).zip(&mut self.square) {
            let slices = (layer.weight.as_slice_mut(), g.weight.as_slice(), m.weight.as_slice_mut());
            update.apply(slices, v.weight.as_slice_mut());
            let slices = (layer.bias.as_slice_mut(), g.bias.as_slice(), m.bias.as_slice_mut());
            update.apply(slices, v.bias.as_slice_mut());
        }
    }
}

/// One step's numbers, the same for every parameter.
struct Update {
    rate: f32,
    unbias: f32,
    keep: f32,
}

type Slices<'a> = (Option<&'a mut [f32]>, Option<&'a [f32]>, Option<&'a mut [f32]>);

impl Update {
    fn apply(&self, (values, gradients, means): Slices, squares: Option<&mut [f32]>) {
        let (Some(values), Some(gradients), Some(means), Some(squares)) = (values, gradients, means, squares) else {
            unreachable!("parameters are made in standard layout")
        };
        for (((p, g), m), v) in values.iter_mut().zip(gradients).zip(means).zip(squares) {
            *m += (1.0 - BETA[0]) * (g - *m);
            *v += (1.0 - BETA[1]) * (g * g - *v);
            *p = self.keep * *p - self.rate * *m / (v.sqrt() * self.unbias + EPSILON);
        }
    }
}

/// Scales all gradients down together when they are too long; drops them when they are not finite.
fn limit(gradients: &mut [Dense; LAYERS]) {
    let square = |values: &[f32]| values.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
    let parts = gradients.iter().flat_map(|g| [g.weight.as_slice(), g.bias.as_slice()]);
    let length = parts.flatten().map(square).sum::<f64>().sqrt();
    if !length.is_finite() {
        gradients.iter_mut().for_each(|g| (g.weight.fill(0.0), g.bias.fill(0.0)).0);
    } else if length > GRADIENT_MAX {
        let factor = (GRADIENT_MAX / length) as f32;
        for g in gradients {
            g.weight *= factor;
            g.bias *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::series::SeriesRows;
    use super::super::settings::Activation;
    use super::super::testing::{plane, table};
    use super::super::view::View;
    use super::*;

    /// Mean squared error over the present values of all rows.
    fn error(network: &Network, rows: &SeriesRows) -> f64 {
        let mut pass = Pass::new(network, rows.rows());
        let values = (0..rows.rows()).flat_map(|i| rows.window(i, 1).iter().copied()).collect();
        let target = Array2::from_shape_vec((rows.rows(), rows.features), values).unwrap();
        let x = target.mapv(|v| if v.is_nan() { 0.0 } else { v });
        network.forward(x.view(), &mut pass);
        network.backward(x.view(), target.view(), 0.0, &mut pass, &mut network.zeros())
    }

    fn seen(rows: &SeriesRows) -> Inputs<'_> {
        Inputs::new(rows, View { window: 1, context: false, clip: 0.0 })
    }

    /// No plane to start from: training alone must do it.
    fn nothing() -> Principal {
        Principal { components: 1, axes: None }
    }

    fn rows(values: Vec<f64>) -> SeriesRows {
        let table = table(6, values);
        SeriesRows::new(&table, &Scaler::fit(&table))
    }

    #[test]
    fn training_learns_a_plane_with_every_option() {
        let rows = rows(plane(1, 1000, 6, 2));
        let windows: Vec<usize> = (0..1000).collect();
        for activation in [Activation::Relu, Activation::Tanh] {
            for (denoise, sparsity, bound) in [(0.0, 0.0, 0.03), (0.1, 0.0, 0.04), (0.0, 0.01, 0.1)] {
                let settings = ModelSettings { activation, denoise, sparsity, ..Default::default() };
                let network =
                    train(
                        &seen(&rows),
                        &windows,
                        (16, 2),
                        &nothing(),
                        &settings,
                        &mut |_, _| ControlFlow::Continue(()),
                    )
                    .unwrap();
                let got = error(&network, &rows);
                assert!(got < bound, "{activation:?} {denoise} {sparsity}: {got}");
            }
        }
    }

    #[test]
    fn training_learns_around_missing_values() {
        let mut values = plane(2, 1500, 6, 1);
        values.iter_mut().step_by(7).for_each(|v| *v = f64::NAN);
        let rows = rows(values);
        let windows: Vec<usize> = (0..1500).collect();
        let network = train(&seen(&rows), &windows, (16, 2), &nothing(), &ModelSettings::default(), &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(error(&network, &rows) < 0.1);
    }

    #[test]
    fn sparsity_shrinks_the_code() {
        let rows = rows(plane(3, 500, 6, 2));
        let windows: Vec<usize> = (0..500).collect();
        let code = |sparsity: f64| {
            let settings = ModelSettings { sparsity, steps: 300, ..Default::default() };
            let network =
                train(&seen(&rows), &windows, (16, 4), &nothing(), &settings, &mut |_, _| ControlFlow::Continue(()))
                    .unwrap();
            let x = Array2::from_shape_fn((500, 6), |(i, j)| rows.window(i, 1)[j]);
            let hidden = (x.dot(&network.layers[0].weight) + &network.layers[0].bias).mapv(|v| v.max(0.0));
            let code = hidden.dot(&network.layers[1].weight) + &network.layers[1].bias;
            code.mapv(f32::abs).mean().unwrap()
        };
        assert!(code(0.1) < 0.5 * code(0.0));
    }

    #[test]
    fn one_cycle_rises_then_falls_to_zero() {
        let settings = ModelSettings { steps: 100, learning_rate: 1.0, ..Default::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let optimiser = AdamW::new(&Network::new(2, 2, 1, Activation::Relu, &mut rng), &settings);
        assert_eq!(optimiser.rate(0), START);
        assert_eq!(optimiser.rate(10), 1.0);
        assert!((optimiser.rate(55) - 0.5).abs() < 1e-12);
        assert!(optimiser.rate(99) < 1e-3);
    }

    #[test]
    fn progress_counts_every_step() {
        let rows = rows(plane(4, 100, 6, 1));
        let settings = ModelSettings { steps: 5, ..Default::default() };
        let mut told = Vec::new();
        train(&seen(&rows), &[0, 1, 2], (4, 1), &nothing(), &settings, &mut |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        });
        assert_eq!(told, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    }
}
