//! The model as bytes: a `.safetensors` file with the numbers as tensors and the rest as JSON in one metadata key.
//!
//! The bytes are a function of the model. Its checksum is the SHA-256 of the file with the checksum itself as zeros, so
//! every byte is covered. Reading trusts nothing: size, header, checksum, dimensions and each number are checked.

use std::borrow::Cow;
use std::collections::HashMap;

use ndarray::Array2;
use safetensors::tensor::{self, Dtype, SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::clean::{NUMBERS, Noise};
use super::extremes::SHAPE_MIN;
use super::fleet::{Fleet, Prior};
use super::law::Law;
use super::member::{Measured, Member, Term};
use super::neighbours::{self, Neighbours};
use super::network::{Dense, Network};
use super::projection::Plane;
use super::reference::{BINS, EDGES, Reference, Sensor};
use super::residual::{Residuals, WHITENED_MAX};
use super::scaler::{SCALED_MAX, Scaler};
use super::settings::{Activation, INPUTS_MAX, ModelSettings, SettingError, WIDTH_MAX, WINDOW_MAX};
use super::tail::{QUANTILES, Tail};
use super::view::View;
use super::{ARTIFACT_BYTES_MAX, Deciding, Known, Model, Profile, RowCounts, TrainingSource};
use crate::record::Schema;

/// Raised when the meaning of the bytes changes; readers refuse other versions.
const FORMAT: u32 = 15;
/// The one metadata key.
const KEY: &str = "residua";
/// In place of the checksum while it is computed.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Numbers that a sensor's noise is told by.
const NOISE: usize = 3 + NUMBERS;
/// Most layers of a network.
pub(super) const LAYERS_MAX: usize = 16;
/// Most networks of a model.
const MEMBERS_MAX: usize = 8;
/// Largest magnitude of a feature's mean and scale: products with f32 stay finite in f64.
const UNIT_MAX: f64 = 1e150;

/// Why bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("read model of {bytes} bytes: expected at most {ARTIFACT_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("read model: not a safetensors file: {0}")]
    Container(#[from] SafeTensorError),
    #[error("read model: the metadata has no key {KEY:?}; not written by residua")]
    Foreign,
    #[error("read model of format {found}: expected {FORMAT}")]
    Format { found: u64 },
    #[error("read model: {KEY} metadata: {0}")]
    Header(#[from] serde_json::Error),
    #[error("read model: checksum is {found}, its bytes give {computed}; the file is damaged")]
    Checksum { found: String, computed: String },
    #[error("read model: tensor {name} is {found}, expected {expected}")]
    Tensor { name: String, found: String, expected: String },
    #[error("read model: {name} = {value}, expected {expected}")]
    Value { name: String, value: String, expected: String },
    #[error("read model: {0}")]
    Setting(#[from] SettingError),
}

/// All but the numbers. The checksum comes early, so that it is the first text of its kind in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    format: u32,
    checksum: String,
    profile: Profile,
    ordered: bool,
    members: Vec<MemberHeader>,
    rows: RowCounts,
    settings: Cow<'a, ModelSettings>,
    source: Cow<'a, TrainingSource>,
    schema: Cow<'a, Schema>,
    /// Names of the series that have a mean and scale of their own.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    fleet: Cow<'a, [String]>,
}

/// Of a network all but the numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberHeader {
    view: View,
    weight: f64,
    activations: Vec<Option<Activation>>,
    /// Layers that compress.
    encoder: usize,
}

/// What can be read of any version.
#[derive(Deserialize)]
struct AnyHeader {
    format: u64,
    checksum: String,
}

impl Model {
    /// The same model with its checksum, whatever stood in its place.
    pub(super) fn sealed(mut self) -> Result<Self, ArtifactError> {
        NO_CHECKSUM.clone_into(&mut self.checksum);
        self.checksum = hex(&Sha256::digest(self.to_bytes()?));
        Ok(self)
    }

    /// The artifact. Deterministic: the same model gives the same bytes.
    ///
    /// # Errors
    /// Larger than an artifact may be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ArtifactError> {
        let header = Header {
            format: FORMAT,
            checksum: self.checksum.clone(),
            profile: self.profile,
            ordered: self.ordered(),
            members: self.members.iter().map(MemberHeader::of).collect(),
            rows: self.rows,
            settings: Cow::Borrowed(&self.settings),
            source: Cow::Borrowed(&self.source),
            schema: Cow::Borrowed(&self.schema),
            fleet: Cow::Borrowed(self.known.fleet.as_ref().map_or(&[], |fleet| &fleet.series)),
        };
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&header)?)]);
        let bytes = safetensors::serialize(self.tensors(), Some(metadata))?;
        if bytes.len() <= ARTIFACT_BYTES_MAX { Ok(bytes) } else { Err(ArtifactError::TooLarge { bytes: bytes.len() }) }
    }

    /// Reads what `to_bytes` wrote. The bytes may come from anywhere.
    ///
    /// # Errors
    /// Anything that is not exactly a sound model of this format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        if bytes.len() > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge { bytes: bytes.len() });
        }
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or(ArtifactError::Foreign)?;
        let AnyHeader { format, checksum } = serde_json::from_str(text)?;
        if format != u64::from(FORMAT) {
            return Err(ArtifactError::Format { found: format });
        }
        let computed = checksum_of(bytes, &checksum);
        if computed != checksum {
            return Err(ArtifactError::Checksum { found: checksum, computed });
        }
        let header: Header = serde_json::from_str(text)?;
        Reader { tensors: SafeTensors::deserialize(bytes)? }.model(header)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let wide = |name: &str, values: &[f64]| (name.to_owned(), Tensor::wide(values));
        let Known { scaler, fleet, reference, plane, neighbours } = &self.known;
        let mut tensors = vec![wide("scaler.mean", &scaler.mean), wide("scaler.scale", &scaler.scale)];
        let alike: Vec<f64> = reference.sensors.iter().map(|sensor| sensor.alike).collect();
        tensors.push(wide("reference.alike", &alike));
        let edges = reference.sensors.iter().flat_map(|sensor| &sensor.edges);
        tensors.push(("reference.edges".to_owned(), Tensor::narrow(edges, vec![reference.sensors.len(), EDGES])));
        let shares = reference.sensors.iter().flat_map(|sensor| &sensor.shares);
        tensors.push(("reference.shares".to_owned(), Tensor::narrow(shares, vec![reference.sensors.len(), BINS])));
        if let Some(Fleet { priors, series, own }) = fleet {
            let numbers: Vec<f64> = priors.iter().flat_map(|prior| [prior.scale, prior.means, prior.scales]).collect();
            tensors.push(wide("fleet.priors", &numbers));
            tensors.push(("fleet.own".to_owned(), Tensor::narrow(own.iter(), vec![series.len(), 2 * priors.len()])));
        }
        match &self.deciding {
            Deciding::Laws(laws) => {
                let numbers = laws.map(|law| [law.level, law.peak, law.spread, law.floor, law.start, law.shape]);
                tensors.push(wide("decision.laws", numbers.as_flattened()));
            }
            Deciding::Tail { tail, units } => {
                tensors.push(wide("decision.units", units));
                tensors.push(wide("decision.tail", &[tail.start, tail.rate, tail.shape, tail.scale]));
                tensors.push(wide("decision.quantiles", &tail.quantiles));
            }
        }
        let Neighbours { references, nearest, grouped } = neighbours;
        tensors.push(("neighbours".to_owned(), Tensor::narrow(references.iter(), references.shape().to_vec())));
        let terms = [nearest.median, nearest.top, grouped.median, grouped.top];
        tensors.push(wide("neighbours.distances", &terms));
        let Plane { mean, axes } = plane;
        tensors.push(("map.mean".to_owned(), Tensor::narrow(mean.iter(), vec![mean.len()])));
        tensors.push(("map.axes".to_owned(), Tensor::narrow(axes.iter().flatten(), vec![2, mean.len()])));
        for (at, member) in self.members.iter().enumerate() {
            member.tensors(&format!("member.{at}"), &mut tensors);
        }
        tensors
    }
}

impl MemberHeader {
    fn of(member: &Member) -> Self {
        let Network { activations, encoder, .. } = &member.network;
        Self { view: member.view, weight: member.weight, activations: activations.clone(), encoder: *encoder }
    }
}

impl Member {
    fn tensors(&self, name: &str, out: &mut Vec<(String, Tensor)>) {
        for (l, layer) in self.network.layers.iter().enumerate() {
            let shape = layer.weight.shape().to_vec();
            out.push((format!("{name}.network.{l}.weight"), Tensor::narrow(layer.weight.iter(), shape)));
            out.push((format!("{name}.network.{l}.bias"), Tensor::narrow(layer.bias.iter(), vec![layer.bias.len()])));
        }
        out.push((format!("{name}.kept"), Tensor::narrow(self.kept.iter(), vec![self.kept.len()])));
        let noise = self
            .noise
            .iter()
            .flat_map(|noise| [noise.deviation, noise.apart, noise.apart_deviation].into_iter().chain(noise.weights));
        let noise: Vec<f32> = noise.collect();
        out.push((format!("{name}.noise"), Tensor::narrow(noise.iter(), vec![self.noise.len(), NOISE])));
        out.push((format!("{name}.own"), Tensor::narrow(self.own.iter(), vec![self.own.len()])));
        let mut statistics = |name: &str, residuals: &Residuals, distance: &Term| {
            let Residuals { mean, scale, whitening } = residuals;
            out.push((format!("{name}.mean"), Tensor::narrow(mean.iter(), vec![mean.len()])));
            out.push((format!("{name}.scale"), Tensor::narrow(scale.iter(), vec![scale.len()])));
            if let Some(matrix) = whitening {
                out.push((format!("{name}.whitening"), Tensor::narrow(matrix.iter(), matrix.shape().to_vec())));
            }
            out.push((format!("{name}.distance"), Tensor::wide(&[distance.median, distance.top])));
        };
        statistics(&format!("{name}.residual"), &self.residuals, &self.distance);
        if let Some(Measured { residuals, distance }) = &self.slow {
            statistics(&format!("{name}.slow"), residuals, distance);
        }
    }
}

/// Of a file that claims the checksum `claimed`: its first occurrence counts as zeros.
fn checksum_of(bytes: &[u8], claimed: &str) -> String {
    let mut hash = Sha256::new();
    let at = bytes.windows(NO_CHECKSUM.len()).position(|w| w == claimed.as_bytes());
    match at.and_then(|at| Some((bytes.get(..at)?, bytes.get(at + NO_CHECKSUM.len()..)?))) {
        Some((before, after)) => {
            hash.update(before);
            hash.update(NO_CHECKSUM);
            hash.update(after);
        }
        None => hash.update(bytes),
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A tensor to write, little-endian.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn wide(values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::F64, shape: vec![values.len()], bytes }
    }

    /// `values` in row-major order.
    fn narrow<'a>(values: impl Iterator<Item = &'a f32>, shape: Vec<usize>) -> Self {
        Self { dtype: Dtype::F32, shape, bytes: values.flat_map(|v| v.to_le_bytes()).collect() }
    }
}

impl tensor::View for Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Checked access to tensors whose shapes are known beforehand.
struct Reader<'a> {
    tensors: SafeTensors<'a>,
}

impl Reader<'_> {
    fn model(&self, header: Header) -> Result<Model, ArtifactError> {
        header.settings.check()?;
        let features = header.schema.len();
        let count = within("number of networks", header.members.len(), MEMBERS_MAX)?;
        if !header.ordered && count != 1 {
            return Err(value("number of networks", count, "1 for records without an order"));
        }
        let scaler =
            Scaler { mean: self.means("scaler.mean", features)?, scale: self.positive("scaler.scale", features)? };
        if let Some(v) = scaler.mean.iter().chain(&scaler.scale).find(|v| v.abs() > UNIT_MAX) {
            return Err(value("scaler", v, &format!("at most {UNIT_MAX:e}")));
        }
        let fleet = self.fleet(&header.fleet, features)?;
        let reference = self.reference(features, header.rows.all.saturating_sub(header.rows.left_out))?;
        let deciding = if header.ordered {
            Deciding::Laws([self.law(0)?, self.law(1)?, self.law(2)?])
        } else {
            let units = self.wide("decision.units", 3)?;
            units.iter().try_for_each(|unit| sound("decision.units", *unit, 1.0, 1e6))?;
            Deciding::Tail { tail: self.tail()?, units: std::array::from_fn(|at| units[at]) }
        };
        let members = header.members.iter().enumerate();
        let members = members
            .map(|(at, member)| self.member(&format!("member.{at}"), member, features, header.ordered))
            .collect::<Result<Vec<Member>, ArtifactError>>()?;
        let plane = self.plane(members[0].network.code())?;
        let neighbours = self.neighbours(features, header.ordered)?;
        let known = Known { scaler, fleet, reference, plane, neighbours };
        if !members.iter().any(|member| member.weight > 0.0) {
            return Err(value("weights of the networks", 0, "one that is more than 0"));
        }
        // It tells what was expected of a record.
        if members.last().is_some_and(|member| member.view.context || member.view.clip != 0.0) {
            return Err(value("view of the last network", "other than records", "records as they are"));
        }
        let (schema, settings) = (header.schema.into_owned(), header.settings.into_owned());
        let settings = (settings, header.profile);
        let mut model = Model::new(schema, header.source.into_owned(), settings, header.rows, known, members, deciding);
        let expected = model.tensors().len();
        if self.tensors.len() != expected {
            return Err(value("number of tensors", self.tensors.len(), &expected.to_string()));
        }
        model.checksum = header.checksum;
        Ok(model)
    }

    fn plane(&self, code: usize) -> Result<Plane, ArtifactError> {
        let axes = self.narrow("map.axes", &[2, code])?;
        let (first, second) = axes.split_at(code);
        Ok(Plane { mean: self.narrow("map.mean", &[code])?, axes: [first.to_vec(), second.to_vec()] })
    }

    fn reference(&self, features: usize, records: usize) -> Result<Reference, ArtifactError> {
        let alike = self.wide("reference.alike", features)?;
        let edges = self.narrow("reference.edges", &[features, EDGES])?;
        let shares = self.narrow("reference.shares", &[features, BINS])?;
        let mut sensors = Vec::with_capacity(features);
        for ((edges, shares), alike) in edges.chunks_exact(EDGES).zip(shares.chunks_exact(BINS)).zip(alike) {
            sound("reference.alike", alike, 1.0, 1e15)?;
            if !edges.is_sorted() {
                return Err(value("reference.edges", "unsorted", "ascending values"));
            }
            if !shares.is_sorted() || shares[0] < 0.0 || shares[BINS - 1] != 1.0 {
                return Err(value("reference.shares", "other", "ascending values from 0 or more to 1"));
            }
            sensors.push(Sensor { edges: edges.to_vec(), shares: shares.to_vec(), alike });
        }
        Ok(Reference { sensors, records })
    }

    fn fleet(&self, series: &[String], features: usize) -> Result<Option<Fleet>, ArtifactError> {
        if series.is_empty() {
            return Ok(None);
        }
        if !series.is_sorted_by(|a, b| a < b) {
            return Err(value("fleet", "unsorted", "names in ascending order"));
        }
        let numbers = self.wide("fleet.priors", 3 * features)?;
        let mut priors = Vec::with_capacity(features);
        for &[scale, means, scales] in numbers.as_chunks::<3>().0 {
            sound("fleet.priors scale", scale, 1e-12, 1e12)?;
            sound("fleet.priors means", means, 0.0, 1e30)?;
            sound("fleet.priors scales", scales, 0.0, 1e30)?;
            priors.push(Prior { scale, means, scales });
        }
        let own = self.narrow("fleet.own", &[series.len(), 2 * features])?;
        for numbers in own.chunks_exact(2 * features) {
            let (means, scales) = numbers.split_at(features);
            means.iter().try_for_each(|v| sound("fleet.own mean", f64::from(v.abs()), 0.0, 1e12))?;
            scales.iter().try_for_each(|v| sound("fleet.own scale", f64::from(*v), 1e-12, 1e12))?;
        }
        Ok(Some(Fleet { priors, series: series.to_vec(), own }))
    }

    fn member(
        &self,
        name: &str,
        header: &MemberHeader,
        features: usize,
        ordered: bool,
    ) -> Result<Member, ArtifactError> {
        let MemberHeader { view, weight, ref activations, encoder } = *header;
        within("window", view.window, WINDOW_MAX)?;
        sound("weight", weight, 0.0, 1.0)?;
        sound("clip", f64::from(view.clip), 0.0, 1e6)?;
        let inputs = within("window x features", view.inputs(features), INPUTS_MAX)?;
        let count = within("number of layers", activations.len(), LAYERS_MAX)?;
        within("number of layers that compress", encoder, count - 1)?;
        let mut sizes = vec![inputs];
        for l in 0..count - 1 {
            sizes.push(within("width of a layer", self.length(&format!("{name}.network.{l}.bias"))?, WIDTH_MAX)?);
        }
        sizes.push(inputs);
        let network = Network { layers: self.layers(name, &sizes)?, activations: activations.clone(), encoder };
        let kept = self.narrow(&format!("{name}.kept"), &[features])?;
        kept.iter().try_for_each(|share| sound("kept", f64::from(*share), 0.0, 1.0))?;
        let numbers = self.narrow(&format!("{name}.noise"), &[features, NOISE])?;
        let mut noise = Vec::with_capacity(features);
        for &[deviation, apart, apart_deviation, ref weights @ ..] in numbers.as_chunks::<NOISE>().0 {
            sound("noise deviation", f64::from(deviation), 0.0, 1e12)?;
            sound("noise apart", f64::from(apart.abs()), 0.0, 1e12)?;
            sound("noise apart deviation", f64::from(apart_deviation), 0.0, 1e12)?;
            weights.iter().try_for_each(|weight| sound("noise weight", f64::from(weight.abs()), 0.0, 1e3))?;
            noise.push(Noise { deviation, apart, apart_deviation, weights: *weights });
        }
        let own = self.narrow(&format!("{name}.own"), &[features])?;
        own.iter().try_for_each(|part| sound("own", f64::from(*part), 0.0, 1.0))?;
        let ranks = weight > 0.0;
        let (residuals, distance) = self.statistics(&format!("{name}.residual"), inputs, ranks)?;
        let slow = (ranks && ordered).then(|| self.statistics(&format!("{name}.slow"), inputs, true)).transpose()?;
        let slow = slow.map(|(residuals, distance)| Measured { residuals, distance });
        Ok(Member { view, weight, network, kept, noise, own: own.into(), residuals, distance, slow })
    }

    fn neighbours(&self, features: usize, ordered: bool) -> Result<Neighbours, ArtifactError> {
        let (name, terms) = ("neighbours", "neighbours.distances");
        let count = self.rows(name)?;
        if count == 0 || count != neighbours::count(features, count, ordered) {
            return Err(value(&format!("number of {name}"), count, "whole groups, and not more than are used"));
        }
        let references = self.matrix(name, count, features)?;
        if let Some(v) = references.iter().find(|v| v.abs() > SCALED_MAX) {
            return Err(value(name, v, &format!("at most {SCALED_MAX:e}")));
        }
        let numbers = self.wide(terms, 4)?;
        let [nearest, grouped] = [0, 2].map(|at| self.term(terms, numbers[at], numbers[at + 1]));
        Ok(Neighbours { references, nearest: nearest?, grouped: grouped? })
    }

    fn term(&self, name: &str, median: f64, top: f64) -> Result<Term, ArtifactError> {
        sound(name, median, 1e-12, 1e30)?;
        sound(name, top, 1e-12, 1e6)?;
        Ok(Term { median, top })
    }

    fn statistics(&self, name: &str, width: usize, ranks: bool) -> Result<(Residuals, Term), ArtifactError> {
        let whitening = if ranks && width <= WHITENED_MAX {
            Some(self.matrix(&format!("{name}.whitening"), width, width)?)
        } else {
            None
        };
        let scale = self.narrow(&format!("{name}.scale"), &[width])?;
        if let Some(v) = scale.iter().find(|v| **v <= 0.0) {
            return Err(value(&format!("{name}.scale"), v, "more than 0"));
        }
        let mean = self.narrow(&format!("{name}.mean"), &[width])?;
        let distance = format!("{name}.distance");
        let [median, top] = self.wide(&distance, 2)?[..] else { unreachable!("two numbers were asked for") };
        let distance = self.term(&distance, median, top)?;
        Ok((Residuals { mean: mean.into(), scale: scale.into(), whitening }, distance))
    }

    /// Of one of the channels.
    fn law(&self, which: usize) -> Result<Law, ArtifactError> {
        let numbers = self.wide("decision.laws", 18)?;
        let [level, peak, spread, floor, start, shape] = numbers.as_chunks::<6>().0[which];
        for (what, v) in [("level", level), ("peak", peak), ("start", start)] {
            sound(&format!("decision.laws {what}"), v, 0.0, 1e30)?;
        }
        for (what, v) in [("spread", spread), ("floor", floor)] {
            sound(&format!("decision.laws {what}"), v, 1e-12, 1e30)?;
        }
        sound("decision.laws shape", shape, SHAPE_MIN, 0.0)?;
        Ok(Law { level, peak, spread, floor, start, shape })
    }

    fn tail(&self) -> Result<Tail, ArtifactError> {
        let numbers = self.wide("decision.tail", 4)?;
        let [start, rate, shape, scale] = numbers[..] else { unreachable!("four numbers were asked for") };
        let quantiles = self.wide("decision.quantiles", QUANTILES)?;
        for (what, v, min, max) in [
            ("start", start, 1e-12, 1e6),
            ("rate", rate, 1e-12, 1.0),
            ("shape", shape, -1.0, 1.0),
            ("scale", scale, 1e-12, 1e6),
            ("lowest quantile", quantiles[0], 0.0, 1e6),
            ("highest quantile", quantiles[QUANTILES - 1], 0.0, 1e6),
        ] {
            sound(&format!("decision.tail {what}"), v, min, max)?;
        }
        if !quantiles.is_sorted() {
            return Err(value("decision.quantiles", "unsorted", "ascending values"));
        }
        Ok(Tail { start, rate, shape, scale, quantiles })
    }

    fn layers(&self, name: &str, sizes: &[usize]) -> Result<Vec<Dense>, ArtifactError> {
        let layer = |l: usize| {
            Ok::<_, ArtifactError>(Dense {
                weight: self.matrix(&format!("{name}.network.{l}.weight"), sizes[l], sizes[l + 1])?,
                bias: self.narrow(&format!("{name}.network.{l}.bias"), &[sizes[l + 1]])?.into(),
            })
        };
        (0..sizes.len() - 1).map(layer).collect()
    }

    /// Number of elements of a one-dimensional tensor.
    fn length(&self, name: &str) -> Result<usize, ArtifactError> {
        let view = self.tensors.tensor(name)?;
        match view.shape() {
            &[n] => Ok(n),
            other => Err(tensor_error(name, format!("{other:?}"), "one dimension".to_owned())),
        }
    }

    /// Number of rows of a matrix.
    fn rows(&self, name: &str) -> Result<usize, ArtifactError> {
        let view = self.tensors.tensor(name)?;
        match view.shape() {
            &[n, _] => Ok(n),
            other => Err(tensor_error(name, format!("{other:?}"), "two dimensions".to_owned())),
        }
    }

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], ArtifactError> {
        let view = self.tensors.tensor(name)?;
        if view.dtype() == dtype && view.shape() == shape {
            Ok(view.data())
        } else {
            let text = |dtype: Dtype, shape: &[usize]| format!("{dtype} {shape:?}");
            Err(tensor_error(name, text(view.dtype(), view.shape()), text(dtype, shape)))
        }
    }

    fn wide(&self, name: &str, n: usize) -> Result<Vec<f64>, ArtifactError> {
        let bytes = self.bytes(name, Dtype::F64, &[n])?;
        let (numbers, _) = bytes.as_chunks();
        let values: Vec<f64> = numbers.iter().map(|b| f64::from_le_bytes(*b)).collect();
        match values.iter().find(|v| !v.is_finite()) {
            None => Ok(values),
            Some(v) => Err(value(name, v, "finite numbers")),
        }
    }

    /// Finite, or NaN: unknown.
    fn means(&self, name: &str, n: usize) -> Result<Vec<f64>, ArtifactError> {
        let (numbers, _) = self.bytes(name, Dtype::F64, &[n])?.as_chunks();
        let values: Vec<f64> = numbers.iter().map(|b| f64::from_le_bytes(*b)).collect();
        match values.iter().find(|v| v.is_infinite()) {
            None => Ok(values),
            Some(v) => Err(value(name, v, "finite numbers, or none")),
        }
    }

    fn positive(&self, name: &str, n: usize) -> Result<Vec<f64>, ArtifactError> {
        let values = self.wide(name, n)?;
        match values.iter().find(|v| **v <= 0.0) {
            None => Ok(values),
            Some(v) => Err(value(name, v, "more than 0")),
        }
    }

    fn narrow(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ArtifactError> {
        let (numbers, _) = self.bytes(name, Dtype::F32, shape)?.as_chunks();
        let values: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
        match values.iter().find(|v| !v.is_finite()) {
            None => Ok(values),
            Some(v) => Err(value(name, v, "finite numbers")),
        }
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Array2<f32>, ArtifactError> {
        let values = self.narrow(name, &[rows, columns])?;
        Array2::from_shape_vec((rows, columns), values)
            .map_err(|e| tensor_error(name, e.to_string(), format!("[{rows}, {columns}]")))
    }
}

fn within(name: &str, n: usize, max: usize) -> Result<usize, ArtifactError> {
    if (1..=max).contains(&n) { Ok(n) } else { Err(value(name, n, &format!("1 to {max}"))) }
}

fn sound(name: &str, v: f64, min: f64, max: f64) -> Result<(), ArtifactError> {
    if (min..=max).contains(&v) { Ok(()) } else { Err(value(name, v, &format!("{min:e} to {max:e}"))) }
}

fn value(name: &str, value: impl ToString, expected: &str) -> ArtifactError {
    ArtifactError::Value { name: name.to_owned(), value: value.to_string(), expected: expected.to_owned() }
}

fn tensor_error(name: &str, found: String, expected: String) -> ArtifactError {
    ArtifactError::Tensor { name: name.to_owned(), found, expected }
}

#[cfg(test)]
mod tests;
