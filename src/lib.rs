//! residua: streaming anomaly detection for sensor records on Kafka.
//!
//! The path of one record:
//!
//! [`kafka`] hands over a borrowed message; [`record`] decodes it straight into a row of numbers, or refuses it with a reason;
//! [`detector`] takes the row into the state of its series and judges a batch of them with the autoencoder of [`model`]; what it
//! flags becomes an alert ([`record::Alert`]), a run of flagged records an [`incident`], what was refused a dead letter, and all leave
//! with the record's offset in one transaction. [`pipeline`] is that loop; [`service`] starts one per worker, learns the model, and ends all of it.

// Shell
pub mod cli;
pub mod config;
pub mod pipeline;
pub mod service;
// Edges
pub mod http;
pub mod kafka;
pub mod metrics;
pub mod registry;
pub mod web;
// Core
pub mod detector;
pub mod incident;
pub mod model;
pub mod record;
