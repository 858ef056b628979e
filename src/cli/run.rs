//! `residua run`: the daemon.

use std::path::PathBuf;

use crate::service::{Service, Source};

#[derive(clap::Args)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT, then drains.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let known = std::fs::read(&args.config).ok();
    let loaded = super::load(&args.config)?;
    super::log::start(&loaded.config.log);
    let service = Service::start(loaded.config)?;
    let load = || Ok(super::load(&args.config)?.config);
    service.wait_for_signal(Some(&Source {
        file: &args.config,
        known,
        load: &load,
        log_level: &super::log::set_level,
    }))?;
    service.stop();
    service.join()?;
    tracing::info!("drained");
    Ok(())
}
