//! The one number a user must choose: how many false alarms are acceptable.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// False alarms an operator accepts, as "1 per 10000 records": incidents, or flagged records where they have no order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AlarmBudget {
    alarms: u64,
    records: u64,
}

impl AlarmBudget {
    /// What training records are judged by, whatever an operator accepts later: few of them may be left out without need.
    pub(super) const OF_TRAINING: Self = Self { alarms: 1, records: 10_000 };

    /// Alarms per record, between 0 and 1, both excluded.
    pub fn rate(&self) -> f64 {
        self.alarms as f64 / self.records as f64
    }
}

impl Default for AlarmBudget {
    fn default() -> Self {
        Self { alarms: 3, records: 10_000 }
    }
}

/// A text that is no alarm budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "read alarm budget {0:?}: expected \"N per M records\" with whole numbers 0 < N < M, for example \"1 per 10000 records\""
)]
pub struct AlarmBudgetError(String);

impl FromStr for AlarmBudget {
    type Err = AlarmBudgetError;

    fn from_str(text: &str) -> Result<Self, AlarmBudgetError> {
        let error = || AlarmBudgetError(text.to_owned());
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[alarms, "per", records, "record" | "records"] = words.as_slice() else { return Err(error()) };
        let alarms: u64 = alarms.parse().map_err(|_| error())?;
        let records: u64 = records.parse().map_err(|_| error())?;
        if 0 < alarms && alarms < records { Ok(Self { alarms, records }) } else { Err(error()) }
    }
}

impl fmt::Display for AlarmBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {} records", self.alarms, self.records)
    }
}

impl TryFrom<String> for AlarmBudget {
    type Error = AlarmBudgetError;

    fn try_from(text: String) -> Result<Self, AlarmBudgetError> {
        text.parse()
    }
}

impl From<AlarmBudget> for String {
    fn from(budget: AlarmBudget) -> Self {
        budget.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_written() {
        for (text, rate) in [("1 per 10000 records", 1e-4), ("3 per 4 records", 0.75), ("1  per 2   record", 0.5)] {
            let budget: AlarmBudget = text.parse().unwrap();
            assert_eq!(budget.rate(), rate, "{text}");
            assert_eq!(budget.to_string().parse(), Ok(budget));
            let json = serde_json::to_string(&budget).unwrap();
            assert_eq!(serde_json::from_str::<AlarmBudget>(&json).unwrap(), budget);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let too_many = format!("1 per {}0 records", u64::MAX);
        for text in ["", "1", "0 per 10 records", "10 per 10 records", "1 per 0 records", "-1 per 5 records", &too_many]
        {
            assert!(text.parse::<AlarmBudget>().is_err(), "{text}");
        }
        assert!("1.5 per 10 records".parse::<AlarmBudget>().is_err());
        assert!("1 per 10 rows".parse::<AlarmBudget>().is_err());
    }
}
