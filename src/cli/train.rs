//! `residua train`: a model file, from the input topic's history or from a CSV file.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::learn;
use super::train_file::{self, FileArgs};
use crate::service;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(clap::Subcommand)]
enum From {
    /// From the history of the input topic, as `run` does it when there is no model
    Topic(TopicArgs),
    /// From a CSV file
    File(Box<FileArgs>),
}

#[derive(clap::Args)]
struct TopicArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write the model to this file (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Trains, and writes the model.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    match &args.from {
        From::File(args) => train_file::run(args, out),
        From::Topic(args) => from_topic(args, out),
    }
}

fn from_topic(args: &TopicArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let loaded = super::load(&args.config)?;
    super::log::start(&loaded.config.log);
    let model = service::train_once(&loaded.config)?;
    std::fs::write(&args.out, model.to_bytes()?).with_context(|| format!("write {}", args.out.display()))?;
    writeln!(out, "{}", learn::told(&model, &loaded.config.detector.alarms, "records"))?;
    Ok(())
}
