//! `pgha-ctl`: reads the command line, runs the command, and says with the exit code how it ended.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use jiff::Zoned;
use pgha_ctl::args::Cli;
use pgha_ctl::commands::run;
use pgha_ctl::console::Console;
use pgha_ctl::error::CtlError;

/// As for wrong options.
const USAGE: u8 = 2;
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    // A worker of its own keeps connections alive while a prompt blocks the main thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(cli, env, Console::of_process(), Zoned::now)),
        Err(error) => Err(CtlError::Output(error)),
    };
    match ended {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        // The reader of the pipe has seen enough.
        Err(CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ CtlError::Aborted) => fail(&error.to_string(), FAILED),
        Err(error @ CtlError::Usage(_)) => fail(&format!("Error: {error}"), USAGE),
        Err(error) => fail(&format!("Error: {error}"), FAILED),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(code)
}
