//! `residua check`: the effective configuration, and whether Kafka has what it names.

use std::io::Write;
use std::path::PathBuf;

use crate::config::Config;
use crate::detector::{checkpoint_bytes, series_bytes};
use crate::kafka::{self, Finding};
use crate::model::{Scaling, floats_of_own_scale};
use crate::record::Features;
use crate::service::{Failure, unreachable};

/// Assumed where the records will tell.
const FEATURES: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also ask Kafka: topics, their shape, rights
    #[arg(long)]
    connect: bool,
    /// Create the topics that are missing, with as many partitions as the input has
    #[arg(long, requires = "connect")]
    create_topics: bool,
    /// Create the input topic too, with N partitions
    #[arg(long, value_name = "N", requires = "create_topics", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// Replicas of created topics; else as the brokers' default.replication.factor says
    #[arg(long, value_name = "N", requires = "create_topics", value_parser = clap::value_parser!(i32).range(1..=16))]
    replication: Option<i32>,
}

/// Prints what it finds; fails on a bad configuration, on an unreachable Kafka, and on anything Kafka lacks.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let loaded = super::load(&args.config)?;
    super::log::start(&loaded.config.log);
    loaded.describe(out)?;
    writeln!(out, "\n{}", memory(&loaded.config))?;
    if !args.connect {
        return Ok(());
    }
    let registry = crate::service::registry(&loaded.config)?;
    crate::service::block_on(ask_kafka(args, &loaded.config, out))??;
    if let Some(registry) = registry {
        let url = &loaded.config.schema_registry.url;
        registry.check().map_err(|why| Failure::Misconfigured(format!("use the schema registry: {why}")))?;
        writeln!(out, "ok    schema registry {url}: it answers")?;
    }
    Ok(())
}

/// What series may take, before anything is known of the records but what is configured.
fn memory(config: &Config) -> String {
    let features = match &config.input.features {
        Features::List(list) => list.len(),
        Features::Auto => FEATURES,
    };
    let profile = config.detector.profile;
    let mut sizes = profile.memory_sizes(features, config.model.window.fixed());
    if config.model.scale == Scaling::Auto {
        sizes.0 += floats_of_own_scale(features);
    }
    let (each, queued) = (series_bytes(sizes), checkpoint_bytes(sizes));
    let all = config.series.max as f64 * (each + queued) as f64 / (1 << 20) as f64;
    format!(
        "memory: about {each} bytes for each series ({features} features, profile {profile}), and {queued} while a checkpoint holds all of them; with series.max = {} at most {all:.0} MiB for each partition",
        config.series.max
    )
}

async fn ask_kafka(args: &Args, config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let settings = &config.kafka;
    let lost = |cause| unreachable(settings.brokers.clone(), cause);
    writeln!(out)?;
    if args.create_topics {
        for name in kafka::create_topics(settings, args.partitions, args.replication).await.map_err(lost)? {
            writeln!(out, "created topic `{name}`")?;
        }
    }
    let checks = kafka::check(settings).await.map_err(lost)?;
    let mut bad = 0;
    for check in &checks {
        match &check.finding {
            Finding::Good(note) => writeln!(out, "ok    {}: {note}", check.what)?,
            Finding::Unknown(why) => writeln!(out, "?     {}: {why}", check.what)?,
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
