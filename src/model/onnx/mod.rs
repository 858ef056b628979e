//! A network as ONNX (opset 17), for whatever runs that: from records in the sensors' own units to what the network makes of them.

mod proto;
pub mod read;

use std::collections::BTreeMap;

use prost::Message;

use proto::{
    Attribute, Dimension, Entry, GraphProto, ModelProto, NodeProto, OperatorSetId, Shape, TensorProto, TensorType,
    TypeProto, ValueInfo,
};

use super::Model;
use super::fleet::Fleet;
use super::member::Member;
use super::network::{Dense, Network};
use super::scaler::SCALED_MAX;
use super::settings::Activation;
use super::view::CONTEXT_RATE;

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
/// TensorProto.DataType.
const FLOAT: i32 = 1;
const DOUBLE: i32 = 11;
/// AttributeProto.AttributeType.
const INT: i32 = 2;

impl Model {
    /// Network `network` (as `roles` lists them) as the bytes of an ONNX file. For N records at once:
    ///
    /// | input | type, shape | |
    /// |---|---|---|
    /// | `records` | double, N x window x features | the last records of a series, oldest first, each sensor in its own unit, none missing |
    /// | `average` | float, N x features | of a network that sees it: slow average of the scaled, clipped records |
    /// | `series_mean`, `series_scale` | double, N x 1 x features | where series are scaled by themselves: of the scaled values of the series |
    ///
    /// | output | | |
    /// |---|---|---|
    /// | `code` | float, N x code | what the input is compressed to |
    /// | `reconstruction`, `residual` | float, N x inputs | scaled; the residual is reconstruction less input |
    ///
    /// Sensors, their means and scales are in the metadata, as JSON.
    ///
    /// None: there is no such network.
    pub fn to_onnx(&self, network: usize) -> Option<Vec<u8>> {
        let member = self.members.get(network)?;
        let json = |numbers: &[f64]| serde_json::to_string(numbers).unwrap_or_default();
        let names: Vec<&str> = self.schema.names().collect();
        let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
        let scaler = self.known.scaler.complete();
        let proto = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "residua".to_owned(),
            graph: Some(self.graph(member)),
            opset_import: vec![OperatorSetId { domain: String::new(), version: OPSET }],
            metadata_props: vec![
                entry("model", self.checksum.clone()),
                entry("features", serde_json::to_string(&names).unwrap_or_default()),
                entry("mean", json(&scaler.mean)),
                entry("scale", json(&scaler.scale)),
                entry("series", self.own_scales()),
                entry("clip", member.view.clip.to_string()),
                entry("average_weight", CONTEXT_RATE.to_string()),
            ],
        };
        Some(proto.encode_to_vec())
    }

    /// Means and scales of the series that have their own, as JSON.
    fn own_scales(&self) -> String {
        // Written as f64, every digit of f32 is there: a mean is taken off values that may be close to it.
        let exact = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect();
        let all = self.known.fleet.iter().flat_map(Fleet::all).map(|(name, own)| (name, own.map(exact)));
        let scales: BTreeMap<&str, [Vec<f64>; 2]> = all.collect();
        serde_json::to_string(&scales).unwrap_or_default()
    }

    fn graph(&self, member: &Member) -> GraphProto {
        let features = self.schema.len();
        let mut graph = Graph::default();
        let records = [None, Some(member.view.window), Some(features)];
        graph.input("records", DOUBLE, &records);
        let scaler = self.known.scaler.complete();
        let mean = graph.doubles("mean", &scaler.mean);
        let scale = graph.doubles("scale", &scaler.scale);
        let mut x = graph.node("Sub", &["records", &mean], "centred", &[]);
        x = graph.node("Div", &[&x, &scale], "standardised", &[]);
        if self.known.fleet.is_some() {
            for (op, name, out) in [("Sub", "series_mean", "own_centred"), ("Div", "series_scale", "own_standardised")]
            {
                graph.input(name, DOUBLE, &[None, Some(1), Some(features)]);
                x = graph.node(op, &[&x, name], out, &[]);
            }
        }
        x = graph.node("Cast", &[&x], "single", &[("to", i64::from(FLOAT))]);
        let [least, most] =
            [("least", -SCALED_MAX), ("most", SCALED_MAX)].map(|(name, v)| graph.floats(name, &[], &[v]));
        x = graph.node("Clip", &[&x, &least, &most], "scaled", &[]);
        x = graph.node("Flatten", &[&x], "window", &[("axis", 1)]);
        if member.view.clip > 0.0 {
            let [inverse, clip] = [("inverse", 1.0 / member.view.clip), ("clip", member.view.clip)]
                .map(|(n, v)| graph.floats(n, &[], &[v]));
            x = graph.node("Mul", &[&x, &inverse], "in_clips", &[]);
            x = graph.node("Asinh", &[&x], "soft", &[]);
            x = graph.node("Mul", &[&x, &clip], "clipped", &[]);
        }
        if member.view.context {
            graph.input("average", FLOAT, &[None, Some(features)]);
            x = graph.node("Concat", &[&x, "average"], "input", &[("axis", 1)]);
        }
        let input = x.clone();
        let Network { layers, activations, encoder } = &member.network;
        for (l, Dense { weight, bias }) in layers.iter().enumerate() {
            let shape = [weight.nrows(), weight.ncols()];
            let weight = graph.floats(&format!("weight{l}"), &shape, &weight.iter().copied().collect::<Vec<_>>());
            let bias = graph.floats(&format!("bias{l}"), &[bias.len()], &bias.to_vec());
            let out = match l + 1 {
                layers if layers == *encoder => "code".to_owned(),
                layers if layers == activations.len() => "reconstruction".to_owned(),
                _ => format!("hidden{l}"),
            };
            let op = activations[l].map(|activation| match activation {
                Activation::Relu => "Relu",
                Activation::Tanh => "Tanh",
            });
            let linear = if op.is_some() { format!("dense{l}") } else { out.clone() };
            x = graph.node("Gemm", &[&x, &weight, &bias], &linear, &[]);
            if let Some(op) = op {
                x = graph.node(op, &[&x], &out, &[]);
            }
        }
        graph.node("Sub", &[&x, &input], "residual", &[]);
        let (inputs, code) = (member.network.inputs(), member.network.code());
        for (name, width) in [("code", code), ("reconstruction", inputs), ("residual", inputs)] {
            graph.proto.output.push(value(name, FLOAT, &[None, Some(width)]));
        }
        graph.proto.name = "autoencoder".to_owned();
        graph.proto
    }
}

/// A graph that grows.
#[derive(Default)]
struct Graph {
    proto: GraphProto,
}

impl Graph {
    fn input(&mut self, name: &str, of: i32, shape: &[Option<usize>]) {
        self.proto.input.push(value(name, of, shape));
    }

    /// Returns the name of its output.
    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> String {
        let attribute = |(name, i): &(&str, i64)| Attribute {
            name: (*name).to_owned(),
            i: *i,
            r#type: INT,
            ..Attribute::default()
        };
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(attribute).collect(),
        });
        output.to_owned()
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let dims = shape.iter().map(|n| *n as i64).collect();
        let float_data = values.to_vec();
        let tensor =
            TensorProto { dims, data_type: FLOAT, float_data, name: name.to_owned(), ..TensorProto::default() };
        self.proto.initializer.push(tensor);
        name.to_owned()
    }

    fn doubles(&mut self, name: &str, values: &[f64]) -> String {
        self.proto.initializer.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: DOUBLE,
            name: name.to_owned(),
            double_data: values.to_vec(),
            ..TensorProto::default()
        });
        name.to_owned()
    }
}

/// None in a shape: as many as there are records.
fn value(name: &str, elem_type: i32, shape: &[Option<usize>]) -> ValueInfo {
    let dimension = |n: &Option<usize>| Dimension {
        dim_value: n.map(|n| n as i64),
        dim_param: n.is_none().then(|| "N".to_owned()),
    };
    let shape = Some(Shape { dim: shape.iter().map(dimension).collect() });
    let tensor_type = Some(TensorType { elem_type, shape });
    ValueInfo { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}
