//! The model: what normal looks like, learned from records, and how strange one record is.
//!
//! what looks like a fault is left out (`audit`) -> scale (`scaler`; by series where they differ much, `fleet`) -> what each network sees
//! (`view`, chosen by `profile`) -> autoencoder (`network`, trained by `train`, sized by `bottleneck`) -> residual, less its slowly followed mean (`member`) -> whitened
//! (`residual`) -> distance -> level; so is the distance from records that are remembered (`neighbours`). Both, smoothed per series, are the rank. From
//! the residual of one of the networks a statistic that `decision` (rows with an order, by the `law` of its peaks) judges; without an order `tail` judges
//! the largest level. `memory` is what a series is remembered by, `fit` puts all
//! together, `artifact` writes and reads the result, `onnx` writes networks for others, and `import` takes over theirs. `clean` takes noise off, `reference` tells other data than those of training, `projection` draws records as
//! points of few dimensions. What a record costs is in `kernel` (dense layers) and `lanes` (all other arithmetic).
//! The reasons and sources are in docs/detection.md.

mod adamw;
mod alarms;
mod artifact;
mod audit;
mod bottleneck;
mod clean;
mod copied;
mod decision;
mod extremes;
mod facts;
mod fit;
mod fleet;
mod hands;
mod held;
mod import;
mod kernel;
mod lanes;
mod law;
mod member;
mod memory;
mod neighbours;
mod network;
mod onnx;
mod order;
mod profile;
mod projection;
mod recent;
mod reference;
mod residual;
mod scaler;
mod series;
mod settings;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
mod tile;
mod train;
mod view;

use serde::{Deserialize, Serialize};

pub use alarms::{AlarmBudget, AlarmBudgetError};
pub use artifact::ArtifactError;
pub use decision::{ADOPT_AFTER, HOLD};
pub use facts::SensorFacts;
pub use fit::FitError;
pub use fleet::floats as floats_of_own_scale;
pub use hands::{Hands, Progress};
pub use import::{ImportError, Scaled};
pub use kernel::{Kernel, Room};
pub use memory::{Memory, MemoryError, SPARE as MEMORY_SPARE};
pub use onnx::read::{ONNX_BYTES_MAX, OnnxError};
pub use profile::Profile;
pub use projection::{Cloud, Plane, Projection};
pub use settings::{Activation, Auto, ModelSettings, Scaling, SettingError};
pub(crate) use tile::{TILE, Tile, has_gaps};
pub use train::Trainer;

use crate::record::{NextOffset, Offset, PartitionId, Schema, Table};
use decision::Decision;
pub(crate) use decision::Statistic;
use fleet::Fleet;
use law::Laws;
use member::{Kernels, Measured, Member};
use memory::Places;
use neighbours::{Near, NearDistances, Neighbours};
use recent::RARITIES;
use reference::Reference;
pub use reference::{Drift, Edge, Seen};
use scaler::Scaler;
use tail::Tail;

/// Largest artifact that is written or read.
pub const ARTIFACT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A learned model. Immutable; scoring state lives in the detector.
#[derive(Debug)]
pub struct Model {
    schema: Schema,
    source: TrainingSource,
    settings: ModelSettings,
    profile: Profile,
    rows: RowCounts,
    known: Known,
    /// At least one; the last one decides.
    members: Vec<Member>,
    /// Of each, ready for use.
    kernels: Vec<Kernels>,
    /// What a record is compared with, ready for use.
    references: Kernel,
    deciding: Deciding,
    places: Places,
    /// Hexadecimal SHA-256 of the artifact.
    checksum: String,
}

/// What is known of the training records.
#[derive(Debug)]
pub(crate) struct Known {
    scaler: Scaler,
    /// Where series differ much.
    fleet: Option<Fleet>,
    reference: Reference,
    /// Where codes of the first network lie on a map.
    plane: Plane,
    neighbours: Neighbours,
}

/// Which of the models that followed each other it is: a later one has a larger number (its offset in their topic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition(pub i64);

impl Edition {
    /// Of a model that follows no other.
    pub const NONE: Edition = Edition(-1);
    /// No model is later.
    pub const LAST: Edition = Edition(i64::MAX);
}

/// Where the training records came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainingSource {
    Topic {
        topic: String,
        ranges: Vec<(PartitionId, Offset, NextOffset)>,
    },
    File {
        name: String,
        rows: usize,
    },
    /// A network from elsewhere, calibrated on a file.
    Network {
        network: String,
        name: String,
        rows: usize,
    },
}

/// Training records, how many of them were left out because they look like faults, and how many windows of the others were
/// trained on and held out, of the networks that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCounts {
    pub all: usize,
    pub left_out: usize,
    pub training: usize,
    pub held_out: usize,
    /// Records that the threshold was learned from.
    pub calibrating: usize,
}

/// What decides whether a record is flagged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deciding {
    /// Records follow each other in time.
    Laws(Laws),
    /// They have no order: the tail of the largest level of a record, and what levels of its distances (of the residual, the nearest reference, those of
    /// groups) count for in the rank, at least 1.
    Tail { tail: Tail, units: [f64; 3] },
}

/// The decision in force: a model's, under an alarm budget.
#[derive(Clone, Debug)]
pub(crate) enum Judge {
    Ordered(Decision),
    Unordered {
        /// Level that a share as large as the budget of the normal records exceeds.
        threshold: f64,
        /// And as large as each of the rarities that are watched.
        levels: [f64; RARITIES.len()],
        /// As in `Deciding::Tail`, in units of the least of them.
        units: [f64; 3],
    },
}

/// What the judge said of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Judged {
    pub flagged: bool,
    /// 1 and more if the record is flagged, less if it is not; among either the stranger the larger. Not negative.
    pub score: f64,
    /// The error of the newest record alone, in thresholds.
    pub alone: f64,
}

/// Keeps flagged records above all others; `acute`: how close a record is to what opens an incident, at most 1.
fn score(flagged: bool, rank: f64, acute: f64) -> f64 {
    if !flagged {
        // What is on its way to an incident is stranger than what is not; half as much, as what ranks knows better.
        let both = rank + acute / 2.0;
        return both / (1.0 + both);
    }
    // By rank + acute, and 1 + rank of what is strange and opens incidents: whatever is only held, or slowly seen, is less
    // sure, and above 1 all the same.
    let both = rank + acute;
    if both < 2.0 { 1.0 + both * both / 4.0 } else { both }
}

impl Model {
    /// Learns from a table: a function of table, settings, profile and source; same input, same bytes on the same kind of
    /// processor. `progress` gets (done, total) training steps, and may break off.
    ///
    /// # Errors
    /// Settings out of bounds, too few records, a model too large for an artifact, [`FitError::Stopped`].
    pub fn fit(
        table: &Table,
        settings: &ModelSettings,
        profile: Profile,
        source: TrainingSource,
        progress: &mut Progress,
    ) -> Result<Self, FitError> {
        Self::fit_with(&hands::one_by_one, table, settings, profile, source, progress)
    }

    /// The same model, with its networks trained at once if `hands` do so.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn fit_with(
        hands: &Hands,
        table: &Table,
        settings: &ModelSettings,
        profile: Profile,
        source: TrainingSource,
        progress: &mut Progress,
    ) -> Result<Self, FitError> {
        fit::fit(table, settings, profile, source, hands, progress)
    }

    /// Of parts that fit together, without a checksum.
    fn new(
        schema: Schema,
        source: TrainingSource,
        (settings, profile): (ModelSettings, Profile),
        rows: RowCounts,
        known: Known,
        members: Vec<Member>,
        deciding: Deciding,
    ) -> Self {
        let places = Places::of(schema.len(), &members, known.fleet.as_ref());
        let kernels = members.iter().map(Member::kernels).collect();
        let references = neighbours::kernel(&known.neighbours.references);
        let checksum = String::new();
        Self {
            schema,
            source,
            settings,
            profile,
            rows,
            known,
            members,
            kernels,
            references,
            deciding,
            places,
            checksum,
        }
    }

    #[cfg(test)]
    pub(crate) fn scaler(&self) -> &Scaler {
        &self.known.scaler
    }

    /// A scaled value of feature `j` of a series in its own unit again.
    pub(crate) fn unscale(&self, j: usize, memory: &Memory, scaled: f32) -> f64 {
        self.known.scaler.unscale(j, self.own(memory), scaled)
    }

    /// Mean and scale of a series where it has its own.
    fn own<'a>(&self, memory: &'a Memory) -> &'a [f32] {
        let own = memory.floats_of(&self.places.own);
        &own[..own.len().min(2 * self.schema.len())]
    }

    /// `hold`: part of the threshold at which an incident is over.
    pub(crate) fn judge(&self, budget: &AlarmBudget, hold: f64) -> Judge {
        match &self.deciding {
            Deciding::Laws(laws) => Judge::Ordered(Decision::new(*laws, budget, hold)),
            Deciding::Tail { tail, units } => {
                // Exceeded, and not reached: readings that repeat are often exactly there.
                let beyond = |rate: f64| tail.level(rate).next_up();
                let least = units.iter().copied().fold(f64::INFINITY, f64::min);
                let units = units.map(|unit| unit / least);
                Judge::Unordered { threshold: beyond(budget.rate()), levels: RARITIES.map(beyond), units }
            }
        }
    }

    /// What is remembered of a series before its first record.
    pub(crate) fn begin(&self, series: &str) -> Memory {
        let mut memory = Memory::new(&self.places, self.members.len());
        if let Some(fleet) = &self.known.fleet {
            fleet.begin(series, memory.floats_of_mut(&self.places.own));
        }
        self.restart_levels(&mut memory);
        memory
    }

    /// Memory again from what was stored of it.
    ///
    /// # Errors
    /// Numbers that are no memory of this model.
    pub(crate) fn recall(
        &self,
        floats: impl ExactSizeIterator<Item = f32>,
        numbers: impl ExactSizeIterator<Item = f64>,
    ) -> Result<Memory, MemoryError> {
        let mut memory = self.begin("");
        memory.recall(&self.places, floats, numbers)?;
        if self.known.fleet.as_ref().is_some_and(|fleet| !fleet.is_sound(memory.floats_of(&self.places.own))) {
            return Err(MemoryError::OutOfRange("scale of a series"));
        }
        Ok(memory)
    }

    /// Takes a record into what is remembered: `values`, one per feature, NaN = missing; `seen`: how many came before it since the
    /// window began. False if all that is learned from it is how this series is to be scaled.
    pub(crate) fn take(&self, memory: &mut Memory, seen: u64, values: &[f64]) -> bool {
        if let Some(fleet) = &self.known.fleet {
            let scaled = self.known.scaler.standardised(values);
            if !fleet.is_known(memory.floats_of_mut(&self.places.own), scaled) {
                return false;
            }
        }
        if seen == 0 {
            for member in &self.places.members {
                memory.floats_of_mut(&member.average).fill(f32::NAN);
            }
        }
        let features = self.schema.len();
        let at = self.places.ring.start + (seen % self.window() as u64) as usize * features;
        let record = at..at + features;
        let (to, own) = memory.two_of_mut(&record, &self.places.own);
        let own = if self.known.fleet.is_some() { &own[..2 * features] } else { &[] };
        self.known.scaler.scale(values, own, &mut to[..features]);
        for (member, places) in self.members.iter().zip(&self.places.members).filter(|(member, _)| member.view.context)
        {
            let (record, average) = memory.two_of_mut(&record, &places.average);
            member.view.follow(features, average, record);
        }
        true
    }

    /// The newest record of a series, scaled; `seen`: records that came since the window began, at least one.
    pub(crate) fn latest<'a>(&self, memory: &'a Memory, seen: u64) -> &'a [f32] {
        let features = self.schema.len();
        let at = (seen.saturating_sub(1) % self.window() as u64) as usize * features;
        &memory.floats_of(&self.places.ring)[at..at + features]
    }

    /// Counts a scaled record among what was seen beside the training records.
    pub(crate) fn see(&self, seen: &mut Seen, scaled: &[f32]) {
        seen.take(&self.known.reference, scaled);
    }

    /// Networks.
    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Appends the input of network `member`; `seen`: records that came since the window began, at least as many as the window has.
    pub(crate) fn input(&self, member: usize, memory: &Memory, seen: u64, out: &mut Vec<f32>) {
        let (features, window) = (self.schema.len(), self.window() as u64);
        let (view, from) = (self.members[member].view, out.len());
        out.resize(from + view.inputs(features), 0.0);
        let ring = memory.floats_of(&self.places.ring);
        let records = (seen.saturating_sub(view.window as u64)..seen).map(|record| {
            let at = (record % window) as usize * features;
            &ring[at..at + features]
        });
        view.write(records, memory.floats_of(&self.places.members[member].average), &mut out[from..]);
    }

    /// Inputs of network `member`.
    pub(crate) fn inputs(&self, member: usize) -> usize {
        self.members[member].network.inputs()
    }

    /// An empty tile for what network `member` does.
    pub(crate) fn tile(&self, member: usize) -> Tile {
        let last = member + 1 == self.members.len();
        Tile::new(&self.kernels[member].network, last.then_some(&self.references))
    }

    /// Reconstructions and residuals of the inputs in the tile.
    pub(crate) fn reconstruct(&self, member: usize, tile: &mut Tile) {
        tile.reconstruct(&self.kernels[member].network);
    }

    /// What the first network, which ranks, compresses an input of its own to (finite).
    pub(crate) fn code(&self, input: &[f32]) -> Vec<f32> {
        self.members[0].network.encode(ndarray::aview1(input).insert_axis(ndarray::Axis(0))).into_iter().collect()
    }

    /// Where such a code lies on the map of held-out records, in standard deviations from its middle.
    pub(crate) fn place(&self, code: &[f32]) -> [f32; 2] {
        self.known.plane.place(code)
    }

    /// Whether network `member` has a slow average of its residuals.
    pub(crate) fn is_followed(&self, member: usize) -> bool {
        self.members[member].slow.is_some()
    }

    /// Of every input of the last network in the tile, which is reconstructed: shows `each` its row, how far its newest record lies from the records that
    /// are remembered, and a function that adds what each feature has to do with that to its parts.
    pub(crate) fn near(&self, tile: &mut Tile, mut each: impl FnMut(usize, NearDistances, &dyn Fn(&mut [f32]))) {
        let of = &self.known.neighbours;
        tile.near((&of.references, &self.references), |row, record, partial, room| {
            let near = Near::new(&of.references, record, partial, room);
            each(row, near.distances, &|parts| {
                let [nearest, grouped] = of.levels(near.distances);
                near.contributions(grouped > nearest, parts);
            });
        });
    }

    /// Whether network `member` takes part in the rank.
    pub(crate) fn ranks(&self, member: usize) -> bool {
        self.members[member].weight > 0.0
    }

    /// Whitens the residuals in the tile; or those that are slow averages.
    pub(crate) fn whiten(&self, member: usize, slow: bool, tile: &mut Tile) {
        let (member, kernels) = (&self.members[member], &self.kernels[member]);
        match &member.slow {
            Some(Measured { residuals, .. }) if slow => tile.whiten(residuals, kernels.slow.as_ref()),
            _ => tile.whiten(&member.residuals, kernels.whitening.as_ref()),
        }
    }

    /// What the last network, which decides, takes the newest record of an input for, scaled: one value per feature, finite.
    pub(crate) fn expected(&self, input: &[f32], rebuilt: &[f32]) -> Vec<f32> {
        self.members.last().map(|member| member.expected(input, rebuilt)).unwrap_or_default()
    }

    /// How far each feature of the newest record is from what is rebuilt of it: see `Member::off`.
    pub(crate) fn off(&self, input: &[f32], rebuilt: &[f32]) -> Vec<f32> {
        self.members.last().map(|member| member.off(input, rebuilt)).unwrap_or_default()
    }

    /// The statistic that decides, from the residual of the last network. `parts`: one per feature.
    pub(crate) fn statistic(&self, residual: &[f32], input: &[f32], parts: &mut [f32]) -> Statistic {
        self.members.last().map(|member| member.statistic(residual, input, parts)).unwrap_or_default()
    }

    /// Takes the followed mean off the residual of network `member`, which is followed; `slow` gets the slow average of what is left.
    pub(crate) fn follow(
        &self,
        member: usize,
        memory: &mut Memory,
        residual: &mut [f32],
        input: &[f32],
        slow: &mut [f32],
    ) {
        let places = &self.places.members[member];
        let (mean, average) = (places.mean.start, places.slow.start);
        self.members[member].follow(memory.all_mut(), mean, average, residual, input);
        slow.copy_from_slice(memory.floats_of(&places.slow));
    }

    /// A series begins anew: forgets what its residuals were followed to ...
    pub(crate) fn restart_residuals(&self, memory: &mut Memory) {
        for places in &self.places.members {
            memory.floats_of_mut(&places.mean).fill(0.0);
            memory.floats_of_mut(&places.slow).fill(0.0);
        }
    }

    /// ... and how strange its records were.
    pub(crate) fn restart_levels(&self, memory: &mut Memory) {
        memory.floats_of_mut(&self.places.blame).fill(0.0);
        let new = self.known.neighbours.nearest.ordinary();
        for (level, member) in memory.levels_mut().iter_mut().zip(&self.members) {
            *level = member.first_level(new);
        }
        memory.watch = match &self.deciding {
            Deciding::Laws(laws) => decision::Watch::start(laws),
            Deciding::Tail { .. } => decision::Watch::default(),
        };
    }

    /// Of a record without an order the level of each distance: of the residual, from the nearest reference, from those of groups.
    fn levels(&self, distance: f64, near: NearDistances) -> [f64; 3] {
        let [nearest, grouped] = self.known.neighbours.levels(near);
        [self.members[0].distance.level(distance), nearest, grouped]
    }

    /// What each feature has to do with what is strangest of a record without an order, in medians of that distance. `parts`, one per feature: what
    /// `near` added; `squares` replaces that by those of the whitened residual.
    pub(crate) fn contributions(
        &self,
        distance: f64,
        near: NearDistances,
        parts: &mut [f32],
        squares: impl FnOnce(&mut [f32]),
    ) {
        let [residual, nearest, grouped] = self.levels(distance, near);
        let Neighbours { nearest: of_nearest, grouped: of_grouped, .. } = &self.known.neighbours;
        let ratio = if residual >= nearest.max(grouped) {
            squares(parts);
            self.members[0].distance.ratio(distance)
        } else if nearest >= grouped {
            of_nearest.ratio(near[0])
        } else {
            of_grouped.ratio(near[1])
        };
        let sum: f64 = parts.iter().copied().map(f64::from).sum();
        let each = if sum > 0.0 { ratio / sum } else { 0.0 };
        parts.iter_mut().for_each(|part| *part = (f64::from(*part) * each) as f32);
    }

    /// Judges a record, once and in order. `distances`: of each network that of its residual, and of the slow average. `near`: from the
    /// records that are remembered. `parts`: what each feature contributed to the statistic; afterwards, what it has contributed to what
    /// decides. `creep`: part of an incident's height by which its bar rises with this record.
    pub(crate) fn decide(
        &self,
        judge: &Judge,
        memory: &mut Memory,
        statistic: Statistic,
        (mut distances, near): (impl Iterator<Item = [f64; 2]>, NearDistances),
        parts: &mut [f32],
        creep: f64,
    ) -> Judged {
        match judge {
            Judge::Ordered(decision) => {
                let new = self.known.neighbours.nearest.level(near[0]);
                let (mut rank, mut weights) = (0.0, 0.0);
                for (at, (distances, member)) in distances.zip(&self.members).enumerate() {
                    if member.weight > 0.0 {
                        rank += member.weight * member.level(memory.level_mut(at), distances, new);
                        weights += member.weight;
                    }
                }
                let blame = memory.floats_of_mut(&self.places.blame);
                for (blame, part) in blame.iter_mut().zip(&mut *parts) {
                    *blame += decision::WEIGHTS[0] as f32 * (*part - *blame);
                    *part = *blame;
                }
                let decision::Judged { flagged, alone, acute } = decision.see(&mut memory.watch, statistic, creep);
                Judged { flagged, alone, score: score(flagged, rank / weights, acute) }
            }
            Judge::Unordered { threshold, levels, units } => {
                // There is one network.
                let [distance, _] = distances.next().unwrap_or_default();
                let of = self.levels(distance, near);
                let strangest = of.into_iter().fold(0.0, f64::max);
                let rank = of.iter().zip(units).map(|(level, unit)| level * unit).fold(0.0, f64::max);
                let recent = &mut memory.watch.recent;
                recent.see(recent::RECORDS, |i, _| strangest >= levels[i]);
                let admitted = recent.admitted();
                let lowest = RARITIES.iter().position(|r| *r == admitted).map_or(f64::INFINITY, |i| levels[i]);
                let alone = strangest / threshold.min(lowest);
                let flagged = alone >= 1.0;
                // How close it is to a level that comes and goes is no part of how strange a record is.
                let acute = if flagged { 1.0 } else { 0.0 };
                Judged { flagged, alone, score: score(flagged, rank / threshold, acute) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::score;

    #[test]
    fn one_is_the_threshold_and_rank_and_closeness_count_on_either_side() {
        // Ranks are logarithms.
        let steps = [0.0, 0.2, 0.5, 0.9, 1.0, 1.5, 4.0, 100.0];
        for flagged in [false, true] {
            for (rank, acute) in steps.into_iter().flat_map(|rank| [0.0, 0.4, 0.9].map(|acute| (rank, acute))) {
                let found = score(flagged, rank, acute);
                assert!(found >= 0.0 && (found >= 1.0) == flagged, "{flagged} {rank} {acute}: {found}");
                assert!(score(flagged, rank + 0.1, acute) > found && score(flagged, rank, acute + 0.1) > found);
            }
        }
        assert_eq!(score(true, 3.0, 1.0), 4.0);
    }
}
