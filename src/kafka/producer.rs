//! The outputs of a worker, and how they become visible together with the offsets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::consumer::Input;
use super::error::{Remedy, Result};
use super::lane::{Lane, RETRY_PAUSE, left};
use super::message::Outgoing;
use super::settings::{Delivery, KafkaSettings};
use crate::record::{NextOffset, PartitionId};

/// After so long without success a producer is replaced, whatever its error says: it may have lost every broker for good.
pub const OUTPUT_PATIENCE: Duration = Duration::from_secs(60);

/// Where a worker writes. Used by the thread that created it.
///
/// State is in a transaction with its offsets, whatever is promised for the other outputs: a checkpoint that is not whole, or
/// is ahead of what was committed, would be of no use.
pub struct Output {
    /// Alerts, scores, dead letters; under `exactly-once` the state too.
    records: Lane,
    /// The state under `at-least-once`.
    state: Option<Lane>,
    timeout: Duration,
    /// For one try to register.
    patience: Duration,
}

impl Output {
    /// Producers of a worker; to be registered before anything is written.
    pub fn create(settings: &KafkaSettings, transactional_id: &str) -> Result<Output> {
        let transactional = Output::one(settings, Some(transactional_id))?;
        match settings.delivery {
            Delivery::ExactlyOnce => Ok(transactional),
            Delivery::AtLeastOnce => Ok(Output { state: Some(transactional.records), ..Output::one(settings, None)? }),
        }
    }

    /// One producer that writes in transactions only, ready to write. Keeps trying while `wanted()`.
    pub fn transactional(
        settings: &KafkaSettings,
        transactional_id: &str,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Output> {
        Output::ready(&|| Output::one(settings, Some(transactional_id)), wanted)
    }

    /// One producer without transactions.
    pub fn plain(settings: &KafkaSettings) -> Result<Output> {
        Output::one(settings, None)
    }

    fn one(settings: &KafkaSettings, transactional_id: Option<&str>) -> Result<Output> {
        let records = Lane::create(settings, transactional_id)?;
        let (timeout, patience) = (settings.transaction_timeout, settings.request_timeout);
        Ok(Output { records, state: None, timeout, patience })
    }

    /// Makes it ready to write: fences earlier ones of the same transactional id and ends what they left open. Waits for some seconds, and
    /// goes on when called again.
    pub fn register(&self) -> Result<()> {
        self.state.as_ref().unwrap_or(&self.records).register(self.patience)
    }

    /// One that `create` made, registered, as often as it takes while `wanted()`.
    pub fn ready(create: &dyn Fn() -> Result<Output>, wanted: &dyn Fn() -> bool) -> Result<Output> {
        let (mut output, mut since) = (create()?, Instant::now());
        loop {
            match output.register() {
                Ok(()) => return Ok(output),
                Err(e) if e.remedy() == Remedy::Stop || e.is_fatal() || !wanted() => return Err(e),
                Err(error) => {
                    tracing::warn!(%error, "cannot write to Kafka yet, residua keeps trying");
                    if since.elapsed() > OUTPUT_PATIENCE {
                        output.close();
                        (output, since) = (create()?, Instant::now());
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }

    /// Everything sent from here on is committed or aborted together, under `exactly-once`.
    pub fn begin(&mut self) -> Result<()> {
        self.records.begin()
    }

    /// Hands a message to librdkafka. A full queue is waited for, as long as a transaction may last.
    pub fn send(&mut self, message: Outgoing<'_>) -> Result<()> {
        self.records.send(message)
    }

    /// As `send`, for what must be whole: it becomes visible with the offsets of the next `commit`, or not at all.
    pub(super) fn send_state(&mut self, message: Outgoing<'_>) -> Result<()> {
        let lane = self.state.as_mut().unwrap_or(&mut self.records);
        lane.begin()?;
        lane.send(message)
    }

    /// Makes everything sent since `begin` visible together with the offsets, or (at least once) after one another.
    pub fn commit(&mut self, input: &Input, offsets: impl Iterator<Item = (PartitionId, NextOffset)>) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        self.records.delivered(deadline)?;
        let offsets = input.list(offsets)?;
        match &mut self.state {
            None => self.records.commit(Some((offsets, input.group()?)), deadline),
            Some(state) if state.is_open() => {
                state.delivered(deadline)?;
                state.commit(Some((offsets, input.group()?)), deadline)?;
                self.records.commit(None, deadline)
            }
            Some(_) => {
                input.commit(offsets, left(deadline))?;
                self.records.commit(None, deadline)
            }
        }
    }

    /// Makes everything sent since `begin` visible; for messages that belong to no input record.
    pub fn commit_alone(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        self.records.delivered(deadline)?;
        self.records.commit(None, deadline)
    }

    /// Waits until the brokers have taken everything sent since `begin`, without committing it.
    pub(super) fn delivered(&mut self) -> Result<()> {
        self.records.delivered(Instant::now() + self.timeout)
    }

    /// Adds a group's offsets to the open transaction.
    pub(super) fn add_offsets(&self, offsets: TopicPartitionList, group: Arc<ConsumerGroupMetadata>) -> Result<()> {
        self.records.add_offsets(offsets, group, Instant::now() + self.timeout)
    }

    /// Throws away what was sent since `begin`, as far as it is in a transaction.
    pub fn abort(&mut self) -> Result<()> {
        self.records.abort()?;
        self.state.as_mut().map_or(Ok(()), Lane::abort)
    }

    /// Closes the producers; waits for a bounded time.
    pub fn close(self) {
        super::drop_within("producer", super::CLOSE_TIMEOUT, move || drop(self));
    }
}
