//! The benchmarks: what a client sees when something dies, and what the agent costs, for pgha and Patroni side by side.
//!
//! Both agents get the same YAML, the same PostgreSQL, the same etcd and the same client, one after the other in one run.
//! The client connects to the nodes directly, so the figures are the agents' and not HAProxy's. The result is written to
//! `docs/benchmarks.md`.

mod measure;
mod report;
mod rest_load;
mod scenarios;
mod synchronous;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use pgha_integration::agent::Agent;
use pgha_integration::programs;

use crate::measure::{Figures, Timings};

/// Measures pgha and Patroni side by side and writes docs/benchmarks.md.
#[derive(Debug, Parser)]
struct Args {
    /// How often each scenario runs; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Measures one agent only and prints the figures instead of writing the file.
    #[arg(long)]
    only: Option<String>,
    /// Where the result goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seconds over which CPU time at rest is measured.
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = tokio::select! {
        ended = run(&args) => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let wanted = |agent: Agent| {
        args.only
            .as_deref()
            .is_none_or(|only| only.eq_ignore_ascii_case(&agent.to_string()))
    };
    let mut all: Vec<Figures> = Vec::new();
    if wanted(Agent::Patroni) {
        programs::patroni_python()?;
        all.push(scenarios::measure(Agent::Patroni, Timings::PATRONI, args).await?);
    }
    if wanted(Agent::Pgha) {
        all.push(scenarios::measure(Agent::Pgha, Timings::PATRONI, args).await?);
        all.push(scenarios::measure(Agent::Pgha, Timings::SHORT, args).await?);
    }
    let text = report::render(&all, args.rounds)?;
    println!("{text}");
    if args.only.is_none() || args.out.is_some() {
        let out = args
            .out
            .clone()
            .unwrap_or_else(|| programs::repository().join("docs/benchmarks.md"));
        if let Some(dir) = out.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&out, text).with_context(|| format!("cannot write {}", out.display()))?;
        eprintln!("written to {}", out.display());
    }
    Ok(())
}
