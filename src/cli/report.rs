//! `residua backtest --report`: what was found in a file, as one page that needs nothing else.

use std::fmt::Write as _;
use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::incidents::Found;
use super::quality::{Alarms, Quality};

/// Points of the score's line, and columns of the heat map: rows beyond that share one, which shows their largest value.
const POINTS: usize = 1_200;
const COLUMNS: usize = 240;
/// Sensors in the heat map: those that were farthest off.
const SENSORS: usize = 40;
/// Incidents in the table; there may be more, the first ones are shown.
const INCIDENTS: usize = 500;
const WIDTH: u32 = 1_200;
/// Left of both pictures, so that they have the same rows below each other; and around them.
const GUTTER: u32 = 160;
pub const MARGIN: u32 = 8;
/// Height of a sensor's stripe.
const STRIPE: u32 = 16;
/// Smaller scores are drawn as this.
const LEAST: f64 = 0.02;
/// Standard deviations of a residual at which a cell begins to show, and at which it is as dark as can be.
const FAINT: f32 = 3.0;
const DARK: f32 = 30.0;
/// Labels of the score's axis, where the file has times.
const TIMES: usize = 6;

/// What the page is about.
pub struct Subject<'a> {
    pub file: &'a str,
    /// What the model was learned from.
    pub learned: &'a str,
    pub alarms: Alarms,
    pub sensors: &'a [String],
    /// Of each row of the file, as it has them; or none.
    pub times: &'a [Box<str>],
    /// Where there are labels.
    pub quality: Option<&'a Quality>,
    pub incidents: &'a [Found],
}

/// Rows as they were judged, gathered into as many columns as can be seen.
pub struct Chart {
    rows: Range<usize>,
    scores: Vec<f64>,
    flagged: Vec<Range<usize>>,
    labelled: Vec<Range<usize>>,
    /// By sensor: columns; standard deviations, the farthest from 0 of its rows.
    heat: Vec<Vec<f32>>,
    flags: usize,
}

impl Chart {
    pub fn new(rows: Range<usize>, sensors: usize) -> Chart {
        let heat = vec![vec![0.0; COLUMNS.min(rows.len())]; sensors];
        let scores = vec![0.0; POINTS.min(rows.len())];
        Chart { rows, scores, flagged: Vec::new(), labelled: Vec::new(), heat, flags: 0 }
    }

    /// Takes the next row in. `off`: how many standard deviations each sensor lies above what is rebuilt of it, or below; or nothing.
    pub fn add(&mut self, row: usize, score: f64, flagged: bool, labelled: bool, off: &[f32]) {
        let at = |places: usize| (row - self.rows.start) * places / self.rows.len().max(1);
        let (point, column) = (at(self.scores.len()), at(self.heat.first().map_or(0, Vec::len)));
        self.scores[point] = self.scores[point].max(score);
        for (stripe, off) in self.heat.iter_mut().zip(off) {
            if off.abs() > stripe[column].abs() {
                stripe[column] = *off;
            }
        }
        self.flags += usize::from(flagged);
        for (is, spans) in [(flagged, &mut self.flagged), (labelled, &mut self.labelled)] {
            match spans.last_mut() {
                Some(last) if is && last.end == row => last.end = row + 1,
                _ if is => spans.push(row..row + 1),
                _ => {}
            }
        }
    }

    /// The page.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn page(&self, subject: &Subject<'_>) -> Result<String> {
        let mut page = String::new();
        let title = escape(&format!("residua backtest: {}", subject.file));
        write!(page, "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>")?;
        write!(page, "<h1>{title}</h1><p>{}. ", escape(subject.learned))?;
        let rows = self.rows.len();
        write!(
            page,
            "{} of {rows} later rows flagged, incidents: {}; {}.",
            self.flags,
            subject.incidents.len(),
            escape(&subject.alarms.to_string())
        )?;
        page += "<h2>Score</h2><p>Of each row; 1 is the threshold. <span class=flagged>Flagged</span>";
        page += if subject.quality.is_some() { ", <span class=labelled>labelled as anomalous</span>." } else { "." };
        page += &self.line(subject.times)?;
        write!(
            page,
            "<h2>Residuals</h2><p>How far each sensor is off what is rebuilt of it: <span class=flagged>above</span>, <span class=below>below</span>; \
             from {FAINT} standard deviations of training (faint) to {DARK}. Rows that share a column show the farthest."
        )?;
        page += &self.heat_map(subject.sensors)?;
        page += "<h2>Incidents</h2>";
        let apart = subject.incidents.iter().any(|incident| !incident.series.is_empty());
        if subject.incidents.is_empty() {
            page += "<p>None.";
        } else {
            page += "<table><tr><th>rows";
            page += if subject.times.is_empty() { "" } else { "<th>time" };
            page += if apart { "<th>series" } else { "" };
            page += "<th>flagged<th>peak<th>mostly";
        }
        for incident in subject.incidents.iter().take(INCIDENTS) {
            let Found { series, start, end, flagged, peak, sensors, .. } = incident;
            let mostly: Vec<String> =
                sensors.iter().map(|(name, share)| format!("{} ({:.0} %)", escape(name), 100.0 * share)).collect();
            write!(page, "<tr><td>{start} to {end}")?;
            if let (Some(from), Some(to)) = (subject.times.get(*start), subject.times.get(*end)) {
                write!(page, "<td>{} to {}", escape(from), escape(to))?;
            }
            if apart {
                write!(page, "<td>{}", escape(series))?;
            }
            write!(page, "<td class=number>{flagged}<td class=number>{peak:.2}<td>{}", mostly.join(", "))?;
        }
        if subject.incidents.len() > INCIDENTS {
            write!(page, "<tr><td colspan=6>And {} more.", subject.incidents.len() - INCIDENTS)?;
        }
        page += if subject.incidents.is_empty() { "" } else { "</table>" };
        if let Some(quality) = subject.quality {
            page += "<h2>Agreement with the labels</h2><table>";
            for (name, value) in quality.figures() {
                write!(page, "<tr><td>{name}<td class=number>{value:.4}")?;
            }
            page += "</table>";
        }
        Ok(page)
    }

    /// `times`: of each row of the file; none: rows are told by their number.
    fn line(&self, times: &[Box<str>]) -> Result<String> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, 320)).into_drawing_area();
            let most = self.scores.iter().copied().fold(1.0, f64::max);
            let least = self.scores.iter().copied().filter(|s| *s > 0.0).fold(0.5, f64::min).max(LEAST) / 2.0;
            let (from, to) = (self.rows.start as f64, self.rows.end as f64);
            let mut chart = ChartBuilder::on(&root)
                .margin(MARGIN)
                .x_label_area_size(28)
                .y_label_area_size(GUTTER)
                .build_cartesian_2d(from..to, (least..most * 1.5).log_scale())
                .map_err(drawing)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(TRANSPARENT)
                .x_labels(if times.is_empty() { 2 * TIMES } else { TIMES })
                .x_label_formatter(&|x| times.get(*x as usize).map_or(format!("{x:.0}"), |time| short(time)))
                .y_labels(5)
                .y_label_formatter(&|y| format!("{y}"))
                .draw()
                .map_err(drawing)?;
            let band = |spans: &[Range<usize>], low: f64, high: f64, color: RGBAColor| {
                let narrow = (to - from) / f64::from(WIDTH);
                let spans: Vec<_> = merged(spans, narrow as usize).collect();
                spans.into_iter().map(move |span| {
                    let (start, end) = (span.start as f64, (span.end as f64).max(span.start as f64 + narrow));
                    Rectangle::new([(start, low), (end, high)], color.filled())
                })
            };
            chart.draw_series(band(&self.labelled, least, most * 1.5, LABELLED.mix(0.35))).map_err(drawing)?;
            chart.draw_series(band(&self.flagged, least, least * 1.2, FLAGGED.mix(1.0))).map_err(drawing)?;
            let per_point = (to - from) / self.scores.len().max(1) as f64;
            let points = self.scores.iter().enumerate();
            let points = points.map(|(i, score)| (from + (i as f64 + 0.5) * per_point, score.max(least)));
            chart.draw_series(LineSeries::new(points, SCORE)).map_err(drawing)?;
            chart.draw_series(LineSeries::new([(from, 1.0), (to, 1.0)], FLAGGED)).map_err(drawing)?;
            root.present().map_err(drawing)?;
        }
        Ok(svg)
    }

    fn heat_map(&self, sensors: &[String]) -> Result<String> {
        let strongest = |stripe: &[f32]| stripe.iter().copied().map(f32::abs).fold(0.0, f32::max);
        let mut order: Vec<usize> = (0..self.heat.len()).collect();
        order.sort_by(|&a, &b| strongest(&self.heat[b]).total_cmp(&strongest(&self.heat[a])));
        order.truncate(SENSORS);
        order.sort_unstable(); // as in the file
        let columns = self.heat.first().map_or(0, Vec::len) as i32;
        let mut svg = String::new();
        {
            let height = STRIPE * order.len().max(1) as u32 + 2 * MARGIN;
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            let (margin, left) = (MARGIN as i32, (MARGIN + GUTTER) as i32);
            let width = WIDTH as i32 - margin - left;
            for (line, &sensor) in order.iter().enumerate() {
                let top = margin + line as i32 * STRIPE as i32;
                let name = Text::new(short(&sensors[sensor]), (margin, top + 1), ("sans-serif", 12));
                root.draw(&name).map_err(drawing)?;
                for (column, &off) in self.heat[sensor].iter().enumerate().filter(|(_, off)| off.abs() >= FAINT) {
                    let strength = f64::from((off.abs() / FAINT).ln() / (DARK / FAINT).ln()).clamp(0.05, 1.0);
                    let color = if off > 0.0 { FLAGGED } else { BELOW };
                    let x = |column: i32| left + column * width / columns.max(1);
                    let (from, to) = (x(column as i32), x(column as i32 + 1));
                    let cell = [(from, top), (to.max(from + 1), top + STRIPE as i32 - 2)];
                    root.draw(&Rectangle::new(cell, color.mix(strength).filled())).map_err(drawing)?;
                }
            }
            root.present().map_err(drawing)?;
        }
        Ok(svg)
    }
}

const SCORE: RGBColor = RGBColor(31, 41, 51);
pub const FLAGGED: RGBColor = RGBColor(200, 55, 30);
const BELOW: RGBColor = RGBColor(31, 90, 160);
const LABELLED: RGBColor = RGBColor(70, 130, 200);

pub const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1220px;margin:2em auto;padding:0 1em;color:#1f2933;background:#fff}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}svg{max-width:100%;height:auto;display:block}\
table{border-collapse:collapse}td,th{padding:.15em 1.2em .15em 0;text-align:left;vertical-align:top}.number{text-align:right;font-variant-numeric:tabular-nums}\
.flagged{color:#c8371e}.below{color:#1f5aa0}.labelled{background:#c1d6ee}code{font-size:.95em}";

pub fn drawing<E: std::error::Error + Send + Sync + 'static>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("draw: {error}")
}

/// Spans that cannot be told apart are one.
fn merged(spans: &[Range<usize>], gap: usize) -> impl Iterator<Item = Range<usize>> {
    spans.chunk_by(move |a, b| b.start <= a.end + gap).map(|run| run[0].start..run[run.len() - 1].end)
}

/// A name that fits beside its stripe.
fn short(name: &str) -> String {
    const LONGEST: usize = 24;
    if name.chars().count() <= LONGEST {
        name.to_owned()
    } else {
        name.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AlarmBudget;

    #[test]
    fn spans_are_of_neighbours_and_bins_keep_the_largest() {
        let mut chart = Chart::new(100..5_100, 2);
        for row in 100..5_100 {
            let odd = (1_000..1_010).contains(&row) || row == 3_000;
            let off = if row == 3_000 { -7.0 } else { 3.0 };
            chart.add(row, if odd { 4.0 } else { 0.5 }, odd, row == 3_000, &[off, f32::NAN]);
        }
        let ends = |spans: &[Range<usize>]| spans.iter().map(|s| (s.start, s.end)).collect::<Vec<_>>();
        assert_eq!(ends(&chart.flagged), [(1_000, 1_010), (3_000, 3_001)]);
        assert_eq!(ends(&chart.labelled), [(3_000, 3_001)]);
        assert_eq!((chart.scores.len(), chart.heat[0].len(), chart.flags), (POINTS, COLUMNS, 11));
        assert_eq!(chart.scores.iter().filter(|s| **s == 4.0).count(), 3 + 1);
        assert_eq!(chart.heat[0].iter().filter(|off| **off == -7.0).count(), 1);
        assert_eq!(chart.heat[0].iter().filter(|off| **off == 3.0).count(), COLUMNS - 1);
        assert!(chart.heat[1].iter().all(|off| *off == 0.0), "missing");
        assert_eq!(ends(&merged(&chart.flagged, 1_990).collect::<Vec<_>>()), [(1_000, 3_001)]);
    }

    #[test]
    fn names_of_sensors_and_series_cannot_break_the_page() {
        let mut chart = Chart::new(0..3, 1);
        (0..3).for_each(|row| chart.add(row, 2.0, true, false, &[1.0]));
        let incident = Found {
            series: "<b>".to_owned(),
            start: 0,
            end: 2,
            flagged: 3,
            peak: 2.0,
            peak_row: 1,
            sensors: vec![("a&b".to_owned(), 1.0)],
        };
        let sensors = ["<script>".to_owned()];
        let subject = Subject {
            file: "\"x\".csv",
            learned: "<i>",
            alarms: Alarms { accepted: AlarmBudget::default(), incidents: true, labelled: false, count: 1, rows: 3 },
            sensors: &sensors,
            times: &["<u>".into(), "b".into(), "c".into()],
            quality: None,
            incidents: &[incident],
        };
        let page = chart.page(&subject).unwrap();
        assert!(
            page.contains("<td>&lt;u&gt; to c<td>&lt;b&gt;<td class=number>3")
                && page.contains("&lt;i&gt;. ")
                && page.contains("a&amp;b (100 %)")
                && page.contains("&lt;script&gt;")
        );
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("), "nothing is loaded");
    }
}
