//! Whether the records of a file are such as a model was learned from: a matter apart from single records that are strange.

use std::io::{self, Write};

use crate::model::{Drift, Edge, Model};

/// Sensors that are named at most.
const NAMED_MAX: usize = 10;

/// One line if nothing differs, else one more for each sensor that does. `drifts`: the farthest first.
pub fn tell(model: &Model, drifts: &[Drift], out: &mut impl Write) -> io::Result<()> {
    let other: Vec<&Drift> = drifts.iter().filter(|drift| drift.differs).collect();
    let sensors = drifts.len();
    if other.is_empty() {
        return match sensors {
            0 => Ok(()),
            _ => writeln!(out, "data as those learned from: no sensor of {sensors} differs (Kolmogorov-Smirnov)"),
        };
    }
    writeln!(
        out,
        "OTHER DATA than those learned from: {} of {sensors} sensors differ (Kolmogorov-Smirnov); scores may mean little, learn anew?",
        other.len()
    )?;
    for drift in other.iter().take(NAMED_MAX) {
        writeln!(out, "  {}", line(model, drift))?;
    }
    match other.len().saturating_sub(NAMED_MAX) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

/// Sensor, distance, chance, and where the difference is largest.
fn line(model: &Model, drift: &Drift) -> String {
    let Drift { sensor, distance, p, at, share, trained, .. } = *drift;
    let name = model.schema().names().nth(sensor).unwrap_or_default();
    let chance = if p < 1e-9 { "p < 1e-9".to_owned() } else { format!("p = {p:.1e}") };
    let (share, trained) = (100.0 * share, 100.0 * trained);
    let what = match at {
        None => "missing".to_owned(),
        Some(Edge { value, included }) => {
            let side = if included { "at most" } else { "below" };
            let own = model.in_own_unit(sensor, value);
            own.map_or_else(
                || format!("{side} {value:.2} scales above the series' mean"),
                |v| format!("{side} {}", brief(v)),
            )
        }
    };
    let what = format!("{share:.0} % are {what}, {trained:.0} % were");
    format!("{name}: distance {distance:.2}, {chance}; {what}")
}

/// Four digits that count.
pub fn brief(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = if size == 0.0 { 0 } else { (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        for (value, text) in
            [(0.0, "0"), (1331.27, "1331"), (0.012345, "0.01235"), (-5.0, "-5"), (2.5e9, "2.500e9"), (99.5, "99.5")]
        {
            assert_eq!(brief(value), text);
        }
    }
}
