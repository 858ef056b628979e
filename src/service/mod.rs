//! Wiring: HTTP, the learner, the workers, and how all of it ends.

mod current;
mod hands;
mod learner;
mod pages;
mod progress;
mod systemd;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
pub use current::Source;
use current::{Current, FileWatch, Look};
pub use hands::all_cores;
pub use learner::{Learner, load};
use pages::Status;
pub use progress::{Progress, Stage, Standing};
use systemd::Systemd;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::http::{self, Access, HttpSettings, Pages, Tls};
use crate::kafka::{self, KafkaSettings, Remedy, TopicReader};
use crate::metrics::Metrics;
use crate::model::{Edition, Model};
use crate::pipeline::{self, Beside, Live, ModelSlot, Pulse, Shared, Stop, WorkerError, WorkerSettings};
use crate::record::{Format, Refusal, Severity, WriterSchemas};
use crate::registry::Registry;

/// Longest wait for a newer model; bounds how late a wish to stop is seen.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Pause between two looks for a broker at start.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// One look for a broker.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the service ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No broker answered in time.
    #[error("reach Kafka at {brokers}: {cause}")]
    Unreachable { brokers: String, cause: Box<kafka::Error> },
    /// What the configuration names is not there.
    #[error("{0}")]
    Misconfigured(String),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// A running service.
pub struct Service {
    runtime: Runtime,
    supervisor: Option<JoinHandle<Result<(), Failure>>>,
    stop: Stop,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    model: Arc<ModelSlot>,
    http: Option<SocketAddr>,
    status: Arc<Status>,
}

struct Context {
    /// As at start, for what cannot change later.
    config: Config,
    schemas: Option<Arc<dyn WriterSchemas>>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    model: Arc<ModelSlot>,
    beside: Arc<Beside>,
    live: Arc<Live>,
    pulses: Vec<Arc<Pulse>>,
    pulse: Arc<Pulse>,
    stop: Stop,
}

impl Service {
    /// Binds HTTP and starts; what follows happens on threads of its own.
    pub fn start(config: Config) -> Result<Service, Failure> {
        let metrics = Arc::new(metrics(&config)?);
        let schemas = schemas(&config)?;
        let progress = Arc::new(Progress::new(Arc::clone(&metrics)));
        let current = Arc::new(Current::new(config.clone(), Arc::clone(&metrics)));
        let (model, stop, pulse) = (Arc::new(ModelSlot::default()), Stop::default(), Arc::new(Pulse::default()));
        let (beside, live) = (Arc::new(Beside::default()), Arc::new(Live::default()));
        let pulses: Vec<_> = (0..config.service.workers).map(|_| Arc::new(Pulse::default())).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start the runtime")?;
        let status = Arc::new(Status {
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
            model: Arc::clone(&model),
            beside: Arc::clone(&beside),
            live: Arc::clone(&live),
            workers: pulses.clone(),
            supervisor: Arc::clone(&pulse),
            stop: stop.clone(),
            current: Arc::clone(&current),
        });
        let http = match config.http.listen.as_str() {
            "" => None,
            listen => {
                let address: SocketAddr = listen.parse().with_context(|| format!("read http.listen `{listen}`"))?;
                let listener = runtime
                    .block_on(http::bind(address))
                    .with_context(|| format!("listen on http.listen {address}"))?;
                let access = Access::token(&token(&config.http.token_file)?).with_page(config.http.page);
                let tls = tls(&config.http)?;
                let scheme = if tls.is_some() { "https" } else { "http" };
                let bound = listener.local_addr().context("read the bound address")?;
                runtime.spawn(http::serve(listener, Arc::clone(&status) as Arc<dyn Pages>, access, tls));
                tracing::info!("metrics and health on {scheme}://{bound}/");
                Some(bound)
            }
        };
        let context = Context {
            config,
            schemas,
            current,
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
            model: Arc::clone(&model),
            beside,
            live,
            pulses,
            pulse,
            stop: stop.clone(),
        };
        let supervisor = std::thread::Builder::new().name("supervisor".into()).spawn(move || {
            // Also a panic ends the process.
            let ended = catch_unwind(AssertUnwindSafe(|| context.supervise()));
            context.stop.request();
            ended.unwrap_or_else(|panic| resume_unwind(panic))
        });
        let supervisor = Some(supervisor.context("start the supervisor thread")?);
        Ok(Service { runtime, supervisor, stop, metrics, progress, model, http, status })
    }

    /// Where HTTP listens, if it does.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where learning stands.
    pub fn learning(&self) -> Standing {
        self.progress.standing()
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> bool {
        self.status.ready().is_ok()
    }

    /// The model in force, if there is one yet.
    pub fn model(&self) -> Option<Arc<Model>> {
        self.model.get()
    }

    /// Whether the service has ended or is ending.
    pub fn stopping(&self) -> bool {
        self.stop.requested()
    }

    /// Asks everything to drain and end.
    pub fn stop(&self) {
        self.stop.request();
    }

    /// Waits for SIGTERM, SIGINT or the end of the service, whichever is first. Meanwhile the configuration is read again at SIGHUP, and when
    /// its file changes.
    pub fn wait_for_signal(&self, source: Option<&Source<'_>>) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        self.runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
            let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
            let mut look = tokio::time::interval(FOLLOW_INTERVAL);
            let mut systemd = Systemd::started();
            let mut file = source.map(FileWatch::new);
            while !self.stop.requested() {
                let signal = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    _ = hangup.recv() => match (source, &mut file) {
                        (Some(source), Some(file)) => {
                            file.known();
                            self.reload(source, true);
                            continue;
                        }
                        // Whoever has no file ends with its terminal.
                        _ => "SIGHUP",
                    },
                    _ = look.tick() => {
                        systemd.tick(|| self.status.live(), || self.status.ready());
                        if let (Some(source), Some(file)) = (source, &mut file) {
                            match file.look() {
                                Look::Changed => self.reload(source, false),
                                Look::Same if self.status.current.is_refused() => self.reload(source, false),
                                _ => {}
                            }
                        }
                        continue;
                    }
                };
                tracing::info!("{signal}: draining");
                break;
            }
            systemd.stopping();
            Ok(())
        })
    }

    fn reload(&self, source: &Source<'_>, asked: bool) {
        if self.status.current.reload(source, asked)
            && let Some(model) = self.model.get()
        {
            let alarms = self.status.current.standing().config.detector.alarms;
            self.metrics.budget(alarms.rate(), model.ordered());
        }
    }

    /// Waits for the end, after [`Service::stop`] or a failure.
    pub fn join(mut self) -> Result<(), Failure> {
        let ended = match self.supervisor.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => Err(Failure::Other(anyhow::anyhow!("the supervisor panicked; this is a bug of residua"))),
        };
        self.runtime.shutdown_timeout(Duration::from_millis(200));
        ended
    }
}

/// Waits for SIGTERM or SIGINT, or until it is `over`, for a job that has no service.
pub fn wait_for_end(over: impl Fn() -> bool) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut look = tokio::time::interval(FOLLOW_INTERVAL);
        while !over() {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = look.tick() => {}
            }
        }
        Ok(())
    })?
}

/// Trains on the input topic's history, waiting for enough records if need be, and publishes nothing.
pub fn train_once(config: &Config) -> Result<Model, Failure> {
    let (metrics, schemas) = (metrics(config)?, schemas(config)?);
    let learner = Learner {
        kafka: &config.kafka,
        input: &config.input,
        schemas: schemas.as_ref(),
        model: &config.model,
        profile: config.detector.profile,
        learning: &config.learning,
        progress: &Progress::new(Arc::new(metrics)),
        pulse: &Pulse::default(),
        stop: &Stop::default(),
    };
    let brokers = config.kafka.brokers.clone();
    kafka::reachable(&config.kafka, config.kafka.request_timeout).map_err(|cause| unreachable(brokers, cause))?;
    let model = learner.train()?.context("training was stopped")?;
    learner.progress.at(Stage::Done, 1, 1);
    Ok(model)
}

/// The registry with the schemas of the input's records, where they need one.
pub fn registry(config: &Config) -> Result<Option<Registry>, Failure> {
    let needed = config.input.format == Format::Avro;
    needed.then(|| Registry::new(&config.schema_registry)).transpose().map_err(Failure::Misconfigured)
}

fn schemas(config: &Config) -> Result<Option<Arc<dyn WriterSchemas>>, Failure> {
    Ok(registry(config)?.map(|registry| Arc::new(registry) as Arc<dyn WriterSchemas>))
}

/// What is in the file, without the line's end; nothing without a file.
fn token(file: &str) -> Result<String, Failure> {
    if file.is_empty() {
        return Ok(String::new());
    }
    let wrong = |why: String| Failure::Misconfigured(format!("read http.token_file {file}: {why}"));
    let token = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    match token.trim() {
        "" => Err(wrong("it is empty, expected a token".to_owned())),
        token => Ok(token.to_owned()),
    }
}

/// The certificate to show, if there is to be one.
fn tls(settings: &HttpSettings) -> Result<Option<Tls>, Failure> {
    let HttpSettings { certificate_file, key_file, .. } = settings;
    let wanted = !certificate_file.is_empty();
    wanted.then(|| Tls::new(certificate_file.as_ref(), key_file.as_ref())).transpose().map_err(Failure::Misconfigured)
}

fn metrics(config: &Config) -> anyhow::Result<Metrics> {
    Metrics::new(env!("CARGO_PKG_VERSION"), &config.kafka.input, Refusal::REASONS, &Severity::NAMES, &config.metrics)
        .context("register the metrics")
}

/// No answer, or one that trying again will not change.
pub fn unreachable(brokers: String, cause: kafka::Error) -> Failure {
    match cause.remedy() {
        Remedy::Stop => Failure::Misconfigured(cause.to_string()),
        _ => Failure::Unreachable { brokers, cause: Box::new(cause) },
    }
}

/// Runs a short job that asks Kafka and waits.
pub fn block_on<T>(job: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    Ok(runtime.block_on(job))
}

impl Context {
    fn supervise(&self) -> Result<(), Failure> {
        if !self.wait_for_kafka()? {
            return Ok(());
        }
        let models = match self.config.learning.model_file.as_str() {
            "" => Some(kafka::model_reader(&self.config.kafka).context("open the models topic")?),
            _ => None,
        };
        let learner = Learner {
            kafka: &self.config.kafka,
            input: &self.config.input,
            schemas: self.schemas.as_ref(),
            model: &self.config.model,
            profile: self.config.detector.profile,
            learning: &self.config.learning,
            progress: &self.progress,
            pulse: &self.pulse,
            stop: &self.stop,
        };
        let obtained = learner.obtain(models.as_ref());
        let obtained = match models {
            // What the configuration names is not there, or not what it should be.
            None => obtained.map_err(|e| Failure::Misconfigured(format!("{e:#}"))),
            Some(_) => obtained.map_err(Failure::Other),
        };
        let Some((model, edition)) = obtained? else { return Ok(()) };
        self.put_in_force(model, edition);
        if models.is_none() {
            // Nobody here is going to read a later one.
            self.model.saw(Edition::LAST);
        }
        let workers = self.start_workers()?;
        let ended = self.follow(&learner, models.as_ref(), &workers);
        self.stop.request();
        self.drain(workers, ended)
    }

    /// Looks for a broker and the topics, for as long as one request may take. False: asked to stop meanwhile.
    fn wait_for_kafka(&self) -> Result<bool, Failure> {
        let kafka = &self.config.kafka;
        let deadline = Instant::now() + kafka.request_timeout;
        while !self.stop.requested() {
            self.pulse.turn();
            match kafka::reachable(kafka, LOOK_TIMEOUT).and_then(|_| kafka::missing_topics(kafka, LOOK_TIMEOUT)) {
                Ok(missing) => return self.refuse_missing(&missing).map(|()| true),
                Err(cause) if cause.remedy() == Remedy::Stop || Instant::now() >= deadline => {
                    return Err(unreachable(kafka.brokers.clone(), cause));
                }
                Err(error) => {
                    tracing::warn!(%error, "Kafka does not answer yet");
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
        Ok(false)
    }

    fn refuse_missing(&self, missing: &[kafka::Topic<'_>]) -> Result<(), Failure> {
        let own_model = !self.config.learning.model_file.is_empty();
        let missing: Vec<_> = missing
            .iter()
            .filter(|t| !(own_model && t.role == "models"))
            .map(|t| format!("`{}` ({})", t.name, t.role))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::Misconfigured(format!(
            "find the topics: {} missing; create them, or let `residua check --connect --create-topics` do it",
            missing.join(", ")
        )))
    }

    fn put_in_force(&self, model: Model, edition: Edition) {
        let budget = &self.current.standing().config.detector.alarms.clone();
        self.metrics.model(model.fingerprint(), budget.rate(), model.ordered());
        tracing::info!(
            model = model.fingerprint(),
            features = model.schema().len(),
            alarms = %budget,
            met_within_factor = format!("{:.1}", model.doubt(budget)),
            "model in force"
        );
        self.progress.at(Stage::Done, 1, 1);
        // The probes take workers for alive from here on.
        self.pulses.iter().for_each(|pulse| pulse.turn());
        self.model.set(Arc::new(model), edition);
    }

    fn start_workers(&self) -> anyhow::Result<Vec<JoinHandle<Result<(), WorkerError>>>> {
        let run: u64 = RandomState::new().hash_one(std::process::id());
        let mut workers = Vec::new();
        for (index, pulse) in self.pulses.iter().enumerate() {
            let settings = WorkerSettings {
                kafka: self.config.kafka.clone(),
                input: self.config.input.clone(),
                schemas: self.schemas.clone(),
                transactional_id: transactional_id(&self.config.kafka, run, index),
                index,
            };
            pulse.turn();
            let shared = Shared {
                metrics: Arc::clone(&self.metrics),
                pulse: Arc::clone(pulse),
                model: Arc::clone(&self.model),
                tuning: Arc::clone(&self.current.tuning),
                beside: Arc::clone(&self.beside),
                live: Arc::clone(&self.live),
                stop: self.stop.clone(),
            };
            let name = format!("worker-{index}");
            workers.push(
                std::thread::Builder::new()
                    .name(name)
                    .spawn(move || pipeline::work(settings, shared))
                    .context("start a worker thread")?,
            );
        }
        Ok(workers)
    }

    /// Takes up newer models until asked to stop or a worker ends.
    fn follow(
        &self,
        learner: &Learner<'_>,
        models: Option<&TopicReader>,
        workers: &[JoinHandle<Result<(), WorkerError>>],
    ) -> anyhow::Result<()> {
        while !self.stop.requested() && !workers.iter().any(JoinHandle::is_finished) {
            self.pulse.turn();
            let newer = match models {
                Some(models) => models.next(FOLLOW_INTERVAL),
                None => {
                    std::thread::sleep(FOLLOW_INTERVAL);
                    None
                }
            };
            let Some(bytes) = newer else { continue };
            let edition = models.map_or(Edition::NONE, learner::edition);
            match learner.usable(&bytes) {
                Ok(model) if self.model.get().is_some_and(|m| m.fingerprint() == model.fingerprint()) => {}
                Ok(model) => self.put_in_force(model, edition),
                Err(error) => {
                    self.metrics.model_refused();
                    tracing::error!(
                        error = format!("{error:#}"),
                        "a new model in the topic cannot be used, the old one stays in force"
                    )
                }
            }
            self.model.saw(edition);
        }
        Ok(())
    }

    /// Waits for the workers, for as long as draining may take.
    fn drain(
        &self,
        workers: Vec<JoinHandle<Result<(), WorkerError>>>,
        mut ended: anyhow::Result<()>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + self.current.standing().config.service.drain_timeout;
        for (index, worker) in workers.into_iter().enumerate() {
            while !worker.is_finished() && Instant::now() < deadline {
                self.pulse.turn();
                std::thread::sleep(Duration::from_millis(10));
            }
            if !worker.is_finished() {
                ended = ended.and(Err(anyhow::anyhow!(
                    "worker {index} is still busy after service.drain_timeout; what it has not committed will be read again"
                )));
                continue;
            }
            let end = match worker.join() {
                Ok(end) => end.map_err(anyhow::Error::new).with_context(|| format!("run worker {index}")),
                Err(_) => Err(anyhow::anyhow!("worker {index} panicked; this is a bug of residua")),
            };
            ended = ended.and(end);
        }
        Ok(ended?)
    }
}

/// Stable over restarts where the process has a stable name, so that a new process ends at once what the old one left open;
/// otherwise unique to this run, so that two processes can never fence each other.
fn transactional_id(kafka: &KafkaSettings, run: u64, worker: usize) -> String {
    match kafka.instance_id.as_str() {
        "" => format!("{}-{run:016x}-{worker}", kafka.group),
        id => format!("{}-{id}-{worker}", kafka.group),
    }
}
