//! Where the model comes from: a file, the models topic, or the topic's own history.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use super::Failure;
use super::hands::all_cores;
use super::progress::{Progress, Stage};
use crate::config::LearningSettings;
use crate::kafka::{self, HistoryReader, KafkaSettings, ModelPublisher, Remedy, TopicReader};
use crate::model::{ARTIFACT_BYTES_MAX, Edition, FitError, Model, ModelSettings, Profile, TrainingSource};
use crate::pipeline::{Pulse, Stop};
use crate::record::{
    Decoder, History, InputSettings, NextOffset, Offset, PartitionId, Refusal, SchemaError, StandIn, WriterSchemas,
};

/// Wait between two looks at a topic that has too few records.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time to read the models topic to its end.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the model of an instance that began to train after this one, at least.
const OTHERS_MODEL_TIMEOUT: Duration = Duration::from_secs(60);

/// Partition, first offset, and the offset after the last.
type TrainingRange = (PartitionId, Offset, NextOffset);

/// Gets a model, one way or another.
pub struct Learner<'a> {
    pub kafka: &'a KafkaSettings,
    pub input: &'a InputSettings,
    /// Of Avro.
    pub schemas: Option<&'a Arc<dyn WriterSchemas>>,
    pub model: &'a ModelSettings,
    pub profile: Profile,
    pub learning: &'a LearningSettings,
    pub progress: &'a Progress,
    pub pulse: &'a Pulse,
    pub stop: &'a Stop,
}

/// Reads a model file, no more of it than a model can have.
///
/// # Errors
/// Unreadable file, or a file that is no sound model.
pub fn load(path: &Path) -> anyhow::Result<Model> {
    let name = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("open model {name}"))?.len();
    ensure!(
        size <= ARTIFACT_BYTES_MAX as u64,
        "open model {name}: {size} bytes, expected at most {ARTIFACT_BYTES_MAX}"
    );
    let bytes = std::fs::read(path).with_context(|| format!("open model {name}"))?;
    Model::from_bytes(&bytes).with_context(|| name.to_string())
}

impl Learner<'_> {
    /// The model to start with; none if asked to stop before there was one. `models` is read to its end.
    pub fn obtain(&self, models: Option<&TopicReader>) -> anyhow::Result<Option<(Model, Edition)>> {
        let Some(models) = models else {
            let model = load(Path::new(&self.learning.model_file)).context("read learning.model_file")?;
            self.fits(&model).with_context(|| format!("use learning.model_file = {:?}", self.learning.model_file))?;
            return Ok(Some((model, Edition::NONE)));
        };
        while self.wanted() {
            match self.learn(models) {
                // Kafka is away for a while: a daemon that waits for records waits for this too.
                Err(e) if is_passing(&e) && self.wanted() => {
                    tracing::warn!(error = format!("{e:#}"), "cannot learn yet, residua keeps trying");
                    std::thread::sleep(LOOK_INTERVAL);
                }
                Err(_) if !self.wanted() => return Ok(None),
                learned => return learned,
            }
        }
        Ok(None)
    }

    fn learn(&self, models: &TopicReader) -> anyhow::Result<Option<(Model, Edition)>> {
        let mut patience = Duration::ZERO;
        while self.wanted() {
            if let Some(found) = self.published(models, patience)? {
                return Ok(Some(found));
            }
            let started = Instant::now();
            // First the claim, then a look, then the work: whoever claims last publishes, and nobody publishes twice.
            let publisher =
                ModelPublisher::claim(self.kafka, &|| self.wanted()).context("claim the right to publish a model")?;
            if let Some(found) = self.published(models, Duration::ZERO)? {
                return Ok(Some(found));
            }
            let Some(model) = self.train()? else { return Ok(None) };
            let bytes = model.to_bytes().context("write the model")?;
            match publisher.publish(&bytes) {
                Ok(()) => {
                    tracing::info!(
                        model = model.fingerprint(),
                        topic = self.kafka.models,
                        bytes = bytes.len(),
                        "model trained and published"
                    );
                    // Read back, so that it is known where it lies.
                    let found = self.published(models, OTHERS_MODEL_TIMEOUT)?;
                    return Ok(Some(found.unwrap_or((model, Edition::NONE))));
                }
                Err(e) if e.remedy() == Remedy::Stop => return Err(e).context("publish the model"),
                // Training again would give no smaller one.
                Err(e) if e.too_large_for().is_some() => {
                    return Err(Failure::Misconfigured(format!(
                        "publish the model: it has {} bytes, more than topic `{}` takes; raise its max.message.bytes",
                        bytes.len(),
                        self.kafka.models
                    ))
                    .into());
                }
                Err(error) => {
                    tracing::warn!(%error, "the model could not be published; perhaps another instance is training too")
                }
            }
            patience = OTHERS_MODEL_TIMEOUT.max(2 * started.elapsed());
        }
        Ok(None)
    }

    /// Trains on the topic's history: from `learning.history` back to now, or longer, until there are `learning.min_records`.
    pub fn train(&self) -> anyhow::Result<Option<Model>> {
        let mut max = self.learning.max_records;
        let (history, refused, ranges) = loop {
            let Some((history, refused, ranges)) = self.collect(max)? else { return Ok(None) };
            if !history.is_full() {
                break (history, refused, ranges);
            }
            let fit = history.accepted();
            max = fewer(fit, self.learning.min_records).ok_or_else(|| {
                Failure::Misconfigured(format!(
                    "learn from learning.min_records = {}: only {fit} such records fit into memory; list input.features",
                    self.learning.min_records
                ))
            })?;
            tracing::warn!(fit, max_records = max, "the records are too many or too wide, reading fewer of them");
        };
        let source = TrainingSource::Topic { topic: self.kafka.input.clone(), ranges };
        let table = history.finish().context("learn the features from history")?;
        tracing::info!(records = table.rows(), refused, features = table.schema.len(), "training on history");
        for StandIn { feature, value, records } in table.stand_ins() {
            tracing::warn!(
                feature,
                value,
                records,
                "a number far from all others comes again and again; if it stands for no value, list it in input.missing_values and learn again"
            );
        }
        let (shown, pulse, stop) = (self.progress, self.pulse, self.stop);
        let mut progress = |done, total| {
            shown.at(Stage::Training, done, total);
            pulse.turn();
            if stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let fitted =
            self.alive(|| Model::fit_with(&all_cores, &table, self.model, self.profile, source, &mut progress));
        match fitted {
            Err(FitError::Stopped) => Ok(None),
            Err(error) => Err(error).context("train the model"),
            Ok(model) => {
                if model.rows().left_out > 0 {
                    tracing::warn!(
                        records = model.rows().all,
                        left_out = model.rows().left_out,
                        "some of the history looks like faults and was not learned from"
                    );
                }
                if let Some(features) = model.unknown() {
                    tracing::warn!(features, "too few values in the history to judge these by: they count as missing");
                }
                if let Some((series, learning)) = model.scaled_apart() {
                    tracing::info!(
                        series,
                        learning,
                        "series differ much: each is scaled by itself, and any that the history does not have warms longer"
                    );
                }
                Ok(Some(model))
            }
        }
    }

    /// Collects at most `max` records, with how many were refused and where they lie; none if asked to stop.
    fn collect(&self, max: usize) -> anyhow::Result<Option<(History, u64, Vec<TrainingRange>)>> {
        let mut history = History::new(self.input).context("read [input]")?;
        if let Some(schemas) = self.schemas {
            history = history.with_schemas(Arc::clone(schemas));
        }
        let min = self.learning.min_records as u64;
        let wanted = || self.wanted();
        let mut reader = HistoryReader::open(self.kafka, self.since_ms(), max as u64, &wanted)?;
        let (mut refused, mut first_refusal) = (0u64, None);
        while (history.accepted() as u64) < min && !history.is_full() {
            if !wanted() {
                return Ok(None);
            }
            let (have, available) = (history.accepted() as u64, reader.available(&wanted)?);
            if have + available < min {
                let why = held_up(refused, first_refusal.as_ref(), reader.older());
                self.progress.held_up(Stage::WaitingForRecords, have + available, min, why);
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            }
            let total = have + available;
            let read = reader.read(&wanted, &mut |raw| {
                while let Some(why) = history.wait_for(raw) {
                    if !wanted() {
                        return;
                    }
                    let have = history.accepted() as u64 + refused;
                    self.progress.held_up(Stage::ReadingHistory, have, total + refused, why);
                    std::thread::sleep(LOOK_INTERVAL);
                }
                if let Err(refusal) = history.push(raw) {
                    refused += 1;
                    first_refusal.get_or_insert(refusal);
                }
                self.progress.at(Stage::ReadingHistory, history.accepted() as u64 + refused, total + refused);
            });
            match read {
                Err(_) if !wanted() => return Ok(None),
                other => other?,
            }
        }
        let ranges = reader.ranges().into_iter().map(|r| (r.partition, r.start, r.end)).collect();
        Ok(Some((history, refused, ranges)))
    }

    /// The newest usable model in the topic, waiting for one for `patience`.
    fn published(&self, models: &TopicReader, patience: Duration) -> anyhow::Result<Option<(Model, Edition)>> {
        let deadline = Instant::now() + patience;
        loop {
            match models.latest(READ_TIMEOUT)?.map(|bytes| self.usable(&bytes)) {
                Some(Ok(model)) => return Ok(Some((model, edition(models)))),
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    self.progress.model_refused();
                    tracing::error!(
                        error,
                        topic = self.kafka.models,
                        "the model in the topic cannot be used, learning another"
                    )
                }
                None => {}
            }
            if Instant::now() >= deadline || !self.wanted() {
                return Ok(None);
            }
        }
    }

    /// A model from the topic, if it is sound and of the features that are configured.
    pub fn usable(&self, bytes: &[u8]) -> anyhow::Result<Model> {
        let model = Model::from_bytes(bytes)?;
        self.fits(&model)?;
        if (model.settings(), model.profile()) != (self.model, self.profile) {
            tracing::warn!(
                model = model.fingerprint(),
                "the model was learned with other settings than [model] and detector.profile have now; they count for the next one"
            );
        }
        Ok(model)
    }

    fn fits(&self, model: &Model) -> Result<(), SchemaError> {
        Decoder::new(self.input, model.schema()).map(|_| ())
    }

    /// Computes something that cannot hang, but has stretches without a sign of life that grow with the width of the records:
    /// a machine that is slow must not look dead.
    fn alive<T>(&self, compute: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let (done, at_work) = mpsc::channel::<()>();
            let pulse = self.pulse;
            scope.spawn(move || {
                while at_work.recv_timeout(LOOK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                    pulse.turn();
                }
            });
            let computed = compute();
            drop(done);
            computed
        })
    }

    fn wanted(&self) -> bool {
        self.pulse.turn();
        !self.stop.requested()
    }

    fn since_ms(&self) -> Option<i64> {
        let history = self.learning.history;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (!history.is_zero()).then(|| now.saturating_sub(history).as_millis() as i64)
    }
}

/// Of the model that was read last.
pub fn edition(models: &TopicReader) -> Edition {
    models.last().map_or(Edition::NONE, |offset| Edition(offset.0))
}

/// Why records that are in the topic are not learned from; empty if there are none.
fn held_up(refused: u64, first: Option<&Refusal>, older: u64) -> String {
    let mut why = Vec::new();
    if let Some(first) = first {
        why.push(format!("{refused} were refused, the first because: {first}"));
    }
    if older > 0 {
        why.push(format!("{older} are older than learning.history"));
    }
    why.join("; ")
}

/// How many records to read when only `fit` of those chosen had room: half, as others may be wider, but no fewer than `min`.
fn fewer(fit: usize, min: usize) -> Option<usize> {
    (fit >= min).then_some((fit / 2).max(min))
}

/// Whether trying again may help.
fn is_passing(e: &anyhow::Error) -> bool {
    e.chain().filter_map(|c| c.downcast_ref::<kafka::Error>()).any(|k| k.remedy() != Remedy::Stop)
}

#[cfg(test)]
mod tests {
    use super::{fewer, held_up};
    use crate::record::Refusal;

    #[test]
    fn with_too_little_room_fewer_records_are_read_until_it_is_hopeless() {
        assert_eq!(fewer(80_000, 5_000), Some(40_000));
        assert_eq!(fewer(6_000, 5_000), Some(5_000));
        assert_eq!(fewer(4_999, 5_000), None);
    }

    #[test]
    fn what_stands_in_the_way_of_learning_is_said() {
        assert_eq!(held_up(0, None, 0), "");
        let why = held_up(3, Some(&Refusal::Empty), 7);
        assert!(
            why.starts_with("3 were refused, the first because: ")
                && why.ends_with("; 7 are older than learning.history"),
            "{why}"
        );
    }
}
