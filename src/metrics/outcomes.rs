//! What a worker tells of a batch, a commit, an assignment.

use prometheus::local::LocalHistogram;

/// What became of the records of one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub scored: u64,
    pub warming: u64,
    /// Dead letters by the refusal's reason.
    pub dead_lettered: Vec<(&'static str, u64)>,
    /// Anomalies by severity; they are among the scored.
    pub anomalies: Vec<(&'static str, u64)>,
    /// The same by the sensor that made most of the error.
    pub sensors: Vec<(String, u64)>,
    /// Changes of incidents, by change.
    pub incidents: Vec<(&'static str, u64)>,
}

/// With what state a partition was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// Exactly what it was.
    Whole,
    /// None was stored.
    None,
    /// What was stored is of no use.
    Discarded,
}

impl Restore {
    pub(super) const ALL: [Restore; 3] = [Restore::Whole, Restore::None, Restore::Discarded];

    pub(super) fn name(self) -> &'static str {
        match self {
            Restore::Whole => "whole",
            Restore::None => "none",
            Restore::Discarded => "discarded",
        }
    }
}

impl Outcomes {
    pub fn add_dead_letter(&mut self, reason: &'static str) {
        count(&mut self.dead_lettered, reason);
    }

    pub fn has_dead_letter(&self, reason: &str) -> bool {
        self.dead_lettered.iter().any(|(found, _)| *found == reason)
    }

    pub fn add_anomaly(&mut self, severity: &'static str, sensor: &str) {
        count(&mut self.anomalies, severity);
        match self.sensors.iter_mut().find(|(name, _)| name == sensor) {
            Some((_, count)) => *count += 1,
            None => self.sensors.push((sensor.to_owned(), 1)),
        }
    }

    pub fn add_incident(&mut self, change: &'static str) {
        count(&mut self.incidents, change);
    }

    /// Back to nothing, keeping the memory.
    pub fn clear(&mut self) {
        self.scored = 0;
        self.warming = 0;
        self.dead_lettered.clear();
        self.anomalies.clear();
        self.sensors.clear();
        self.incidents.clear();
    }
}

fn count(counts: &mut Vec<(&'static str, u64)>, name: &'static str) {
    match counts.iter_mut().find(|(n, _)| *n == name) {
        Some((_, n)) => *n += 1,
        None => counts.push((name, 1)),
    }
}

/// Stages of a worker whose duration is measured.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    Judge,
    Emit,
    Commit,
}

impl Stage {
    pub(super) const ALL: [(Stage, &'static str); 3] =
        [(Stage::Judge, "judge"), (Stage::Emit, "emit"), (Stage::Commit, "commit")];
}

/// How a transaction (or, at least once, a commit) ended.
#[derive(Debug, Clone, Copy)]
pub enum CommitEnd {
    Committed,
    Aborted,
    Unknown,
}

/// How reading the configuration again ended.
#[derive(Debug, Clone, Copy)]
pub enum Reload {
    /// Something changed.
    Applied,
    /// Nothing that can change did.
    Unchanged,
    /// It cannot be used.
    Refused,
}

/// Scores that count when the commit that holds them does.
pub struct Scores(pub(super) LocalHistogram);

impl Scores {
    pub fn observe(&mut self, score: f64) {
        self.0.observe(score);
    }

    /// They are committed.
    pub fn settle(&mut self) {
        self.0.flush();
    }

    /// Their records are read again.
    pub fn abandon(&mut self) {
        self.0.clear();
    }
}
