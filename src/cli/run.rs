//! `residua run`: the daemon.

use std::path::PathBuf;

use crate::service::Service;

#[derive(clap::Args)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then drains.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let loaded = super::load(&args.config)?;
    super::log::start(&loaded.config.log);
    let shown = loaded.redacted();
    let service = Service::start(loaded.config, shown)?;
    service.wait_for_signal()?;
    service.stop();
    service.join()?;
    tracing::info!("drained");
    Ok(())
}
