//! The command line: one file per command.

mod backtest;
mod check;
mod csv;
mod demo;
mod denoise;
mod drift;
mod export;
mod import;
mod incidents;
mod inspect;
mod learn;
mod log;
mod probe;
mod project;
mod quality;
mod report;
mod run;
mod score;
mod scores;
mod scoring;
mod train;
mod train_file;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Loaded};
use crate::kafka::{self, Remedy};
use crate::pipeline::WorkerError;
use crate::record::SchemaError;
use crate::service::Failure;

/// Bad configuration, or Kafka lacks a topic or right that it needs (sysexits.h: EX_CONFIG).
const EXIT_CONFIG: u8 = 78;
/// Kafka cannot be reached (sysexits.h: EX_UNAVAILABLE).
const EXIT_UNAVAILABLE: u8 = 69;
const EXIT_OTHER: u8 = 1;
/// 128 and SIGPIPE.
const EXIT_PIPE: u8 = 141;

/// Streaming anomaly detection for sensor records on Kafka, by the reconstruction error of an autoencoder.
#[derive(Parser)]
#[command(name = "residua", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::Args),
    /// Show what residua does on a simulated plant; needs no Kafka
    Demo(demo::Args),
    /// Check a configuration, and Kafka with --connect
    Check(check::Args),
    /// Train a model into a file, from the input topic or from a CSV file
    Train(train::Args),
    /// Learn from the first rows of a CSV file, score the others
    Backtest(Box<backtest::Args>),
    /// Score the rows of a CSV file by a model
    Score(score::Args),
    /// Write the rows of a CSV file without the noise of their sensors
    Denoise(denoise::Args),
    /// Draw the rows of a CSV file as a map, beside one of principal components
    Project(Box<project::Args>),
    /// Write a network of a model as ONNX
    Export(export::Args),
    /// Take over an autoencoder that was trained elsewhere, from ONNX
    Import(import::Args),
    /// Show what is in a model file
    Inspect(inspect::Args),
    /// Ask a running residua whether it is well
    Probe(probe::Args),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args, &mut std::io::stdout().lock()),
        Command::Train(args) => train::run(&args, &mut std::io::stdout().lock()),
        Command::Backtest(args) => backtest::run(&args, &mut std::io::stdout().lock()),
        Command::Score(args) => score::run(&args, &mut std::io::stdout().lock()),
        Command::Denoise(args) => denoise::run(&args, &mut std::io::stdout().lock()),
        Command::Project(args) => project::run(&args, &mut std::io::stdout().lock()),
        Command::Export(args) => export::run(&args, &mut std::io::stdout().lock()),
        Command::Import(args) => import::run(&args, &mut std::io::stdout().lock()),
        Command::Inspect(args) => inspect::run(&args, &mut std::io::stdout().lock()),
        Command::Probe(args) => probe::run(&args, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` has: what a shell says of programs that this ends by a signal.
        Err(e) if e.chain().next().is_some_and(is_broken_pipe) => ExitCode::from(EXIT_PIPE),
        Err(e) => {
            eprintln!("residua: {e:#}");
            ExitCode::from(exit_code(&e))
        }
    }
}

/// Of standard output: what else can be written to has its name in the error.
fn is_broken_pipe(e: &(dyn std::error::Error + 'static)) -> bool {
    e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn exit_code(e: &anyhow::Error) -> u8 {
    if e.chain().any(|c| c.is::<ConfigError>()) {
        return EXIT_CONFIG;
    }
    // The features that are listed, or that history shows, cannot be learned.
    if e.chain().any(|c| c.is::<SchemaError>()) {
        return EXIT_CONFIG;
    }
    for cause in e.chain() {
        match cause.downcast_ref::<Failure>() {
            Some(Failure::Misconfigured(_)) => return EXIT_CONFIG,
            Some(Failure::Unreachable { .. }) => return EXIT_UNAVAILABLE,
            // Its own first cause is not in the outer chain.
            Some(Failure::Other(inner)) => return exit_code(inner),
            None => {}
        }
        let worker = cause.downcast_ref::<WorkerError>();
        if let Some(WorkerError::Schema(_)) = worker {
            return EXIT_CONFIG;
        }
        let of_worker = worker.and_then(|w| if let WorkerError::Kafka(e) = w { Some(e) } else { None });
        if let Some(error) = cause.downcast_ref::<kafka::Error>().or(of_worker) {
            return if error.remedy() == Remedy::Stop { EXIT_CONFIG } else { EXIT_UNAVAILABLE };
        }
    }
    EXIT_OTHER
}

/// Loads the configuration with the process's environment.
fn load(file: &Path) -> Result<Loaded, ConfigError> {
    // Variables that are no text cannot be residua's, whose names and values are.
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    Config::load(Some(file), std::env::vars_os().filter_map(text))
}
