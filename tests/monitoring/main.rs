//! Goal: whoever watches residua is told the truth. Rules, dashboards and documents name only what exists; every rule fires by the fault it
//! names, and reaches people; every panel shows something. Method: Prometheus and Alertmanager themselves, and residua as a user starts it.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/exported.rs"]
mod exported;

mod dashboard;
mod files;
mod firing;
mod servers;
mod shown;
