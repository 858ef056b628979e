//! What can go wrong between residua and Kafka, and what the caller does next.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A failed call to Kafka. The variant tells what to do: see [`Error::remedy`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka refused the configuration of a client.
    #[error("create the Kafka {role}: {}", reason(source))]
    Client { role: &'static str, source: KafkaError },
    /// A request failed.
    #[error("{action}: {}", reason(source))]
    Call { action: &'static str, source: KafkaError },
    /// A request was not answered in time.
    #[error("{action}: no answer within {after:?}")]
    Timeout { action: &'static str, after: Duration },
    /// Messages of the open transaction or batch were not written.
    #[error("write to Kafka: {failed} of {sent} messages were not delivered, the first because: {first}")]
    Delivery { failed: u64, sent: u64, first: RDKafkaErrorCode },
    /// A topic that must exist does not.
    #[error("find topic `{topic}`: it does not exist, create it or run `residua check --connect --create-topics`")]
    MissingTopic { topic: String },
}

/// What the caller does about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Abort the transaction, go back to the last committed offsets, read again.
    Abort,
    /// The outcome is unknown or the client is of no further use: replace the producer, then as for `Abort`.
    Replace,
    /// Trying again cannot help: stop the process.
    Stop,
}

impl Error {
    /// What to do next, by librdkafka's own flags where it sets them.
    pub fn remedy(&self) -> Remedy {
        match self {
            Error::Client { .. } | Error::MissingTopic { .. } => Remedy::Stop,
            Error::Timeout { .. } => Remedy::Replace,
            Error::Delivery { .. } => Remedy::Abort,
            Error::Call { source: KafkaError::Transaction(e), .. } if e.txn_requires_abort() => Remedy::Abort,
            Error::Call { source, .. } if is_denied(source) => Remedy::Stop,
            Error::Call { .. } => Remedy::Replace,
        }
    }

    /// Whether a topic refused a message for its size.
    pub fn is_too_large(&self) -> bool {
        let code = match self {
            Error::Delivery { first, .. } => Some(*first),
            Error::Call { source, .. } => source.rdkafka_error_code(),
            _ => None,
        };
        matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge))
    }
}

/// A right is missing; only a person can help.
fn is_denied(e: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    let code = match e {
        KafkaError::Transaction(e) => Some(e.code()),
        other => other.rdkafka_error_code(),
    };
    matches!(
        code,
        Some(
            TopicAuthorizationFailed
                | GroupAuthorizationFailed
                | ClusterAuthorizationFailed
                | TransactionalIdAuthorizationFailed
        )
    )
}

/// librdkafka's words alone, without the name of the variant around them.
fn reason(e: &KafkaError) -> String {
    match e {
        KafkaError::Transaction(e) => e.to_string(),
        KafkaError::ClientConfig(_, why, key, value) => {
            // The value may be a secret that librdkafka would not take: say only that it was refused.
            let _ = value;
            format!("{key}: {why}")
        }
        KafkaError::ClientCreation(why) => why.clone(),
        other => match other.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => other.to_string(),
        },
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names the action that failed.
pub(crate) trait Context<T> {
    fn action(self, action: &'static str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, KafkaError> {
    fn action(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Call { action, source })
    }
}
