//! `pgha-faults`: runs the fault scenarios on real etcd, PostgreSQL and agents in network namespaces.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use pgha_integration::rig::{Scenario, scenarios};

#[derive(Parser)]
#[command(
    name = "pgha-faults",
    version,
    about = "Real faults on real clusters, from scenario files"
)]
struct Cli {
    /// Only these scenarios, by the begin of their names (`F01`); all when none is named.
    names: Vec<String>,
    /// List the scenarios, and what this machine lacks for each.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgha-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let chosen = choose(scenarios()?, &cli.names)?;
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), Vec::new());
    for scenario in &chosen {
        match scenario.lacking() {
            Some(reason) => {
                println!("{}  {}: SKIPPED, {reason}", scenario.name, scenario.title);
                skipped.push(scenario.name.as_str());
            }
            None if cli.list => println!("{}  {}", scenario.name, scenario.title),
            None => match on_own_thread(scenario) {
                Ok(line) => {
                    println!("{line}");
                    passed += 1;
                }
                Err(error) => {
                    println!("{}  {}: FAILED: {error:#}", scenario.name, scenario.title);
                    failed.push(scenario.name.as_str());
                }
            },
        }
    }
    if cli.list {
        println!(
            "scenarios {}, {} cannot run here{}",
            chosen.len(),
            skipped.len(),
            named(&skipped)
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "scenarios {}, passed {passed}, failed {}{}, skipped {}{}",
        chosen.len(),
        failed.len(),
        named(&failed),
        skipped.len(),
        named(&skipped)
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn choose(all: Vec<Scenario>, names: &[String]) -> Result<Vec<Scenario>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|s| s.name.starts_with(name.as_str())))
    {
        bail!("there is no scenario {unknown}; `pgha-faults --list` shows them");
    }
    let wanted = |s: &Scenario| names.is_empty() || names.iter().any(|name| s.name.starts_with(name.as_str()));
    let chosen: Vec<Scenario> = all.into_iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "there are no scenarios");
    Ok(chosen)
}

/// Each scenario has a network and mounts of its own, which belong to a thread.
fn on_own_thread(scenario: &Scenario) -> Result<String> {
    let run = std::thread::scope(|scope| scope.spawn(|| scenario.run()).join());
    match run {
        Ok(report) => report.map(|report| report.to_string()),
        Err(_) => Err(anyhow::anyhow!("it panicked")).context("the rig itself is at fault"),
    }
}

fn named(names: &[&str]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(" ({})", names.join(", "))
    }
}
