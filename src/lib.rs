//! residua: streaming anomaly detection for sensor records on Kafka.

// Shell
pub mod cli;
pub mod config;
pub mod pipeline;
pub mod service;
// Edges
pub mod http;
pub mod kafka;
pub mod metrics;
// Core
pub mod detector;
pub mod model;
pub mod record;
