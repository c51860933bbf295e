//! Runs the programs that come with PostgreSQL, and the scripts of the operator.
//!
//! Each child has its own process group, a clean environment and bounded output, and does not survive being dropped or
//! cancelled: SIGTERM to the group, a grace time, SIGKILL. Absent on purpose: a shell, and anything secret in `args`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::process::{self, ProcessId};

/// Time between SIGTERM and SIGKILL when a child is cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// Time for the rest of a cancelled child's process group to end after it, and how often that is looked at.
const GROUP_GRACE: Duration = Duration::from_secs(1);
const GROUP_POLL: Duration = Duration::from_millis(5);
/// A grandchild may keep the pipe open after the child's end; its words are waited for this long.
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// Longest line that is kept whole.
const MAX_LINE: usize = 8 * 1024;
/// Standard output that is kept.
const MAX_STDOUT: usize = 4 * 1024 * 1024;
/// Lines of both streams that are kept for the error text.
const TAIL_LINES: usize = 20;
/// Lines waiting for the callback.
const LINE_QUEUE: usize = 64;

/// The environment for PostgreSQL's programs and for scripts: ours without what belongs to the agent (`PGHA_*`,
/// `PATRONI_*`), to systemd's protocol with it, and without libpq's `PG*`, which would change whom a program talks to.
pub fn clean_environment() -> Vec<(OsString, OsString)> {
    const DROPPED: [&str; 6] = [
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "LISTEN_PID",
        "CREDENTIALS_DIRECTORY",
    ];
    std::env::vars_os()
        .filter(|(name, _)| {
            let name = name.to_string_lossy();
            // systemd's way to give backends another OOM score than the postmaster's is meant for PostgreSQL.
            let meant = name.starts_with("PG_OOM_ADJUST_");
            (meant || !name.starts_with("PG")) && !name.starts_with("PATRONI_") && !DROPPED.contains(&name.as_ref())
        })
        .collect()
}

/// A program to run.
pub(crate) struct Tool {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    limit: Option<Duration>,
}

impl Tool {
    pub(crate) fn new(program: PathBuf) -> Tool {
        Tool {
            program,
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            limit: None,
        }
    }
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Tool {
        self.args.push(arg.into());
        self
    }
    pub(crate) fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Tool {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Tool {
        self.env.push((name.into(), value.into()));
        self
    }
    /// Messages in English: only for programs whose words are read here, since initdb stores the locale it runs under.
    pub(crate) fn in_english(self) -> Tool {
        self.env("LC_ALL", "C").env("LANG", "C")
    }
    pub(crate) fn cwd(mut self, dir: impl Into<PathBuf>) -> Tool {
        self.cwd = Some(dir.into());
        self
    }
    /// Cancelled when it takes longer.
    pub(crate) fn limit(mut self, limit: Duration) -> Tool {
        self.limit = Some(limit);
        self
    }
    fn name(&self) -> String {
        self.program
            .file_name()
            .map_or_else(|| "program".into(), |n| n.to_string_lossy().into_owned())
    }
}

/// What happens while a child runs.
pub(crate) enum Moment<'a> {
    /// It was started.
    Started(Option<ProcessId>),
    /// It wrote a line to either stream. A carriage return ends a line too: progress displays use it.
    Line(&'a str),
}

/// A child that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    program: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    /// The last lines of both streams.
    pub(crate) tail: String,
}

impl Ended {
    /// Itself when the exit code is 0.
    pub(crate) fn success(self) -> Result<Ended, Error> {
        if self.status.success() {
            return Ok(self);
        }
        Err(Error::Failed {
            program: self.program,
            status: self.status,
            tail: self.tail,
        })
    }
}

/// Kills the whole process group when the future is dropped before the child has ended.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0
            && let Err(e) = kill_process_group(pid, signal)
            && e != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = pid.as_raw_nonzero().get(), error = %e, "cannot signal a process group");
        }
    }
}

impl Group {
    fn exists(&self) -> bool {
        self.0.is_some_and(|pid| test_kill_process_group(pid).is_ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs a program to its end.
///
/// # Errors
/// [`Error::Spawn`], [`Error::Cancelled`], [`Error::TimedOut`]. An exit code is not an error here.
pub(crate) async fn run(
    tool: Tool,
    cancel: &CancellationToken,
    mut on: impl FnMut(Moment<'_>) + Send,
) -> Result<Ended, Error> {
    let name = tool.name();
    let (mut child, mut group) = spawn(&tool)?;
    on(Moment::Started(
        group.0.and_then(|p| process::process_id(p.as_raw_nonzero().get())),
    ));
    let (send, mut lines) = mpsc::channel(LINE_QUEUE);
    let out = tokio::spawn(read_lines(child.stdout.take(), MAX_STDOUT, send.clone()));
    let err = tokio::spawn(read_lines(child.stderr.take(), 0, send));
    let mut tail: Vec<String> = Vec::new();
    let mut keep = |line: String| {
        on(Moment::Line(&line));
        if tail.len() == TAIL_LINES {
            tail.remove(0);
        }
        tail.push(line);
    };
    let limit = tool.limit.unwrap_or(Duration::MAX);
    let mut expired = std::pin::pin!(tokio::time::sleep(limit));
    let end = loop {
        tokio::select! {
            status = child.wait() => break Ok(status.map_err(|source| Error::Spawn { program: name.clone(), source })?),
            Some(line) = lines.recv() => keep(line),
            () = cancel.cancelled() => break Err(Error::Cancelled),
            () = &mut expired => break Err(Error::TimedOut { what: name.clone(), limit }),
        }
    };
    let status = match end {
        Ok(status) => status,
        Err(e) => {
            stop(&mut child, &group).await;
            return Err(e);
        }
    };
    let drained = async {
        while let Some(line) = lines.recv().await {
            keep(line);
        }
    };
    if tokio::time::timeout(PIPE_GRACE, drained).await.is_err() {
        out.abort();
        err.abort();
    }
    // The child is gone; what it left in its group (a script's background jobs) is not ours to kill.
    group.0 = None;
    let stdout = out.await.unwrap_or_default();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    Ok(Ended {
        program: name,
        status,
        stdout,
        tail: tail.join("; "),
    })
}

fn spawn(tool: &Tool) -> Result<(Child, Group), Error> {
    let mut command = Command::new(&tool.program);
    command
        .args(&tool.args)
        .env_clear()
        .envs(clean_environment())
        .envs(tool.env.iter().map(|(k, v)| (k, v)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(dir) = &tool.cwd {
        command.current_dir(dir);
    }
    let child = command.spawn().map_err(|source| Error::Spawn {
        program: tool.name(),
        source,
    })?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok((child, Group(pid)))
}

/// Asks the group to end, then kills it. PostgreSQL's tools remove what they began when they get SIGTERM.
async fn stop(child: &mut Child, group: &Group) {
    group.signal(Signal::TERM);
    if tokio::time::timeout(CANCEL_GRACE, child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        if let Err(e) = child.wait().await {
            tracing::warn!(error = %e, "cannot wait for a killed program");
        }
    }
    // Its children (pg_basebackup has one that receives WAL) must not write any more when this returns.
    let alone = async {
        while group.exists() {
            tokio::time::sleep(GROUP_POLL).await;
        }
    };
    if tokio::time::timeout(GROUP_GRACE, alone).await.is_err() {
        group.signal(Signal::KILL);
    }
}

/// Cuts a stream into lines and returns up to `keep` bytes of it.
async fn read_lines(stream: Option<impl AsyncRead + Unpin>, keep: usize, lines: mpsc::Sender<String>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    let mut line = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        // A read error on a pipe means the same as its end: there is nothing more to learn from it.
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..n.min(keep.saturating_sub(kept.len()))]);
        for &byte in &buffer[..n] {
            if byte != b'\n' && byte != b'\r' && line.len() < MAX_LINE {
                line.push(byte);
            } else if !flush(&mut line, &lines).await {
                return kept;
            }
        }
    }
    flush(&mut line, &lines).await;
    kept
}

async fn flush(line: &mut Vec<u8>, lines: &mpsc::Sender<String>) -> bool {
    let text = String::from_utf8_lossy(line).trim_end().to_string();
    line.clear();
    text.is_empty() || lines.send(text).await.is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("/bin/sh".into()).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn both_streams_are_heard_and_the_exit_code_is_kept() {
        let mut heard = Vec::new();
        let ended = run(
            shell("echo out; echo 'a\rb' >&2; exit 3"),
            &CancellationToken::new(),
            |m| {
                if let Moment::Line(l) = m {
                    heard.push(l.to_string());
                }
            },
        )
        .await
        .unwrap();
        heard.sort();
        assert_eq!(heard, ["a", "b", "out"]);
        assert_eq!((ended.stdout.as_str(), ended.status.code()), ("out\n", Some(3)));
        assert!(ended.success().unwrap_err().to_string().contains("out"));
    }

    #[tokio::test]
    async fn cancelling_ends_the_child_and_its_children() {
        let cancel = CancellationToken::new();
        let mut started = None;
        let done = run(shell("sleep 61.5 & sleep 61.5; true"), &cancel, |m| {
            if let Moment::Started(p) = m {
                started = p;
                cancel.cancel();
            }
        })
        .await;
        assert!(matches!(done, Err(Error::Cancelled)));
        assert!(!process::is_alive(started.unwrap()));
        let left = process::all_pids()
            .into_iter()
            .filter(|p| process::title(*p) == "sleep 61.5")
            .count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_limit_ends_the_child() {
        let done = run(
            shell("sleep 62").limit(Duration::from_millis(50)),
            &CancellationToken::new(),
            |_| {},
        )
        .await;
        assert!(matches!(done, Err(Error::TimedOut { .. })));
    }

    #[tokio::test]
    async fn the_childs_environment_has_no_libpq_variables() {
        let ended = run(shell("env").env("PGPASSFILE", "/x"), &CancellationToken::new(), |_| {})
            .await
            .unwrap();
        let names: Vec<_> = ended.stdout.lines().filter(|l| l.starts_with("PG")).collect();
        assert_eq!(names, ["PGPASSFILE=/x"]);
    }
}
