//! Any bytes as the value of a message: judged with finite numbers, or refused with a reason; nothing panics. And what is read fast is read as the whole
//! grammar reads it.
#![no_main]
#![allow(dead_code, unused_imports)] // most of the core is not called here

#[path = "../../src/detector/mod.rs"]
mod detector;
#[path = "../../src/incident/mod.rs"]
mod incident;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../src/record/mod.rs"]
mod record;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::detector::{Arrival, Detector, DetectorSettings, SeriesSettings, Verdict};
use crate::incident::IncidentSettings;
use crate::model::{Model, ModelSettings, Profile, TrainingSource};
use crate::record::{Decoder, History, InputSettings, Offset, PartitionId, Position, RawRecord};
use libfuzzer_sys::fuzz_target;

struct Bench {
    decoder: Decoder,
    detector: Detector,
    values: Vec<f64>,
    offset: i64,
}

fn raw(offset: i64, value: &[u8]) -> RawRecord<'_> {
    let position = Position { partition: PartitionId(0), offset: Offset(offset) };
    RawRecord { position, key: Some(b"pump-1"), value: Some(value), timestamp_ms: Some(offset), traceparent: None }
}

impl Bench {
    fn new() -> Bench {
        let settings = InputSettings::default();
        let mut history = History::new(&settings).expect("sound settings");
        for offset in 0..500 {
            let load = (offset as f64 * 0.7).sin();
            let value = format!(
                r#"{{"flow":{},"motor":{{"current":{},"temp":{}}},"valve":{}}}"#,
                10.0 + load,
                5.0 - load * load,
                40.0 + (offset % 7) as f64,
                offset % 2 == 0
            );
            history.push(&raw(offset, value.as_bytes())).expect("a sound record");
        }
        let source = TrainingSource::File { name: "fuzz".to_owned(), rows: 500 };
        let training = ModelSettings { steps: 20, ..ModelSettings::default() };
        let table = history.finish().expect("enough records");
        let model =
            Model::fit(&table, &training, Profile::Balanced, source, &mut |_, _| ControlFlow::Continue(()))
                .expect("enough records");
        let decoder = Decoder::new(&settings, model.schema()).expect("the model's features");
        let values = vec![0.0; model.schema().len()];
        let (alarms, series, incidents) =
            (DetectorSettings::default(), SeriesSettings::default(), IncidentSettings::default());
        Bench { decoder, detector: Detector::new(Arc::new(model), &alarms, &series, &incidents), values, offset: 0 }
    }

    fn take(&mut self, value: &[u8]) {
        assert!(std::str::from_utf8(value).map_or(true, |text| self.decoder.agrees(text)));
        self.offset += 1;
        let raw = raw(self.offset, value);
        match self.decoder.decode(&raw, &mut self.values) {
            Ok(decoded) => {
                let arrival = Arrival { position: raw.position, series: &decoded.series, time: decoded.time };
                self.detector.observe(arrival, &self.values);
                match self.detector.judge() {
                    [Verdict::Scored { score, .. }] => assert!(score.is_finite() && *score >= 0.0, "{score}"),
                    [Verdict::Warming] => {}
                    more => panic!("one verdict, not {more:?}"),
                }
            }
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
    }
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

fuzz_target!(|value: &[u8]| BENCH.with_borrow_mut(|bench| bench.take(value)));
