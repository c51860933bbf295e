//! The fence, a small process beside the daemon: see `pgha_agent::fence`.
//!
//! `pgha-fence STATE_DIR`. Started by the daemon, never by a person. Exit codes: 0 no longer needed, 2 bad command line,
//! 3 another fence runs, 1 anything else.

use std::error::Error;
use std::process::ExitCode;

use pgha_agent::fence::{client, server};
use pgha_agent::{AgentError, stderr_log};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(state_dir), None) = (args.next(), args.next()) else {
        stderr_log::line(
            "ERROR",
            "pgha-fence",
            format_args!("usage: pgha-fence STATE_DIR; the daemon pgha starts it"),
        );
        return ExitCode::from(2);
    };
    match server::run(state_dir.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let source = e.source().map(|s| format!(": {s}")).unwrap_or_default();
            stderr_log::line("ERROR", "pgha-fence", format_args!("{e}{source}"));
            let locked = matches!(e, AgentError::Locked { .. });
            ExitCode::from(if locked { client::EXIT_LOCKED } else { 1 })
        }
    }
}
