//! Training from a CSV file to a model file.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::csv::{CsvArgs, file_name, read};
use super::learn::{ModelArgs, learn, told};
use crate::model::{AlarmBudget, TrainingSource};

#[derive(clap::Args, Clone, Debug)]
pub struct FileArgs {
    #[command(flatten)]
    csv: CsvArgs,
    /// Write the model to this file (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

#[cfg(test)]
impl FileArgs {
    pub fn new(csv: CsvArgs, out: PathBuf) -> Self {
        Self { csv, out, model: ModelArgs::default() }
    }
}

/// # Errors
/// Unreadable file, too few rows, output not writable.
pub fn run(args: &FileArgs, out: &mut impl Write) -> Result<()> {
    let table = read(&args.csv, (None, false))?.table;
    let table = table.with_values(table.rows());
    let source = TrainingSource::File { name: file_name(&args.csv.file), rows: table.rows() };
    let model = learn(&table, &args.model, source)?;
    std::fs::write(&args.out, model.to_bytes()?).with_context(|| format!("write {}", args.out.display()))?;
    writeln!(out, "{}", told(&model, &AlarmBudget::default(), "rows"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::plane;
    use crate::service::load;

    #[test]
    fn a_file_becomes_a_model_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, out) = (folder.path().join("plant.csv"), folder.path().join("m.safetensors"));
        let rows: Vec<String> = plane(1, 300, 2, 1).chunks_exact(2).map(|r| format!("{},{}", r[0], r[1])).collect();
        std::fs::write(&file, format!("a,b\n{}\n", rows.join("\n"))).unwrap();
        let csv = CsvArgs { file, ..CsvArgs::default() };
        let args = FileArgs { csv, out: out.clone(), model: ModelArgs::default() };
        let mut said = Vec::new();
        run(&args, &mut said).unwrap();
        let model = load(&out).unwrap();
        assert_eq!(model.source(), &TrainingSource::File { name: "plant.csv".to_owned(), rows: 300 });
        assert!(String::from_utf8(said).unwrap().contains(model.fingerprint()));
    }
}
