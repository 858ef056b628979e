//! Records as points of few dimensions: by an autoencoder whose code is that narrow, by principal components of the same records, or by
//! principal components of what a model's network compresses them to.

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayView2, Axis};

use super::bottleneck::{self, Principal};
use super::hands::{Hands, Training};
use super::network::Network;
use super::scaler::Scaler;
use super::series::SeriesRows;
use super::settings::ModelSettings;
use super::train;
use super::view::{Inputs, View};
use super::{FitError, Model};
use crate::record::{Schema, Table};

/// Bounds of the hidden layers where nobody says how wide they are.
const HIDDEN: (usize, usize) = (16, 128);

/// Records as a network sees them: finite, rows x width.
#[derive(Clone, Debug)]
pub struct Cloud {
    values: Array2<f32>,
}

/// Rows that a plane is laid through, at most.
const PLANE_ROWS: usize = 2_000;
/// And numbers of a code.
const PLANE_CODES: usize = 512;

/// Where the codes of a network lie on the plane closest to those of held-out records.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// Of the codes.
    pub mean: Vec<f32>,
    /// Two principal components (each as long as the code), in units of a standard deviation along them; the second is 0 where there is none.
    pub axes: [Vec<f32>; 2],
}

impl Plane {
    /// Of the inputs that end at `rows`, as the network sees them; missing values are their mean.
    pub(super) fn of(
        network: &Network,
        seen: &Inputs,
        rows: impl ExactSizeIterator<Item = usize>,
    ) -> Result<Self, FitError> {
        let mut input = vec![0.0; seen.width()];
        let step = rows.len().div_ceil(PLANE_ROWS).max(1);
        let mut values = Vec::with_capacity(rows.len().div_ceil(step) * seen.width());
        for row in rows.step_by(step) {
            seen.write(row, &mut input);
            values.extend(input.iter().map(|v| if v.is_nan() { 0.0 } else { *v }));
        }
        let failed = |why: String| FitError::Numeric { what: "the map of codes", why };
        let values = Array2::from_shape_vec((values.len() / seen.width(), seen.width()), values);
        let codes = network.encode(values.map_err(|e| failed(e.to_string()))?.view());
        let Some(mean) = codes.mean_axis(Axis(0)) else { return Err(failed("there are no records".to_owned())) };
        // Of a wide code a part, evenly: the work grows with its cube.
        let step = codes.ncols().div_ceil(PLANE_CODES);
        let columns = codes.ncols().div_ceil(step);
        let part = codes.slice(ndarray::s![.., ..;step]);
        let (variances, axes) = bottleneck::analyse(part.iter().copied().map(f64::from).collect(), columns)?;
        let axis = |k: usize| match variances.get(k) {
            Some(variance) if *variance > 1e-12 => {
                let mut axis = vec![0.0; codes.ncols()];
                let along = axes.column(k).into_iter().map(|v| (v / variance.sqrt()) as f32);
                axis.iter_mut().step_by(step).zip(along).for_each(|(to, v)| *to = v);
                axis
            }
            _ => vec![0.0; codes.ncols()],
        };
        Ok(Self { mean: mean.to_vec(), axes: [axis(0), axis(1)] })
    }

    /// In standard deviations from the middle; finite, whatever the code.
    pub fn place(&self, code: &[f32]) -> [f32; 2] {
        let along = |axis: &Vec<f32>| {
            let sum: f32 = code.iter().zip(&self.mean).zip(axis).map(|((v, mean), a)| (v - mean) * a).sum();
            if sum.is_nan() { 0.0 } else { sum.clamp(-1e6, 1e6) }
        };
        [along(&self.axes[0]), along(&self.axes[1])]
    }
}

/// The same as points of few dimensions, and rebuilt from those.
#[derive(Clone, Debug)]
pub struct Projection {
    /// Rows x dimensions.
    pub codes: Array2<f32>,
    /// Rows x width.
    pub rebuilt: Array2<f32>,
}

impl Projection {
    /// The place of a record.
    pub fn code(&self, row: usize) -> Vec<f32> {
        self.codes.row(row).to_vec()
    }
}

impl Cloud {
    /// `values`: row after row; what is missing (NaN) becomes 0, the mean. None: there are no rows, or not whole ones.
    pub fn new(width: usize, mut values: Vec<f32>) -> Option<Self> {
        values.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
        let rows = values.len().checked_div(width).filter(|rows| *rows > 0)?;
        Some(Self { values: Array2::from_shape_vec((rows, width), values).ok()? })
    }

    pub fn rows(&self) -> usize {
        self.values.nrows()
    }

    pub fn width(&self) -> usize {
        self.values.ncols()
    }

    pub fn row(&self, row: usize) -> &[f32] {
        let width = self.width();
        self.values.as_slice().map(|all| &all[row * width..][..width]).unwrap_or_default()
    }

    /// An autoencoder of `code` dimensions for each of `codes`, trained on the rows `fit`.
    ///
    /// # Errors
    /// Of numbers that cannot be computed.
    pub fn autoencoders(
        &self,
        fit: &[usize],
        codes: &[usize],
        settings: &ModelSettings,
        hands: &Hands,
        told: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Vec<Projection>, FitError> {
        let width = self.width();
        let names = (0..width).map(|j| format!("x{j}").parse()).collect::<Result<Vec<_>, _>>();
        let schema = names.ok().and_then(|names| Schema::new(names).ok());
        let Some(schema) = schema else { unreachable!("these names are different ones") };
        let values = self.values.iter().copied().map(f64::from).collect();
        let table = Table { schema, values, series: vec![0; self.rows()], names: vec![] };
        // They are scaled already.
        let rows = SeriesRows::new(&table, &Scaler { mean: vec![0.0; width], scale: vec![1.0; width] });
        let seen = Inputs::new(&rows, View { window: 1, context: false, clip: 0.0 });
        let principal = Principal::of(&seen, fit)?;
        let hidden = settings.hidden.fixed().unwrap_or(width.clamp(HIDDEN.0, HIDDEN.1));
        let mut progress = |done, total| {
            told(done, total);
            ControlFlow::Continue(())
        };
        let training = Training::new(hands, (settings.steps * codes.len()) as u64, &mut progress);
        training.all(codes.len(), |at| {
            let network = train::train(&seen, fit, (hidden, codes[at]), &principal, settings, &training)?;
            let codes = network.encode(self.values.view());
            Ok(Projection { rebuilt: network.decode(codes.view()), codes })
        })
    }

    /// The plane of `code` dimensions that lies closest to the rows `fit`, by principal components.
    ///
    /// # Errors
    /// Of numbers that cannot be computed.
    pub fn principal(&self, fit: &[usize], code: usize) -> Result<Projection, FitError> {
        let (codes, rebuilt) = principal(self.values.view(), fit, code)?;
        Ok(Projection { codes, rebuilt })
    }

    /// Share of the variance of `rows` that is there again in `rebuilt`, and the mean square of what is not (per value).
    pub fn explained(&self, rebuilt: &Array2<f32>, rows: &[usize]) -> (f64, f64) {
        let mut mean = vec![0.0; self.width()];
        for row in rows {
            mean.iter_mut().zip(self.values.row(*row)).for_each(|(m, v)| *m += f64::from(*v) / rows.len() as f64);
        }
        let (mut all, mut lost) = (0.0, 0.0);
        for row in rows {
            for ((v, again), mean) in self.values.row(*row).iter().zip(rebuilt.row(*row)).zip(&mean) {
                all += (f64::from(*v) - mean).powi(2);
                lost += f64::from(v - again).powi(2);
            }
        }
        (1.0 - lost / all.max(f64::MIN_POSITIVE), lost / (rows.len() * self.width()).max(1) as f64)
    }
}

impl Model {
    /// Inputs of the first network, which ranks, by principal components of what that compresses them to; the components are those of
    /// the rows `fit`.
    ///
    /// # Errors
    /// Of numbers that cannot be computed.
    pub fn reduced(&self, inputs: &Cloud, fit: &[usize], code: usize) -> Result<Projection, FitError> {
        let network = &self.members[0].network;
        let latent = network.encode(inputs.values.view());
        let (codes, latent) = principal(latent.view(), fit, code.min(latent.ncols()))?;
        Ok(Projection { codes, rebuilt: network.decode(latent.view()) })
    }
}

/// Places on the plane, and the points there.
fn principal(values: ArrayView2<f32>, fit: &[usize], code: usize) -> Result<(Array2<f32>, Array2<f32>), FitError> {
    let wide = values.mapv(f64::from);
    let fitted = wide.select(Axis(0), fit);
    let Some(mean) = fitted.mean_axis(Axis(0)) else {
        return Err(FitError::Numeric { what: "principal components", why: "there are no rows".to_owned() });
    };
    let (_, axes) = bottleneck::analyse(fitted.iter().copied().collect(), values.ncols())?;
    let axes = axes.slice(ndarray::s![.., ..code]);
    let codes = (&wide - &mean).dot(&axes);
    let rebuilt = codes.dot(&axes.t()) + &mean;
    Ok((codes.mapv(|v| v as f32), rebuilt.mapv(|v| v as f32)))
}

#[cfg(test)]
mod tests {
    use super::super::Activation;
    use super::super::hands::one_by_one;
    use super::super::testing::{noise, plane};
    use super::*;

    fn cloud(width: usize, values: Vec<f64>) -> Cloud {
        Cloud::new(width, values.into_iter().map(|v| v as f32).collect()).unwrap()
    }

    fn autoencoder(cloud: &Cloud, fit: &[usize], code: usize) -> Projection {
        let settings = ModelSettings { activation: Activation::Tanh, ..Default::default() };
        cloud.autoencoders(fit, &[code], &settings, &one_by_one, &mut |_, _| {}).unwrap().remove(0)
    }

    /// Of every fourth row, what is explained by what was fitted to the others.
    fn explained(cloud: &Cloud, by: impl Fn(&[usize]) -> Projection) -> f64 {
        let (held, fit): (Vec<usize>, Vec<usize>) = (0..cloud.rows()).partition(|row| row % 4 == 3);
        cloud.explained(&by(&fit).rebuilt, &held).0
    }

    #[test]
    fn a_plane_is_found_by_both_and_a_curve_by_the_autoencoder_alone() {
        let flat = cloud(6, plane(1, 1_200, 6, 2));
        let by_plane = explained(&flat, |fit| flat.principal(fit, 2).unwrap());
        let by_network = explained(&flat, |fit| autoencoder(&flat, fit, 2));
        assert!(by_plane > 0.95 && by_network > 0.94, "{by_plane} {by_network}");
        // A circle that is driven by one number.
        let angles = noise(1, 1_200).into_iter().flat_map(|v| [2.0 * v.sin(), 2.0 * v.cos()]);
        let bent = cloud(2, angles.collect());
        let by_line = explained(&bent, |fit| bent.principal(fit, 1).unwrap());
        let by_network = explained(&bent, |fit| autoencoder(&bent, fit, 1));
        assert!(by_line < 0.85 && by_network > by_line + 0.1, "{by_line} {by_network}");
    }

    #[test]
    fn principal_components_of_all_dimensions_lose_nothing_and_come_in_order() {
        let cloud = cloud(4, plane(2, 500, 4, 2));
        let fit: Vec<usize> = (0..500).collect();
        let all = cloud.principal(&fit, 4).unwrap();
        assert!(cloud.explained(&all.rebuilt, &fit).0 > 0.999_999);
        let spread = |k: usize| all.codes.column(k).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        assert!(spread(0) > spread(1) && spread(1) > spread(2) && spread(2) > spread(3));
    }

    #[test]
    fn what_is_missing_is_the_mean_and_no_rows_are_no_cloud() {
        let cloud = Cloud::new(2, vec![1.0, f32::NAN, f32::INFINITY, 2.0]).unwrap();
        assert_eq!((cloud.row(0), cloud.row(1)), (&[1.0, 0.0][..], &[0.0, 2.0][..]));
        assert!(Cloud::new(2, vec![]).is_none() && Cloud::new(0, vec![]).is_none());
        assert!(Cloud::new(2, vec![1.0; 3]).is_none());
    }
}
