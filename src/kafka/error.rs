//! What can go wrong between residua and Kafka, and what the caller does next.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::record::{NextOffset, Offset, PartitionId};

/// The action of a commit outside a transaction.
pub(super) const COMMIT: &str = "commit the offsets";

/// A failed call to Kafka. The variant tells what to do: see [`Error::remedy`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka refused the configuration of a client.
    #[error("create the Kafka {role}: {}", reason(cause))]
    Client { role: &'static str, cause: KafkaError },
    /// A request failed.
    #[error("{action}: {}", reason(cause))]
    Call { action: &'static str, cause: KafkaError },
    /// A request failed, and why is known.
    #[error("{action}: {}: {heard}", reason(cause))]
    Unanswered { action: &'static str, cause: KafkaError, heard: String },
    /// A request was not answered in time.
    #[error("{action}: no answer within {after:?}")]
    Timeout { action: &'static str, after: Duration },
    /// A request of the last transaction was not answered, and asked again.
    #[error("begin a transaction: a late request of the last one could end it; a new producer is needed")]
    Doubtful,
    /// Messages of the open transaction or batch were not written.
    #[error(
        "write to Kafka: {failed} of {sent} messages were not delivered, the first, to topic `{topic}`, because: {first}"
    )]
    Delivery { failed: u64, sent: u64, first: RDKafkaErrorCode, topic: String },
    /// What is stored of a partition may be more than can be seen yet, or be of use soon.
    #[error("read the state of partition {partition}: {why}")]
    Unsettled { partition: PartitionId, why: String },
    /// Kafka sent a record that lies before the one asked for.
    #[error("read partition {partition}: Kafka sent offset {found}, expected {expected} or a later one")]
    WentBack { partition: PartitionId, found: Offset, expected: NextOffset },
    /// A topic that must exist does not.
    #[error("find topic `{topic}`: it does not exist, create it or run `residua check --connect --create-topics`")]
    MissingTopic { topic: String },
    /// The input topic does not exist, and nobody said how it should be made.
    #[error(
        "find topic `{topic}`: it does not exist; correct kafka.input, or create it with --create-topics --partitions N"
    )]
    MissingInput { topic: String },
    /// The library's client for administration never asks for a token.
    #[error("administer Kafka: not with a login by OAUTHBEARER, use another one")]
    NoAdministrator,
    /// Kafka refused to create a topic.
    #[error("create topic `{topic}`: {code}")]
    NotCreated { topic: String, code: RDKafkaErrorCode },
    /// A topic that must have a partition for each of the input's has fewer.
    #[error("use topic `{topic}`: it has {found} partitions, and the input has {expected}; add the missing ones")]
    TooFewPartitions { topic: String, found: usize, expected: usize },
    /// A topic of which only the first partition is read has more.
    #[error("use topic `{topic}`: it has {found} partitions, expected {expected}; create it anew")]
    TooManyPartitions { topic: String, found: usize, expected: usize },
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
            Error::Client { .. }
            | Error::MissingTopic { .. }
            | Error::MissingInput { .. }
            | Error::NotCreated { .. }
            | Error::NoAdministrator
            | Error::TooFewPartitions { .. }
            | Error::TooManyPartitions { .. } => Remedy::Stop,
            Error::Timeout { .. } | Error::Unanswered { .. } | Error::Doubtful => Remedy::Replace,
            // Another process took this member's place, or the like: the consumer is of no further use, and not by accident.
            Error::Call { cause: KafkaError::MessageConsumptionFatal(_), .. } => Remedy::Stop,
            // Before what librdkafka says: it would have a refused transaction aborted and tried again for ever.
            Error::Delivery { first, .. } if is_denied(*first) || is_refused(*first) => Remedy::Stop,
            Error::Call { cause, .. } if code(cause).is_some_and(is_denied) => Remedy::Stop,
            Error::Delivery { .. } | Error::Unsettled { .. } | Error::WentBack { .. } => Remedy::Abort,
            Error::Call { cause: KafkaError::Transaction(e), .. } if e.txn_requires_abort() => Remedy::Abort,
            Error::Call { .. } => Remedy::Replace,
        }
    }

    /// Whether the next record is no longer, or not yet, in the log.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self, Error::Call { cause, .. } if code(cause) == Some(RDKafkaErrorCode::AutoOffsetReset))
    }

    /// Whether the group took this member for another process's: by its name, somebody else has joined since.
    pub fn is_fenced_member(&self) -> bool {
        matches!(
            self,
            Error::Call { cause: KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId), .. }
        )
    }

    /// Whether it is unknown if offsets were committed outside a transaction, or still will be.
    pub fn is_undecided_commit(&self) -> bool {
        matches!(self, Error::Timeout { action: COMMIT, .. })
    }

    /// Whether the producer that it is of can do nothing any more.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::Call { cause: KafkaError::Transaction(e), .. } if e.is_fatal())
    }

    /// The topic that refused a message for its size.
    pub fn too_large_for(&self) -> Option<&str> {
        match self {
            Error::Delivery { first: RDKafkaErrorCode::MessageSizeTooLarge, topic, .. } => Some(topic),
            _ => None,
        }
    }

    /// The topic that refused a message for its timestamp.
    pub fn untimely_for(&self) -> Option<&str> {
        match self {
            Error::Delivery { first: RDKafkaErrorCode::InvalidTimestamp, topic, .. } => Some(topic),
            _ => None,
        }
    }
}

fn code(e: &KafkaError) -> Option<RDKafkaErrorCode> {
    match e {
        KafkaError::Transaction(e) => Some(e.code()),
        other => other.rdkafka_error_code(),
    }
}

/// The topic's own settings forbid the message, now and for ever: a compacted topic takes none without a key.
fn is_refused(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(code, InvalidRecord | PolicyViolation | UnsupportedForMessageFormat)
}

/// A right is missing; only a person can help.
fn is_denied(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        TopicAuthorizationFailed
            | GroupAuthorizationFailed
            | ClusterAuthorizationFailed
            | TransactionalIdAuthorizationFailed
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
        self.map_err(|cause| Error::Call { action, cause })
    }
}
