//! `pgha CONFIG.yml`: the daemon.

use std::process::ExitCode;

use clap::Parser;
use pgha_agent::pid1::{self, Split};
use pgha_agent::{config_files, daemon};

#[derive(Parser)]
#[command(
    name = "pgha",
    version,
    about = "Keeps PostgreSQL available: a native agent that speaks Patroni's configuration, etcd keys and REST API"
)]
struct Cli {
    /// A Patroni YAML file, or a directory of them. Without it, PATRONI_CONFIGURATION or PATRONI_* variables are read.
    config: Option<std::path::PathBuf>,
    /// Check the configuration, say everything that is wrong with it, and stop.
    #[arg(long)]
    validate_config: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let loaded = config_files::read(cli.config.as_deref());
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(findings) => {
            for line in findings {
                eprintln!("{line}");
            }
            return ExitCode::FAILURE;
        }
    };
    if cli.validate_config {
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        return ExitCode::SUCCESS;
    }
    // Before any thread: process 1 of a container forks here and only reaps and forwards from then on.
    match pid1::split() {
        Ok(Split::Daemon) => daemon::run(cli.config.as_deref(), loaded),
        Ok(Split::Init(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
