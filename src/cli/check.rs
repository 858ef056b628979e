//! `residua check`: the effective configuration, and whether Kafka has what it names.

use std::io::Write;
use std::path::PathBuf;

use crate::config::Config;
use crate::kafka::{self, Finding};
use crate::service::Failure;

#[derive(clap::Args)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also ask Kafka: topics, their shape, rights
    #[arg(long)]
    connect: bool,
    /// Create the topics that are missing
    #[arg(long, requires = "connect")]
    create_topics: bool,
    /// Partitions of a created input topic; the others get as many as the input has
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    /// Replicas of created topics
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=16))]
    replication: i32,
}

/// Prints what it finds; fails on a bad configuration, on an unreachable Kafka, and on anything Kafka lacks.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let loaded = super::load(&args.config)?;
    super::log::start(&loaded.config.log);
    loaded.describe(out)?;
    if !args.connect {
        return Ok(());
    }
    crate::service::block_on(ask_kafka(args, &loaded.config, out))?
}

async fn ask_kafka(args: &Args, config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let settings = &config.kafka;
    writeln!(out)?;
    if args.create_topics {
        for name in kafka::create_topics(settings, args.partitions, args.replication).await? {
            writeln!(out, "created topic `{name}`")?;
        }
    }
    let checks = kafka::check(settings).await?;
    let mut bad = 0;
    for check in &checks {
        match &check.finding {
            Finding::Good(note) => writeln!(out, "ok    {}: {note}", check.what)?,
            Finding::Bad(why) => {
                bad += 1;
                writeln!(out, "WRONG {}: {why}", check.what)?;
            }
        }
    }
    if bad > 0 {
        let lacks = format!("Kafka lacks {bad} of {} things residua needs", checks.len());
        return Err(Failure::Misconfigured(lacks).into());
    }
    Ok(())
}
