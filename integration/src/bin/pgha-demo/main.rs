//! The demo: etcd, three nodes and HAProxy on this machine, alive until ctrl-C; or a failover with a stopwatch.
//!
//! Everything lives in one scratch directory, on free ports, and is gone afterwards, however the demo ends.

mod boot;
mod console;
mod failover;
mod status;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use pgha_integration::agent::Agent;
use pgha_integration::cluster::{ClusterSpec, HaproxyAt};
use tokio::signal::unix::{SignalKind, signal};

use crate::console::Console;

/// Three PostgreSQL nodes under etcd and behind HAProxy, on this machine, until ctrl-C.
#[derive(Debug, Parser)]
struct Args {
    /// Runs unattended, prints what it measures, and ends with 0 only if no acknowledged row is missing.
    #[arg(long, value_enum)]
    script: Option<Script>,
    /// The agent: pgha, or Patroni for comparison (`sh scripts/setup-bench.sh` installs it).
    #[arg(long, value_enum, default_value = "pgha")]
    agent: AgentName,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Life of the leader's lease in seconds. Patroni takes no less than 20.
    #[arg(long, default_value_t = 5)]
    ttl: u32,
    /// Time between two looks at everything, in seconds, when nothing happens.
    #[arg(long, default_value_t = 1)]
    loop_wait: u32,
    /// Time for repeating a failed request to etcd or PostgreSQL, in seconds.
    #[arg(long, default_value_t = 2)]
    retry_timeout: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Script {
    /// Kills the primary's whole node and times what follows.
    Failover,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AgentName {
    Pgha,
    Patroni,
}

impl Args {
    fn spec(&self) -> ClusterSpec {
        let agent = match self.agent {
            AgentName::Pgha => Agent::Pgha,
            AgentName::Patroni => Agent::Patroni,
        };
        let mut spec = ClusterSpec::new("demo")
            .agent(agent)
            .nodes(usize::from(self.nodes))
            .timings(self.ttl, self.loop_wait, self.retry_timeout)
            .haproxy(HaproxyAt::Localhost);
        spec.keep_logs = false;
        spec
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let console = Console::new();
    let (mut hangup, mut term) = match (signal(SignalKind::hangup()), signal(SignalKind::terminate())) {
        (Ok(hangup), Ok(term)) => (hangup, term),
        (Err(error), _) | (_, Err(error)) => {
            console.line(&format!("cannot handle signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // Whichever ends first drops the cluster, and that takes everything down.
    let ended = tokio::select! {
        ended = run(&args, &console) => ended,
        _ = tokio::signal::ctrl_c() => interrupted(&args),
        _ = term.recv() => interrupted(&args),
        _ = hangup.recv() => interrupted(&args),
    };
    match ended {
        Ok(()) => {
            console.line("everything is stopped and removed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            console.line(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, console: &Console) -> Result<()> {
    let mut cluster = boot::boot(args.spec(), console).await?;
    match args.script {
        Some(Script::Failover) => failover::run(&mut cluster, console).await,
        None => status::watch(&mut cluster, console).await,
    }
}

/// For the live demo a ctrl-C is the ordinary end; a script that did not come to its end has shown nothing.
fn interrupted(args: &Args) -> Result<()> {
    match args.script {
        None => Ok(()),
        Some(_) => anyhow::bail!("interrupted"),
    }
}
