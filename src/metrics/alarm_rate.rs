//! How often residua alarms, beside how often it may.

/// The rate is over the records of late in which the budget allows so many alarms.
const ALLOWED: f64 = 10.0;

/// Alarms per record, of late. True alarms are among them: without labels nobody knows which.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlarmRate {
    /// False alarms accepted per record, between 0 and 1.
    pub budget: f64,
    /// Alarms are incidents that open; without it, flagged records.
    pub incidents: bool,
    alarms: f64,
    records: f64,
}

impl AlarmRate {
    pub fn new(budget: f64, incidents: bool) -> Self {
        Self { budget, incidents, alarms: 0.0, records: 0.0 }
    }

    /// So many more records had so many alarms. Older ones count less and less.
    pub fn see(&mut self, records: u64, alarms: u64) {
        let kept = (-(records as f64) * self.budget / ALLOWED).exp();
        self.records = self.records * kept + records as f64;
        self.alarms = self.alarms * kept + alarms as f64;
    }

    /// Alarms per record; 0 before the first.
    pub fn rate(&self) -> f64 {
        self.alarms / self.records.max(1.0)
    }

    /// Records that the rate is over.
    pub fn records(&self) -> u64 {
        self.records as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_records_of_late() {
        let mut rate = AlarmRate::new(1e-3, true);
        assert_eq!((rate.rate(), rate.records()), (0.0, 0));
        rate.see(500, 1);
        assert_eq!((rate.rate(), rate.records()), (1.0 / 500.0, 500));
        // However the records are cut into batches.
        for size in [10u64, 100, 1_000] {
            let mut rate = AlarmRate::new(1e-3, true);
            (0..100_000 / size).for_each(|i| rate.see(size, u64::from(i * size % 1_000 == 0) * 2));
            assert!((rate.rate() / 2e-3 - 1.0).abs() < 0.1, "{rate:?}");
            assert!((9_000..=11_000).contains(&rate.records()), "{rate:?}");
            (0..100_000 / size).for_each(|_| rate.see(size, 0));
            assert!(rate.rate() < 2e-7, "{rate:?}");
        }
    }
}
