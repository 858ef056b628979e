//! The models topic: compacted, one partition, one key. Every instance follows it; at most one publishes.

use super::error::Result;
use super::message::Outgoing;
use super::producer::Output;
use super::reader::TopicReader;
use super::settings::KafkaSettings;

/// The key under which compaction keeps the newest model.
const KEY: &[u8] = b"model";

/// Reads the models topic.
pub fn model_reader(settings: &KafkaSettings) -> Result<TopicReader> {
    TopicReader::open(settings, &settings.models)
}

/// The right to publish a model. A later claim anywhere in the group makes this one void, so that two instances that start
/// together publish one model, not two.
pub struct ModelPublisher {
    output: Output,
    topic: String,
}

impl ModelPublisher {
    pub fn claim(settings: &KafkaSettings, wanted: &dyn Fn() -> bool) -> Result<ModelPublisher> {
        let output = Output::transactional(settings, &format!("{}.trainer", settings.group), wanted)?;
        Ok(ModelPublisher { output, topic: settings.models.clone() })
    }

    /// Writes the model and waits until it is there. An error means that it is not, or that it is unknown whether it is.
    pub fn publish(mut self, model: &[u8]) -> Result<()> {
        self.output.begin()?;
        self.output.send(Outgoing { topic: &self.topic, key: Some(KEY), value: Some(model), ..Outgoing::default() })?;
        let published = self.output.commit_alone();
        self.output.close();
        published
    }
}
