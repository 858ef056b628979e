//! How well scores agree with labels. ROC-AUC and F1 are smartcore's; it has no average precision.

use std::fmt;
use std::ops::Range;

use smartcore::metrics::{f1, roc_auc_score};

use crate::model::AlarmBudget;

/// Agreement over all judged rows. NaN where there are not both normal and anomalous rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    pub roc_auc: f64,
    /// Area under the precision-recall curve, as steps.
    pub average_precision: f64,
    /// F1 of the flags.
    pub f1: f64,
    /// F1 at the best threshold in hindsight.
    pub best_f1: f64,
    /// Share of the normal rows that are flagged.
    pub false_rate: f64,
    /// Number of the normal rows, and of the flagged ones among them.
    pub normal: usize,
    pub false_flags: usize,
    pub incidents: Incidents,
}

/// Agreement of incidents: flagged rows at most `MERGE_ROWS` apart. One is true if it begins inside a labelled segment or within that
/// many rows of one; such a segment is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Incidents {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Number of incidents that are not true.
    pub false_ones: usize,
}

/// How often there were alarms, beside how often there may be false ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alarms {
    pub accepted: AlarmBudget,
    /// An alarm is an incident; otherwise, where rows have no order, a flagged row.
    pub incidents: bool,
    /// Only the false ones, and only normal rows; otherwise all.
    pub labelled: bool,
    pub count: usize,
    pub rows: usize,
}

impl fmt::Display for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, count, rows, .. } = self;
        let what = if self.incidents { "incidents" } else { "rows" };
        let may = accepted.rate() * *rows as f64;
        match self.labelled {
            true => write!(f, "false alarms: {count} {what} in {rows} normal rows")?,
            false => write!(f, "alarms, true or false: {count} {what} in {rows} rows")?,
        }
        write!(f, "; false ones accepted: {may:.1} ({accepted})")
    }
}

/// Rows between flagged rows that are one incident.
const MERGE_ROWS: usize = 10;

impl Quality {
    /// All figures with their names.
    pub fn figures(&self) -> [(&'static str, f64); 9] {
        let Incidents { precision, recall, f1, .. } = self.incidents;
        [
            ("ROC-AUC", self.roc_auc),
            ("average precision", self.average_precision),
            ("F1 as flagged", self.f1),
            ("F1, best threshold", self.best_f1),
            ("share of that", (self.f1 / self.best_f1).min(1.0)),
            ("normal rows flagged", self.false_rate),
            ("incident precision", precision),
            ("incident recall", recall),
            ("incident F1", f1),
        ]
    }
}

/// ROC-AUC. None where there are not both normal and anomalous rows.
pub fn auc(labels: &[bool], scores: &[f64]) -> Option<f64> {
    let both = labels.contains(&true) && labels.contains(&false);
    both.then(|| roc_auc_score(&numbers(labels), &scores.to_vec()))
}

fn numbers(values: &[bool]) -> Vec<f64> {
    values.iter().map(|v| f64::from(u8::from(*v))).collect()
}

/// `labels`, `scores` (finite) and `flags` of the same rows.
pub fn quality(labels: &[bool], scores: &[f64], flags: &[bool]) -> Quality {
    let anomalies = labels.iter().filter(|l| **l).count();
    if anomalies == 0 || anomalies == labels.len() {
        let incidents = Incidents { precision: f64::NAN, recall: f64::NAN, f1: f64::NAN, ..incidents(labels, flags) };
        let (roc_auc, average_precision, f1, best_f1, false_rate) = (f64::NAN, f64::NAN, f64::NAN, f64::NAN, f64::NAN);
        let (normal, false_flags) = (labels.len() - anomalies, count_false(labels, flags));
        return Quality { normal, false_flags, roc_auc, average_precision, f1, best_f1, false_rate, incidents };
    }
    let hit = labels.iter().zip(flags).any(|(l, f)| *l && *f);
    let (normal, false_flags) = (labels.len() - anomalies, count_false(labels, flags));
    let (average_precision, best_f1) = precision_recall(labels, scores, anomalies);
    Quality {
        roc_auc: auc(labels, scores).unwrap_or(f64::NAN),
        average_precision,
        // Without a hit, precision and recall are 0 and their ratio is undefined.
        f1: if hit { f1(&numbers(labels), &numbers(flags), 1.0) } else { 0.0 },
        best_f1,
        false_rate: false_flags as f64 / normal as f64,
        normal,
        false_flags,
        incidents: incidents(labels, flags),
    }
}

fn count_false(labels: &[bool], flags: &[bool]) -> usize {
    labels.iter().zip(flags).filter(|(l, f)| !**l && **f).count()
}

fn incidents(labels: &[bool], flags: &[bool]) -> Incidents {
    let (truth, found) = (segments(labels, 0), segments(flags, MERGE_ROWS));
    let within = |row: usize, of: &Range<usize>| row + MERGE_ROWS >= of.start && row < of.end + MERGE_ROWS;
    let is_true = |f: &Range<usize>| truth.iter().any(|t| within(f.start, t));
    let is_found = |t: &Range<usize>| found.iter().any(|f| within(f.start, t));
    let share = |hits: usize, of: usize| if of > 0 { hits as f64 / of as f64 } else { 0.0 };
    let true_ones = found.iter().filter(|f| is_true(f)).count();
    let precision = share(true_ones, found.len());
    let recall = share(truth.iter().filter(|t| is_found(t)).count(), truth.len());
    let f1 = 2.0 * precision * recall / (precision + recall).max(1e-12);
    Incidents { precision, recall, f1, false_ones: found.len() - true_ones }
}

/// Runs of true; runs separated by at most `merge` rows are one.
fn segments(on: &[bool], merge: usize) -> Vec<Range<usize>> {
    let rows: Vec<usize> = (0..on.len()).filter(|&i| on[i]).collect();
    let runs = rows.chunk_by(|a, b| b - a <= merge + 1);
    runs.map(|run| run[0]..run[run.len() - 1] + 1).collect()
}

/// Average precision and best F1: rows from the highest score down, rows of the same score together.
fn precision_recall(labels: &[bool], scores: &[f64], anomalies: usize) -> (f64, f64) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut taken, mut hits, mut average, mut best) = (0.0, 0.0, 0.0, 0.0f64);
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let new_hits = tie.iter().filter(|&&i| labels[i]).count() as f64;
        taken += tie.len() as f64;
        hits += new_hits;
        average += new_hits / anomalies as f64 * hits / taken;
        best = best.max(2.0 * hits / (taken + anomalies as f64));
    }
    (average, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from scikit-learn.
    #[test]
    fn figures_agree_with_known_values() {
        let labels = [false, true, false, true, true, false, false, true];
        let scores = [0.1, 0.4, 0.35, 0.8, 0.35, 0.2, 0.9, 0.35];
        let flags = scores.map(|s| s >= 0.4);
        let got = quality(&labels, &scores, &flags);
        assert!((got.roc_auc - 0.6875).abs() < 1e-12, "{got:?}");
        assert!((got.average_precision - 0.625).abs() < 1e-12, "{got:?}");
        assert!((got.f1 - 4.0 / 7.0).abs() < 1e-12, "{got:?}");
        assert!((got.best_f1 - 0.8).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn alarms_are_told_beside_those_that_are_accepted() {
        let alarms =
            Alarms { accepted: AlarmBudget::default(), incidents: true, labelled: true, count: 3, rows: 12_000 };
        let told = "false alarms: 3 incidents in 12000 normal rows; false ones accepted: 3.6 (3 per 10000 records)";
        assert_eq!(alarms.to_string(), told);
        let told = "alarms, true or false: 3 rows in 12000 rows; false ones accepted: 3.6 (3 per 10000 records)";
        assert_eq!(Alarms { incidents: false, labelled: false, ..alarms }.to_string(), told);
    }

    #[test]
    fn perfect_and_hopeless_scores() {
        let labels = [false, false, true, true];
        let perfect = quality(&labels, &[0.1, 0.2, 0.8, 0.9], &labels);
        assert!(
            perfect.figures()[..5].iter().all(|(_, value)| *value == 1.0) && perfect.false_rate == 0.0,
            "{perfect:?}"
        );
        assert_eq!(perfect.incidents, Incidents { precision: 1.0, recall: 1.0, f1: 1.0, false_ones: 0 });
        let none = quality(&labels, &[0.0; 4], &[false; 4]);
        assert_eq!((none.roc_auc, none.average_precision, none.f1), (0.5, 0.5, 0.0));
        assert!(quality(&[false; 3], &[0.0; 3], &[false; 3]).roc_auc.is_nan());
    }

    #[test]
    fn an_incident_is_true_where_it_begins() {
        let rows = |spans: &[Range<usize>]| (0..200).map(|i| spans.iter().any(|s| s.contains(&i))).collect::<Vec<_>>();
        let labels = rows(&[50..60, 100..120, 150..151]);
        // One false; one that begins 10 rows early and goes on; two that are 10 rows apart are one, in time for the second.
        let got = quality(&labels, &[0.0; 200], &rows(&[5..8, 40..52, 109..111, 121..122])).incidents;
        assert_eq!((got.precision, got.recall, got.false_ones), (2.0 / 3.0, 2.0 / 3.0, 1));
        assert!((got.f1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(
            quality(&labels, &[0.0; 200], &[true; 200]).incidents.precision,
            0.0,
            "all the time is one, and late"
        );
    }
}
