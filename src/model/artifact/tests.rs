//! What is written reads back; what is forged or damaged is refused with a reason.

use std::ops::ControlFlow;

use super::*;
use crate::model::testing::{plane, table, uniform};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows without an order.
fn model() -> Model {
    fitted(table(3, plane(1, 300, 3, 1)))
}

/// One that has all there is.
fn ordered() -> Model {
    fitted(table(1, (0..300).map(|i| (f64::from(i) * 0.3).sin()).collect()))
}

/// One of series that differ in level.
fn of_a_fleet() -> Model {
    let mut all = table(1, (0..1200).map(|i| (f64::from(i) * 0.3).sin() + f64::from(i / 400 * 100)).collect());
    all.series = (0..1200).map(|i| i / 400).collect();
    all.names = ["a", "b", "c"].map(str::to_owned).into();
    fitted(all)
}

fn fitted(table: crate::record::Table) -> Model {
    let settings = ModelSettings { steps: 50, learning_rate: 0.1 + 0.2 / 3.0, ..Default::default() };
    let source = TrainingSource::Topic { topic: "sensors".to_owned(), ranges: vec![] };
    Model::fit(&table, &settings, Profile::Balanced, source, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// A change to a sound file before its checksum is put right again.
type Change = fn(&mut serde_json::Value, &mut Vec<(String, Tensor)>);

/// The model's file with something changed and a correct checksum.
fn forged(model: &Model, change: Change) -> Vec<u8> {
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
    for model in [model(), ordered(), of_a_fleet()] {
        let bytes = model.to_bytes().unwrap();
        let back = Model::from_bytes(&bytes).unwrap();
        assert_eq!(back.to_bytes().unwrap(), bytes);
        assert_eq!(format!("{back:?}"), format!("{model:?}"));
        assert_eq!((model.fingerprint().len(), model.checksum().len()), (16, 64));
    }
    Model::from_bytes(&forged(&model(), |_, _| {})).expect("the forger changes nothing by itself");
}

#[test]
fn forged_contents_are_refused_with_a_reason() {
    let cases: &[(Change, &str)] = &[
        (|h, _| h["format"] = 6.into(), "format 6: expected 15"),
        (|h, _| h["format"] = "x".into(), "metadata: invalid type"),
        (|h, _| h["surprise"] = 1.into(), "unknown field `surprise`"),
        (|h, _| h["schema"] = serde_json::json!([]), "metadata: "),
        (|h, _| h["schema"] = serde_json::json!(["a"]), "expected F64 [1]"),
        (|h, _| h["members"] = serde_json::json!([]), "number of networks = 0"),
        (|h, _| h["members"] = serde_json::json!([h["members"][0], h["members"][0]]), "1 for records without an order"),
        (|h, _| h["ordered"] = true.into(), "decision.laws"),
        (|h, _| h["members"][0]["weight"] = 1.5.into(), "weight = 1.5"),
        (|h, _| h["members"][0]["weight"] = 0.0.into(), "weights of the networks = 0"),
        (|h, _| h["members"][0]["view"]["clip"] = (-1.0).into(), "clip = -1"),
        (|h, _| h["members"][0]["view"]["context"] = true.into(), "expected F32 [6, 16]"),
        (|h, _| h["members"][0]["view"]["window"] = 0.into(), "window = 0, expected 1 to"),
        (|h, _| h["members"][0]["view"]["window"] = 1_000_000_000.into(), "window = 1000000000"),
        (|h, _| h["members"][0]["view"]["window"] = 2.into(), "expected F32 [6, 16]"),
        (|h, _| h["settings"]["steps"] = 0.into(), "model.steps = 0"),
        (|h, _| h["members"][0]["activations"][0] = "softmax".into(), "unknown variant `softmax`"),
        (|h, _| h["members"][0]["encoder"] = 4.into(), "number of layers that compress = 4, expected 1 to 3"),
        (
            |h, _| h["members"][0]["activations"] = serde_json::json!(["relu"]),
            "layers that compress = 2, expected 1 to 0",
        ),
        (|_, t| drop(t.remove(0)), "scaler.mean"),
        (|_, t| *tensor(t, "reference.alike") = Tensor::wide(&[1.0, 0.5, 1.0]), "reference.alike = 0.5"),
        (
            |_, t| *tensor(t, "reference.edges") = Tensor::narrow([1.0; 98].iter().chain(&[0.0]), vec![3, EDGES]),
            "reference.edges = unsorted",
        ),
        (
            |_, t| *tensor(t, "reference.shares") = Tensor::narrow([0.5; 3 * BINS].iter(), vec![3, BINS]),
            "reference.shares = other",
        ),
        (|_, t| *tensor(t, "member.0.kept") = Tensor::narrow([0.5, 1.5, 1.0].iter(), vec![3]), "kept = 1.5"),
        (|_, t| *tensor(t, "member.0.own") = Tensor::narrow([0.5, -0.1, 0.0].iter(), vec![3]), "own = -0.1"),
        (
            |_, t| *tensor(t, "member.0.noise") = Tensor::narrow([-1.5; 42].iter(), vec![3, 14]),
            "noise deviation = -1.5",
        ),
        (|_, t| *tensor(t, "map.axes") = Tensor::narrow([0.5; 4].iter(), vec![4]), "tensor map.axes is F32 [4]"),
        (|_, t| t.push(("extra".to_owned(), Tensor::wide(&[1.0]))), "number of tensors = 28, expected 27"),
        (|_, t| t[0].0 = "scaler.maen".to_owned(), "scaler.mean"),
        (|_, t| *tensor(t, "scaler.mean") = Tensor::wide(&[0.0; 2]), "expected F64 [3]"),
        (|_, t| *tensor(t, "scaler.mean") = Tensor::wide(&[0.0, 1e200, 0.0]), "at most 1e150"),
        (|_, t| *tensor(t, "scaler.scale") = Tensor::wide(&[1.0, 0.0, 1.0]), "expected more than 0"),
        (|_, t| *tensor(t, "scaler.scale") = Tensor::wide(&[1.0, f64::NAN, 1.0]), "expected finite numbers"),
        (
            |_, t| tensor(t, "member.0.network.0.weight").bytes[..4].copy_from_slice(&[0, 0, 0x80, 0x7f]),
            "inf, expected finite",
        ),
        (|_, t| tensor(t, "member.0.network.0.weight").shape = vec![16, 3], "is F32 [16, 3], expected F32 [3, 16]"),
        (|_, t| *tensor(t, "member.0.network.1.bias") = Tensor::wide(&[]), "width of a layer = 0"),
        (|_, t| tensor(t, "member.0.network.0.bias").shape = vec![4, 4], "expected one dimension"),
        (|_, t| tensor(t, "member.0.residual.scale").bytes.fill(0), "expected more than 0"),
        (|_, t| tensor(t, "member.0.residual.whitening").shape = vec![9], "expected F32 [3, 3]"),
        (|_, t| tensor(t, "neighbours").shape = vec![888], "expected two dimensions"),
        (|_, t| tensor(t, "neighbours").shape = vec![444, 2], "expected whole groups"),
        (|_, t| *tensor(t, "neighbours") = Tensor::narrow([].iter(), vec![0, 3]), "number of neighbours = 0"),
        (
            |_, t| *tensor(t, "neighbours") = Tensor::narrow([0.0; 3 * 1_032].iter(), vec![1_032, 3]),
            "number of neighbours = 1032",
        ),
        (|_, t| *tensor(t, "neighbours") = Tensor::narrow([0.0; 16].iter(), vec![8, 2]), "expected F32 [8, 3]"),
        (
            |_, t| tensor(t, "neighbours").bytes[..4].copy_from_slice(&2e6f32.to_le_bytes()),
            "neighbours = 2000000, expected at most 1e6",
        ),
        (|_, t| *tensor(t, "neighbours.distances") = Tensor::wide(&[1.0, 1.0, 1.0, 0.0]), "neighbours.distances = 0"),
        (|_, t| *tensor(t, "decision.units") = Tensor::wide(&[1.0, 1.0, 0.9]), "decision.units = 0.9"),
        (|_, t| *tensor(t, "member.0.residual.distance") = Tensor::wide(&[0.0, 1.0]), "residual.distance = 0"),
        (|_, t| *tensor(t, "decision.tail") = Tensor::wide(&[1.0, 0.02, 9.0, 1.0]), "decision.tail shape = 9"),
        (|_, t| tensor(t, "decision.quantiles").bytes[8..16].copy_from_slice(&9e5f64.to_le_bytes()), "ascending"),
    ];
    for (change, expect) in cases {
        let got = refusal(&forged(&model(), *change));
        assert!(got.contains(expect), "{got:?} does not say {expect:?}");
    }
}

#[test]
fn forged_contents_of_ordered_models_are_refused_with_a_reason() {
    let cases: &[(Change, &str)] = &[
        (|_, t| *tensor(t, "neighbours") = Tensor::narrow([0.0; 72].iter(), vec![72, 1]), "number of neighbours = 72"),
        (|h, _| h["ordered"] = false.into(), "1 for records without an order"),
        (|h, _| h["members"][2]["weight"] = 0.5.into(), "member.2.residual.whitening"),
        (|h, _| [0, 1].iter().for_each(|at| h["members"][*at]["weight"] = 0.0.into()), "weights of the networks"),
        (|_, t| tensor(t, "member.0.slow.whitening").shape = vec![100], "expected F32 [10, 10]"),
        (|_, t| *tensor(t, "decision.laws") = Tensor::wide(&[1.0; 7]), "expected F64 [18]"),
        (|_, t| tensor(t, "decision.laws").bytes[16..24].fill(0), "decision.laws spread = 0"),
        (|_, t| tensor(t, "decision.laws").bytes[40..48].copy_from_slice(&(-1f64).to_le_bytes()), "shape = -1"),
        (|_, t| tensor(t, "decision.laws").bytes[48..56].copy_from_slice(&(-1f64).to_le_bytes()), "level = -1"),
    ];
    let model = ordered();
    for (change, expect) in cases {
        let got = refusal(&forged(&model, *change));
        assert!(got.contains(expect), "{got:?} does not say {expect:?}");
    }
}

#[test]
fn forged_fleets_are_refused_with_a_reason() {
    let cases: &[(Change, &str)] = &[
        (|h, _| h["fleet"] = serde_json::json!([]), "number of tensors"),
        (|h, _| h["fleet"] = serde_json::json!(["a", "c", "b"]), "ascending"),
        (|h, _| h["fleet"] = serde_json::json!(["a", "b"]), "expected F32 [2, 2]"),
        (|_, t| tensor(t, "fleet.own").bytes[4..8].fill(0), "fleet.own scale = 0"),
        (|_, t| *tensor(t, "fleet.priors") = Tensor::wide(&[0.0, 1.0, 1.0]), "fleet.priors scale = 0"),
        (|_, t| *tensor(t, "fleet.priors") = Tensor::wide(&[1.0, -1.0, 1.0]), "fleet.priors means = -1"),
    ];
    let model = of_a_fleet();
    for (change, expect) in cases {
        let got = refusal(&forged(&model, *change));
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
