//! `residua inspect`: what is in a model file.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;

use super::drift;
use super::learn::trust;
use crate::model::{Activation, AlarmBudget, Model, SensorFacts, TrainingSource};
use crate::service::load;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Model file (.safetensors)
    model: PathBuf,
}

/// # Errors
/// Unreadable file, or a file that is no sound model.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let model = load(&args.model)?;
    let rows = model.rows();
    let settings = model.settings();
    writeln!(out, "checksum     sha256 {}", model.checksum())?;
    writeln!(out, "learned from {}", source(model.source()))?;
    writeln!(
        out,
        "records      {} ({} left out as faults; windows: {} trained on, {} held out, {} for the threshold)",
        rows.all, rows.left_out, rows.training, rows.held_out, rows.calibrating
    )?;
    writeln!(out, "trust        {}", trust(&model, &AlarmBudget::default()))?;
    writeln!(out, "profile      {}, {} multiply-adds for a record", model.profile(), model.multiply_adds())?;
    let networks = model.layer_sizes().into_iter().zip(model.code_widths()).zip(model.activations()).zip(model.roles());
    for (((sizes, code), activations), role) in networks {
        let widths: Vec<String> = sizes.iter().map(usize::to_string).collect();
        let inputs = sizes[0];
        writeln!(
            out,
            "network      {}, {}: {role}; {inputs} numbers as {code} ({:.1} to 1)",
            widths.join("-"),
            between(activations),
            inputs as f64 / code as f64
        )?;
    }
    writeln!(out, "window       {} (records that a series needs)", model.window())?;
    writeln!(
        out,
        "order        {}",
        if model.ordered() { "in time: levels are smoothed and followed" } else { "none" }
    )?;
    match model.scaled_apart() {
        None => writeln!(out, "scale        the same for all series")?,
        Some((series, learning)) => writeln!(
            out,
            "scale        its own for each of the {series} series trained on; others warm for {learning} records to learn theirs"
        )?,
    }
    writeln!(out, "settings     {}", serde_json::to_string(settings)?)?;
    writeln!(out, "features     {}", model.schema().len())?;
    Ok(sensors(&model, out)?)
}

/// What stands between layers: one word, where it is the same everywhere.
fn between(activations: &[Option<Activation>]) -> String {
    let mut names: Vec<String> = activations.iter().flatten().map(|activation| format!("{activation:?}")).collect();
    names.dedup();
    if names.is_empty() { "linear".to_owned() } else { names.join(" and ") }
}

/// What each network keeps of each sensor, what values it was trained on, and where it is not to be trusted.
fn sensors(model: &Model, out: &mut impl Write) -> io::Result<()> {
    let facts: Vec<SensorFacts<'_>> = model.sensors().collect();
    let name_width = facts.iter().map(|f| f.name.len()).max().unwrap_or(0).max(6);
    let roles: Vec<String> = model.roles().enumerate().map(|(at, role)| format!("{at} {role}")).collect();
    let own = if model.scaled_apart().is_some() { "trained on (scales from its series' mean)" } else { "trained on" };
    writeln!(
        out,
        "Share of each sensor's variance, over held-out records, that survives being compressed and rebuilt:"
    )?;
    let range_width = own.len().max(26);
    writeln!(out, "  {:<name_width$}  {}  {own:<range_width$}  {:<9}  missing", "sensor", roles.join("  "), "noise")?;
    for (sensor, SensorFacts { name, range: (least, most), missing, unknown, kept, noise }) in
        facts.into_iter().enumerate()
    {
        let kept: Vec<f64> = kept.into_iter().map(f64::from).collect();
        let shares = kept.iter().zip(&roles).map(|(kept, role)| {
            let width = role.len() - 2;
            format!("{:>width$.0} %", 100.0 * kept)
        });
        let shares = shares.collect::<Vec<_>>().join("  ");
        let in_unit = |scaled: f32| model.in_own_unit(sensor, scaled).unwrap_or(f64::from(scaled));
        let [from, to] = [least, most].map(in_unit);
        // What is nothing beside the range is rounding.
        let brief = |v: f64| drift::brief(if v.abs() < 1e-4 * (to - from) { 0.0 } else { v });
        let range = if unknown {
            String::new()
        } else if least == most {
            brief(from)
        } else {
            format!("{} to {}", brief(from), brief(to))
        };
        let noise = if unknown { String::new() } else { brief(in_unit(noise) - in_unit(0.0)) };
        let remark = remark(kept.last().copied().unwrap_or(0.0), least == most, (missing, unknown));
        let line = format!(
            "  {name:<name_width$}  {shares}  {range:<range_width$}  {noise:<9}  {:>5.1} %  {remark}",
            100.0 * missing
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "Beyond the values it was trained on, what a network makes of a sensor is a guess.")
}

/// Why a sensor's part in an alarm is to be taken with care. `kept`: by the network that decides.
fn remark(kept: f64, still: bool, (missing, unknown): (f64, bool)) -> &'static str {
    match (still, missing, kept) {
        _ if unknown => "too few values to judge by: it counts as missing",
        (_, 0.5.., _) => "mostly missing: hardly anything is known of it",
        (true, ..) => "stood still: any other value is strange",
        (.., ..=0.5) => "hardly follows from the code: only large errors show",
        _ => "",
    }
}

fn source(source: &TrainingSource) -> String {
    match source {
        TrainingSource::File { name, rows } => format!("file {name}, {rows} rows"),
        TrainingSource::Network { network, name, rows } => {
            format!("network {network}, trained elsewhere; calibrated on file {name}, {rows} rows")
        }
        TrainingSource::Topic { topic, ranges } => {
            let range = |(partition, from, to): &(
                crate::record::PartitionId,
                crate::record::Offset,
                crate::record::NextOffset,
            )| { format!("partition {} offsets {}..{}", partition.0, from.0, to.0) };
            format!("topic {topic}: {}", ranges.iter().map(range).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::model::testing::{plane, table};
    use crate::model::{ModelSettings, Profile};
    use crate::record::{NextOffset, Offset, PartitionId};

    #[test]
    fn a_model_file_is_described() {
        let ranges = vec![(PartitionId(2), Offset(10), NextOffset(410))];
        let source = TrainingSource::Topic { topic: "sensors".to_owned(), ranges };
        let settings = ModelSettings { steps: 20, ..Default::default() };
        let model = Model::fit(&table(3, plane(1, 400, 3, 1)), &settings, Profile::Balanced, source, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        std::fs::write(&path, model.to_bytes().unwrap()).unwrap();
        let mut said = Vec::new();
        run(&Args { model: path }, &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        for expect in [
            model.checksum(),
            "topic sensors: partition 2 offsets 10..410",
            "records      400 (0 left out as faults; windows: 300 trained on, 100 held out, 400 for the threshold",
            "trust        the budget of 3 per 10000 records is met within a factor of ",
            "balanced, ",
            "3-16-",
            "\n  f2 ",
            " (1.5 to 1)\n",
            "Beyond the values it was trained on",
        ] {
            assert!(said.contains(expect), "{said}\ndoes not say {expect:?}");
        }
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "no model").unwrap();
        let error = format!("{:#}", load(&path).unwrap_err());
        assert!(error.contains("notes.txt") && error.contains("not a safetensors file"), "{error}");
    }
}
