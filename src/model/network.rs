//! The autoencoder: dense layers, in f32 on `ndarray`. One that is trained here is d -> hidden -> code -> hidden -> d; one from elsewhere may have others.

use std::ops::Range;

use fearless_simd::Level;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Zip, s};
use rand::{Rng, RngExt};

use super::kernel::Kernel;
use super::lanes;
use super::settings::Activation;
use crate::record::vector;

/// Weights (inputs x outputs) and bias (outputs) of one layer. Also holds gradients and optimiser moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    pub weight: Array2<f32>,
    pub bias: Array1<f32>,
}

impl Dense {
    /// Weights and bias, one after the other.
    pub fn parts(&self) -> [&[f32]; 2] {
        let (Some(weight), Some(bias)) = (self.weight.as_slice(), self.bias.as_slice()) else {
            unreachable!("parameters are made in standard layout")
        };
        [weight, bias]
    }

    pub fn parts_mut(&mut self) -> [&mut [f32]; 2] {
        let (Some(weight), Some(bias)) = (self.weight.as_slice_mut(), self.bias.as_slice_mut()) else {
            unreachable!("parameters are made in standard layout")
        };
        [weight, bias]
    }
}

/// Standard deviation of what enters a tanh that is to be linear: tanh(.25) is 2 % below .25.
const LINEAR_PART: f32 = 0.25;

#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// At least two; each has as many inputs as the one before has outputs, and the last as many outputs as the first has inputs.
    pub layers: Vec<Dense>,
    /// What follows each; none: it is linear.
    pub activations: Vec<Option<Activation>>,
    /// So many layers compress: the code is what the last of them gives.
    pub encoder: usize,
}

/// Room for the activations of up to `capacity` inputs, and for what flows back. Reused, never grown.
pub struct Pass {
    /// Output of each layer (capacity x width); the last one is the reconstruction.
    outputs: Vec<Array2<f32>>,
    /// Loss gradient by the output of each layer (capacity x width).
    deltas: Vec<Array2<f32>>,
}

impl Network {
    /// Of four layers, of which code and output are linear. Uniform initial weights and biases within 1 / sqrt(inputs) (LeCun et al. 1998, Efficient BackProp).
    pub fn new(inputs: usize, hidden: usize, code: usize, activation: Activation, rng: &mut impl Rng) -> Self {
        let sizes = [inputs, hidden, code, hidden, inputs];
        let layers = (0..sizes.len() - 1).map(|l| {
            let bound = 1.0 / (sizes[l] as f32).sqrt();
            let mut draw = || rng.random_range(-bound..bound);
            Dense {
                weight: Array2::from_shape_simple_fn((sizes[l], sizes[l + 1]), &mut draw),
                bias: Array1::from_shape_simple_fn(sizes[l + 1], &mut draw),
            }
        });
        Self { layers: layers.collect(), activations: vec![Some(activation), None, Some(activation), None], encoder: 2 }
    }

    /// Makes this network, as `new` made it, the projection onto the first `axes` (unit vectors, inputs x components; `spread`: standard
    /// deviation along each), as many as the code and the hidden layers can carry. Training then starts from the best
    /// linear autoencoder (Baldi & Hornik 1989) instead of from noise: it needs fewer steps, and the seed matters less.
    /// Units that are left over keep their random weights in, and get zero weights out.
    pub fn start_at(&mut self, spread: &[f64], axes: &Array2<f64>) {
        let Some(activation) = self.activations[0] else { return };
        let [encode, to_code, from_code, decode] = &mut self.layers[..] else { return };
        let (hidden, code) = (encode.bias.len(), to_code.bias.len());
        // A linear function takes two rectifiers, relu(u) - relu(-u), or one tanh in its linear part.
        let signs: &[f32] = if activation == Activation::Relu { &[1.0, -1.0] } else { &[1.0] };
        let carried = code.min(hidden / signs.len()).min(axes.ncols());
        to_code.weight.fill(0.0);
        to_code.bias.fill(0.0);
        decode.weight.fill(0.0);
        decode.bias.fill(0.0);
        for (i, spread) in spread.iter().enumerate().take(carried) {
            let axis = axes.column(i).mapv(|v| v as f32);
            let gain = match activation {
                Activation::Relu => 1.0,
                Activation::Tanh => LINEAR_PART / (*spread as f32).max(LINEAR_PART),
            };
            from_code.weight.row_mut(i).fill(0.0);
            for (half, sign) in signs.iter().enumerate() {
                let unit = i * signs.len() + half;
                encode.weight.column_mut(unit).assign(&(&axis * (sign * gain)));
                encode.bias[unit] = 0.0;
                to_code.weight[[unit, i]] = sign / gain;
                from_code.weight.column_mut(unit).fill(0.0);
                from_code.weight[[i, unit]] = sign * gain;
                from_code.bias[unit] = 0.0;
                decode.weight.row_mut(unit).assign(&(&axis * (sign / gain)));
            }
        }
    }

    /// Widths: of the input, and of what each layer gives.
    pub fn sizes(&self) -> Vec<usize> {
        std::iter::once(self.inputs()).chain(self.layers.iter().map(|layer| layer.bias.len())).collect()
    }

    /// Width of the code.
    pub fn code(&self) -> usize {
        self.layers[self.encoder - 1].bias.len()
    }

    pub fn inputs(&self) -> usize {
        self.layers[0].weight.nrows()
    }

    /// What inputs (finite, n x inputs) are compressed to: n x code.
    pub fn encode(&self, x: ArrayView2<f32>) -> Array2<f32> {
        self.part(0..self.encoder, x)
    }

    /// What is rebuilt from codes (n x code): n x inputs.
    pub fn decode(&self, codes: ArrayView2<f32>) -> Array2<f32> {
        self.part(self.encoder..self.layers.len(), codes)
    }

    fn part(&self, layers: Range<usize>, x: ArrayView2<f32>) -> Array2<f32> {
        layers.fold(x.to_owned(), |x, l| {
            let mut out = x.dot(&self.layers[l].weight) + &self.layers[l].bias;
            match self.activations[l] {
                Some(Activation::Relu) => out.mapv_inplace(|v| v.max(0.0)),
                Some(Activation::Tanh) => out.mapv_inplace(f32::tanh),
                None => {}
            }
            out
        })
    }

    /// All zero, in this network's shape.
    pub fn zeros(&self) -> Vec<Dense> {
        let zeros =
            |l: &Dense| Dense { weight: Array2::zeros(l.weight.raw_dim()), bias: Array1::zeros(l.bias.raw_dim()) };
        self.layers.iter().map(zeros).collect()
    }

    /// The same, ready for use.
    pub fn kernel(&self) -> Kernel {
        self.kernel_at(vector::level())
    }

    /// For another processor.
    pub(super) fn kernel_at(&self, level: Level) -> Kernel {
        let layers = self.layers.iter().zip(&self.activations);
        Kernel::at(level, layers.map(|(layer, activation)| (layer.weight.view(), Some(layer.bias.view()), *activation)))
    }

    /// For training of one whose output is linear. `x`: n x inputs, n at most the pass's capacity. The reconstruction is then in `pass`. No allocation here; the
    /// matrix product packs its operands into a buffer of its own.
    pub fn forward(&self, x: ArrayView2<f32>, pass: &mut Pass) {
        let n = x.nrows();
        for (l, layer) in self.layers.iter().enumerate() {
            let (before, after) = pass.outputs.split_at_mut(l);
            let input = before.last().map_or(x, |o| o.slice(s![..n, ..]));
            let mut output = after[0].slice_mut(s![..n, ..]);
            for mut row in output.rows_mut() {
                row.assign(&layer.bias);
            }
            general_mat_mul(1.0, &input, &layer.weight, 1.0, &mut output);
            let values = numbers_mut(&mut output);
            match self.activations[l] {
                Some(Activation::Relu) => values.iter_mut().for_each(|v| *v = v.max(0.0)),
                Some(Activation::Tanh) => lanes::tanh_of_all(values.len(), values),
                None => {}
            }
        }
    }

    /// After `forward(x)`: gradients of the mean squared error against `target` (n x inputs in standard layout, NaN = missing, left out)
    /// plus `sparsity` times the mean L1 norm of the code, into `gradients`. Returns that loss.
    pub fn backward(
        &self,
        x: ArrayView2<f32>,
        target: ArrayView2<f32>,
        sparsity: f32,
        pass: &mut Pass,
        gradients: &mut [Dense],
    ) -> f64 {
        let n = x.nrows();
        let gaps = lanes::any_nan(target.len(), numbers(&target));
        let present = if gaps { target.iter().filter(|t| !t.is_nan()).count().max(1) } else { target.len() };
        let last = self.layers.len() - 1;
        let mut delta = pass.deltas[last].slice_mut(s![..n, ..]);
        let (output, step) = (pass.outputs[last].slice(s![..n, ..]), 2.0 / present as f32);
        let mut loss = lanes::misses(target.len(), numbers(&output), numbers(&target), step, numbers_mut(&mut delta));
        loss /= present as f64;
        for l in (0..=last).rev() {
            let (earlier, later) = pass.deltas.split_at_mut(l);
            let delta = later[0].slice(s![..n, ..]);
            let input = if l == 0 { x } else { pass.outputs[l - 1].slice(s![..n, ..]) };
            general_mat_mul(1.0, &input.t(), &delta, 0.0, &mut gradients[l].weight);
            let [_, bias] = gradients[l].parts_mut();
            lanes::sum_of_rows(bias.len(), numbers(&delta), bias);
            let Some(before) = earlier.last_mut() else { break };
            let mut before = before.slice_mut(s![..n, ..]);
            general_mat_mul(1.0, &delta, &self.layers[l].weight.t(), 0.0, &mut before);
            if l == self.encoder {
                loss += penalise(sparsity, input, &mut before);
            }
            let (deltas, values) = (numbers_mut(&mut before), numbers(&input));
            match self.activations[l - 1] {
                Some(Activation::Relu) => lanes::slope_of_relu(values.len(), deltas, values),
                Some(Activation::Tanh) => lanes::slope_of_tanh(values.len(), deltas, values),
                None => {}
            }
        }
        loss
    }
}

/// Adds the L1 penalty's gradient and returns its value: `sparsity` times the mean over the inputs of sum |code|.
fn penalise(sparsity: f32, code: ArrayView2<f32>, delta: &mut ArrayViewMut2<f32>) -> f64 {
    if sparsity == 0.0 {
        return 0.0;
    }
    let weight = sparsity / code.nrows() as f32;
    let mut sum = 0.0;
    Zip::from(delta).and(code).for_each(|d, &c| {
        sum += f64::from(c.abs());
        *d += weight * if c == 0.0 { 0.0 } else { c.signum() };
    });
    f64::from(weight) * sum
}

/// Of whole rows.
fn numbers<'a>(rows: &'a ArrayView2<f32>) -> &'a [f32] {
    let Some(numbers) = rows.as_slice() else { unreachable!("whole rows in standard layout") };
    numbers
}

fn numbers_mut<'a>(rows: &'a mut ArrayViewMut2<f32>) -> &'a mut [f32] {
    let Some(numbers) = rows.as_slice_mut() else { unreachable!("whole rows in standard layout") };
    numbers
}

impl Pass {
    pub fn new(network: &Network, capacity: usize) -> Self {
        let outputs = network.layers.iter().map(|layer| Array2::zeros((capacity, layer.bias.len())));
        let outputs: Vec<Array2<f32>> = outputs.collect();
        Self { deltas: outputs.clone(), outputs }
    }

    /// capacity x inputs; the rows of the last `forward` come first.
    #[cfg(test)]
    fn reconstruction(&self) -> &Array2<f32> {
        &self.outputs[self.outputs.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn small(activation: Activation) -> (Network, Array2<f32>, Array2<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut network = Network::new(5, 7, 3, activation, &mut rng);
        // Larger weights than at the start of training, so that every slope matters.
        network.layers.iter_mut().for_each(|l| l.weight *= 2.0);
        let x = Array2::from_shape_simple_fn((9, 5), || rng.random_range(-1.5f32..1.5));
        let target = Array2::from_shape_simple_fn((9, 5), || rng.random_range(-1.5f32..1.5));
        (network, x, target)
    }

    fn loss(network: &Network, x: &Array2<f32>, target: &Array2<f32>, sparsity: f32) -> f64 {
        let mut pass = Pass::new(network, x.nrows());
        network.forward(x.view(), &mut pass);
        network.backward(x.view(), target.view(), sparsity, &mut pass, &mut network.zeros())
    }

    /// Every single partial derivative against a central difference.
    #[track_caller]
    fn check_gradients(activation: Activation, sparsity: f32, masked: bool) {
        let (network, x, mut target) = small(activation);
        if masked {
            target.iter_mut().step_by(3).for_each(|t| *t = f32::NAN);
        }
        let mut gradients = network.zeros();
        let mut pass = Pass::new(&network, 20); // larger than the batch: must not matter
        network.forward(x.view(), &mut pass);
        network.backward(x.view(), target.view(), sparsity, &mut pass, &mut gradients);
        const STEP: f32 = 2e-3;
        let mut largest = 0.0f64;
        for (l, gradient) in gradients.iter().enumerate() {
            let weights = network.layers[l].weight.len();
            for i in 0..weights + network.layers[l].bias.len() {
                let moved = |by: f32| {
                    let mut copy = network.clone();
                    let layer = &mut copy.layers[l];
                    let all = layer.weight.iter_mut().chain(layer.bias.iter_mut());
                    all.into_iter().nth(i).map(|p| *p += by).unwrap();
                    loss(&copy, &x, &target, sparsity)
                };
                let numeric = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
                let all = gradient.weight.iter().chain(gradient.bias.iter());
                let analytic = f64::from(*all.into_iter().nth(i).unwrap());
                largest = largest.max(analytic.abs());
                assert!((numeric - analytic).abs() < 2e-3, "layer {l} parameter {i}: {numeric} {analytic}");
            }
        }
        assert!(largest > 0.1, "gradients too small to prove anything: {largest}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for activation in [Activation::Relu, Activation::Tanh] {
            for sparsity in [0.0, 0.1] {
                for masked in [false, true] {
                    check_gradients(activation, sparsity, masked);
                }
            }
        }
    }

    #[test]
    fn a_network_that_starts_at_a_plane_projects_onto_it() {
        for activation in [Activation::Relu, Activation::Tanh] {
            let mut network = Network::new(3, 8, 2, activation, &mut ChaCha8Rng::seed_from_u64(1));
            let axes = ndarray::array![[0.6, 0.0], [0.8, 0.0], [0.0, 1.0]];
            network.start_at(&[1.0, 1.0], &axes);
            let x = ndarray::array![[0.6f32, 0.8, 0.5], [-0.3, -0.4, 0.0], [0.8, -0.6, 0.0]];
            let expect = ndarray::array![[0.6f32, 0.8, 0.5], [-0.3, -0.4, 0.0], [0.0, 0.0, 0.0]];
            let mut pass = Pass::new(&network, 3);
            network.forward(x.view(), &mut pass);
            let off = (pass.reconstruction() - &expect).mapv(f32::abs).fold(0.0f32, |a, b| a.max(*b));
            let bound = if activation == Activation::Relu { 1e-6 } else { 0.05 };
            assert!(off < bound, "{activation:?}: {off}");
        }
    }

    #[test]
    fn loss_is_the_mean_over_what_is_present() {
        let (network, x, mut target) = small(Activation::Relu);
        let mut pass = Pass::new(&network, 9);
        network.forward(x.view(), &mut pass);
        target.assign(pass.reconstruction());
        target[[0, 0]] += 2.0;
        target[[1, 1]] = f32::NAN;
        let got = loss(&network, &x, &target, 0.0);
        assert!((got - 4.0 / 44.0).abs() < 1e-6, "{got}");
    }
}
