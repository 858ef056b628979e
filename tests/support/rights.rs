//! Rights on a test's Kafka: whoever logs in at [`Cluster::login_address`] may do what [`Broker::allow`] has allowed.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Broker, Cluster, PATIENCE};

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
        let port = std::fs::read_to_string(self.dir.join("broker-1/login-port")).expect("a port");
        format!("127.0.0.1:{}", port.trim())
    }
}

impl Broker {
    /// Allows [`USER`] an operation on what has this name, or a name that begins so where it ends with `*`.
    ///
    /// Written by hand (CreateAcls, version 1), since the client library of the tests has no call for it.
    #[track_caller]
    pub fn allow(&self, operation: Operation, resource: Resource, name: &str) {
        const CREATE_ACLS: i16 = 30;
        const LITERAL: u8 = 3;
        const PREFIXED: u8 = 4;
        const ALLOW: u8 = 3;
        let mut request = Vec::new();
        request.extend(CREATE_ACLS.to_be_bytes());
        request.extend(1i16.to_be_bytes()); // version
        request.extend(7i32.to_be_bytes()); // correlation id
        request.extend((-1i16).to_be_bytes()); // no client id
        request.extend(1i32.to_be_bytes()); // one rule
        request.push(resource as u8);
        let prefix = name.strip_suffix('*');
        put(&mut request, prefix.unwrap_or(name));
        request.push(if prefix.is_some() { PREFIXED } else { LITERAL });
        put(&mut request, &format!("User:{USER}"));
        put(&mut request, "*"); // from any host
        request.extend([operation as u8, ALLOW]);
        let mut stream = TcpStream::connect(&self.bootstrap).expect("connect to Kafka");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&(request.len() as i32).to_be_bytes()).expect("ask Kafka");
        stream.write_all(&request).expect("ask Kafka");
        // size, correlation id, throttle time, number of results, then the first result's error code
        let mut answer = [0; 18];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[12..18], [0, 0, 0, 1, 0, 0], "Kafka refuses the rule: {answer:?}");
    }
}

fn put(request: &mut Vec<u8>, text: &str) {
    request.extend((text.len() as i16).to_be_bytes());
    request.extend(text.as_bytes());
}
