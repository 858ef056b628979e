//! The training records laid out series by series: windows, and the held-out blocks.

use std::ops::Range;

use super::fleet::Fleet;
use super::scaler::Scaler;
use crate::record::Table;

/// How a series is cut into blocks of consecutive records, and which are held out. Blocks, not single records: a record's neighbours
/// would give it away.
#[derive(Clone, Copy)]
pub struct Cut {
    pub blocks: usize,
    /// One in so many is held out ...
    pub folds: usize,
    /// ... the first after so many.
    pub fold: usize,
    /// So many next to one that is held out are not trained on either.
    pub apart: usize,
}

/// For calibration: every fourth of forty.
const CALIBRATION: Cut = Cut { blocks: 40, folds: FOLDS, fold: 3, apart: 0 };
/// Ways to cut for calibration; each window whose record is far enough from the start of its series is held out in one.
pub const FOLDS: usize = 4;

/// Scaled records (NaN = missing), sorted by series, in log order within each. A window is `width * d` neighbouring
/// values: oldest record first, newest last.
pub struct SeriesRows {
    pub features: usize,
    values: Vec<f32>,
    series: Vec<Range<usize>>,
    /// Of each row, which one of the table it is, and whether it is left out.
    origin: Vec<usize>,
    left_out: Vec<bool>,
}

/// Windows by the row of their newest record.
pub struct Split {
    /// Windows that lie wholly in training blocks.
    pub training: Vec<usize>,
    pub held_out: Vec<HeldOut>,
}

impl Split {
    pub fn held_out_rows(&self) -> Vec<usize> {
        self.held_out.iter().map(|held| held.row).collect()
    }

    /// Trained on and held out.
    pub fn all_rows(&self) -> Vec<usize> {
        let mut rows = [self.training.clone(), self.held_out_rows()].concat();
        rows.sort_unstable();
        rows
    }
}

/// A window whose newest record lies in a held-out block.
pub struct HeldOut {
    pub row: usize,
    /// Counts the held-out blocks.
    pub block: usize,
    /// Counts the series.
    pub series: usize,
}

impl SeriesRows {
    pub fn new(table: &Table, scaler: &Scaler) -> Self {
        let mut order: Vec<usize> = (0..table.rows()).collect();
        order.sort_by_key(|&i| table.series[i]); // stable: log order stays
        let mut series: Vec<Range<usize>> = Vec::new();
        for (to, pair) in order.chunk_by(|&a, &b| table.series[a] == table.series[b]).scan(0, |end, rows| {
            *end += rows.len();
            Some((*end, rows.len()))
        }) {
            series.push(to - pair..to);
        }
        let features = table.schema.len();
        let (values, left_out) = (vec![0.0; order.len() * features], vec![false; order.len()]);
        let mut rows = Self { features, values, series, origin: order, left_out };
        rows.scale(table, scaler, None);
        rows
    }

    fn scale(&mut self, table: &Table, scaler: &Scaler, fleet: Option<&Fleet>) {
        for range in &self.series {
            let own = range.clone().next().and_then(|row| fleet?.known(table.name_of(self.origin[row])));
            for row in range.clone() {
                let out = &mut self.values[row * self.features..][..self.features];
                scaler.scale_training(table.row(self.origin[row]), own.unwrap_or_default(), out);
            }
        }
    }

    /// Where series differ much, each gets a mean and scale of its own. Those that are scaled are by the scaler.
    pub fn set_apart(&mut self, table: &Table, scaler: &Scaler) -> Option<Fleet> {
        let first = |series: usize| self.origin[self.series[series].start];
        let fleet = Fleet::fit(self, |series| table.name_of(first(series)).to_owned())?;
        self.scale(table, scaler, Some(&fleet));
        Some(fleet)
    }

    /// Values of a feature in a series, without records that are left out.
    pub fn kept(&self, series: usize, feature: usize) -> impl Iterator<Item = f32> + Clone {
        let rows = self.series[series].clone().filter(|row| !self.left_out[*row]);
        rows.map(move |row| self.values[row * self.features + feature])
    }

    /// Leaves records out (by row): no window has them in it, and all are scaled anew by the others.
    pub fn leave_out(&mut self, left_out: Vec<bool>, table: &Table) -> Scaler {
        self.left_out = left_out;
        let kept: Vec<usize> =
            self.origin.iter().zip(&self.left_out).filter(|(_, out)| !**out).map(|(&i, _)| i).collect();
        let scaler = Scaler::of(table, &kept);
        self.scale(table, &scaler, None);
        scaler
    }

    /// By row.
    pub fn which_are_left_out(&self) -> &[bool] {
        &self.left_out
    }

    pub fn is_left_out(&self, row: usize) -> bool {
        self.left_out[row]
    }

    pub fn left_out(&self) -> usize {
        self.left_out.iter().filter(|out| **out).count()
    }

    pub fn rows(&self) -> usize {
        self.values.len() / self.features
    }

    /// Row ranges, one per series.
    pub fn series(&self) -> &[Range<usize>] {
        &self.series
    }

    /// The last `width` records up to `row`, which must belong to one series.
    pub fn window(&self, row: usize, width: usize) -> &[f32] {
        &self.values[(row + 1 - width) * self.features..(row + 1) * self.features]
    }

    /// Cuts each series into blocks (of at least two windows' length, if windows are longer than one record). The count goes on over the series, so that many short series are split as well as one long one.
    pub fn split(&self, width: usize) -> Split {
        self.fold(width, 0)
    }

    /// The same with the next so many blocks held out, below `FOLDS`.
    pub fn fold(&self, width: usize, after: usize) -> Split {
        self.cut(width, Cut { fold: (CALIBRATION.fold + after) % FOLDS, ..CALIBRATION })
    }

    /// The same, cut otherwise.
    pub fn cut(&self, width: usize, cut: Cut) -> Split {
        let mut split = Split { training: Vec::new(), held_out: Vec::new() };
        let mut block = 0;
        for (series, range) in self.series.iter().enumerate() {
            let shortest = if width > 1 { 2 * width } else { 1 };
            let length = (range.len() / cut.blocks).max(shortest).min(range.len() / cut.folds).max(1);
            let (mut run, mut training_run) = (0, 0);
            for (i, row) in range.clone().enumerate() {
                let at = block + i / length;
                if self.left_out[row] {
                    (run, training_run) = (0, 0);
                    continue;
                }
                let after = (at + cut.folds - cut.fold) % cut.folds;
                let held_out = after == 0;
                run += 1;
                training_run = if after.min(cut.folds - after) <= cut.apart { 0 } else { training_run + 1 };
                if training_run >= width {
                    split.training.push(row);
                } else if held_out && run >= width {
                    split.held_out.push(HeldOut { row, block: at / cut.folds, series });
                }
            }
            block += range.len().div_ceil(length);
        }
        split
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    fn rows(features: usize, values: Vec<f64>) -> SeriesRows {
        let table = table(features, values);
        SeriesRows::new(&table, &Scaler::fit(&table))
    }

    #[test]
    fn windows_hold_neighbours_of_one_series_oldest_first() {
        let mut mixed = table(1, vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        mixed.series = vec![0, 1, 0, 1, 0, 1];
        let rows = SeriesRows::new(&mixed, &Scaler { mean: vec![0.0], scale: vec![1.0] });
        assert_eq!(rows.series(), [0..3, 3..6]);
        assert_eq!(rows.window(2, 3), [1.0, 2.0, 3.0]);
        assert_eq!(rows.window(4, 2), [10.0, 20.0]);
    }

    #[test]
    fn no_window_has_what_is_left_out_and_the_scale_is_that_of_the_others() {
        let mut mixed = table(1, (0..800).map(|i| f64::from(i % 2) * 1e3 + f64::from(i / 2 % 7)).collect());
        mixed.series = (0..800).map(|i| i % 2).collect();
        mixed.values[2 * 100] = 1e6; // row 100 of the first series
        let mut rows = SeriesRows::new(&mixed, &Scaler::fit(&mixed));
        let whole = rows.split(3);
        let scaler = rows.leave_out((0..800).map(|row| (98..=100).contains(&row)).collect(), &mixed);
        assert_eq!(rows.left_out(), 3);
        let kept: Vec<f64> =
            mixed.values.iter().enumerate().filter(|(i, _)| ![196, 198, 200].contains(i)).map(|(_, v)| *v).collect();
        let expected = Scaler::fit(&table(1, kept));
        assert!((scaler.scale[0] - expected.scale[0]).abs() < 1e-9 && (scaler.mean[0] - expected.mean[0]).abs() < 1e-9);
        assert!((rows.window(300, 1)[0] - ((6.0 - scaler.mean[0]) / scaler.scale[0]) as f32).abs() < 1e-6);
        let split = rows.split(3);
        let touched = |row: &usize| (98..=102).contains(row);
        let expected: Vec<usize> = whole.training.iter().copied().filter(|row| !touched(row)).collect();
        assert_eq!(split.training, expected);
        let held = |split: &Split| split.held_out.iter().map(|h| (h.row, h.block, h.series)).collect::<Vec<_>>();
        let expected: Vec<_> = held(&whole).into_iter().filter(|(row, ..)| !touched(row)).collect();
        assert_eq!(held(&split), expected);
    }

    #[test]
    fn folds_hold_every_window_out_once_and_keep_their_distance() {
        let rows = rows(1, (0..403).map(f64::from).collect());
        let mut all = Vec::new();
        for fold in 0..5 {
            let split = rows.cut(3, Cut { blocks: 20, folds: 5, fold, apart: 1 });
            let held: Vec<usize> = split.held_out.iter().map(|h| h.row).collect();
            assert!(split.training.len() > 130, "{}", split.training.len());
            for &row in &split.training {
                assert!(held.iter().all(|h| h.abs_diff(row) > 20), "window of row {row}");
            }
            all.extend(held);
        }
        all.sort_unstable();
        assert_eq!(all, (2..403).collect::<Vec<_>>());
    }

    #[test]
    fn a_quarter_is_held_out_in_blocks() {
        let rows = rows(1, (0..400).map(f64::from).collect());
        let split = rows.split(1);
        assert_eq!((split.training.len(), split.held_out.len()), (300, 100));
        let first: Vec<usize> = split.held_out.iter().take(12).map(|h| h.row).collect();
        assert_eq!(first, [30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 70, 71]);
        assert_eq!(split.held_out.last().unwrap().block, 9);
    }

    #[test]
    fn training_windows_never_reach_into_held_out_blocks() {
        let rows = rows(1, (0..400).map(f64::from).collect());
        let split = rows.split(5);
        let held: Vec<usize> = split.held_out.iter().map(|h| h.row).collect();
        assert!(!held.is_empty());
        for &row in &split.training {
            assert!((row - 4..=row).all(|r| !held.contains(&r)), "window of row {row}");
        }
    }

    #[test]
    fn many_short_series_are_split_too() {
        let mut short = table(1, (0..300).map(f64::from).collect());
        short.series = (0..300).map(|i| i / 3).collect();
        let split = SeriesRows::new(&short, &Scaler::fit(&short)).split(1);
        assert_eq!((split.training.len(), split.held_out.len()), (225, 75));
    }
}
