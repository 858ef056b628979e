//! Model settings as command-line options, and training with a progress bar.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;

use crate::model::{Activation, AlarmBudget, Auto, Model, ModelSettings, Profile, Scaling, TrainingSource};
use crate::record::{StandIn, Table};
use crate::service::all_cores;

/// The `[model]` settings that one tries out on files; the others keep their defaults.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ModelArgs {
    /// fast, balanced or thorough: how much is computed for a record
    #[arg(long, default_value_t)]
    pub profile: Profile,
    /// Of initial weights, batches and noise
    #[arg(long)]
    seed: Option<u64>,
    /// Records per input, or "auto"
    #[arg(long)]
    window: Option<Auto>,
    /// Width of the code, or "auto"
    #[arg(long)]
    bottleneck: Option<Auto>,
    /// Width of the hidden layers, or "auto"
    #[arg(long)]
    hidden: Option<Auto>,
    /// relu or tanh
    #[arg(long)]
    activation: Option<Activation>,
    /// Noise added to the scaled inputs in training, in standard deviations
    #[arg(long)]
    denoise: Option<f64>,
    /// Weight of the L1 penalty on the code
    #[arg(long)]
    sparsity: Option<f64>,
    /// auto or common: whether sensors are scaled by series where series differ much
    #[arg(long)]
    scale: Option<Scaling>,
    /// Highest learning rate
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Training steps
    #[arg(long)]
    steps: Option<usize>,
}

/// False alarms that are acceptable.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct AlarmArgs {
    /// False alarms you accept, as "N per M records"
    #[arg(long, default_value_t)]
    pub alarms: AlarmBudget,
}

impl ModelArgs {
    pub fn settings(&self) -> ModelSettings {
        let default = ModelSettings::default();
        ModelSettings {
            seed: self.seed.unwrap_or(default.seed),
            window: self.window.unwrap_or(default.window),
            bottleneck: self.bottleneck.unwrap_or(default.bottleneck),
            hidden: self.hidden.unwrap_or(default.hidden),
            activation: self.activation.unwrap_or(default.activation),
            denoise: self.denoise.unwrap_or(default.denoise),
            sparsity: self.sparsity.unwrap_or(default.sparsity),
            scale: self.scale.unwrap_or(default.scale),
            learning_rate: self.learning_rate.unwrap_or(default.learning_rate),
            steps: self.steps.unwrap_or(default.steps),
            ..default
        }
    }
}

/// What a model was learned from, and how far that goes. `records`: what they are called.
pub fn told(model: &Model, budget: &AlarmBudget, records: &str) -> String {
    let rows = model.rows();
    let left_out = match rows.left_out {
        0 => String::new(),
        n => format!(", without {n} that look like faults"),
    };
    let apart = match model.scaled_apart() {
        None => String::new(),
        Some((series, _)) => format!(", {series} series each on a scale of its own"),
    };
    let how = match model.source() {
        TrainingSource::Network { .. } => "calibrated on",
        TrainingSource::File { .. } | TrainingSource::Topic { .. } => "learned from",
    };
    let unknown = model.unknown().map_or(String::new(), |names| format!(", too few values to judge these by: {names}"));
    format!(
        "model {} {how} {} {records}{left_out}{apart}{unknown}; {}",
        model.fingerprint(),
        rows.all,
        trust(model, budget)
    )
}

/// How far what a model was learned from goes.
pub fn trust(model: &Model, budget: &AlarmBudget) -> String {
    format!("the budget of {budget} is met within a factor of {:.1} at first (standard error)", model.doubt(budget))
}

/// Of training steps.
pub fn training_bar() -> ProgressBar {
    ProgressBar::new(0).with_message("training").with_style(
        ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} steps, {eta} left")
            .unwrap_or(ProgressStyle::default_bar()),
    )
}

/// Trains with a progress bar on standard error, if that is a terminal.
pub fn learn(table: &Table, args: &ModelArgs, source: TrainingSource) -> Result<Model> {
    let settings = args.settings();
    for StandIn { feature, value, records } in table.stand_ins() {
        eprintln!(
            "{feature} is {value} in {records} rows, far from all others: if that means no value, say --missing {value}"
        );
    }
    let bar = training_bar();
    let model = Model::fit_with(&all_cores, table, &settings, args.profile, source, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(model?)
}
