//! What `tests/pid1.rs` runs as process 1 of a pid namespace: `pid1_probe exit N | die | orphans N | signals FILE`.

use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use pgha_agent::pid1::{Split, split};

fn main() -> ExitCode {
    // Blocked before the split, as an inherited mask would be; the daemon must get back what was there.
    match split() {
        Ok(Split::Init(code)) => ExitCode::from(code),
        Ok(Split::Daemon) => daemon(),
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(99)
        }
    }
}

fn daemon() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match (args.first().map(String::as_str), args.get(1)) {
        (Some("exit"), Some(code)) => ExitCode::from(code.parse::<u8>().unwrap_or(98)),
        (Some("die"), _) => {
            nix::sys::signal::raise(Signal::SIGKILL).ok();
            ExitCode::SUCCESS
        }
        (Some("orphans"), Some(count)) => orphans(count),
        (Some("signals"), Some(file)) => signals(file),
        _ => ExitCode::from(97),
    }
}

/// Leaves many orphans behind while waiting for own children, whose exit codes must arrive. Exit 0: all is well.
fn orphans(count: &str) -> ExitCode {
    for _ in 0..20 {
        let script = format!("for i in $(seq {count}); do (sleep 0.05; exit 3) & done; exit 5");
        match Command::new("sh").args(["-c", &script]).status() {
            Ok(status) if status.code() == Some(5) => {}
            other => {
                eprintln!("own child ended as {other:?}");
                return ExitCode::from(96);
            }
        }
    }
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(25));
        // Process 1, this one and nobody else.
        if processes() == 2 {
            return ExitCode::SUCCESS;
        }
    }
    eprintln!("{} processes are left", processes());
    ExitCode::from(95)
}

fn processes() -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
        .count()
}

/// Writes each signal it gets to a file; SIGTERM ends it with code 42.
fn signals(file: &str) -> ExitCode {
    let wanted = SigSet::all();
    if wanted.thread_block().is_err() || std::fs::write(file, "ready\n").is_err() {
        return ExitCode::from(94);
    }
    let mut seen = "ready\n".to_owned();
    loop {
        match wanted.wait() {
            Ok(Signal::SIGTERM) => return ExitCode::from(42),
            Ok(signal) => {
                seen.push_str(&format!("{signal}\n"));
                if std::fs::write(file, &seen).is_err() {
                    return ExitCode::from(93);
                }
            }
            Err(_) => return ExitCode::from(92),
        }
    }
}
