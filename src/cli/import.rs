//! `residua import`: an autoencoder that was trained elsewhere, as a model of residua.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::csv::{CsvArgs, file_name, read};
use super::learn::told;
use crate::model::{AlarmBudget, Model, ONNX_BYTES_MAX, Scaled, TrainingSource};

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The network, as ONNX: dense layers, from one record (or a window of several, oldest first) to the same
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    #[command(flatten)]
    csv: CsvArgs,
    /// The rows to calibrate on are the first N; by default all. Best are rows that the network was not trained on
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// How its values were scaled: standard (less the mean, in standard deviations), min-max (from 0 to 1), raw (not, or by the network itself); means
    /// and scales are those of the rows
    #[arg(long, default_value_t)]
    scaled: Scaled,
    /// Write the model to this file (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl clap::ValueEnum for Scaled {
    fn value_variants<'a>() -> &'a [Self] {
        &Scaled::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

/// # Errors
/// Unreadable files, a network of anything but dense layers or of another width, too few rows, output not writable.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let what = || format!("read {}", args.onnx.display());
    let size = std::fs::metadata(&args.onnx).with_context(what)?.len();
    ensure!(size <= ONNX_BYTES_MAX as u64, "{}: {size} bytes, expected at most {ONNX_BYTES_MAX}", what());
    let network = std::fs::read(&args.onnx).with_context(what)?;
    let mut table = read(&args.csv, (None, false))?.table;
    let wanted = args.rows.unwrap_or(table.rows());
    ensure!(wanted <= table.rows(), "--rows {wanted}: the file has {}", table.rows());
    table.series.truncate(wanted);
    table.values.truncate(wanted * table.schema.len());
    let table = table.with_values(table.rows());
    let source =
        TrainingSource::Network { network: file_name(&args.onnx), name: file_name(&args.csv.file), rows: table.rows() };
    let model =
        Model::import(&network, args.scaled, &table, source).with_context(|| args.onnx.display().to_string())?;
    std::fs::write(&args.out, model.to_bytes()?).with_context(|| format!("write {}", args.out.display()))?;
    writeln!(out, "{}", told(&model, &AlarmBudget::default(), "rows"))?;
    Ok(())
}
