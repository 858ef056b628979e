//! How much is computed for a record: which networks look at it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::decision::Watch;
use super::view::View;

/// Which networks look at a record. What each profile costs and is worth is in docs/detection.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One network that sees single records: it ranks and decides.
    Fast,
    /// One that ranks, with a slow average beside the record, and a small one that decides.
    #[default]
    Balanced,
    /// More that rank.
    Thorough,
}

impl Profile {
    pub const ALL: [Profile; 3] = [Profile::Fast, Profile::Balanced, Profile::Thorough];

    /// Numbers that a series is remembered by, f32 and f64, if its records have an order; see [`super::Model::memory_sizes`].
    pub fn memory_sizes(self, features: usize, window: Option<usize>) -> (usize, usize) {
        let parts = parts(self, true, features, window);
        let followed = |part: &Part| if part.weight > 0.0 { 2 * part.view.inputs(features) } else { 0 };
        let own = |part: &Part| usize::from(part.view.context) * features + followed(part);
        let longest = parts.iter().map(|part| part.view.window).max().unwrap_or(1);
        ((longest + 1) * features + parts.iter().map(own).sum::<usize>(), parts.len() + Watch::NUMBERS)
    }

    pub fn name(self) -> &'static str {
        match self {
            Profile::Fast => "fast",
            Profile::Balanced => "balanced",
            Profile::Thorough => "thorough",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|profile| profile.name() == text);
        known.ok_or_else(|| format!("expected fast, balanced or thorough, got {text:?}"))
    }
}

/// A network of a model, before it is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub view: View,
    /// Of its score in the rank; 0: it only decides.
    pub weight: f64,
    /// Widest hidden layers, and code; settings may exceed them where it ranks.
    pub hidden_max: usize,
    pub code_max: usize,
    /// Added to the seed of the settings, so that networks do not err alike.
    pub seed: u64,
}

/// Records that the deciding network sees: a fault shows in several records, noise in one.
const DECIDING_WINDOW: usize = 5;
/// The same of a single feature; one value alone has no shape.
const SINGLE_FEATURE_WINDOW: usize = 10;
/// A record is in as many windows as they are long, and what is over would rank as high as what is new: of a single feature most of the rank
/// comes from a network that sees fewer records, which has the weight 1.
const SINGLE_FEATURE_RECENT: usize = 3;
/// Of those that see more, together.
const PAST_WEIGHT: f64 = 0.5;
/// Widest hidden layers of a network that ranks.
const RANKING_HIDDEN: usize = 128;
/// A network that decides needs little: with a wide code it would learn to copy faults too.
const DECIDING_HIDDEN: usize = 32;
const DECIDING_CODE: usize = 16;
/// Soft clip of the networks that rank.
const CLIP: f32 = 8.0;

/// The networks of a model; the last one decides. `window`: what the user wants for it.
pub fn parts(profile: Profile, ordered: bool, features: usize, window: Option<usize>) -> Vec<Part> {
    let view = |window: usize, context: bool, clip: f32| View { window, context, clip };
    let fixed = |view: View| View { window: window.unwrap_or(view.window), ..view };
    let ranking = |view: View, weight: f64, seed: u64| Part {
        view,
        weight,
        hidden_max: RANKING_HIDDEN,
        code_max: usize::MAX,
        seed,
    };
    let deciding = |window: usize| Part {
        view: fixed(view(window, false, 0.0)),
        weight: 0.0,
        hidden_max: DECIDING_HIDDEN,
        code_max: DECIDING_CODE,
        seed: 0,
    };
    if !ordered {
        return vec![ranking(fixed(view(1, false, 0.0)), 1.0, 0)];
    }
    if features == 1 {
        // It has no sensors beside it to be compared with: its own past takes their place.
        let past = |clip: f32, weight: f64, seed: u64| ranking(view(SINGLE_FEATURE_WINDOW, false, clip), weight, seed);
        let recent = ranking(view(SINGLE_FEATURE_RECENT, false, CLIP), 1.0, 3);
        let deciding = deciding(SINGLE_FEATURE_WINDOW);
        return match profile {
            Profile::Fast => vec![ranking(deciding.view, 1.0, 0)],
            Profile::Balanced => vec![past(CLIP, PAST_WEIGHT, 1), recent, deciding],
            Profile::Thorough => {
                vec![past(CLIP / 2.0, PAST_WEIGHT / 2.0, 1), past(CLIP, PAST_WEIGHT / 2.0, 2), recent, deciding]
            }
        };
    }
    let with_context = |clip: f32, seed: u64| ranking(view(1, true, clip), 1.0, seed);
    let deciding = deciding(DECIDING_WINDOW);
    match profile {
        Profile::Fast => vec![ranking(fixed(view(1, false, 0.0)), 1.0, 0)],
        Profile::Balanced => vec![with_context(CLIP, 1), deciding],
        Profile::Thorough => {
            vec![with_context(CLIP / 2.0, 1), with_context(CLIP, 2), ranking(view(1, false, 0.0), 0.5, 3), deciding]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_ranks_and_its_last_network_decides_on_records_alone() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
            for (ordered, features) in [(true, 1), (true, 5), (false, 1), (false, 5)] {
                for window in [None, Some(3)] {
                    let parts = parts(profile, ordered, features, window);
                    assert!(parts.iter().any(|part| part.weight > 0.0) && (ordered || parts.len() == 1), "{parts:?}");
                    let last = parts[parts.len() - 1].view;
                    assert!(!last.context && window.is_none_or(|window| last.window == window), "{parts:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_series_takes_is_known_before_there_is_a_model() {
        use super::super::testing::{noise, table};
        let mut before = 0.0;
        let values = noise(1, 1_200).into_iter().map(|v| {
            before = 0.9 * before + v;
            before
        });
        let table = table(3, values.collect());
        for (profile, window) in Profile::ALL.into_iter().flat_map(|profile| [(profile, None), (profile, Some(2))]) {
            let window_setting = window.map_or(super::super::Auto::Auto, super::super::Auto::Fixed);
            let settings = super::super::ModelSettings { steps: 1, window: window_setting, ..Default::default() };
            let source = super::super::TrainingSource::File { name: "test".to_owned(), rows: table.rows() };
            let go_on = &mut |_, _| std::ops::ControlFlow::Continue(());
            let model = super::super::Model::fit(&table, &settings, profile, source, go_on).unwrap();
            assert!(model.ordered());
            assert_eq!(model.memory_sizes(), profile.memory_sizes(3, window), "{profile}, window {window:?}");
        }
    }

    #[test]
    fn a_more_thorough_profile_remembers_more() {
        let floats = Profile::ALL.map(|profile| profile.memory_sizes(38, None).0);
        assert!(floats.is_sorted_by(|a, b| a < b), "{floats:?}");
    }
}
