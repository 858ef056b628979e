//! `residua export`: a network of a model for other programs.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::service::load;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Model file (.safetensors)
    model: PathBuf,
    /// Write the network to this file as ONNX
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    /// Which network: from 0, as `residua inspect` lists them
    #[arg(long, value_name = "N", default_value_t = 0)]
    network: usize,
}

/// # Errors
/// Unreadable model, no such network, output not writable.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let model = load(&args.model)?;
    let networks = model.roles().count();
    let expected = || format!("--network {}: the model has {networks}, counted from 0", args.network);
    let bytes = model.to_onnx(args.network).with_context(expected)?;
    std::fs::write(&args.onnx, bytes).with_context(|| format!("write {}", args.onnx.display()))?;
    let role = model.roles().nth(args.network).unwrap_or_default();
    writeln!(out, "network {}: {role}, of model {}", args.network, model.fingerprint())?;
    Ok(())
}
