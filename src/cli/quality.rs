//! How well scores agree with labels. ROC-AUC and F1 are smartcore's; it has no average precision.

use smartcore::metrics::{f1, roc_auc_score};

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
}

/// `labels`, `scores` (finite) and `flags` of the same rows.
pub fn quality(labels: &[bool], scores: &[f64], flags: &[bool]) -> Quality {
    let anomalies = labels.iter().filter(|l| **l).count();
    if anomalies == 0 || anomalies == labels.len() {
        return Quality { roc_auc: f64::NAN, average_precision: f64::NAN, f1: f64::NAN, best_f1: f64::NAN };
    }
    let number = |values: &[bool]| values.iter().map(|v| f64::from(u8::from(*v))).collect::<Vec<f64>>();
    let hit = labels.iter().zip(flags).any(|(l, f)| *l && *f);
    let (average_precision, best_f1) = precision_recall(labels, scores, anomalies);
    Quality {
        roc_auc: roc_auc_score(&number(labels), &scores.to_vec()),
        average_precision,
        // Without a hit, precision and recall are 0 and their ratio is undefined.
        f1: if hit { f1(&number(labels), &number(flags), 1.0) } else { 0.0 },
        best_f1,
    }
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
    fn perfect_and_hopeless_scores() {
        let labels = [false, false, true, true];
        let perfect = quality(&labels, &[0.1, 0.2, 0.8, 0.9], &labels);
        assert_eq!(perfect, Quality { roc_auc: 1.0, average_precision: 1.0, f1: 1.0, best_f1: 1.0 });
        let none = quality(&labels, &[0.0; 4], &[false; 4]);
        assert_eq!((none.roc_auc, none.average_precision, none.f1), (0.5, 0.5, 0.0));
        assert!(quality(&[false; 3], &[0.0; 3], &[false; 3]).roc_auc.is_nan());
    }
}
