//! The input: one member of the consumer group.
//!
//! A rebalance is not acted on inside librdkafka's callback. The callback only notes it; `poll` hands it to the worker,
//! which settles its open transaction first and then calls [`Input::accept`] or [`Input::release`]. librdkafka waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::client;
use super::ends::{self, go_on};
use super::error::{COMMIT, Context, Error, Result};
use super::message::Message;
use super::oauth::Login;
use super::settings::KafkaSettings;
use crate::record::{NextOffset, PartitionId};

/// The same complaint of librdkafka is logged once in this time.
const TROUBLE_REPEAT: Duration = Duration::from_secs(30);

/// Longest single wait of a worker for an answer; it shows that it is alive between two.
const CALL_MAX: Duration = Duration::from_secs(5);

/// What librdkafka's statistics call a group whose coordinator is known and connected (STATISTICS.md, cgrp.state).
const COORDINATOR_UP: &str = "up";

/// Errors taken from librdkafka's queue in one `poll`: it notes one for each failed try to connect, and a rebalance waits behind them.
const ERRORS_MAX: usize = 1_000;

/// What one `poll` brought.
pub enum Polled<'a> {
    Record(Message<'a>),
    /// Partitions this member is about to get; answer with [`Input::accept`].
    Assign(Partitions),
    /// Partitions this member is about to lose; settle, then answer with [`Input::release`].
    Revoke(Partitions),
    Idle,
}

/// Partitions of the input named in a rebalance.
pub struct Partitions(TopicPartitionList);

impl Partitions {
    pub fn ids(&self) -> Vec<PartitionId> {
        self.0.elements().iter().map(|e| PartitionId(e.partition())).collect()
    }
}

/// A partition taken over, and where reading starts.
#[derive(Debug, Clone, Copy)]
pub struct Assigned {
    pub partition: PartitionId,
    /// Where its records count from: the committed offset, or where the group starts.
    pub from: NextOffset,
    /// The first offset that the broker still has.
    pub oldest: NextOffset,
    /// Offsets between the committed one and the oldest one the broker still has: gone before they were read.
    pub lost_to_retention: u64,
    /// Offsets between the end of the log and the committed one: the log was cut off, and may hold other records there soon.
    pub cut_off: u64,
}

/// Where to start in a partition for which the group has committed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    Offset(NextOffset),
}

/// What librdkafka reported lately.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// Responses received from brokers since the client was created.
    pub answers: u64,
    /// Records between the last one delivered and the end of the log, over the assigned partitions.
    pub lag: u64,
    /// For how long the group's coordinator has been out of reach.
    pub away: Duration,
}

enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

pub(crate) struct InputContext {
    login: Login,
    topic: String,
    closing: AtomicBool,
    pending: Mutex<VecDeque<Rebalance>>,
    /// Whether anything is pending: asked with every record, and changed under the lock of that.
    any_pending: AtomicBool,
    observed: Mutex<Option<Observed>>,
    /// By librdkafka's clock, since when the group's coordinator is out of reach, µs: what it reports may be read late.
    away_since: Mutex<Option<i64>>,
}

impl InputContext {
    fn next_rebalance(&self) -> Option<Rebalance> {
        if !self.any_pending.load(Ordering::Acquire) {
            return None;
        }
        let mut pending = lock(&self.pending);
        let next = pending.pop_front();
        self.any_pending.store(!pending.is_empty(), Ordering::Release);
        next
    }
}

impl ClientContext for InputContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.login.token()
    }
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "residua::kafka", %error, "{reason}");
    }
    fn stats(&self, s: Statistics) {
        let answers = s.brokers.values().map(|b| b.rx).sum();
        let partitions = s.topics.get(&self.topic).map(|t| &t.partitions);
        let lag = partitions
            .into_iter()
            .flatten()
            .filter(|(id, p)| **id >= 0 && p.app_offset >= 0 && p.fetch_state == "active");
        let lag = lag.map(|(_, p)| p.ls_offset.max(0).saturating_sub(p.app_offset).max(0) as u64).sum();
        let mut since = lock(&self.away_since);
        *since = match &s.cgrp {
            Some(group) if group.state == COORDINATOR_UP => None,
            _ => since.or(Some(s.ts)),
        };
        let away = Duration::from_micros(since.map_or(0, |since| s.ts.saturating_sub(since).max(0) as u64));
        *lock(&self.observed) = Some(Observed { answers, lag, away });
    }
}

impl ConsumerContext for InputContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Acquire) {
            // Nobody will ask any more: answer here, or closing would wait for ever.
            let _ = give_up(consumer, partitions);
            return;
        }
        let event = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(partitions.clone()),
            _ => Rebalance::Revoke(partitions.clone()),
        };
        let mut pending = lock(&self.pending);
        pending.push_back(event);
        self.any_pending.store(true, Ordering::Release);
    }
}

/// A poisoned lock only means that another thread panicked between two plain assignments: the data is whole.
fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn give_up(consumer: &BaseConsumer<InputContext>, partitions: &TopicPartitionList) -> rdkafka::error::KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        _ => consumer.unassign(),
    }
}

/// One member of the consumer group, polled by one thread.
pub struct Input {
    consumer: Arc<BaseConsumer<InputContext>>,
    topic: String,
    request_timeout: Duration,
    /// Whether the worker was told of a rebalance that it has not answered yet.
    asked: bool,
    /// This member, in the generation of the partitions it was last given. With a later one a commit could be taken for partitions
    /// that are somebody else's by then.
    group: Option<Arc<ConsumerGroupMetadata>>,
    /// Where each assigned partition starts as long as no more is committed for it.
    starts: HashMap<PartitionId, NextOffset>,
    trouble: Trouble,
    paused: BTreeSet<PartitionId>,
}

impl Input {
    /// Joins the group. The first assignment arrives through [`Input::poll`].
    pub fn join(settings: &KafkaSettings, worker: usize) -> Result<Input> {
        let context = InputContext {
            login: Login::of(settings),
            topic: settings.input.clone(),
            closing: AtomicBool::new(false),
            pending: Mutex::default(),
            any_pending: AtomicBool::new(false),
            observed: Mutex::default(),
            away_since: Mutex::default(),
        };
        let consumer: BaseConsumer<InputContext> = client::member(settings, worker)
            .create_with_context(context)
            .map_err(|cause| Error::Client { role: "consumer", cause })?;
        consumer.subscribe(&[&settings.input]).action("subscribe to the input topic")?;
        Ok(Input {
            consumer: Arc::new(consumer),
            topic: settings.input.clone(),
            request_timeout: settings.request_timeout.min(CALL_MAX),
            asked: false,
            group: None,
            starts: HashMap::new(),
            trouble: Trouble::default(),
            paused: BTreeSet::new(),
        })
    }

    /// The next record or rebalance, waiting for at most `timeout`. `Idle` does not mean that the log is at its end.
    pub fn poll(&mut self, timeout: Duration) -> Result<Polled<'_>> {
        // Before further records: under load there is always one more, and the group waits.
        if let Some(rebalance) = self.consumer.context().next_rebalance() {
            self.asked = true;
            return Ok(match rebalance {
                Rebalance::Assign(p) => {
                    self.group = self.consumer.group_metadata().map(Arc::new);
                    Polled::Assign(Partitions(p))
                }
                Rebalance::Revoke(p) => Polled::Revoke(Partitions(p)),
            });
        }
        // The borrow checker cannot see that the message returned below does not borrow `trouble`.
        let Input { consumer, trouble, .. } = self;
        let consumer: &BaseConsumer<InputContext> = consumer;
        let mut timeout = timeout;
        for _ in 0..ERRORS_MAX {
            match consumer.poll(timeout) {
                Some(Ok(message)) => return Ok(Polled::Record(Message(message))),
                Some(Err(e)) => trouble.note(e)?,
                None => break,
            }
            timeout = Duration::ZERO;
        }
        Ok(Polled::Idle)
    }

    /// Answers an assignment: reading begins where `begins` says. Of the other partitions nothing of use is read until
    /// [`Input::resume`].
    pub fn accept(&mut self, partitions: &Partitions, begins: &BTreeMap<PartitionId, NextOffset>) -> Result<()> {
        let mut ids = partitions.ids();
        let mut list = self.list(begins.iter().map(|(&p, &n)| (p, n)))?;
        ids.retain(|p| !begins.contains_key(p));
        for (partition, committed) in self.committed(&ids)? {
            // An offset, wherever there is one: librdkafka would look for the beginning in its own time, and could go there after
            // it was told where to begin.
            let begin = committed.map_or(KafkaOffset::Beginning, |next| KafkaOffset::Offset(next.0));
            list.add_partition_offset(&self.topic, partition.0, begin).action("name an offset")?;
        }
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list),
            _ => self.consumer.assign(&list),
        }
        .action("take the assigned partitions")?;
        self.asked = false;
        // Whoever takes it over anew takes it as it comes.
        let paused: Vec<_> = self.paused.iter().copied().collect();
        self.unpause(&paused)
    }

    /// Nothing more of this partition is fetched until [`Input::resume`].
    pub fn pause(&mut self, partition: PartitionId) -> Result<()> {
        self.consumer.pause(&self.named(&[partition])).action("pause a partition")?;
        self.paused.insert(partition);
        Ok(())
    }

    fn unpause(&mut self, partitions: &[PartitionId]) -> Result<()> {
        let paused: Vec<_> = partitions.iter().copied().filter(|partition| self.paused.remove(partition)).collect();
        if paused.is_empty() {
            return Ok(());
        }
        self.consumer.resume(&self.named(&paused)).action("go on with a paused partition")
    }

    /// Where the group stands in each of these partitions: at its committed offset, or else where `start` says. Asks `alive` between
    /// requests, and fails when that says no.
    pub fn look_up(
        &mut self,
        ids: &[PartitionId],
        alive: &dyn Fn() -> bool,
        start: &dyn Fn(PartitionId) -> StartAt,
    ) -> Result<Vec<Assigned>> {
        let ends = ends::ends(&*self.consumer, &self.topic, ids, self.request_timeout, alive)?;
        go_on(alive)?;
        let mut found = Vec::new();
        for (partition, committed) in self.committed(ids)? {
            let (low, high) = ends.get(&partition).copied().unwrap_or_default();
            // What is lost is lost once, though nothing is committed yet.
            let wanted = match (committed, self.starts.get(&partition)) {
                (Some(committed), start) => start.map_or(committed, |&start| committed.max(start)),
                (None, Some(&start)) => start,
                (None, None) => self.first(partition, start(partition), (low, high), alive)?,
            };
            let assigned = bounded(partition, wanted, (low, high));
            self.starts.insert(partition, assigned.from);
            found.push(assigned);
        }
        Ok(found)
    }

    /// Of these partitions, those that have a leader, both of the input and of `state`, by these leaders. Renews what librdkafka knows
    /// of the input: what a broker said while it was starting, that there are no such partitions, would otherwise count for minutes
    /// (`topic.metadata.refresh.interval.ms`).
    ///
    /// # Errors
    /// A partition of the input that `state` does not have, among others.
    pub fn led(&self, ids: &[PartitionId], state: &str) -> Result<BTreeMap<[i32; 2], Vec<PartitionId>>> {
        let mut led: BTreeMap<[i32; 2], Vec<PartitionId>> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(led);
        }
        let of_input = ends::leaders(&*self.consumer, &self.topic, self.request_timeout)?;
        let of_state = ends::leaders(&*self.consumer, state, self.request_timeout)?;
        if !of_state.is_empty() && ids.iter().any(|p| of_input.contains_key(p) && !of_state.contains_key(p)) {
            let (topic, found, expected) = (state.to_owned(), of_state.len(), of_input.len());
            return Err(Error::TooFewPartitions { topic, found, expected });
        }
        for &id in ids {
            if let (Some(&Some(input)), Some(&Some(state))) = (of_input.get(&id), of_state.get(&id)) {
                led.entry([input, state]).or_default().push(id);
            }
        }
        Ok(led)
    }

    /// Gives the partitions back.
    pub fn release(&mut self, partitions: &Partitions) -> Result<()> {
        for id in partitions.ids() {
            self.starts.remove(&id);
        }
        give_up(&self.consumer, &partitions.0).action("give back the revoked partitions")?;
        self.group = None;
        self.asked = false;
        Ok(())
    }

    /// Whether the partitions being revoked already belong to somebody else, so that nothing may be committed for them.
    pub fn assignment_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    /// Reading goes on there, of partitions that were accepted. Waits for at most the request timeout.
    pub fn resume(&mut self, begins: &BTreeMap<PartitionId, NextOffset>) -> Result<()> {
        if begins.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = begins.keys().copied().collect();
        self.unpause(&ids)?;
        let list = self.list(begins.iter().map(|(&p, &n)| (p, n)))?;
        // Not a new `assign`: with a rebalance under way, librdkafka would take that for its answer.
        let sought = self.consumer.seek_partitions(list, self.request_timeout).action("go to an offset")?;
        for e in sought.elements() {
            e.error().action("go to an offset of a partition")?;
        }
        Ok(())
    }

    /// When a broker was last out of reach, if ever.
    pub fn last_trouble(&self) -> Option<Instant> {
        self.trouble.last
    }

    /// The identity that ties offsets in a transaction to this member's assignment.
    pub(super) fn group(&self) -> Result<Arc<ConsumerGroupMetadata>> {
        self.group.clone().ok_or(Error::Timeout { action: "join the group", after: Duration::ZERO })
    }

    /// Commits without a transaction, and waits for the answer, at most `timeout`.
    pub(super) fn commit(&self, offsets: TopicPartitionList, timeout: Duration) -> Result<()> {
        // librdkafka gives up a synchronous commit only after its session timeout: wait for it elsewhere.
        let (answer, wait) = mpsc::channel();
        let consumer = Arc::clone(&self.consumer);
        std::thread::spawn(move || {
            let committed = consumer.commit(&offsets, CommitMode::Sync);
            // Before the answer: who gets it may want to close the consumer.
            drop(consumer);
            let _ = answer.send(committed);
        });
        match wait.recv_timeout(timeout) {
            Ok(committed) => committed.action(COMMIT),
            Err(_) => Err(Error::Timeout { action: COMMIT, after: timeout }),
        }
    }

    pub(super) fn list(&self, offsets: impl Iterator<Item = (PartitionId, NextOffset)>) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in offsets {
            list.add_partition_offset(&self.topic, partition.0, KafkaOffset::Offset(next.0))
                .action("name an offset")?;
        }
        Ok(list)
    }

    /// What librdkafka reported since the last call, if anything.
    pub fn take_observed(&self) -> Option<Observed> {
        lock(&self.consumer.context().observed).take()
    }

    /// Leaves the group. Waits for at most `timeout`; a client that will not close is left behind, not waited for.
    pub fn leave(self, timeout: Duration) {
        self.consumer.context().closing.store(true, Ordering::Release);
        let consumer = self.consumer;
        // A rebalance that was noted but not answered would keep librdkafka waiting for ever; one that is answered twice too.
        if self.asked || !lock(&consumer.context().pending).is_empty() {
            let held = consumer.assignment().unwrap_or_default();
            let _ = give_up(&consumer, &held);
        }
        super::drop_within("consumer", timeout, move || {
            consumer.unsubscribe();
            drop(consumer);
        });
    }

    fn committed(&self, ids: &[PartitionId]) -> Result<Vec<(PartitionId, Option<NextOffset>)>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = self
            .consumer
            .committed_offsets(self.named(ids), self.request_timeout)
            .action("fetch the committed offsets")?;
        let mut found = Vec::new();
        for e in list.elements() {
            e.error().action("fetch the committed offset of a partition")?;
            let committed = match e.offset() {
                KafkaOffset::Offset(o) => Some(NextOffset(o)),
                _ => None,
            };
            found.push((PartitionId(e.partition()), committed));
        }
        Ok(found)
    }

    fn named(&self, ids: &[PartitionId]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for id in ids {
            list.add_partition(&self.topic, id.0);
        }
        list
    }

    /// Where the group starts in a partition.
    fn first(
        &self,
        partition: PartitionId,
        start: StartAt,
        (low, high): (i64, i64),
        alive: &dyn Fn() -> bool,
    ) -> Result<NextOffset> {
        match start {
            StartAt::Offset(offset) => Ok(offset),
            StartAt::Earliest => Ok(NextOffset(low)),
            StartAt::Latest => {
                // Settle it now: a crash before the first commit must not move the start past records that arrive until then.
                let list = self.list(std::iter::once((partition, NextOffset(high))))?;
                go_on(alive)?;
                self.commit(list, self.request_timeout)?;
                Ok(NextOffset(high))
            }
        }
    }
}

/// The partition from `wanted`, as far as the log goes.
fn bounded(partition: PartitionId, wanted: NextOffset, (low, high): (i64, i64)) -> Assigned {
    let lost_to_retention = low.saturating_sub(wanted.0).max(0) as u64;
    let cut_off = wanted.0.saturating_sub(high).max(0) as u64;
    let from = NextOffset(wanted.0.clamp(low, high.max(low)));
    Assigned { partition, from, oldest: NextOffset(low), lost_to_retention, cut_off }
}

/// What librdkafka complained of.
#[derive(Default)]
struct Trouble {
    last: Option<Instant>,
    /// When each kind was last told. Several take turns while the brokers are away.
    told: Vec<(RDKafkaErrorCode, Instant)>,
}

impl Trouble {
    /// # Errors
    /// What librdkafka does not get over by itself.
    fn note(&mut self, e: KafkaError) -> Result<()> {
        let code = e.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let error = Error::Call { action: "read from Kafka", cause: e };
        if error.is_out_of_range() || error.remedy() == super::Remedy::Stop {
            return Err(error);
        }
        let now = Instant::now();
        self.last = Some(now);
        self.told.retain(|(_, at)| at.elapsed() <= TROUBLE_REPEAT);
        if self.told.iter().all(|(known, _)| *known != code) {
            self.told.push((code, now));
            tracing::warn!(%error, "Kafka is in trouble, residua keeps trying");
        }
        Ok(())
    }
}
