//! What a model says of itself.

use super::decision::Decision;
use super::member::Member;
use super::settings::Activation;
use super::{
    AlarmBudget, Deciding, Drift, Model, ModelSettings, Profile, RowCounts, Seen, TrainingSource, decision, fleet,
    residual,
};
use crate::record::Schema;

/// What a model says of one sensor.
#[derive(Clone, Debug)]
pub struct SensorFacts<'a> {
    pub name: &'a str,
    /// Least and largest scaled value that was trained on; both 0 where there was none.
    pub range: (f32, f32),
    /// Share of the training records in which it is missing.
    pub missing: f64,
    /// Whether it has so few values there that all count as missing.
    pub unknown: bool,
    /// Of each network, the share of the sensor's variance over held-out records that survives being compressed and rebuilt.
    pub kept: Vec<f32>,
    /// Standard deviation of the sensor's noise, scaled, as the network that decides sees it.
    pub noise: f32,
}

impl Model {
    /// First 16 hexadecimal digits of the artifact's SHA-256.
    pub fn fingerprint(&self) -> &str {
        &self.checksum[..16]
    }

    /// All 64 hexadecimal digits.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn source(&self) -> &TrainingSource {
        &self.source
    }

    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    pub fn rows(&self) -> RowCounts {
        self.rows
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Records that a series must have; until then it is warming.
    pub fn window(&self) -> usize {
        self.places.ring.len() / self.schema.len()
    }

    /// Whether the training records had an order in time; only then are levels smoothed and followed.
    pub fn ordered(&self) -> bool {
        matches!(self.deciding, Deciding::Laws(_))
    }

    /// Of each network, the widths of its input and of what each layer gives.
    pub fn layer_sizes(&self) -> Vec<Vec<usize>> {
        self.members.iter().map(|member| member.network.sizes()).collect()
    }

    /// Of each network, the width of its code.
    pub fn code_widths(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.network.code()).collect()
    }

    /// Of each network, what follows each of its layers; none: it is linear.
    pub fn activations(&self) -> Vec<&[Option<Activation>]> {
        self.members.iter().map(|member| member.network.activations.as_slice()).collect()
    }

    /// Of each network, what it is for.
    pub fn roles(&self) -> impl Iterator<Item = &'static str> {
        let last = self.members.len() - 1;
        self.members.iter().enumerate().map(move |(at, member)| match (member.weight > 0.0, at == last) {
            (true, true) => "ranks and decides",
            (true, false) => "ranks",
            (false, _) => "decides",
        })
    }

    /// Series that have means and scales of their own, and the records from which any other learns them; none if all have the common ones.
    pub fn scaled_apart(&self) -> Option<(usize, usize)> {
        self.known.fleet.as_ref().map(|fleet| (fleet.series.len(), fleet::LEARNING))
    }

    /// Multiply-adds for one record of a series.
    pub fn multiply_adds(&self) -> usize {
        let network = |sizes: Vec<usize>| sizes.windows(2).map(|pair| pair[0] * pair[1]).sum::<usize>();
        let whitenings = |member: &Member| {
            let square = |of: &residual::Residuals| of.whitening.as_ref().map_or(0, |matrix| matrix.len());
            square(&member.residuals) + member.slow.iter().map(|of| square(&of.residuals)).sum::<usize>()
        };
        let members = self.members.iter().map(|member| network(member.network.sizes()) + whitenings(member));
        members.sum::<usize>() + self.known.neighbours.references.len()
    }

    /// Numbers that a series is remembered by: f32 and f64.
    pub fn memory_sizes(&self) -> (usize, usize) {
        (self.places.len, self.members.len() + decision::Watch::NUMBERS)
    }

    /// The factor, at least 1, within which the alarm budget is met at first (one standard error): few records say little of what is rare.
    pub fn doubt(&self, budget: &AlarmBudget) -> f64 {
        let error = match &self.deciding {
            Deciding::Laws(laws) => Decision::new(*laws, budget, 0.0).doubt(self.rows.calibrating),
            Deciding::Tail { tail, .. } => tail.doubt(budget.rate(), self.rows.calibrating),
        };
        error.exp()
    }

    /// How what was seen differs from the training records, of each sensor, the farthest first; nothing where nothing was seen.
    pub fn drifts(&self, seen: &Seen) -> Vec<Drift> {
        self.known.reference.drifts(seen)
    }

    /// A scaled value of sensor `j` in its own unit; where series have scales of their own there is no one value.
    pub fn in_own_unit(&self, j: usize, scaled: f32) -> Option<f64> {
        self.known.fleet.is_none().then(|| self.known.scaler.unscale(j, &[], scaled))
    }

    /// What is known of each sensor, in the order of the schema.
    pub fn sensors(&self) -> impl Iterator<Item = SensorFacts<'_>> {
        self.schema().names().zip(&self.known.reference.sensors).enumerate().map(|(j, (name, sensor))| {
            let kept = self.members.iter().map(|member| member.kept[j]).collect();
            let noise = self.members.last().map_or(0.0, |member| member.noise[j].deviation);
            let unknown = self.known.scaler.is_unknown(j);
            SensorFacts { name, range: sensor.range(), missing: sensor.missing(), unknown, kept, noise }
        })
    }

    /// Names of those of which there were too few values, if any: "a, b"; of many, the first ones.
    pub fn unknown(&self) -> Option<String> {
        const NAMED: usize = 10;
        let names: Vec<&str> = self.sensors().filter(|sensor| sensor.unknown).map(|sensor| sensor.name).collect();
        let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
        (!names.is_empty()).then(|| names[..names.len().min(NAMED)].join(", ") + &more)
    }

    /// How many numbers the first network compresses to.
    pub fn code_width(&self) -> usize {
        self.members[0].network.code()
    }
}
