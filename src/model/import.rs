//! A network that was trained elsewhere, as one of residua's: dense layers with rectifiers and hyperbolic tangents between, which take and give values that are
//! scaled as residua scales them. Nothing is approximated but by rounding: sigmoid(x) = 1/2 + tanh(x/2)/2, and a leaky rectifier is
//! relu(x) - a relu(-x). What it makes of records is then calibrated as of any other.

use std::fmt;

use ndarray::{Array1, Array2, Axis, concatenate};

use super::artifact::LAYERS_MAX;
use super::fit::{self, FitError};
use super::network::{Dense, Network};
use super::onnx::read::{self, OnnxError, Step, spread};
use super::scaler::{Scaler, is_trained_on, moves};
use super::settings::{Activation, WIDTH_MAX, WINDOW_MAX};
use super::{Model, TrainingSource};
use crate::record::Table;

/// Values of an activation that gets a linear layer, as it has none: that costs their square.
const ALONE_MAX: usize = 512;

/// How the values were scaled that a network was trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scaled {
    /// Less their mean, in standard deviations.
    #[default]
    Standard,
    /// From the least, 0, to the largest, 1.
    MinMax,
    /// As they are; or the network scales them itself.
    Raw,
}

impl Scaled {
    pub const ALL: [Scaled; 3] = [Scaled::Standard, Scaled::MinMax, Scaled::Raw];

    pub fn name(self) -> &'static str {
        match self {
            Scaled::Standard => "standard",
            Scaled::MinMax => "min-max",
            Scaled::Raw => "raw",
        }
    }
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a network cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(
        "use a network of {inputs} values for records of {features} sensors: expected {features}, or a multiple of it up to {WINDOW_MAX} times, as it \
         rebuilds one record or a window of them"
    )]
    Width { inputs: usize, features: usize },
    #[error("use a network of {layers} layers: expected at most {LAYERS_MAX}")]
    TooDeep { layers: usize },
    #[error(
        "use a network with a layer of {width} values: expected at most {WIDTH_MAX} between the first and the last"
    )]
    TooWide { width: usize },
    #[error(
        "use a network that does not compress: its narrowest layer has {narrowest} values, the records have {inputs}"
    )]
    Copy { narrowest: usize, inputs: usize },
    #[error(
        "use a network with an activation of {width} values that no linear layer of its own comes before or after: expected at most {ALONE_MAX}; leave \
         out the one after the last layer"
    )]
    Alone { width: usize },
    #[error("use the network: a weight is {0} in f32")]
    Overflow(f64),
    #[error(transparent)]
    Fit(#[from] FitError),
}

impl Model {
    /// Takes over an autoencoder from the bytes of an ONNX file, and calibrates it on a table: what its residuals are like, and what threshold follows. The
    /// table's records are also those by which the values are scaled, if the network was trained on scaled ones.
    ///
    /// # Errors
    /// A file that is none, or holds more than dense layers; a network of another width; too few records.
    pub fn import(bytes: &[u8], scaled: Scaled, table: &Table, source: TrainingSource) -> Result<Self, ImportError> {
        let steps = read::read(bytes)?;
        let (inputs, features) = (read::inputs(&steps), table.schema.len());
        let window = inputs / features;
        if inputs == 0 || !inputs.is_multiple_of(features) || window > WINDOW_MAX {
            return Err(ImportError::Width { inputs, features });
        }
        let scaler = Scaler::fit(table);
        // What the network takes for a scaled value z of ours is times z + plus.
        let theirs = Theirs::of(scaled, &scaler, table);
        let of_window = |numbers: &[f64]| numbers.repeat(window);
        let (times, plus) = (of_window(&theirs.times), of_window(&theirs.plus));
        let back_plus: Vec<f64> = plus.iter().zip(&times).map(|(plus, times)| -plus / times).collect();
        let back = Step::Each(times.iter().map(|times| 1.0 / times).collect(), back_plus);
        let steps = [vec![Step::Each(times, plus)], steps, vec![back]].concat();
        let network = network(&steps, inputs)?;
        fit::calibrate(table, scaler, window, network, source).map_err(ImportError::Fit)
    }
}

/// What values of theirs are of ours, sensor by sensor.
struct Theirs {
    times: Vec<f64>,
    plus: Vec<f64>,
}

impl Theirs {
    fn of(scaled: Scaled, ours: &Scaler, table: &Table) -> Self {
        let of = |j: usize| {
            let present = || (0..table.rows()).map(|row| table.row(row)[j]).filter(|v| is_trained_on(*v));
            let size = present().map(f64::abs).fold(0.0, f64::max);
            let (mean, scale) = (ours.mean[j], ours.scale[j]);
            let n = present().count().max(1) as f64;
            let (shift, unit) = match scaled {
                Scaled::Raw => (0.0, 1.0),
                Scaled::MinMax => {
                    let least = present().fold(f64::INFINITY, f64::min);
                    let most = present().fold(f64::NEG_INFINITY, f64::max);
                    if least.is_finite() { (least, most - least) } else { (0.0, 1.0) }
                }
                Scaled::Standard => {
                    let mean = present().sum::<f64>() / n;
                    (mean, (present().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
                }
            };
            // What does not move has no scale: it is taken as 1, as others do. Of a deviation that is only rounding too.
            let unit = if moves(unit, size) { unit } else { 1.0 };
            (scale / unit, (mean - shift) / unit)
        };
        let (times, plus) = (0..table.schema.len()).map(of).unzip();
        Self { times, plus }
    }
}

/// A layer before it is rounded: weights (inputs x outputs), bias, what follows.
struct Layer {
    weight: Array2<f64>,
    bias: Array1<f64>,
    activation: Option<Activation>,
}

impl Layer {
    /// To each output on its own: times, plus.
    fn each(&mut self, times: &[f64], plus: &[f64]) {
        for (((mut column, bias), times), plus) in
            self.weight.columns_mut().into_iter().zip(&mut self.bias).zip(times).zip(plus)
        {
            column *= *times;
            *bias = *bias * times + plus;
        }
    }
}

/// What is still to be done to the values that the last layer gives, before the next.
struct Pending {
    /// The last layer gives relu(x) and then relu(-x), of which relu(x) - slope relu(-x) is meant.
    slope: Option<f64>,
    /// Then each value times, plus.
    times: Vec<f64>,
    plus: Vec<f64>,
}

impl Pending {
    fn nothing(width: usize) -> Self {
        Self { slope: None, times: vec![1.0; width], plus: vec![0.0; width] }
    }

    /// It, and then a linear layer.
    fn and(&self, weight: &Array2<f64>, bias: &Array1<f64>) -> Layer {
        let bias = bias + Array1::from(self.plus.clone()).dot(weight);
        let mut weight = weight.clone();
        for (mut row, times) in weight.rows_mut().into_iter().zip(&self.times) {
            row *= *times;
        }
        if let Some(slope) = self.slope {
            weight = concatenate![Axis(0), weight, &weight * -slope];
        }
        Layer { weight, bias, activation: None }
    }

    /// As part of the last layer, or as a layer of its own: then something linear comes last.
    fn done(self, layers: &mut Vec<Layer>) -> Result<(), ImportError> {
        let width = self.times.len();
        match layers.last_mut().filter(|last| last.activation.is_none() && self.slope.is_none()) {
            Some(last) => last.each(&self.times, &self.plus),
            None if width > ALONE_MAX => return Err(ImportError::Alone { width }),
            None => layers.push(self.and(&Array2::eye(width), &Array1::zeros(width))),
        }
        Ok(())
    }
}

/// Dense layers that do what the steps do; the code is the narrowest of what dense layers among the steps give, the first of these.
fn network(steps: &[Step], inputs: usize) -> Result<Network, ImportError> {
    let mut layers: Vec<Layer> = Vec::new();
    // Of what the steps' own layers give; the last of them gives the output.
    let widths: Vec<usize> = steps
        .iter()
        .filter_map(|step| if let Step::Dense(weight, _) = step { Some(weight.ncols()) } else { None })
        .collect();
    let inner = widths.iter().take(widths.len().saturating_sub(1)).enumerate();
    let (narrowest, width) = inner.min_by_key(|(_, width)| **width).map_or((0, inputs), |(at, width)| (at, *width));
    // It could learn to copy, and nothing would be strange.
    if width >= inputs {
        return Err(ImportError::Copy { narrowest: width, inputs });
    }
    // Own layers that came, and layers up to the code.
    let (mut own, mut encoder) = (0, 0);
    let mut pending = Pending::nothing(inputs);
    for step in steps {
        let width = pending.times.len();
        let each = |row: &[f64], width: usize| {
            spread(row, width).map_err(|why| OnnxError::Chain(format!("{why} between two layers")))
        };
        match step {
            Step::Each(by, and) => {
                let (by, and) = (each(by, width)?, each(and, width)?);
                pending.times.iter_mut().zip(&by).for_each(|(times, by)| *times *= by);
                pending.plus.iter_mut().zip(&by).zip(&and).for_each(|((plus, by), and)| *plus = *plus * by + and);
                continue;
            }
            Step::Dense(weight, bias) => {
                let layer = pending.and(weight, &Array1::from(each(bias, weight.ncols())?));
                layers.push(layer);
                if own == narrowest {
                    encoder = layers.len();
                }
                own += 1;
                pending = Pending::nothing(weight.ncols());
                continue;
            }
            _ => {}
        }
        pending.done(&mut layers)?;
        pending = Pending::nothing(width);
        let Some(last) = layers.last_mut() else { continue };
        match step {
            Step::Sigmoid => {
                last.each(&vec![0.5; width], &vec![0.0; width]);
                last.activation = Some(Activation::Tanh);
                (pending.times, pending.plus) = (vec![0.5; width], vec![0.5; width]);
            }
            Step::LeakyRelu(slope) => {
                last.weight = concatenate![Axis(1), last.weight, -&last.weight];
                last.bias = concatenate![Axis(0), last.bias, -&last.bias];
                last.activation = Some(Activation::Relu);
                pending.slope = Some(*slope);
                if own == narrowest + 1 && encoder == layers.len() {
                    // The code has as many values as it should, not twice as many.
                    pending.done(&mut layers)?;
                    pending = Pending::nothing(width);
                    encoder = layers.len();
                }
            }
            Step::Tanh => last.activation = Some(Activation::Tanh),
            _ => last.activation = Some(Activation::Relu),
        }
    }
    pending.done(&mut layers)?;
    if layers.len() > LAYERS_MAX {
        return Err(ImportError::TooDeep { layers: layers.len() });
    }
    let inner = &layers[..layers.len() - 1];
    if let Some(width) = inner.iter().map(|layer| layer.bias.len()).find(|width| *width > WIDTH_MAX) {
        return Err(ImportError::TooWide { width });
    }
    let activations = layers.iter().map(|layer| layer.activation).collect();
    let layers = layers.into_iter().map(rounded).collect::<Result<Vec<_>, _>>()?;
    Ok(Network { layers, activations, encoder })
}

fn rounded(layer: Layer) -> Result<Dense, ImportError> {
    let all = layer.weight.iter().chain(&layer.bias);
    if let Some(v) = all.copied().find(|v| !(*v as f32).is_finite()) {
        return Err(ImportError::Overflow(v));
    }
    // In standard layout, whatever was turned on the way.
    let weight = Array2::from_shape_fn(layer.weight.dim(), |at| layer.weight[at] as f32);
    Ok(Dense { weight, bias: layer.bias.mapv(|v| v as f32) })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, plane, table};
    use super::*;

    /// What the steps do to one row.
    fn done(steps: &[Step], row: &[f64]) -> Vec<f64> {
        steps.iter().fold(row.to_vec(), |row, step| match step {
            Step::Dense(weight, bias) => (Array1::from(row).dot(weight) + Array1::from(bias.clone())).to_vec(),
            Step::Each(times, plus) => {
                let (times, plus) = (spread(times, row.len()).unwrap(), spread(plus, row.len()).unwrap());
                row.iter().zip(times).zip(plus).map(|((v, times), plus)| v * times + plus).collect()
            }
            Step::Relu => row.iter().map(|v| v.max(0.0)).collect(),
            Step::LeakyRelu(slope) => row.iter().map(|v| if *v > 0.0 { *v } else { slope * v }).collect(),
            Step::Tanh => row.iter().map(|v| v.tanh()).collect(),
            Step::Sigmoid => row.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
        })
    }

    fn dense(seed: u64, from: usize, to: usize) -> Step {
        let weight = Array2::from_shape_vec((from, to), noise(seed, from * to)).unwrap();
        Step::Dense(weight, noise(seed + 1, to))
    }

    #[test]
    fn layers_do_what_the_steps_do() {
        let each = || Step::Each(noise(5, 4), noise(6, 4));
        let chains = [
            vec![dense(1, 6, 2), Step::Sigmoid, dense(3, 2, 6), Step::Sigmoid],
            vec![each_of(6), dense(1, 6, 4), Step::LeakyRelu(0.2), each(), dense(3, 4, 6), each_of(6)],
            vec![
                Step::Tanh,
                dense(1, 6, 4),
                each(),
                Step::LeakyRelu(-0.5),
                Step::Tanh,
                dense(3, 4, 6),
                Step::LeakyRelu(0.1),
            ],
            vec![dense(1, 6, 4), dense(2, 4, 3), Step::Relu, Step::Sigmoid, dense(4, 3, 4), Step::Relu, dense(5, 4, 6)],
            vec![Step::Each(vec![2.0], vec![1.0]), dense(1, 6, 1), Step::Each(vec![3.0], vec![-1.0]), dense(2, 1, 6)],
        ];
        for (which, steps) in chains.iter().enumerate() {
            let network = network(steps, 6).unwrap();
            let rows = Array2::from_shape_vec((20, 6), noise(9, 120)).unwrap();
            let narrow = rows.mapv(|v| v as f32);
            let rebuilt = network.decode(network.encode(narrow.view()).view());
            for (row, got) in rows.rows().into_iter().zip(rebuilt.rows()) {
                for (expect, got) in done(steps, &row.to_vec()).into_iter().zip(got) {
                    assert!(
                        (expect - f64::from(*got)).abs() < 1e-4 * expect.abs().max(1.0),
                        "chain {which}: {expect} {got}"
                    );
                }
            }
        }
    }

    fn each_of(width: usize) -> Step {
        Step::Each(noise(7, width), noise(8, width))
    }

    #[test]
    fn the_code_is_what_the_narrowest_layer_gives() {
        let deep = [dense(1, 6, 5), Step::Relu, dense(2, 5, 2), dense(3, 2, 5), Step::Relu, dense(4, 5, 6)];
        let deep = network(&deep, 6).unwrap();
        assert_eq!((deep.sizes(), deep.encoder, deep.code()), (vec![6, 5, 2, 5, 6], 2, 2));
        let leaky = network(&[dense(1, 6, 4), Step::LeakyRelu(0.1), dense(2, 4, 6)], 6).unwrap();
        assert_eq!((leaky.sizes(), leaky.encoder, leaky.code()), (vec![6, 8, 4, 6], 2, 4));
        let wide = [dense(1, 600, 4), dense(2, 4, 600), Step::Sigmoid];
        assert!(matches!(network(&wide, 600), Err(ImportError::Alone { width: 600 })));
        let copy = [dense(1, 6, 8), Step::Relu, dense(2, 8, 6)];
        assert!(matches!(network(&copy, 6), Err(ImportError::Copy { narrowest: 8, inputs: 6 })));
        let large =
            [Step::Each(vec![1e30], vec![0.0]), Step::Each(vec![1e30], vec![0.0]), dense(1, 6, 2), dense(2, 2, 6)];
        assert!(matches!(network(&large, 6), Err(ImportError::Overflow(_))));
    }

    #[test]
    fn what_does_not_move_is_not_scaled_by_rounding() {
        let constant = table(1, vec![21.3; 12_096]);
        let ours = Scaler::fit(&constant);
        for scaled in Scaled::ALL {
            let Theirs { times, plus } = Theirs::of(scaled, &ours, &constant);
            // A move of a tenth is one for the network.
            assert!((times[0] * 0.1 / ours.scale[0] - 0.1).abs() < 1e-9, "{scaled}: {times:?}");
            let expect = if scaled == Scaled::Raw { 21.3 } else { 0.0 };
            assert!((plus[0] - expect).abs() < 1e-6, "{scaled}: {plus:?}");
        }
    }

    #[test]
    fn scaling_is_undone_and_done() {
        let rows =
            table(2, plane(1, 300, 2, 1).into_iter().enumerate().map(|(i, v)| 50.0 + v + (i % 2) as f64).collect());
        let ours = Scaler::fit(&rows);
        for scaled in Scaled::ALL {
            let Theirs { times, plus } = Theirs::of(scaled, &ours, &rows);
            let taken: Vec<f64> =
                (0..300).map(|row| times[1] * (rows.row(row)[1] - ours.mean[1]) / ours.scale[1] + plus[1]).collect();
            let (least, most) = taken.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            let mean = taken.iter().sum::<f64>() / 300.0;
            match scaled {
                Scaled::Standard => assert!(mean.abs() < 1e-9 && (1.5..6.0).contains(&most)),
                Scaled::MinMax => assert!(least.abs() < 1e-9 && (most - 1.0).abs() < 1e-9),
                Scaled::Raw => assert!((taken[7] - rows.row(7)[1]).abs() < 1e-9),
            }
        }
    }
}
