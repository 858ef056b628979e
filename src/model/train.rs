//! Training of the network: denoising autoencoder (Vincent et al. 2008). Everything is allocated before the first step.

use ndarray::{Array2, ArrayView2};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::FitError;
use super::adamw::AdamW;
use super::bottleneck::Principal;
use super::hands::Training;
use super::network::{Dense, Network, Pass};
use super::settings::ModelSettings;
use super::view::Inputs;

/// Trains on the inputs that end at the rows `windows`, drawn with replacement, in as many steps as the settings say.
pub fn train(
    seen: &Inputs,
    windows: &[usize],
    sizes: (usize, usize),
    principal: &Principal,
    settings: &ModelSettings,
    training: &Training,
) -> Result<Network, FitError> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let inputs = seen.width();
    let mut network = Network::new(inputs, sizes.0, sizes.1, settings.activation, &mut rng);
    if let Some((spread, axes)) = &principal.axes {
        network.start_at(spread, axes);
    }
    let batch = settings.batch.min(windows.len());
    let mut trainer = Trainer::of(network, settings, batch);
    let mut x = Array2::zeros((batch, inputs));
    let mut target = Array2::zeros((batch, inputs));
    for _ in 0..settings.steps {
        for mut row in target.rows_mut() {
            let Some(row) = row.as_slice_mut() else { unreachable!("whole rows in standard layout") };
            seen.write(windows[rng.random_range(0..windows.len())], row);
        }
        x.zip_mut_with(&target, |x, t| *x = if t.is_nan() { 0.0 } else { *t });
        if settings.denoise > 0.0 {
            disturb(&mut x, &target, settings.denoise as f32, &mut rng);
        }
        trainer.step(x.view(), target.view());
        training.done(1)?;
    }
    Ok(trainer.network)
}

/// A network in training, with all that a step needs.
pub struct Trainer {
    network: Network,
    optimiser: AdamW,
    pass: Pass,
    gradients: Vec<Dense>,
    sparsity: f32,
    steps: usize,
}

impl Trainer {
    /// Of random weights. `sizes`: inputs, hidden, code. At most `settings.batch` inputs make a step.
    pub fn new(sizes: [usize; 3], settings: &ModelSettings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let [inputs, hidden, code] = sizes;
        Self::of(Network::new(inputs, hidden, code, settings.activation, &mut rng), settings, settings.batch)
    }

    fn of(network: Network, settings: &ModelSettings, batch: usize) -> Self {
        Self {
            optimiser: AdamW::new(&network, settings),
            pass: Pass::new(&network, batch),
            gradients: network.zeros(),
            sparsity: settings.sparsity as f32,
            steps: 0,
            network,
        }
    }

    /// One step towards rebuilding `target` (n x inputs, NaN = missing) from `x` (the same, finite), of which the loss before it is
    /// returned: the mean squared error, and the penalty.
    pub fn step(&mut self, x: ArrayView2<f32>, target: ArrayView2<f32>) -> f64 {
        let Self { network, optimiser, pass, gradients, sparsity, steps } = self;
        network.forward(x, pass);
        let loss = network.backward(x, target, *sparsity, pass, gradients);
        optimiser.step(network, gradients, *steps);
        *steps += 1;
        loss
    }
}

/// Noise on what is present.
fn disturb(x: &mut Array2<f32>, target: &Array2<f32>, denoise: f32, rng: &mut impl Rng) {
    for (x, t) in x.iter_mut().zip(target) {
        let noise: f32 = StandardNormal.sample(rng);
        *x += if t.is_nan() { 0.0 } else { denoise * noise };
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::hands::one_by_one;
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

    fn trained(rows: &SeriesRows, windows: &[usize], sizes: (usize, usize), settings: &ModelSettings) -> Network {
        let mut go_on = |_, _| ControlFlow::Continue(());
        let training = Training::new(&one_by_one, settings.steps as u64, &mut go_on);
        train(&seen(rows), windows, sizes, &nothing(), settings, &training).unwrap()
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
                let network = trained(&rows, &windows, (16, 2), &settings);
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
        let network = trained(&rows, &windows, (16, 2), &ModelSettings::default());
        assert!(error(&network, &rows) < 0.1);
    }

    #[test]
    fn sparsity_shrinks_the_code() {
        let rows = rows(plane(3, 500, 6, 2));
        let windows: Vec<usize> = (0..500).collect();
        let code = |sparsity: f64| {
            let settings = ModelSettings { sparsity, steps: 300, ..Default::default() };
            let network = trained(&rows, &windows, (16, 4), &settings);
            let x = Array2::from_shape_fn((500, 6), |(i, j)| rows.window(i, 1)[j]);
            let hidden = (x.dot(&network.layers[0].weight) + &network.layers[0].bias).mapv(|v| v.max(0.0));
            let code = hidden.dot(&network.layers[1].weight) + &network.layers[1].bias;
            code.mapv(f32::abs).mean().unwrap()
        };
        assert!(code(0.1) < 0.5 * code(0.0));
    }

    #[test]
    fn progress_counts_every_step() {
        let rows = rows(plane(4, 100, 6, 1));
        let settings = ModelSettings { steps: 5, ..Default::default() };
        let mut told = Vec::new();
        let mut progress = |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        };
        let training = Training::new(&one_by_one, 5, &mut progress);
        train(&seen(&rows), &[0, 1, 2], (4, 1), &nothing(), &settings, &training).unwrap();
        assert_eq!(told, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    }
}
