//! Makes metrics of a registry: a name is used once, which a test proves by making them all.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Result,
};

/// The registry. Every metric in it has the label `topic`.
pub(super) struct Registry(prometheus::Registry);

impl Registry {
    pub fn new(topic: &str) -> Result<Registry> {
        let everywhere = [("topic".to_owned(), topic.to_owned())].into();
        let registry = prometheus::Registry::new_custom(None, Some(everywhere))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Registry(registry))
    }

    pub fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }

    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    pub fn counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Gauge::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec> {
        self.add(GaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub fn per_worker(&self, name: &str, help: &str) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &["worker"]))
    }

    /// `buckets`: upper bounds, ascending.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    pub fn histograms(&self, name: &str, help: &str, label: &str, buckets: &[f64]) -> Result<HistogramVec> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label]))
    }

    fn add<C: Collector + Clone + 'static>(&self, made: Result<C>) -> Result<C> {
        let collector = made?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}
