//! `residua inspect`: what is in a model file.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use super::learn::trust;
use crate::model::{AlarmBudget, TrainingSource};
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
        "records      {} ({} left out as faults; windows: {} trained on, {} held out for calibration)",
        rows.all, rows.left_out, rows.training, rows.held_out
    )?;
    writeln!(out, "trust        {}", trust(&model, &AlarmBudget::default()))?;
    writeln!(out, "profile      {}, {} multiply-adds for a record", model.profile(), model.multiply_adds())?;
    for (sizes, role) in model.layer_sizes().iter().zip(model.roles()) {
        let widths: Vec<String> = sizes.iter().map(usize::to_string).collect();
        writeln!(out, "network      {}, {:?}: {role}", widths.join("-"), settings.activation)?;
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
    for name in model.schema().names() {
        writeln!(out, "  {name}")?;
    }
    Ok(())
}

fn source(source: &TrainingSource) -> String {
    match source {
        TrainingSource::File { name, rows } => format!("file {name}, {rows} rows"),
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
    use crate::model::{Model, ModelSettings, Profile};
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
            "records      400 (0 left out as faults; windows: 300 trained on, 100 held out",
            "trust        the budget of 3 per 10000 records is met within a factor of ",
            "balanced, ",
            "3-16-",
            "\n  f2\n",
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
