//! What a network makes of the windows that were held out from its training: their residuals, and what those are measured by.

use ndarray::{Array2, ArrayView1, Axis, s};

use super::clean::Noise;
use super::copied::copied;
use super::decision::{self, Statistic};
use super::fit::FitError;
use super::kernel::{Kernel, Room};
use super::lanes::{self, LANES};
use super::member::{Measured, Member, OWN_SHARE, Term};
use super::network::Network;
use super::residual::{Residuals, moments};
use super::series::{FOLDS, HeldOut, Split};
use super::tile::{TILE, Tile};
use super::view::Inputs;

/// What a network makes of the held-out windows.
pub struct Held {
    /// Windows x inputs, NaN where missing.
    pub residuals: Array2<f32>,
    /// The record that each ends with.
    pub rows: Vec<usize>,
    /// Which held-out block, and which series, each window ends in.
    blocks: Vec<usize>,
    series: Vec<usize>,
    /// Whether a window is that of the next record of its series after the one before.
    follows: Vec<bool>,
    features: usize,
    /// Of each feature of the newest record.
    pub kept: Vec<f32>,
    pub noise: Vec<Noise>,
    /// As `Member::own`.
    pub own: Vec<f32>,
    /// Of the residuals, cross-fitted; of a network that ranks.
    pub distances: Vec<f64>,
}

impl Held {
    pub fn of(seen: &Inputs, split: &Split, network: &Network) -> Self {
        let mut residuals = Array2::zeros((split.held_out.len(), seen.width()));
        let (features, newest) = (seen.rows.features, (seen.view.window - 1) * seen.rows.features);
        let rows = split.held_out_rows();
        rebuilt(seen, &rows, network, None, |start, tile| {
            let mut out = residuals.slice_mut(s![start..start + tile.rows(), ..]);
            out.iter_mut().zip(tile.residuals()).for_each(|(to, r)| *to = *r);
            tile.missing().iter().for_each(|&at| out[at] = f32::NAN);
        });
        let (mut input, mut readings) = (vec![0.0; seen.width()], Array2::zeros((split.held_out.len(), features)));
        for (held, mut to) in split.held_out.iter().zip(readings.rows_mut()) {
            seen.write(held.row, &mut input);
            to.iter_mut().zip(&input[newest..]).for_each(|(to, x)| *to = *x);
        }
        let variance = |of: ArrayView1<f32>| moments(of.iter().copied()).2;
        let kept = (0..features).map(|j| {
            let (of, lost) = (variance(readings.column(j)), variance(residuals.column(newest + j)));
            // What does not move survives.
            if of > lost {
                (1.0 - lost / of) as f32
            } else if of == 0.0 {
                1.0
            } else {
                0.0
            }
        });
        let kept = kept.collect();
        let (blocks, series) = split.held_out.iter().map(|held| (held.block, held.series)).unzip();
        let before = std::iter::once(None).chain(split.held_out.iter().map(Some));
        let next = |(before, held): (Option<&HeldOut>, &HeldOut)| {
            before.is_some_and(|before| before.series == held.series && before.row + 1 == held.row)
        };
        let follows = before.zip(&split.held_out).map(next).collect();
        let noise = vec![Noise::default(); features];
        let own = own(seen, split, network);
        Self { residuals, rows, blocks, series, follows, features, kept, noise, own, distances: Vec::new() }
    }

    /// Takes in what other networks made of what they did not learn from. What is of one network is measured with the statistics of the others. For
    /// records without an order: which of them follow each other is not known any more.
    pub fn join(&mut self, others: &[Self]) {
        let parts: Vec<&Self> = std::iter::once(&*self).chain(others).collect();
        let mut places = Vec::new();
        for (part, of) in parts.iter().enumerate() {
            places.extend(of.rows.iter().enumerate().map(|(at, row)| (*row, part, at)));
        }
        places.sort_unstable();
        let mut residuals = Array2::zeros((places.len(), self.residuals.ncols()));
        for ((_, part, at), mut to) in places.iter().zip(residuals.rows_mut()) {
            to.assign(&parts[*part].residuals.row(*at));
        }
        let series = places.iter().map(|(_, part, at)| parts[*part].series[*at]).collect();
        let follows = vec![false; places.len()];
        let (rows, blocks) = places.into_iter().map(|(row, part, _)| (row, part)).unzip();
        (self.residuals, self.rows, self.blocks, self.series, self.follows) =
            (residuals, rows, blocks, series, follows);
    }

    /// Of a network that sees records as they are, as one that decides does: only by such are they cleaned.
    pub fn learn_noise(&mut self, seen: &Inputs, split: &Split, network: &Network) {
        if !seen.view.context && seen.view.clip == 0.0 {
            self.noise = Noise::learn(seen, &split.held_out, network, &self.residuals, &self.follows);
        }
    }

    /// Slow averages as in service, over the held-out blocks of a series one after the other; NaN where a residual is missing.
    pub fn slow_averages(&self, member: &Member) -> Array2<f32> {
        let mut averages = self.residuals.clone();
        let inputs = self.residuals.ncols();
        let (mut state, mut residual) = (vec![0.0; 2 * inputs + LANES], vec![0.0; inputs]); // means, slow averages
        let mut before = None;
        for ((mut row, of), series) in averages.rows_mut().into_iter().zip(self.residuals.rows()).zip(&self.series) {
            if before != Some(series) {
                state.fill(0.0);
                before = Some(series);
            }
            let input = of.to_vec();
            residual.copy_from_slice(&input);
            member.follow(&mut state, 0, inputs, &mut residual, &input);
            row.iter_mut().zip(&state[inputs..]).filter(|(r, _)| !r.is_nan()).for_each(|(r, average)| *r = *average);
        }
        averages
    }

    /// What `values`, one row for each window, look like; and their distances, cross-fitted.
    pub fn measured(&self, values: &Array2<f32>, shrink_min: f64) -> Result<(Measured, Vec<f64>), FitError> {
        let distances = self.cross_fitted(values, shrink_min)?;
        let (residuals, distance) = (Residuals::fit(values.view(), shrink_min)?, Term::fit(distances.clone()));
        Ok((Measured { residuals, distance }, distances))
    }

    /// Distances of the rows of `values`, in order. Each quarter of the held-out blocks is measured with the statistics of the other
    /// three. Measured with their own statistics they would be too small, by about twice the number of inputs over the number of rows,
    /// and a threshold would break its budget.
    fn cross_fitted(&self, values: &Array2<f32>, shrink_min: f64) -> Result<Vec<f64>, FitError> {
        let mut distances = self.distances_with(&Residuals::fit(values.view(), shrink_min)?, values);
        for fold in 0..FOLDS {
            let (own, others): (Vec<usize>, Vec<usize>) =
                (0..values.nrows()).partition(|&i| self.blocks[i] % FOLDS == fold);
            if others.is_empty() || own.is_empty() {
                continue; // fewer held-out blocks than parts
            }
            let apart = Residuals::fit(values.select(Axis(0), &others).view(), shrink_min)?;
            let measured = self.distances_with(&apart, &values.select(Axis(0), &own));
            own.iter().zip(measured).for_each(|(&i, distance)| distances[i] = distance);
        }
        Ok(distances)
    }

    fn distances_with(&self, residuals: &Residuals, values: &Array2<f32>) -> Vec<f64> {
        let missing: Vec<(usize, usize)> =
            values.indexed_iter().filter(|(_, v)| v.is_nan()).map(|(at, _)| at).collect();
        let (mut standard, mut whitened) = (values.iter().copied().collect::<Vec<_>>(), vec![0.0; values.len()]);
        let kernel = residuals.kernel();
        let mut room = kernel.as_ref().map_or_else(Room::default, Kernel::room);
        residuals.whiten(kernel.as_ref(), values.nrows(), &mut standard, &missing, &mut whitened, &mut room);
        let mut gaps = vec![0; values.nrows()];
        missing.iter().for_each(|at| gaps[at.0] += 1);
        let present = |gaps: usize| (values.ncols() - gaps).max(1) as f64;
        let rows = whitened.chunks_exact(values.ncols()).zip(gaps);
        rows.map(|(row, gaps)| lanes::squares(row.len(), row) / present(gaps)).collect()
    }

    /// The statistic that decides.
    pub fn statistics(&self, member: &Member, seen: &Inputs, split: &Split) -> Vec<Statistic> {
        let (mut input, mut parts) = (vec![0.0; seen.width()], vec![0.0; self.features]);
        let rows = self.residuals.rows().into_iter().zip(&split.held_out);
        let statistic = |(residual, held): (ArrayView1<f32>, &HeldOut)| {
            seen.write(held.row, &mut input);
            member.statistic(&residual.to_vec(), &input, &mut parts)
        };
        rows.map(statistic).collect()
    }

    pub fn stretches(&self, member: &Member, seen: &Inputs, split: &Split) -> Vec<Vec<Statistic>> {
        let places = self.series.iter().copied().zip(self.blocks.iter().copied());
        stretches(places.zip(self.statistics(member, seen, split)))
    }
}

/// Of a network that sees records as they are, as one that decides does; of another no error is asked for.
fn own(seen: &Inputs, split: &Split, network: &Network) -> Vec<f32> {
    if seen.view.context || seen.view.clip != 0.0 || split.held_out.is_empty() {
        return vec![0.0; seen.rows.features];
    }
    copied(seen, &split.held_out, network).into_iter().map(|copied| OWN_SHARE * copied).collect()
}

/// Shows `each` what the network makes of the windows that end at `rows`, a tile of them at a time, with the place of the first. `references`: kernel
/// of those that they are to be compared with.
pub fn rebuilt(
    seen: &Inputs,
    rows: &[usize],
    network: &Network,
    references: Option<&Kernel>,
    mut each: impl FnMut(usize, &mut Tile),
) {
    let kernel = network.kernel();
    let (mut tile, mut input) = (Tile::new(&kernel, references), vec![0.0; seen.width()]);
    for (start, part) in (0..).step_by(TILE).zip(rows.chunks(TILE)) {
        tile.clear();
        for row in part {
            seen.write(*row, &mut input);
            tile.push(&input, true);
        }
        tile.reconstruct(&kernel);
        each(start, &mut tile);
    }
}

/// Statistics (with the series and the block of each) in stretches of one series each. A stretch has a level of its own to begin with;
/// where blocks are short, several are one, or what a series does over longer than a block would be taken for a change of its level.
pub fn stretches(statistics: impl Iterator<Item = ((usize, usize), Statistic)>) -> Vec<Vec<Statistic>> {
    let mut stretches: Vec<Vec<Statistic>> = Vec::new();
    let mut before = None;
    for ((series, block), statistic) in statistics {
        match (stretches.last_mut(), before) {
            (Some(stretch), Some((of, from))) if of == series && (from == block || stretch.len() < decision::BLOCK) => {
                stretch.push(statistic);
            }
            _ => stretches.push(vec![statistic]),
        }
        before = Some((series, block));
    }
    stretches
}
