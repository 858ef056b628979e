//! The table `[model]` of the configuration: what a user may say about the network and its training.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest input: window x features. 256 of them are worked on at a time.
pub const INPUTS_MAX: usize = 65_536;
/// Longest window, in records.
pub const WINDOW_MAX: usize = 1024;
/// Widest hidden layer or code.
pub const WIDTH_MAX: usize = 4096;

/// Network and training. Everything has a default that needs no thought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// The last n records of a series are one input of the network that decides. Auto: by the profile, see docs/detection.md.
    pub window: Auto,
    /// Width of the code. Auto: from the explained variance of a principal component analysis. A network that only decides has at most 16.
    pub bottleneck: Auto,
    /// Width of the layers between input and code, and between code and output. Auto: the input's, within 16 to 128.
    /// A network that only decides has at most 32.
    pub hidden: Auto,
    /// Between input and code, and between code and output; code and output are linear.
    pub activation: Activation,
    /// Standard deviation of the noise added to the scaled inputs in training; 0 = none.
    pub denoise: f64,
    /// Weight of the L1 penalty on the code in training; 0 = none.
    pub sparsity: f64,
    /// Whether a sensor may be scaled by series.
    pub scale: Scaling,
    /// Optimiser steps.
    pub steps: usize,
    /// Inputs per step.
    pub batch: usize,
    /// Highest learning rate of the one-cycle schedule.
    pub learning_rate: f64,
    /// Decoupled weight decay (AdamW).
    pub weight_decay: f64,
    /// Of initial weights, batches and noise.
    pub seed: u64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            window: Auto::Auto,
            bottleneck: Auto::Auto,
            hidden: Auto::Auto,
            activation: Activation::Relu,
            denoise: 0.0,
            sparsity: 0.0,
            scale: Scaling::Auto,
            steps: 800,
            batch: 128,
            learning_rate: 3e-3,
            weight_decay: 1e-4,
            seed: 0,
        }
    }
}

impl ModelSettings {
    /// Every bound in one place; the configuration and the artifact reader ask too.
    ///
    /// # Errors
    /// The first setting outside its bounds.
    pub fn check(&self) -> Result<(), SettingError> {
        let whole = [
            ("window", self.window.fixed().unwrap_or(1), WINDOW_MAX),
            ("bottleneck", self.bottleneck.fixed().unwrap_or(1), WIDTH_MAX),
            ("hidden", self.hidden.fixed().unwrap_or(1), WIDTH_MAX),
            ("steps", self.steps, 10_000_000),
            ("batch", self.batch, 65_536),
        ];
        for (name, value, max) in whole {
            if !(1..=max).contains(&value) {
                return Err(SettingError { name, value: value.to_string(), expected: format!("1 to {max}") });
            }
        }
        let real = [
            ("denoise", self.denoise, 0.0, 10.0),
            ("sparsity", self.sparsity, 0.0, 10.0),
            ("learning_rate", self.learning_rate, 1e-8, 1.0),
            ("weight_decay", self.weight_decay, 0.0, 1.0),
        ];
        for (name, value, min, max) in real {
            if !(min..=max).contains(&value) {
                return Err(SettingError { name, value: value.to_string(), expected: format!("{min} to {max}") });
            }
        }
        Ok(())
    }
}

/// A setting outside its bounds.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("use model.{name} = {value}: expected {expected}")]
pub struct SettingError {
    pub name: &'static str,
    pub value: String,
    pub expected: String,
}

/// A number, or "auto": learned from the training data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<T = usize> {
    Auto,
    Fixed(T),
}

impl<T: Copy> Auto<T> {
    pub fn fixed(&self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Fixed(n) => Some(*n),
        }
    }
}

impl FromStr for Auto {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Fixed).map_err(|_| format!("expected \"auto\" or a whole number, got {text:?}"))
    }
}

impl fmt::Display for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(n) => n.fmt(f),
        }
    }
}

impl Serialize for Auto {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Fixed(n) => to.serialize_u64(*n as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Auto {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AutoVisitor)
    }
}

/// Takes numbers, and text as well: what comes from the environment is always text.
struct AutoVisitor;

impl Visitor<'_> for AutoVisitor {
    type Value = Auto;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\" or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Auto, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Auto, E> {
        usize::try_from(n).map(Auto::Fixed).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Auto, E> {
        usize::try_from(n).map(Auto::Fixed).map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
    }
}

/// What mean and scale a sensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Those of its series, where series differ much.
    Auto,
    /// The same for all series.
    Common,
}

impl FromStr for Scaling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "common" => Ok(Self::Common),
            _ => Err(format!("expected \"auto\" or \"common\", got {text:?}")),
        }
    }
}

/// What follows the first and the third layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    Relu,
    Tanh,
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "relu" => Ok(Self::Relu),
            "tanh" => Ok(Self::Tanh),
            _ => Err(format!("expected relu or tanh, got {text:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_bounds_and_round_trip() {
        let settings = ModelSettings::default();
        settings.check().unwrap();
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<ModelSettings>(&text).unwrap(), settings);
        assert_eq!(serde_json::from_str::<ModelSettings>("{}").unwrap(), settings);
    }

    #[test]
    fn auto_is_read_from_numbers_and_text() {
        for (text, expect) in [
            (r#""auto""#, Some(Auto::Auto)),
            ("12", Some(Auto::Fixed(12))),
            (r#""12""#, Some(Auto::Fixed(12))),
            ("-1", None),
            (r#""automatic""#, None),
            ("1.5", None),
        ] {
            assert_eq!(serde_json::from_str::<Auto>(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn settings_outside_their_bounds_are_refused_by_name() {
        #[track_caller]
        fn check(change: impl Fn(&mut ModelSettings), name: &str) {
            let mut settings = ModelSettings::default();
            change(&mut settings);
            assert_eq!(settings.check().unwrap_err().name, name);
        }
        check(|s| s.window = Auto::Fixed(0), "window");
        check(|s| s.window = Auto::Fixed(WINDOW_MAX + 1), "window");
        check(|s| s.hidden = Auto::Fixed(WIDTH_MAX + 1), "hidden");
        check(|s| s.steps = 0, "steps");
        check(|s| s.batch = 0, "batch");
        check(|s| s.denoise = f64::NAN, "denoise");
        check(|s| s.sparsity = -1.0, "sparsity");
        check(|s| s.learning_rate = 0.0, "learning_rate");
        check(|s| s.weight_decay = f64::INFINITY, "weight_decay");
    }
}
