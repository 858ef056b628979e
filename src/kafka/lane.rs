//! One librdkafka producer: its deliveries are counted, and with a transactional id it writes in transactions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::client;
use super::error::{Context, Error, Result};
use super::message::Outgoing;
use super::oauth::Login;
use super::settings::KafkaSettings;

/// Pause between two tries of a call that Kafka asked to repeat.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// One try to register a producer; between tries the caller shows that it is alive.
const INIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a delivery report before looking again.
const DELIVERY_PAUSE: Duration = Duration::from_millis(1);
/// How often librdkafka is asked for what it has to tell while nobody waits for that.
const SERVE_PAUSE: Duration = Duration::from_millis(20);
/// Things that it is asked for at a time, and more while they are delivery reports.
const SERVE_EVENTS: usize = 8;

/// What librdkafka's threads tell: delivery reports, counted by the producer's own thread and waited for by the worker's, and trouble.
struct Deliveries {
    worker: Thread,
    done: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<Failure>>,
    /// Connections that were lost with requests under way, and requests that were not answered in time.
    unanswered: AtomicU64,
}

/// Why a message was not delivered, and to which topic.
type Failure = (RDKafkaErrorCode, String);

struct LaneContext(Arc<Deliveries>, Login);

impl ClientContext for LaneContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.1.token()
    }
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Said before librdkafka asks again.
        if matches!(facility, "FAIL" | "REQTMOUT") {
            self.0.unanswered.fetch_add(1, Ordering::Release);
        }
        client::log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "residua::kafka", %error, "{reason}");
    }
}

impl ProducerContext for LaneContext {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, message)) = result {
            let code = e.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut first = self.0.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| (code, message.topic().to_owned()));
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.0.done.fetch_add(1, Ordering::Release);
        self.0.worker.unpark();
    }
}

/// The thread on which librdkafka tells of deliveries, errors and tokens. That of `ThreadedProducer` in rdkafka 0.39 spins for a part of
/// each 100 ms, a hundredth of a processor while there is nothing to do.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(producer: Arc<BaseProducer<LaneContext>>, deliveries: Arc<Deliveries>) -> std::io::Result<Server> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            while !stopped.load(Ordering::Acquire) {
                let told = || deliveries.done.load(Ordering::Relaxed);
                let mut before = told();
                // One thing for each call.
                (0..SERVE_EVENTS).for_each(|_| producer.poll(Duration::ZERO));
                while told() > before {
                    before = told();
                    producer.poll(Duration::ZERO);
                }
                thread::park_timeout(SERVE_PAUSE);
            }
        };
        let thread = thread::Builder::new().name("deliveries".to_owned()).spawn(serve)?;
        Ok(Server { stop, thread: Some(thread) })
    }

    /// Somebody waits.
    fn hurry(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.hurry();
        // A panic there is none here.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A producer, used by the thread that created it.
pub(super) struct Lane {
    /// Ends before the producer does.
    server: Server,
    producer: Arc<BaseProducer<LaneContext>>,
    deliveries: Arc<Deliveries>,
    transactional: bool,
    timeout: Duration,
    /// Messages handed to librdkafka since the producer was made.
    sent: u64,
    /// Of those, the ones that were not delivered and whose transaction is over.
    failures_settled: u64,
    open: bool,
    /// Whether a request that ended a transaction, or belonged to its end, was asked more than once. The first one may still arrive, and
    /// would end the next transaction, or set its offsets: librdkafka lacks what KIP-890 added against that (its issue 5423).
    doubtful: bool,
}

impl Lane {
    /// A producer; with a transactional id it must be registered before it can write.
    pub fn create(settings: &KafkaSettings, transactional_id: Option<&str>) -> Result<Lane> {
        let deliveries = Arc::new(Deliveries {
            worker: thread::current(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first_failure: Mutex::new(None),
            unanswered: AtomicU64::new(0),
        });
        let failed = |cause| Error::Client { role: "producer", cause };
        let producer: BaseProducer<LaneContext> = client::writer(settings, transactional_id)
            .create_with_context(LaneContext(Arc::clone(&deliveries), Login::of(settings)))
            .map_err(failed)?;
        let producer = Arc::new(producer);
        let server = Server::start(Arc::clone(&producer), Arc::clone(&deliveries))
            .map_err(|e| failed(KafkaError::ClientCreation(e.to_string())))?;
        Ok(Lane {
            server,
            producer,
            deliveries,
            transactional: transactional_id.is_some(),
            timeout: settings.transaction_timeout,
            sent: 0,
            failures_settled: 0,
            open: false,
            doubtful: false,
        })
    }

    /// Makes it ready to write. A young coordinator refuses for a moment, a silent broker for as long as it is silent: waits for some
    /// seconds, and goes on when called again.
    pub fn register(&self, timeout: Duration) -> Result<()> {
        if !self.transactional {
            return Ok(());
        }
        self.producer.init_transactions(timeout.min(INIT_TIMEOUT)).action("register the transactional producer")
    }

    /// Whether something was begun and neither committed nor aborted.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Opens a transaction unless one is open; without a transactional id, what is sent from here on belongs together for the
    /// caller alone.
    ///
    /// # Errors
    /// Among others: a request of the last transaction may be under way yet. Only a new producer of the same transactional id is safe from
    /// that, as Kafka refuses what is of the old one.
    pub fn begin(&mut self) -> Result<()> {
        if !self.open {
            if self.transactional {
                if self.doubtful {
                    return Err(Error::Doubtful);
                }
                self.producer.begin_transaction().action("begin a transaction")?;
            }
            self.open = true;
        }
        Ok(())
    }

    /// Hands a message to librdkafka. A full queue is waited for, as long as a transaction may last.
    pub fn send(&mut self, message: Outgoing<'_>) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(message.topic);
        record.partition = message.partition.map(|p| p.0);
        record.key = message.key;
        record.payload = message.value;
        record.headers = message.headers;
        record.timestamp = message.timestamp_ms;
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    self.server.hurry();
                    thread::park_timeout(DELIVERY_PAUSE);
                }
                Err((KafkaError::MessageProduction(first @ RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    let topic = message.topic.to_owned();
                    return Err(Error::Delivery { failed: 1, sent: self.sent + 1, first, topic });
                }
                // After a failed delivery librdkafka takes no more; why it failed is what the caller must know.
                Err((cause, _)) => {
                    return Err(self.failed_delivery().unwrap_or(Error::Call { action: "queue a message", cause }));
                }
            }
        }
    }

    /// `commit_transaction` in rdkafka polls at 100 ms while messages are under way: wait for them here, as long as it takes and
    /// no longer.
    pub fn delivered(&mut self, deadline: Instant) -> Result<()> {
        let sent = self.sent;
        match self.settle_deliveries(deadline)? {
            (0, _) => Ok(()),
            (failed, first) => Err(undelivered(failed, sent, first)),
        }
    }

    /// After `delivered`: nothing is open any more. With a transactional id this commits, and may add a group's offsets first.
    pub fn commit(
        &mut self,
        offsets: Option<(TopicPartitionList, Arc<ConsumerGroupMetadata>)>,
        deadline: Instant,
    ) -> Result<()> {
        if self.transactional {
            let unanswered = self.unanswered();
            let ended = self.end(offsets, deadline);
            // Also of one that failed: whoever aborts it, its requests may be under way.
            self.doubtful |= self.unanswered() > unanswered;
            ended?;
        }
        self.open = false;
        Ok(())
    }

    fn end(&self, offsets: Option<(TopicPartitionList, Arc<ConsumerGroupMetadata>)>, deadline: Instant) -> Result<()> {
        // All calls together may take as long as a transaction: a worker that waits for Kafka must not look dead.
        if let Some((offsets, group)) = offsets {
            self.add_offsets(offsets, group, deadline)?;
        }
        retry(deadline, || self.producer.commit_transaction(left(deadline))).action("commit the transaction")
    }

    /// Adds a group's offsets to the open transaction.
    ///
    /// On a thread of its own: librdkafka waits for its coordinators without regard to the timeout it is given, for as long as they
    /// are away. A producer that is left in such a wait is of no use; whoever replaces it fences it.
    pub fn add_offsets(
        &self,
        offsets: TopicPartitionList,
        group: Arc<ConsumerGroupMetadata>,
        deadline: Instant,
    ) -> Result<()> {
        let action = "add the offsets to the transaction";
        let (tell, told) = mpsc::sync_channel(1);
        let producer = Arc::clone(&self.producer);
        let call = move || {
            let ended = retry(deadline, || producer.send_offsets_to_transaction(&offsets, &group, left(deadline)));
            drop(producer); // before the worker goes on, which may want to close it
            tell.send(ended).ok();
        };
        // A thread that cannot be had drops `tell`: no answer, as from one that waits too long.
        thread::Builder::new().name("offsets".to_owned()).spawn(call).ok();
        told.recv_timeout(left(deadline)).map_err(|_| Error::Timeout { action, after: self.timeout })?.action(action)
    }

    /// Throws away what was sent since `begin`, as far as it is in a transaction.
    pub fn abort(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        if self.open && self.transactional {
            let unanswered = self.unanswered();
            let ended = self.producer.abort_transaction(left(deadline)).action("abort the transaction");
            self.doubtful |= self.unanswered() > unanswered;
            ended?;
        }
        self.open = false;
        // Reports of purged messages still arrive; they must not count for the next transaction.
        self.settle_deliveries(deadline)?;
        Ok(())
    }

    fn unanswered(&self) -> u64 {
        self.deliveries.unanswered.load(Ordering::Acquire)
    }

    /// The failure that was reported since the last call of `settle_deliveries`, if any.
    fn failed_delivery(&self) -> Option<Error> {
        let failed = self.deliveries.failed.load(Ordering::Relaxed) - self.failures_settled;
        let first = self.deliveries.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (failed > 0).then(|| undelivered(failed, self.sent, first))
    }

    /// Waits until every message sent has its report. Returns how many failed since the last call, and the first reason.
    fn settle_deliveries(&mut self, deadline: Instant) -> Result<(u64, Option<Failure>)> {
        while self.deliveries.done.load(Ordering::Acquire) < self.sent {
            if Instant::now() >= deadline {
                return Err(Error::Timeout { action: "wait for written messages", after: self.timeout });
            }
            self.server.hurry();
            thread::park_timeout(DELIVERY_PAUSE);
        }
        let failed = self.deliveries.failed.load(Ordering::Relaxed);
        let first = self.deliveries.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((failed - std::mem::replace(&mut self.failures_settled, failed), first))
    }
}

fn undelivered(failed: u64, sent: u64, first: Option<Failure>) -> Error {
    let (first, topic) = first.unwrap_or((RDKafkaErrorCode::Unknown, String::new()));
    Error::Delivery { failed, sent, first, topic }
}

/// Time for one call that must be over at `deadline`; never nothing, for which librdkafka would not wait at all.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(RETRY_PAUSE)
}

/// Repeats a call for as long as librdkafka says that it may be repeated.
fn retry(
    deadline: Instant,
    mut call: impl FnMut() -> rdkafka::error::KafkaResult<()>,
) -> rdkafka::error::KafkaResult<()> {
    loop {
        match call() {
            Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < deadline => {
                tracing::debug!(target: "residua::kafka", error = %e, "try again");
                thread::sleep(RETRY_PAUSE);
            }
            other => return other,
        }
    }
}
