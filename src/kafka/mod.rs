//! Kafka: the input, the outputs, the models topic and history. The only place that knows rdkafka.

mod admin;
mod client;
mod consumer;
mod embedded;
mod ends;
mod error;
mod history;
mod lane;
mod message;
mod models;
mod oauth;
mod producer;
mod reader;
mod settings;
mod state;

use std::time::Duration;

/// A client that will not close is left behind after this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub use admin::{Check, Finding, Topic, check, create_topics, missing_topics, reachable};
pub use client::refuses;
pub use consumer::{Assigned, Input, Observed, Partitions, Polled, StartAt};
pub use embedded::EmbeddedBroker;
pub use error::{Error, Remedy, Result};
pub use history::{HistoryReader, Range};
pub use message::{DeadLetterForm, Headers, Message, Outgoing, trace_headers};
pub use models::{ModelPublisher, model_reader};
pub use producer::{OUTPUT_PATIENCE, Output};
pub use reader::TopicReader;
pub use settings::{ClientValue, Delivery, KafkaSettings, Start, is_secret, owned};
pub use state::{Stored, read_state};

/// A client that is closed within a bounded time when it is dropped.
struct Closing<T: Send + 'static>(&'static str, Option<T>);

impl<T: Send> Closing<T> {
    fn new(what: &'static str, client: T) -> Self {
        Closing(what, Some(client))
    }
}

impl<T: Send> std::ops::Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.1.as_ref().expect("only `drop` takes it")
    }
}

impl<T: Send> Drop for Closing<T> {
    fn drop(&mut self) {
        let client = self.1.take();
        drop_within(self.0, CLOSE_TIMEOUT, move || drop(client));
    }
}

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
