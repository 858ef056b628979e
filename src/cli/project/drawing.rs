//! The two maps as one picture, and what a wider code is worth.

use anyhow::Result;
use plotters::prelude::*;

use super::page::extent;
use super::{By, Map, Point, Width};
use crate::cli::report::{FLAGGED, MARGIN, drawing};

const SIZE: (u32, u32) = (1_200, 560);
const POINT: i32 = 2;
const PRINCIPAL: RGBColor = RGBColor(110, 125, 140);
const NETWORK: RGBColor = RGBColor(31, 90, 160);
const SPARSE: RGBColor = RGBColor(60, 150, 90);

pub fn svg(map: &Map, by: By) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        for (which, area) in root.split_evenly((1, 2)).into_iter().enumerate() {
            let [left, right, bottom, top] = extent(map, which);
            let figures = map.figures[which];
            let caption = format!("{}: {:.1} % of the variance", map.names[which], 100.0 * figures.explained);
            let mut chart = ChartBuilder::on(&area)
                .margin(MARGIN)
                .caption(caption, ("sans-serif", 18))
                .x_label_area_size(24)
                .y_label_area_size(44)
                .build_cartesian_2d(left..right, bottom..top)
                .map_err(drawing)?;
            chart.configure_mesh().light_line_style(TRANSPARENT).draw().map_err(drawing)?;
            let names = names(map);
            // Strange ones last, so that none hides under others.
            let mut order: Vec<&Point> = map.points.iter().collect();
            order.sort_by_key(|point| (point.flagged, point.labelled));
            let last = map.points.last().map_or(1, |point| point.row.max(1)) as f64;
            let dots = order.into_iter().map(|point| {
                let [x, y] = point.places[which];
                let colour = colour(point, by, &names, last);
                Circle::new((x.clamp(left, right), y.clamp(bottom, top)), POINT, colour.filled())
            });
            chart.draw_series(dots).map_err(drawing)?;
        }
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

fn names(map: &Map) -> Vec<&str> {
    let mut names: Vec<&str> = map.points.iter().map(|point| point.series.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The same colours as in a page.
fn colour(point: &Point, by: By, names: &[&str], last: f64) -> RGBAColor {
    let mix = |from: [f64; 3], to: [f64; 3], t: f64| {
        let [r, g, b] = [0, 1, 2].map(|i| (from[i] + (to[i] - from[i]) * t.clamp(0.0, 1.0)) as u8);
        RGBColor(r, g, b)
    };
    let strange = point.flagged || point.labelled;
    let colour = match by {
        By::Score if point.flagged => mix([240.0, 150.0, 60.0], [170.0, 20.0, 20.0], (point.score - 1.0) / 3.0),
        By::Score => mix([200.0, 208.0, 216.0], [70.0, 90.0, 110.0], point.score),
        By::Series => {
            let at = names.binary_search(&point.series.as_str()).unwrap_or_default();
            let (r, g, b) = HSLColor((at as f64 * 137.5 / 360.0).fract(), 0.6, 0.45).rgb();
            RGBColor(r, g, b)
        }
        By::Time => mix([230.0, 200.0, 70.0], [50.0, 30.0, 120.0], point.row as f64 / last),
        By::Label if point.labelled => FLAGGED,
        By::Label => RGBColor(150, 165, 180),
    };
    colour.mix(if strange { 0.9 } else { 0.55 })
}

/// Share of the variance that survives in codes of each width.
pub fn widths(map: &Map) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (620, 260)).into_drawing_area();
        let most = map.widths.last().map_or(2, |width| width.code).max(2) as f64;
        let shares = map.widths.iter().flat_map(|w| [w.principal, w.autoencoder, w.sparse]);
        let least = shares.fold(1.0, f64::min).max(0.0);
        let mut chart = ChartBuilder::on(&root)
            .margin(MARGIN)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .build_cartesian_2d((1.0..most).log_scale(), least..1.0)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{:.0} %", 100.0 * y))
            .draw()
            .map_err(drawing)?;
        let lines = [("principal components", PRINCIPAL), ("autoencoder", NETWORK), ("with sparsity", SPARSE)];
        for (line, (name, colour)) in lines.into_iter().enumerate() {
            let share = |w: &Width| [w.principal, w.autoencoder, w.sparse][line];
            let points = map.widths.iter().map(|w| (w.code as f64, share(w).max(least)));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                .map_err(drawing)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(drawing)?;
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}
