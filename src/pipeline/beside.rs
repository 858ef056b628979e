//! The records of all workers beside those that the model was trained on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::ModelSlot;
use crate::model::{Drift, Seen};

/// What each worker has seen, and of which model that was.
#[derive(Default)]
pub struct Beside(Mutex<BTreeMap<usize, (u64, Seen)>>);

impl Beside {
    /// What a worker has seen since it took up the model of this version.
    pub(super) fn set(&self, worker: usize, version: u64, seen: &Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, (version, seen.clone()));
    }

    /// Records that are compared, about a sixteenth of the last hundred thousand of each worker, and how they differ from those that the
    /// model in force was trained on, sensor by sensor. Nothing where there are none.
    pub fn drifts(&self, slot: &ModelSlot) -> (u64, Vec<Drift>) {
        let Some(in_force) = slot.in_force() else { return Default::default() };
        let mut all = Seen::default();
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = seen.values().filter(|(version, _)| *version == in_force.version);
        current.for_each(|(_, seen)| all.join(seen));
        drop(seen);
        (all.records(), in_force.model.drifts(&all))
    }
}
