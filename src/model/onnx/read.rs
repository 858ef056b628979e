//! A dense autoencoder from an ONNX file: whatever PyTorch, Keras and others write for one, as a chain of layers.

use std::collections::HashMap;

use ndarray::{Array2, Axis};
use prost::Message;

use super::proto::{Attribute, GraphProto, ModelProto, NodeProto, TensorProto};
use super::{DOUBLE, FLOAT};
use crate::model::settings::{INPUTS_MAX, WIDTH_MAX};

/// Largest file that is read.
pub const ONNX_BYTES_MAX: usize = 256 * 1024 * 1024;
/// TensorProto.DataType.
const INT64: i32 = 7;
/// What ONNX has for `LeakyRelu` and `BatchNormalization` where nothing is said.
const ALPHA: f32 = 0.01;
const EPSILON: f32 = 1e-5;
/// What may be in a graph.
const KNOWN: &str = "Gemm, MatMul, Add, Sub, Mul, Div, Relu, LeakyRelu, Tanh, Sigmoid, BatchNormalization, Identity, Dropout, Cast, Flatten, Reshape, \
                     Transpose of weights, Constant";

/// Why a file is no network that can be taken over.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    #[error("read ONNX of {bytes} bytes: expected at most {ONNX_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("read ONNX: {0}")]
    Container(#[from] prost::DecodeError),
    #[error("read ONNX: there is no graph")]
    NoGraph,
    #[error("read ONNX: the graph has the inputs {found}, expected one")]
    Inputs { found: String },
    #[error("read ONNX: node {node}: operator {op}, expected one of {KNOWN}")]
    Operator { node: String, op: String },
    #[error("read ONNX: node {node} ({op}): {why}")]
    Node { node: String, op: String, why: String },
    #[error("read ONNX: tensor {name}: {why}")]
    Tensor { name: String, why: String },
    #[error("read ONNX: {0}")]
    Chain(String),
}

/// What is done to a row of values.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Weights (inputs x outputs), and what is added.
    Dense(Array2<f64>, Vec<f64>),
    /// To each value on its own: times, plus. One number stands for all.
    Each(Vec<f64>, Vec<f64>),
    Relu,
    LeakyRelu(f64),
    Tanh,
    Sigmoid,
}

/// A constant of the graph.
#[derive(Clone, Debug)]
struct Constant {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Constant {
    fn of(tensor: &TensorProto) -> Result<Self, OnnxError> {
        let failed = |why: String| OnnxError::Tensor { name: tensor.name.clone(), why };
        if tensor.data_location != 0 {
            return Err(failed(
                "its numbers are in another file, expected them in this one (PyTorch: external_data=False)".to_owned(),
            ));
        }
        let shape = tensor.dims.iter().map(|n| usize::try_from(*n)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| failed(format!("shape {:?}", tensor.dims)))?;
        let raw = &tensor.raw_data;
        let values: Vec<f64> = match tensor.data_type {
            FLOAT if raw.is_empty() => tensor.float_data.iter().copied().map(f64::from).collect(),
            FLOAT => raw.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            DOUBLE if raw.is_empty() => tensor.double_data.clone(),
            DOUBLE => raw.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            INT64 if raw.is_empty() => tensor.int64_data.iter().map(|v| *v as f64).collect(),
            INT64 => raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => {
                return Err(failed(format!(
                    "data type {other}, expected {FLOAT} (float), {DOUBLE} (double), {INT64} (int64)"
                )));
            }
        };
        let count = shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        if count != Some(values.len()) {
            return Err(failed(format!("{} numbers for the shape {shape:?}", values.len())));
        }
        match values.iter().find(|v| !v.is_finite()) {
            Some(v) => Err(failed(format!("{v}, expected finite numbers"))),
            None => Ok(Self { shape, values }),
        }
    }

    fn matrix(&self) -> Result<Array2<f64>, String> {
        match *self.shape {
            [rows, columns] => Array2::from_shape_vec((rows, columns), self.values.clone()).map_err(|e| e.to_string()),
            _ => Err(format!("weights of the shape {:?}, expected two dimensions", self.shape)),
        }
    }

    /// One number, or one for each value of a row.
    fn row(&self) -> Result<Vec<f64>, String> {
        let wide = self.shape.iter().filter(|n| **n != 1).count();
        if wide <= 1 && !self.values.is_empty() {
            Ok(self.values.clone())
        } else {
            Err(format!("a constant of the shape {:?}, expected one row", self.shape))
        }
    }
}

/// Reads a graph of one input, whose nodes follow one another; what does not lie on the way to the last one is refused.
///
/// # Errors
/// Anything else, with the node's name and what was expected.
pub fn read(bytes: &[u8]) -> Result<Vec<Step>, OnnxError> {
    if bytes.len() > ONNX_BYTES_MAX {
        return Err(OnnxError::TooLarge { bytes: bytes.len() });
    }
    let graph = ModelProto::decode(bytes)?.graph.ok_or(OnnxError::NoGraph)?;
    let mut constants = HashMap::new();
    for tensor in &graph.initializer {
        constants.insert(tensor.name.clone(), Constant::of(tensor)?);
    }
    let inputs: Vec<&str> =
        graph.input.iter().map(|input| input.name.as_str()).filter(|name| !constants.contains_key(*name)).collect();
    let &[input] = &inputs[..] else { return Err(OnnxError::Inputs { found: inputs.join(", ") }) };
    let mut chain = Chain { flow: input.to_owned(), constants, steps: Vec::new() };
    for node in &graph.node {
        chain.take(node)?;
    }
    chain.end(&graph)
}

struct Chain {
    /// Name of what the steps so far give.
    flow: String,
    constants: HashMap<String, Constant>,
    steps: Vec<Step>,
}

impl Chain {
    fn take(&mut self, node: &NodeProto) -> Result<(), OnnxError> {
        let name =
            if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() };
        let failed = |why: String| OnnxError::Node { node: name.clone(), op: node.op_type.clone(), why };
        let output = node.output.first().ok_or_else(|| failed("no output".to_owned()))?.clone();
        if node.input.iter().all(|input| input.is_empty() || self.constants.contains_key(input)) {
            let constant = self.constant(node).map_err(failed)?;
            self.constants.insert(output, constant);
            return Ok(());
        }
        // What flows is a row of values; everything else a node takes is known beforehand.
        let places: Vec<usize> = (0..node.input.len()).filter(|i| node.input[*i] == self.flow).collect();
        let others = node.input.iter().filter(|input| !input.is_empty() && !self.constants.contains_key(*input));
        if places.len() != 1 || others.count() != 1 {
            return Err(failed(format!(
                "inputs {}: expected one layer after the other, each of which takes what the one before gives ({})",
                node.input.join(", "),
                self.flow
            )));
        }
        let steps = self.steps_of(node, places[0]).map_err(|why| match why {
            Some(why) => failed(why),
            None => OnnxError::Operator { node: name.clone(), op: node.op_type.clone() },
        })?;
        self.steps.extend(steps);
        self.flow = output;
        Ok(())
    }

    /// A node that has nothing to do with what flows.
    fn constant(&self, node: &NodeProto) -> Result<Constant, String> {
        let first =
            || node.input.first().and_then(|name| self.constants.get(name)).cloned().ok_or("no input".to_owned());
        match node.op_type.as_str() {
            "Constant" => {
                let tensor = attribute(node, "value").and_then(|value| value.t.as_ref());
                Constant::of(tensor.ok_or("a constant without a tensor")?).map_err(|e| e.to_string())
            }
            "Identity" | "Cast" | "Reshape" | "Unsqueeze" | "Squeeze" => first(),
            "Transpose" => {
                let turned = first()?.matrix()?.reversed_axes();
                let shape = vec![turned.nrows(), turned.ncols()];
                Ok(Constant { shape, values: turned.iter().copied().collect() })
            }
            op => Err(format!("operator {op} on constants, expected Constant, Identity, Cast, Reshape or Transpose")),
        }
    }

    /// What a node does to what flows, which is its input at `place`. An error without words: the operator is not known.
    fn steps_of(&self, node: &NodeProto, place: usize) -> Result<Vec<Step>, Option<String>> {
        let given = |at: usize| {
            let name = node.input.get(at).filter(|name| !name.is_empty())?;
            self.constants.get(name)
        };
        let wanted = |at: usize| given(at).ok_or_else(|| format!("input {at} is missing"));
        let number = |name: &str, or: f32| attribute(node, name).map_or(or, |a| a.f);
        let flag = |name: &str| attribute(node, name).is_some_and(|a| a.i != 0);
        let each = |times: Vec<f64>, plus: Vec<f64>| Ok(vec![Step::Each(times, plus)]);
        match node.op_type.as_str() {
            "Gemm" => {
                if place != 0 || flag("transA") {
                    return Err(Some("expected what flows as A, not transposed".to_owned()));
                }
                let (alpha, beta) = (f64::from(number("alpha", 1.0)), f64::from(number("beta", 1.0)));
                let weight = wanted(1)?.matrix()?;
                let weight = if flag("transB") { weight.reversed_axes() } else { weight } * alpha;
                let bias = given(2).map(Constant::row).transpose()?.unwrap_or_else(|| vec![0.0]);
                let bias = spread(&bias, weight.ncols())?.iter().map(|v| v * beta).collect();
                dense(weight, bias)
            }
            "MatMul" => {
                let weight = wanted(1 - place.min(1))?.matrix()?;
                if place != 0 {
                    return Err(Some("expected what flows on the left".to_owned()));
                }
                let bias = vec![0.0; weight.ncols()];
                dense(weight, bias)
            }
            "Add" => each(vec![1.0], wanted(1 - place.min(1))?.row()?),
            "Sub" if place == 0 => each(vec![1.0], wanted(1)?.row()?.iter().map(|v| -v).collect()),
            "Sub" => each(vec![-1.0], wanted(0)?.row()?),
            "Mul" => each(wanted(1 - place.min(1))?.row()?, vec![0.0]),
            "Div" if place == 0 => {
                let by = wanted(1)?.row()?;
                if by.contains(&0.0) {
                    return Err(Some("it divides by 0".to_owned()));
                }
                each(by.iter().map(|v| 1.0 / v).collect(), vec![0.0])
            }
            "BatchNormalization" if place == 0 => {
                let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|at| wanted(at).map(Constant::row));
                let (scale, bias, mean, variance) = (scale??, bias??, mean??, variance??);
                let epsilon = f64::from(number("epsilon", EPSILON));
                let deviation: Vec<f64> = variance.iter().map(|v| (v + epsilon).sqrt()).collect();
                let widths = [scale.len(), bias.len(), mean.len(), deviation.len()];
                if widths != [scale.len(); 4] || deviation.iter().any(|d| !(1e-30..1e30).contains(d)) {
                    return Err(Some(format!(
                        "expected as many scales, biases, means and positive variances, found {widths:?}"
                    )));
                }
                let times: Vec<f64> = scale.iter().zip(&deviation).map(|(s, d)| s / d).collect();
                let plus = bias.iter().zip(&mean).zip(&times).map(|((b, m), t)| b - m * t).collect();
                each(times, plus)
            }
            "Relu" => Ok(vec![Step::Relu]),
            "LeakyRelu" => Ok(vec![Step::LeakyRelu(f64::from(number("alpha", ALPHA)))]),
            "Tanh" => Ok(vec![Step::Tanh]),
            "Sigmoid" => Ok(vec![Step::Sigmoid]),
            "Identity" | "Dropout" | "Cast" | "Flatten" | "Reshape" if place == 0 => Ok(vec![]),
            _ => Err(None),
        }
    }

    /// The steps, once the last node has been taken.
    fn end(self, graph: &GraphProto) -> Result<Vec<Step>, OnnxError> {
        let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        if !outputs.contains(&self.flow.as_str()) {
            return Err(OnnxError::Chain(format!(
                "the graph has the outputs {}, expected what its last layer gives: {}",
                outputs.join(", "),
                self.flow
            )));
        }
        let (mut width, mut layers) = (None, 0);
        for step in &self.steps {
            let (from, to) = match step {
                Step::Dense(weight, _) => {
                    layers += 1;
                    (weight.nrows(), weight.ncols())
                }
                Step::Each(times, plus) => {
                    let wide = times.len().max(plus.len());
                    let wide = if wide == 1 { width.unwrap_or(1) } else { wide };
                    (wide, wide)
                }
                _ => continue,
            };
            if width.is_some_and(|width| width != from) {
                return Err(OnnxError::Chain(format!(
                    "a layer takes {from} values, the one before gives {}",
                    width.unwrap_or(0)
                )));
            }
            let number_of_all = matches!(step, Step::Each(..)) && from == 1 && width.is_none();
            width = if number_of_all { None } else { Some(to) };
        }
        let first = self
            .steps
            .iter()
            .find_map(|step| if let Step::Dense(weight, _) = step { Some(weight.nrows()) } else { None });
        match (first, width) {
            (Some(first), Some(last)) if layers >= 2 && first == last => Ok(self.steps),
            (first, last) => Err(OnnxError::Chain(format!(
                "{layers} dense layers, from {} values to {}: expected two or more, and as many values at the end as at the beginning",
                first.unwrap_or(0),
                last.unwrap_or(0)
            ))),
        }
    }
}

fn dense(weight: Array2<f64>, bias: Vec<f64>) -> Result<Vec<Step>, Option<String>> {
    let (from, to) = weight.dim();
    if !(1..=INPUTS_MAX).contains(&from) || !(1..=INPUTS_MAX).contains(&to) || from.min(to) > WIDTH_MAX {
        return Err(Some(format!(
            "a layer from {from} values to {to}, expected up to {INPUTS_MAX} to or from {WIDTH_MAX}"
        )));
    }
    Ok(vec![Step::Dense(weight, bias)])
}

/// One number for each of `width` values.
pub fn spread(row: &[f64], width: usize) -> Result<Vec<f64>, String> {
    match row {
        [one] => Ok(vec![*one; width]),
        all if all.len() == width => Ok(all.to_vec()),
        other => Err(format!("{} numbers for {width} values", other.len())),
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a Attribute> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// The width of what flows into the first layer.
pub fn inputs(steps: &[Step]) -> usize {
    steps
        .iter()
        .find_map(|step| if let Step::Dense(weight, _) = step { Some(weight.len_of(Axis(0))) } else { None })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::proto::ValueInfo;
    use super::*;

    fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
        TensorProto {
            dims: dims.to_vec(),
            data_type: FLOAT,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            name: name.to_owned(),
            ..TensorProto::default()
        }
    }

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.to_owned()],
            op_type: op.to_owned(),
            ..NodeProto::default()
        }
    }

    /// x (2) - Gemm - h (1) - Relu - r - Gemm - y (2)
    fn graph() -> GraphProto {
        let named = |name: &str| ValueInfo { name: name.to_owned(), r#type: None };
        GraphProto {
            node: vec![node("Gemm", &["x", "a", "b"], "h"), node("Relu", &["h"], "r"), node("Gemm", &["r", "c"], "y")],
            name: "test".to_owned(),
            initializer: vec![
                tensor("a", &[2, 1], &[1.0, 2.0]),
                tensor("b", &[1], &[0.5]),
                tensor("c", &[1, 2], &[3.0, 4.0]),
            ],
            input: vec![named("x"), named("a")],
            output: vec![named("y")],
        }
    }

    fn bytes(graph: GraphProto) -> Vec<u8> {
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn layers_come_one_after_the_other() {
        let steps = read(&bytes(graph())).unwrap();
        let [Step::Dense(first, bias), Step::Relu, Step::Dense(second, none)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((first.as_slice(), &bias[..]), (Some(&[1.0, 2.0][..]), &[0.5][..]));
        assert_eq!((second.as_slice(), &none[..]), (Some(&[3.0, 4.0][..]), &[0.0, 0.0][..]));
        assert_eq!(inputs(&steps), 2);
    }

    #[test]
    fn what_is_no_chain_of_layers_is_refused_with_the_node_and_the_reason() {
        type Case = (fn(&mut GraphProto), &'static str);
        let cases: &[Case] = &[
            (|g| g.node[1].op_type = "Softmax".to_owned(), "node r: operator Softmax, expected one of Gemm, MatMul"),
            (|g| g.node[2].input[0] = "h".to_owned(), "node y (Gemm): inputs h, c: expected one layer after the other"),
            (|g| g.node.push(node("Add", &["y", "x"], "z")), "node z (Add): inputs y, x: expected one layer"),
            (|g| g.input.push(ValueInfo { name: "more".to_owned(), r#type: None }), "the inputs x, more, expected one"),
            (|g| g.output[0].name = "h".to_owned(), "the outputs h, expected what its last layer gives: y"),
            (|g| g.initializer[0].raw_data.truncate(4), "tensor a: 1 numbers for the shape [2, 1]"),
            (|g| g.initializer[0] = tensor("a", &[2, 1], &[1.0, f32::NAN]), "tensor a: NaN, expected finite"),
            (|g| g.initializer[0].dims = vec![-1, 2], "tensor a: shape [-1, 2]"),
            (|g| g.initializer[0].dims = vec![i64::MAX, i64::MAX], "tensor a: 2 numbers for the shape"),
            (|g| g.initializer[0].data_type = 10, "tensor a: data type 10, expected 1 (float)"),
            (|g| g.initializer[0].data_location = 1, "its numbers are in another file"),
            (|g| g.initializer[1] = tensor("b", &[3], &[1.0; 3]), "node h (Gemm): 3 numbers for 1 values"),
            (
                |g| g.initializer[2] = tensor("c", &[2], &[3.0, 4.0]),
                "weights of the shape [2], expected two dimensions",
            ),
            (|g| g.initializer[2] = tensor("c", &[2, 2], &[1.0; 4]), "a layer takes 2 values, the one before gives 1"),
            (|g| g.initializer[2] = tensor("c", &[1, 3], &[1.0; 3]), "2 dense layers, from 2 values to 3"),
            (
                |g| {
                    g.node.truncate(1);
                    g.output[0].name = "h".to_owned();
                },
                "1 dense layers, from 2 values to 1",
            ),
            (|g| g.node[1] = node("Div", &["h", "zero"], "r"), "node r (Div)"),
        ];
        for (change, expect) in cases {
            let mut changed = graph();
            change(&mut changed);
            let got = read(&bytes(changed)).unwrap_err().to_string();
            assert!(got.contains(expect), "{got:?} does not say {expect:?}");
        }
        assert!(matches!(read(b""), Err(OnnxError::NoGraph)));
        assert!(matches!(read(b"no network"), Err(OnnxError::Container(_))));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        use rand::{RngExt, SeedableRng};
        let sound = bytes(graph());
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut read_well = 0;
        for _ in 0..20_000 {
            let mut damaged = sound.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..damaged.len());
                damaged[at] = random.random();
            }
            read_well += usize::from(read(&damaged).is_ok());
        }
        assert!(read_well < 20_000);
    }
}
