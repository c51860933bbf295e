//! Commands of the configuration that run beside the agent: how they are split, started, listened to and killed.
//!
//! No shell is involved, so nothing that comes from elsewhere (a scope, a role) can become code. Each command leads a process
//! group of its own, by which it is killed with all it started; a process that leaves the group is on its own. Its
//! output goes to the log, bounded in length and number of lines.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::error::AgentError;

/// Bytes of one line of output that reach the log.
const MAX_LINE: usize = 4096;
/// Lines of one run that reach the log.
const MAX_LINES: usize = 1000;
/// How long output is still read after the command has ended, when something it left behind keeps its pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// A command as configured, split into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCommand {
    setting: String,
    program: String,
    args: Vec<String>,
}

impl HookCommand {
    /// Splits `text` as a POSIX shell would, with quotes and backslashes and without any expansion. `setting` is the path in the
    /// configuration that the command stands at, for logs and errors.
    ///
    /// # Errors
    /// [`AgentError::Command`] for an empty command or an open quote.
    pub fn parse(setting: &str, text: &str) -> Result<HookCommand, AgentError> {
        let bad = |problem: &str| AgentError::Command {
            setting: setting.to_owned(),
            problem: problem.to_owned(),
        };
        if text.contains('\0') {
            return Err(bad("the command contains a zero byte"));
        }
        let mut words = shlex::split(text)
            .ok_or_else(|| bad("the command ends within a quote or after a backslash; close the quote"))?
            .into_iter();
        let program = words
            .next()
            .ok_or_else(|| bad("the command is empty; remove the setting or name a program"))?;
        Ok(HookCommand {
            setting: setting.to_owned(),
            program,
            args: words.collect(),
        })
    }

    /// The same command with more arguments.
    #[must_use]
    pub fn with_args<'a>(mut self, more: impl IntoIterator<Item = &'a str>) -> HookCommand {
        self.args.extend(more.into_iter().map(str::to_owned));
        self
    }

    /// Where it stands in the configuration.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

/// The environment for programs that the agent starts: its own, without its configuration (passwords are in it) and
/// without the socket by which a service reports to systemd.
pub fn clean_environment() -> Vec<(OsString, OsString)> {
    clean(std::env::vars_os())
}

fn clean(vars: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    vars.filter(|(name, _)| {
        let name = name.to_string_lossy();
        !(name.starts_with("PATRONI_") || name.starts_with("PGHA_") || name == "NOTIFY_SOCKET")
    })
    .collect()
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    /// Exit code 0.
    Succeeded,
    /// Any other end of its own.
    Failed(ExitStatus),
    /// It was killed because it took longer than it may.
    TimedOut,
}

impl fmt::Display for HookOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookOutcome::Succeeded => f.write_str("succeeded"),
            HookOutcome::Failed(status) => write!(f, "failed, {status}"),
            HookOutcome::TimedOut => f.write_str("was killed, it took too long"),
        }
    }
}

/// Runs a hook to its end: `pre_promote`, `before_stop`.
///
/// # Errors
/// [`AgentError::Command`] when the program cannot be started.
pub async fn run(command: &HookCommand, limit: Duration) -> Result<HookOutcome, AgentError> {
    let mut running = Running::start(command)?;
    match tokio::time::timeout(limit, running.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(HookOutcome::Succeeded),
        Ok(Ok(status)) => Ok(HookOutcome::Failed(status)),
        Ok(Err(e)) => Err(AgentError::os(format!("wait for {}", command.setting), e)),
        Err(_) => {
            running.kill().await;
            Ok(HookOutcome::TimedOut)
        }
    }
}

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Errors
    /// [`AgentError::Command`] when the program cannot be started.
    pub fn start(command: &HookCommand) -> Result<Running, AgentError> {
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .envs(clean_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| AgentError::Command {
                setting: command.setting.clone(),
                problem: format!("cannot run {}: {e}; check the path and its mode", command.program),
            })?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            output.push(tokio::spawn(log_lines(command.setting.clone(), stdout)));
        }
        if let Some(stderr) = child.stderr.take() {
            output.push(tokio::spawn(log_lines(command.setting.clone(), stderr)));
        }
        Ok(Running { child, output })
    }

    /// Waits for its end and for the rest of its output. Cancel safe.
    ///
    /// # Errors
    /// What the operating system says when it cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        for reader in &mut self.output {
            if tokio::time::timeout(OUTPUT_GRACE, &mut *reader).await.is_err() {
                reader.abort();
            }
        }
        self.output.clear();
        Ok(status)
    }

    /// Kills it with its process group and waits for its end.
    pub async fn kill(&mut self) {
        self.kill_group();
        if let Err(e) = self.wait().await {
            tracing::warn!("cannot wait for a killed command: {e}");
        }
    }

    fn kill_group(&self) {
        // The id is there until it has been waited for, so the group's number cannot be another's.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // The only error is that all of it is gone already.
            let _gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
        for reader in &self.output {
            reader.abort();
        }
    }
}

async fn log_lines(setting: String, mut stream: impl AsyncRead + Unpin) {
    let mut lines = Lines::default();
    let mut chunk = [0u8; MAX_LINE];
    loop {
        let read = stream.read(&mut chunk).await;
        match read {
            Ok(n) if n > 0 => lines.push(&chunk[..n], |line| tracing::info!(command = %setting, "{line}")),
            Ok(_) | Err(_) => break,
        }
    }
    lines.finish(|line| tracing::info!(command = %setting, "{line}"));
    if lines.count > MAX_LINES {
        tracing::warn!(command = %setting, "only {MAX_LINES} of its {} lines of output are logged", lines.count);
    }
}

/// Cuts a byte stream into lines, each bounded, and counts them.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    count: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut log: impl FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' => self.flush(&mut log),
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn finish(&mut self, mut log: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.flush(&mut log);
        }
    }

    fn flush(&mut self, log: &mut impl FnMut(&str)) {
        self.count += 1;
        if self.count <= MAX_LINES {
            log(String::from_utf8_lossy(&self.line).trim_end());
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HookCommand, AgentError> {
        HookCommand::parse("postgresql.callbacks.on_start", text)
    }

    #[test]
    fn a_command_is_split_as_a_shell_splits_and_nothing_is_expanded() {
        let command = parse(r#"/bin/x 'a b' "c \" d" e\ f $HOME *.c `id`"#).expect("parses");
        assert_eq!(command.program, "/bin/x");
        assert_eq!(command.args, ["a b", "c \" d", "e f", "$HOME", "*.c", "`id`"]);
        let command = command.with_args(["on_start", "; rm -rf /"]);
        assert_eq!(command.args.last().map(String::as_str), Some("; rm -rf /"));
    }

    #[test]
    fn a_broken_command_is_an_error_that_names_the_setting() {
        for text in ["", "   ", "x 'open", "x \\", "a\0b"] {
            let error = parse(text).expect_err("refused").to_string();
            assert!(error.starts_with("postgresql.callbacks.on_start: "), "{error}");
        }
    }

    #[test]
    fn the_agents_own_variables_do_not_reach_commands() {
        let var = |name: &str| (OsString::from(name), OsString::from("x"));
        let vars = [
            "PATH",
            "PATRONI_REPLICATION_PASSWORD",
            "PGHA_FENCE",
            "NOTIFY_SOCKET",
            "PGDATA",
        ]
        .map(var);
        assert_eq!(clean(vars.into_iter()), ["PATH", "PGDATA"].map(var));
    }

    #[test]
    fn lines_are_bounded_in_length_and_number() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        lines.push(&vec![b'x'; 3 * MAX_LINE], |l| seen.push(l.to_owned()));
        lines.push(b"\nshort\r\n\xff", |l| seen.push(l.to_owned()));
        lines.finish(|l| seen.push(l.to_owned()));
        assert_eq!(seen, ["x".repeat(MAX_LINE), "short".to_owned(), "\u{fffd}".to_owned()]);
        lines.push(&vec![b'\n'; 2 * MAX_LINES], |l| seen.push(l.to_owned()));
        assert_eq!((seen.len(), lines.count), (MAX_LINES, 2 * MAX_LINES + 3));
    }

    #[tokio::test]
    async fn a_hook_succeeds_fails_or_runs_out_of_time() {
        let run = async |text: &str| run(&parse(text).expect("parses"), Duration::from_millis(500)).await;
        assert_eq!(run("true").await.expect("runs"), HookOutcome::Succeeded);
        assert!(matches!(run("sh -c 'exit 3'").await, Ok(HookOutcome::Failed(s)) if s.code() == Some(3)));
        assert_eq!(run("sleep 1000").await.expect("runs"), HookOutcome::TimedOut);
        assert!(
            run("/nonexistent/program")
                .await
                .expect_err("refused")
                .to_string()
                .contains("check the path")
        );
    }

    #[tokio::test]
    async fn what_outlives_a_hook_does_not_hold_it_up() {
        let command = parse("sh -c 'sleep 3 & exit 0'").expect("parses");
        let started = crate::clock::boot();
        assert_eq!(
            run(&command, Duration::from_secs(20)).await.expect("runs"),
            HookOutcome::Succeeded
        );
        assert!(crate::clock::boot().since(started) < Duration::from_millis(2_900));
    }
}
