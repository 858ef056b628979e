//! Goal: on a real Kafka, every record read ends as exactly one of scored, warming, dead-lettered, whatever happens to
//! the process; alerts are true to their schema; health and metrics tell the truth. Method: the daemon as a user starts it,
//! against a broker of this test run, with a plant whose faults and broken messages are known.

#[path = "../support/mod.rs"]
mod support;

use support::plant;

mod accounting;
mod broken;
mod drift;
mod edges;
mod formats;
mod health;
mod http;
mod models;
mod reconstructions;
mod reload;
mod rights;
mod same;
mod secure;
mod setting;
mod state;
mod systemd;
