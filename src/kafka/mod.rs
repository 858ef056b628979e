//! Kafka: the input, the outputs, the models topic and history. The only place that knows rdkafka.

mod admin;
mod client;
mod consumer;
mod embedded;
mod error;
mod history;
mod message;
mod models;
mod producer;
mod reader;
mod settings;
mod state;

use std::time::Duration;

pub use admin::{Check, Finding, Topic, check, create_topics, missing_topics, reachable};
pub use client::refuses;
pub use consumer::{Assigned, Input, Observed, Partitions, Polled, StartAt};
pub use embedded::EmbeddedBroker;
pub use error::{Error, Remedy, Result};
pub use history::{HistoryReader, Range};
pub use message::{Headers, Message, trace_headers};
pub use models::{ModelPublisher, model_reader};
pub use producer::{Outgoing, Output};
pub use reader::TopicReader;
pub use settings::{ClientValue, Delivery, KafkaSettings, Start, is_secret, owned};
pub use state::{Stored, read_state};

/// Runs `close` on a thread of its own and waits for at most `timeout`: closing a librdkafka client can hang, residua must not.
fn drop_within(what: &'static str, timeout: Duration, close: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        close();
        drop(done);
    });
    if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(timeout) {
        tracing::warn!("the Kafka {what} did not close within {timeout:?} and is left behind");
    }
}
