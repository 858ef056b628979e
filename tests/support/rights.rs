//! Rights on a test's Kafka: whoever logs in at [`Cluster::login_address`] may do what [`Broker::allow`] has allowed.

use super::protocol::Body;
use super::{Broker, Cluster};

/// User and password there.
pub const USER: &str = "residua";
pub const PASSWORD: &str = "residua-secret";

/// What a right is for; numbers of Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resource {
    Topic = 2,
    Group = 3,
    TransactionalId = 5,
}

/// Numbers of Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Read = 3,
    Write = 4,
}

impl Cluster {
    /// `host:port` of the first broker where a client must log in.
    pub fn login_address(&self) -> String {
        self.address_of("login-port")
    }

    /// The same, of another of its ports.
    pub fn address_of(&self, port: &str) -> String {
        let port = std::fs::read_to_string(self.dir.join("broker-1").join(port)).expect("a port");
        format!("127.0.0.1:{}", port.trim())
    }
}

impl Broker {
    /// Allows [`USER`] an operation on what has this name, or a name that begins so where it ends with `*`.
    #[track_caller]
    pub fn allow(&self, operation: Operation, resource: Resource, name: &str) {
        const CREATE_ACLS: i16 = 30;
        const LITERAL: i8 = 3;
        const PREFIXED: i8 = 4;
        const ALLOW: i8 = 3;
        let prefix = name.strip_suffix('*');
        let rule = Body::default().int32(1).int8(resource as i8).text(prefix.unwrap_or(name));
        let rule = rule.int8(if prefix.is_some() { PREFIXED } else { LITERAL });
        let rule = rule.text(&format!("User:{USER}")).text("*"); // from any host
        let answer = self.ask(CREATE_ACLS, 1, &rule.int8(operation as i8).int8(ALLOW));
        // throttle time, number of results, then the first result's error
        assert_eq!(answer[4..10], [0, 0, 0, 1, 0, 0], "Kafka refuses the rule: {answer:?}");
    }
}
