//! The demo's broker: librdkafka's mock cluster, inside the process. It keeps 5 MiB per partition and forgets everything at the end.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::error::{Context, Result};

/// A broker on a loopback port, alive as long as this value.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    pub fn start() -> Result<EmbeddedBroker> {
        let cluster = MockCluster::new(1).action("start the embedded broker")?;
        Ok(EmbeddedBroker { cluster })
    }

    /// `host:port` to connect to.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.cluster.create_topic(topic, partitions, 1).action("create a topic on the embedded broker")
    }
}
