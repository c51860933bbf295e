//! `pgha-sim`: runs and replays seeds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use pgha_core::rule::Rule;
use pgha_sim::campaign::{run, run_plan};
use pgha_sim::plan::Plan;

/// What every campaign must have reached; a campaign that never got there shows nothing.
const MUST_REACH: &[&str] = &[
    "promotion",
    "rewind",
    "fence fired on a running server",
    "write applied, answer lost",
    "write applied after its time-out",
    "lease revoked early",
    "agent killed",
    "agent stopped",
    "switchover asked for",
    "etcd emptied",
    "request to etcd lost",
    "write applied twice",
    "answer after the time-out",
    "answer from the past dropped",
    "stale linearizable read",
    "keepalive success on a revoked lease",
    "etcd elected a leader",
    "etcd: etcdserver: mvcc: database space exceeded",
    "authenticated again",
    "restored or replaced etcd accepted",
    "watch event lost",
    "watch event late",
    "watch cancelled",
    "silent watch given up",
    "rule 630 ScopeLostAskMembers",
];

#[derive(Parser)]
#[command(name = "pgha-sim", version, about = "Deterministic simulation of pgha clusters")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds; exit 1 when an invariant breaks.
    Run {
        /// First and last seed, the last one excluded: `0..1000`.
        #[arg(long, value_parser = parse_range)]
        seeds: (u64, u64),
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Print what was reached, rule by rule.
        #[arg(long)]
        coverage: bool,
    },
    /// Run one seed or one scenario file again.
    Replay {
        #[command(flatten)]
        source: Source,
        /// Print what happened.
        #[arg(long)]
        trace: bool,
    },
}

/// Where a plan comes from.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Draw the plan from this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Read the plan from this scenario file.
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Source {
    fn plan(&self) -> Result<Plan, String> {
        match (&self.file, self.seed) {
            (Some(path), _) => {
                let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
                let text = std::fs::read_to_string(path).map_err(|e| told(&e))?;
                Plan::parse(&text).map_err(|e| told(&e))
            }
            (None, seed) => Ok(Plan::draw(seed.unwrap_or(0))),
        }
    }
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("write A..B, for instance 0..1000")?;
    let parse = |t: &str| t.parse::<u64>().map_err(|e| format!("{t:?}: {e}"));
    let (from, to) = (parse(from)?, parse(to)?);
    if from >= to {
        Err(format!("{from}..{to} holds no seed"))
    } else {
        Ok((from, to))
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seeds, jobs, coverage } => run_campaign(seeds, jobs, coverage),
        Command::Replay { source, trace } => match source.plan() {
            Ok(plan) => replay(&plan, trace),
            Err(e) => {
                eprintln!("pgha-sim: {e}");
                ExitCode::from(2)
            }
        },
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the wall time of a campaign is printed, nothing depends on it"
)]
fn run_campaign((from, to): (u64, u64), jobs: usize, coverage: bool) -> ExitCode {
    let begun = Instant::now();
    let sum = run(from, to, jobs);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    if coverage {
        for (name, n) in &sum.counters {
            println!("{n:>10}  {name}");
        }
        for rule in Rule::ALL {
            let key = format!("rule {} {}", rule.number(), rule.name());
            if !sum.counters.contains_key(&key) {
                println!("     never  {key}");
            }
        }
    }
    let mut ok = true;
    for outcome in sum.failed.iter().take(10) {
        println!("seed {}: {}", outcome.seed, outcome.violations.join("; "));
        println!("  reproduce: pgha-sim replay --seed {} --trace", outcome.seed);
        ok = false;
    }
    // A handful of seeds cannot reach everything; a campaign must.
    if to - from >= 500 {
        for name in MUST_REACH.iter().filter(|name| !sum.counters.contains_key(**name)) {
            println!("vacuous: no seed reached `{name}`");
            ok = false;
        }
    }
    let hours = sum.simulated as f64 / 3.6e12;
    let rate = sum.seeds as f64 / minutes;
    println!(
        "seeds {}, violations {}, simulated {hours:.1} h, seeds/min {rate:.0}",
        sum.seeds,
        sum.failed.len()
    );
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(plan: &Plan, trace: bool) -> ExitCode {
    print!("{plan}");
    let first = run_plan(plan.clone(), trace);
    let second = run_plan(plan.clone(), false);
    for line in &first.trace {
        println!("{line}");
    }
    println!(
        "trace hash {:016x}, simulated {:.1} s",
        first.trace_hash,
        first.simulated as f64 / 1e9
    );
    if first.trace_hash != second.trace_hash {
        println!("the same plan gave another trace: {:016x}", second.trace_hash);
        return ExitCode::FAILURE;
    }
    for violation in &first.violations {
        println!("violation: {violation}");
    }
    if first.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
