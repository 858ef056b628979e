//! The model as bytes: a `.safetensors` file with the numbers as tensors and the rest as JSON in one metadata key.
//!
//! The bytes are a function of the model. Its checksum is the SHA-256 of the file with the checksum itself as zeros, so
//! every byte is covered. Reading trusts nothing: size, header, checksum, dimensions and each number are checked.

use std::borrow::Cow;
use std::collections::HashMap;

use ndarray::Array2;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::network::{Dense, LAYERS, Network};
use super::residual::{Residuals, WHITENED_MAX};
use super::scaler::Scaler;
use super::settings::{Activation, INPUTS_MAX, ModelSettings, SettingError, WIDTH_MAX, WINDOW_MAX};
use super::tail::{QUANTILES, Tail};
use super::{ARTIFACT_BYTES_MAX, Calibration, Layout, Model, RowCounts, Tails, TrainingSource};
use crate::record::Schema;

/// Raised when the meaning of the bytes changes; readers refuse other versions.
const FORMAT: u32 = 2;
/// The one metadata key.
const KEY: &str = "residua";
/// In place of the checksum while it is computed.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";
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
    layout: Layout,
    activation: Activation,
    rows: RowCounts,
    settings: Cow<'a, ModelSettings>,
    source: Cow<'a, TrainingSource>,
    schema: Cow<'a, Schema>,
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
            layout: self.calibration.layout,
            activation: self.network.activation,
            rows: self.rows,
            settings: Cow::Borrowed(&self.settings),
            source: Cow::Borrowed(&self.source),
            schema: Cow::Borrowed(&self.schema),
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
        let Tails { record, smoothed } = &self.calibration.tails;
        let numbers = |tail: &Tail| Tensor::wide(&[tail.start, tail.rate, tail.shape, tail.scale]);
        let mut tensors = vec![
            wide("scaler.mean", &self.scaler.mean),
            wide("scaler.scale", &self.scaler.scale),
            wide("calibration.median", &[self.calibration.median]),
            ("calibration.record.tail".to_owned(), numbers(record)),
            wide("calibration.record.quantiles", &record.quantiles),
            ("calibration.smoothed.tail".to_owned(), numbers(smoothed)),
            wide("calibration.smoothed.quantiles", &smoothed.quantiles),
            ("residual.mean".to_owned(), Tensor::narrow(self.residuals.mean.iter(), vec![self.residuals.mean.len()])),
            (
                "residual.scale".to_owned(),
                Tensor::narrow(self.residuals.scale.iter(), vec![self.residuals.scale.len()]),
            ),
        ];
        if let Some(matrix) = &self.residuals.whitening {
            tensors.push(("residual.whitening".to_owned(), Tensor::narrow(matrix.iter(), matrix.shape().to_vec())));
        }
        for (l, layer) in self.network.layers.iter().enumerate() {
            let shape = layer.weight.shape().to_vec();
            tensors.push((format!("network.{l}.weight"), Tensor::narrow(layer.weight.iter(), shape)));
            tensors.push((format!("network.{l}.bias"), Tensor::narrow(layer.bias.iter(), vec![layer.bias.len()])));
        }
        tensors
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

impl View for Tensor {
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
        let window = within("window", header.layout.window, WINDOW_MAX)?;
        let inputs = within("window x features", window * features, INPUTS_MAX)?;
        let hidden = within("hidden width", self.length("network.0.bias")?, WIDTH_MAX)?;
        let code = within("code width", self.length("network.1.bias")?, WIDTH_MAX)?;
        let whitened = inputs <= WHITENED_MAX;
        let expected = 9 + usize::from(whitened) + 2 * LAYERS;
        if self.tensors.len() != expected {
            return Err(value("number of tensors", self.tensors.len(), &expected.to_string()));
        }
        let scaler =
            Scaler { mean: self.wide("scaler.mean", features)?, scale: self.positive("scaler.scale", features)? };
        if let Some(v) = scaler.mean.iter().chain(&scaler.scale).find(|v| v.abs() > UNIT_MAX) {
            return Err(value("scaler", v, &format!("at most {UNIT_MAX:e}")));
        }
        let network =
            Network { layers: self.layers([inputs, hidden, code, hidden, inputs])?, activation: header.activation };
        let residuals = Residuals {
            mean: self.narrow("residual.mean", &[inputs])?.into(),
            scale: self.narrow("residual.scale", &[inputs])?.into(),
            whitening: if whitened { Some(self.matrix("residual.whitening", inputs, inputs)?) } else { None },
        };
        if let Some(v) = residuals.scale.iter().find(|v| **v <= 0.0) {
            return Err(value("residual.scale", v, "more than 0"));
        }
        Ok(Model {
            calibration: self.calibration(header.layout)?,
            schema: header.schema.into_owned(),
            source: header.source.into_owned(),
            settings: header.settings.into_owned(),
            rows: header.rows,
            scaler,
            network,
            residuals,
            checksum: header.checksum,
        })
    }

    fn calibration(&self, layout: Layout) -> Result<Calibration, ArtifactError> {
        let [median] = self.wide("calibration.median", 1)?[..] else { unreachable!("one number was asked for") };
        sound("calibration.median", median, 1e-12, 1e30)?;
        let tails = Tails { record: self.tail("calibration.record")?, smoothed: self.tail("calibration.smoothed")? };
        Ok(Calibration { layout, median, tails })
    }

    fn tail(&self, name: &str) -> Result<Tail, ArtifactError> {
        let numbers = self.wide(&format!("{name}.tail"), 4)?;
        let [start, rate, shape, scale] = numbers[..] else { unreachable!("four numbers were asked for") };
        let quantiles = self.wide(&format!("{name}.quantiles"), QUANTILES)?;
        for (what, v, min, max) in [
            ("start", start, 1e-12, 1e6),
            ("rate", rate, 1e-12, 1.0),
            ("shape", shape, -1.0, 1.0),
            ("scale", scale, 1e-12, 1e6),
            ("lowest quantile", quantiles[0], 0.0, 1e6),
            ("highest quantile", quantiles[QUANTILES - 1], 0.0, 1e6),
        ] {
            sound(&format!("{name} {what}"), v, min, max)?;
        }
        if !quantiles.is_sorted() {
            return Err(value(&format!("{name}.quantiles"), "unsorted", "ascending values"));
        }
        Ok(Tail { start, rate, shape, scale, quantiles })
    }

    fn layers(&self, sizes: [usize; LAYERS + 1]) -> Result<[Dense; LAYERS], ArtifactError> {
        let layer = |l: usize| {
            Ok::<_, ArtifactError>(Dense {
                weight: self.matrix(&format!("network.{l}.weight"), sizes[l], sizes[l + 1])?,
                bias: self.narrow(&format!("network.{l}.bias"), &[sizes[l + 1]])?.into(),
            })
        };
        Ok([layer(0)?, layer(1)?, layer(2)?, layer(3)?])
    }

    /// Number of elements of a one-dimensional tensor.
    fn length(&self, name: &str) -> Result<usize, ArtifactError> {
        let view = self.tensors.tensor(name)?;
        match view.shape() {
            &[n] => Ok(n),
            other => Err(tensor_error(name, format!("{other:?}"), "one dimension".to_owned())),
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
mod tests {
    use std::ops::ControlFlow;

    use super::super::testing::{plane, table, uniform};
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn model() -> Model {
        let settings = ModelSettings { steps: 50, learning_rate: 0.1 + 0.2 / 3.0, ..Default::default() };
        let source = TrainingSource::Topic { topic: "sensors".to_owned(), ranges: vec![] };
        Model::fit(&table(3, plane(1, 300, 3, 1)), &settings, source, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    /// A change to a sound file before its checksum is put right again.
    type Change = fn(&mut serde_json::Value, &mut Vec<(String, Tensor)>);

    /// The model's file with something changed and a correct checksum.
    fn forged(change: Change) -> Vec<u8> {
        let model = model();
        let (_, metadata) = SafeTensors::read_metadata(&model.to_bytes().unwrap()).unwrap();
        let mut header = serde_json::from_str(&metadata.metadata().as_ref().unwrap()[KEY]).unwrap();
        let mut tensors = model.tensors();
        change(&mut header, &mut tensors);
        let write = |checksum: &str, header: &serde_json::Value, tensors: Vec<(String, Tensor)>| {
            let mut header = header.clone();
            header["checksum"] = checksum.into();
            safetensors::serialize(tensors, Some(HashMap::from([(KEY.to_owned(), header.to_string())]))).unwrap()
        };
        let mut again = model.tensors();
        change(&mut header.clone(), &mut again);
        let checksum = hex(&Sha256::digest(write(NO_CHECKSUM, &header, again)));
        write(&checksum, &header, tensors)
    }

    fn tensor<'a>(tensors: &'a mut [(String, Tensor)], name: &str) -> &'a mut Tensor {
        &mut tensors.iter_mut().find(|(n, _)| n == name).unwrap().1
    }

    fn refusal(bytes: &[u8]) -> String {
        Model::from_bytes(bytes).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_model_reads_back_as_it_was() {
        let model = model();
        let bytes = model.to_bytes().unwrap();
        let back = Model::from_bytes(&bytes).unwrap();
        assert_eq!(back.to_bytes().unwrap(), bytes);
        assert_eq!(format!("{back:?}"), format!("{model:?}"));
        assert_eq!((model.fingerprint().len(), model.checksum().len()), (16, 64));
        Model::from_bytes(&forged(|_, _| {})).expect("the forger changes nothing by itself");
    }

    #[test]
    fn forged_contents_are_refused_with_a_reason() {
        let cases: &[(Change, &str)] = &[
            (|h, _| h["format"] = 3.into(), "format 3: expected 2"),
            (|h, _| h["format"] = "x".into(), "metadata: invalid type"),
            (|h, _| h["surprise"] = 1.into(), "unknown field `surprise`"),
            (|h, _| h["schema"] = serde_json::json!([]), "metadata: "),
            (|h, _| h["schema"] = serde_json::json!(["a"]), "expected F64 [1]"),
            (|h, _| h["layout"]["window"] = 0.into(), "window = 0, expected 1 to"),
            (|h, _| h["layout"]["window"] = 1_000_000_000.into(), "window = 1000000000"),
            (|h, _| h["layout"]["window"] = 2.into(), "expected F32 [6, 16]"),
            (
                |h, _| {
                    h["schema"] = (0..4096).map(|i| format!("f{i}")).collect::<Vec<_>>().into();
                    h["layout"]["window"] = 17.into();
                },
                "window x features = 69632, expected 1 to 65536",
            ),
            (|h, _| h["settings"]["steps"] = 0.into(), "model.steps = 0"),
            (|h, _| h["activation"] = "softmax".into(), "unknown variant `softmax`"),
            (|_, t| drop(t.remove(0)), "number of tensors = 17, expected 18"),
            (|_, t| t.push(("extra".to_owned(), Tensor::wide(&[1.0]))), "number of tensors = 19"),
            (|_, t| t[0].0 = "scaler.maen".to_owned(), "scaler.mean"),
            (|_, t| *tensor(t, "scaler.mean") = Tensor::wide(&[0.0; 2]), "expected F64 [3]"),
            (|_, t| *tensor(t, "scaler.mean") = Tensor::wide(&[0.0, 1e200, 0.0]), "at most 1e150"),
            (|_, t| *tensor(t, "scaler.scale") = Tensor::wide(&[1.0, 0.0, 1.0]), "expected more than 0"),
            (|_, t| *tensor(t, "scaler.scale") = Tensor::wide(&[1.0, f64::NAN, 1.0]), "expected finite numbers"),
            (
                |_, t| tensor(t, "network.0.weight").bytes[..4].copy_from_slice(&[0, 0, 0x80, 0x7f]),
                "inf, expected finite",
            ),
            (|_, t| tensor(t, "network.0.weight").shape = vec![16, 3], "is F32 [16, 3], expected F32 [3, 16]"),
            (|_, t| *tensor(t, "network.1.bias") = Tensor::wide(&[]), "code width = 0"),
            (|_, t| tensor(t, "network.0.bias").shape = vec![4, 4], "expected one dimension"),
            (|_, t| tensor(t, "residual.scale").bytes.fill(0), "expected more than 0"),
            (|_, t| tensor(t, "residual.whitening").shape = vec![9], "expected F32 [3, 3]"),
            (|_, t| *tensor(t, "calibration.median") = Tensor::wide(&[0.0]), "calibration.median = 0"),
            (
                |_, t| *tensor(t, "calibration.record.tail") = Tensor::wide(&[1.0, 0.02, 9.0, 1.0]),
                "calibration.record shape = 9",
            ),
            (
                |_, t| tensor(t, "calibration.smoothed.quantiles").bytes[8..16].copy_from_slice(&9e5f64.to_le_bytes()),
                "ascending",
            ),
        ];
        for (change, expect) in cases {
            let got = refusal(&forged(*change));
            assert!(got.contains(expect), "{got:?} does not say {expect:?}");
        }
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let bytes = model().to_bytes().unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let foreign = safetensors::serialize(vec![("a", Tensor::wide(&[1.0]))], None).unwrap();
        let header_too_long = [&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat();
        for (bytes, expect) in [
            (&[][..], "not a safetensors file"),
            (b"PK\x03\x04 no model at all", "not a safetensors file"),
            (&bytes[..bytes.len() - 1], "not a safetensors file"),
            (&bytes[..9], "not a safetensors file"),
            (&header_too_long, "not a safetensors file"),
            (&foreign, "not written by residua"),
            (&flipped, "the file is damaged"),
            (&[bytes.clone(), vec![0]].concat(), "not a safetensors file"),
            (&vec![0; ARTIFACT_BYTES_MAX + 1], "expected at most 67108864"),
        ] {
            let got = refusal(bytes);
            assert!(got.contains(expect), "{got:?} does not say {expect:?}");
        }
    }

    #[test]
    fn random_damage_is_refused_and_never_panics() {
        let bytes = model().to_bytes().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..damaged.len());
                damaged[at] ^= 1 << rng.random_range(0..8);
            }
            assert!(damaged == bytes || Model::from_bytes(&damaged).is_err());
        }
        for share in uniform(12, 300) {
            assert!(Model::from_bytes(&bytes[..(share * bytes.len() as f64) as usize]).is_err());
        }
    }
}
