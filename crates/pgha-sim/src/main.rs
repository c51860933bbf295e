//! `pgha-sim`: runs, replays and shrinks seeds, and measures what they would find.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use pgha_sim::campaign::{Summary, run, run_plan};
use pgha_sim::counters::excuse;
use pgha_sim::plan::Plan;
use pgha_sim::planted::{DEFECTS, Defect, Found, Place, hunt, table};
use pgha_sim::shrink::{invariant, shrink};

/// From so many seeds on a campaign must reach everything that is demanded.
const CAMPAIGN: u64 = 2_000;
/// Most failing seeds that are told one by one.
const TOLD: usize = 100;

/// Views of the cluster are made and dropped all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Run one seed or one scenario file again, twice, and compare the traces.
    Replay {
        #[command(flatten)]
        source: Source,
        /// Print what happened.
        #[arg(long)]
        trace: bool,
    },
    /// Make a failing seed or scenario small and write it to a scenario file.
    Shrink {
        #[command(flatten)]
        source: Source,
        /// Where to; `seed-N-INVARIANT.txt` in the current directory if not given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Plant one defect after the other and demand that the seeds find it; needs `--features planted-bugs`.
    Planted {
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Write the table to this file, below the text that it begins with.
        #[arg(long)]
        write: Option<PathBuf>,
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
                let text = std::fs::read_to_string(path).map_err(|e| at(path, &e))?;
                Plan::parse(&text).map_err(|e| at(path, &e))
            }
            (None, seed) => Ok(Plan::draw(seed.unwrap_or(0))),
        }
    }
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
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
    let done = match Cli::parse().command {
        Command::Run { seeds, jobs, coverage } => Ok(run_campaign(seeds, jobs, coverage)),
        Command::Replay { source, trace } => source.plan().map(|plan| replay(&plan, trace)),
        Command::Planted { only, jobs, write } => hunt_all(only.as_deref(), jobs, write.as_deref()),
        Command::Shrink { source, out } => source.plan().and_then(|plan| shrink_to_file(&plan, out)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("pgha-sim: {e}");
            ExitCode::from(2)
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the wall time of a campaign is printed, nothing depends on it"
)]
fn run_campaign((from, to): (u64, u64), jobs: usize, coverage: bool) -> bool {
    let begun = Instant::now();
    let sum = run(from, to, jobs);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    if coverage {
        for (name, n) in sum.counters.lines() {
            println!("{n:>10}  {name}");
        }
    }
    for outcome in sum.failed.iter().take(TOLD) {
        println!("seed {}: {}", outcome.seed, outcome.violations.join("; "));
        println!("  reproduce: pgha-sim replay --seed {} --trace", outcome.seed);
    }
    let complete = tell_what_is_missing(&sum, to - from >= CAMPAIGN, coverage);
    println!(
        "seeds {}, violations {}, simulated {:.1} h, seeds/min {:.0}",
        sum.seeds,
        sum.failed.len(),
        sum.simulated as f64 / 3.6e12,
        sum.seeds as f64 / minutes
    );
    sum.failed.is_empty() && complete
}

/// Names what no seed reached. A handful of seeds cannot reach everything; a campaign must.
fn tell_what_is_missing(sum: &Summary, must: bool, tell_excused: bool) -> bool {
    let (excused, missed): (Vec<String>, Vec<String>) = sum
        .counters
        .never()
        .into_iter()
        .partition(|name| excuse(name).is_some());
    for name in excused.iter().filter(|_| tell_excused) {
        println!("not demanded: {name}: {}", excuse(name).unwrap_or_default());
    }
    for name in missed.iter().filter(|_| must || tell_excused) {
        println!("never reached: {name}");
    }
    println!(
        "never reached {}, not demanded {}{}",
        missed.len(),
        excused.len(),
        if must { "" } else { " (too few seeds to demand it)" }
    );
    missed.is_empty() || !must
}

fn replay(plan: &Plan, trace: bool) -> bool {
    print!("{plan}");
    let first = run_plan(plan.clone(), trace);
    let second = run_plan(plan.clone(), false);
    for line in &first.trace {
        println!("{line}");
    }
    println!(
        "trace hash {:016x}, simulated {:.1} s",
        first.trace_hash,
        first.ended_at as f64 / 1e9
    );
    for violation in &first.violations {
        println!("violation: {violation}");
    }
    if first.trace_hash != second.trace_hash {
        println!("the same plan gave another trace: {:016x}", second.trace_hash);
        return false;
    }
    first.violations.is_empty()
}

fn shrink_to_file(plan: &Plan, out: Option<PathBuf>) -> Result<bool, String> {
    let Some(shrunk) = shrink(plan) else {
        println!("nothing to shrink: this run breaks no invariant");
        return Ok(true);
    };
    let name = format!("seed-{}-{}.txt", plan.seed, invariant(&shrunk.violation).to_lowercase());
    let path = out.unwrap_or_else(|| PathBuf::from(name));
    std::fs::write(&path, shrunk.scenario()).map_err(|e| at(&path, &e))?;
    print!("{}", shrunk.scenario());
    println!(
        "{} of {} faults left after {} runs: {}",
        shrunk.plan.faults.len(),
        plan.faults.len(),
        shrunk.runs,
        path.display()
    );
    println!("  reproduce: pgha-sim replay --file {} --trace", path.display());
    Ok(false)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the wall time of a campaign is printed, nothing depends on it"
)]
fn hunt_all(only: Option<&str>, jobs: usize, write: Option<&Path>) -> Result<bool, String> {
    let begun = Instant::now();
    let mut rows: Vec<(&'static Defect, Option<Found>)> = Vec::new();
    let wanted = DEFECTS.iter().filter(|d| only.is_none_or(|id| d.id == id));
    for defect in wanted {
        if matches!(defect.place, Place::Core(_)) && !cfg!(feature = "planted-bugs") {
            return Err("the defects of the rules are not in this build: use --features planted-bugs".into());
        }
        let found = hunt(defect, jobs);
        match &found {
            Some(found) => println!("{}: seed {}: {}", defect.id, found.seed, found.violation),
            None => println!("{}: SURVIVED {} seeds", defect.id, defect.limit),
        }
        rows.push((defect, found));
    }
    let text = table(&rows);
    print!("{text}");
    if let Some(path) = write {
        let old = std::fs::read_to_string(path).map_err(|e| at(path, &e))?;
        let kept = old.split("| id |").next().unwrap_or_default();
        std::fs::write(path, format!("{kept}{text}")).map_err(|e| at(path, &e))?;
    }
    let survived = rows.iter().filter(|(_, found)| found.is_none()).count();
    println!(
        "defects {}, found {}, survived {survived}, {:.0} s",
        rows.len(),
        rows.len() - survived,
        begun.elapsed().as_secs_f64()
    );
    if rows.is_empty() {
        return Err("there is no such defect".into());
    }
    Ok(survived == 0)
}
