//! Finds the postmaster of a data directory and its children.
//!
//! `postmaster.pid` only proposes a pid. It is believed when that process runs a server program, has the data
//! directory as its working directory and is not itself a child of the server. Start times in the file are not compared:
//! a clock step would make a live server look dead, and somebody would start a second one. When the file proposes
//! nobody, `/proc` is searched, because a deleted file does not end the server.

use std::path::{Path, PathBuf};

use pgha_core::pg::{Postmaster, PostmasterPhase};

use crate::process::{self, ProcessId};

/// Programs that can be a postmaster, besides the configured name of `postgres`.
const SERVER_PROGRAMS: [&str; 2] = ["postgres", "postmaster"];

/// Words in the titles of server processes that serve no user.
const AUXILIARY: [&str; 17] = [
    "archiver",
    "startup",
    "autovacuum launcher",
    "autovacuum worker",
    "background writer",
    "checkpointer",
    "logger",
    "stats collector",
    "walwriter",
    "walreceiver",
    "walsender",
    "walsummarizer",
    "logical replication launcher",
    "slotsync worker",
    "io worker",
    "wal writer",
    "wal receiver",
];

/// The lines of `postmaster.pid`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PidFile {
    /// Line 1; negative for a single-user server.
    pub pid: i32,
    /// Line 2.
    pub data_dir: PathBuf,
    /// Line 3: seconds since 1970.
    pub start_time: i64,
    /// Line 4.
    pub port: Option<u16>,
    /// Line 5; `None` when empty.
    pub socket_dir: Option<PathBuf>,
    /// Line 6; `None` when empty.
    pub listen: Option<String>,
    /// Line 8: `starting`, `stopping`, `ready`, `standby`.
    pub status: Option<String>,
}

impl PidFile {
    /// Reads the file of `data_dir`; `None` when it is missing or its first line is no pid.
    pub fn read(data_dir: &Path) -> Option<PidFile> {
        PidFile::parse(&std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<PidFile> {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next()?.parse().ok()?;
        let mut next = || lines.next().filter(|l| !l.is_empty()).map(str::to_string);
        let data_dir = next().map(PathBuf::from).unwrap_or_default();
        let start_time = next().and_then(|l| l.parse().ok()).unwrap_or(0);
        let port = next().and_then(|l| l.parse().ok());
        let socket_dir = next().map(PathBuf::from);
        let listen = next();
        let _shared_memory = next();
        Some(PidFile {
            pid,
            data_dir,
            start_time,
            port,
            socket_dir,
            listen,
            status: next(),
        })
    }

    /// The phase that the status line tells.
    pub fn phase(&self) -> PostmasterPhase {
        match self.status.as_deref() {
            // `standby` is a server in recovery that will not let anybody in (hot_standby = off).
            Some("starting" | "standby") | None => PostmasterPhase::Starting,
            Some("ready") => PostmasterPhase::Ready,
            Some("stopping") => PostmasterPhase::Stopping,
            Some(_) => PostmasterPhase::Unknown,
        }
    }
}

/// What was found in a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// No server.
    Nothing {
        /// A pid that `postmaster.pid` names and that now belongs to some other living process. PostgreSQL would take
        /// it for a running server unless told otherwise.
        misleading_pid: Option<i32>,
    },
    /// A postmaster, or a single-user server.
    Server {
        /// The process.
        process: ProcessId,
        /// Its file; `None` when it was deleted or is not written yet.
        pid_file: Option<PidFile>,
        /// `postgres --single`.
        single_user: bool,
    },
}

impl Found {
    /// As the core's fact.
    pub fn fact(&self) -> Postmaster {
        match self {
            Found::Nothing { .. } => Postmaster::NotRunning,
            Found::Server {
                process,
                pid_file,
                single_user,
            } => {
                let phase = match process::stat(process.pid) {
                    Some(s) if s.is_frozen() => PostmasterPhase::Unknown,
                    _ if *single_user => PostmasterPhase::Starting,
                    _ => pid_file.as_ref().map_or(PostmasterPhase::Unknown, PidFile::phase),
                };
                Postmaster::Running {
                    pid: process.pid,
                    start_ticks: process.start_ticks,
                    phase,
                }
            }
        }
    }
    /// The process, if there is one.
    pub fn process(&self) -> Option<ProcessId> {
        match self {
            Found::Nothing { .. } => None,
            Found::Server { process, .. } => Some(*process),
        }
    }
}

/// Looks for the server of `data_dir`. `program` is the configured file name of `postgres`.
pub fn find_postmaster(data_dir: &Path, program: &str) -> Found {
    let pid_file = PidFile::read(data_dir);
    let proposed = pid_file
        .as_ref()
        .and_then(|f| f.pid.checked_abs())
        .filter(|pid| *pid > 1);
    if let Some(pid) = proposed
        && let Some(process) = process::process_id(pid)
        && is_main_server(process, data_dir, program)
    {
        let single_user = pid_file.as_ref().is_some_and(|f| f.pid < 0);
        return Found::Server {
            process,
            pid_file,
            single_user,
        };
    }
    let searched = servers_in(data_dir, program)
        .into_iter()
        .find(|p| is_main_server(*p, data_dir, program));
    match searched {
        Some(process) => {
            let single_user = process::title(process.pid).split(' ').nth(1) == Some("--single");
            Found::Server {
                process,
                pid_file: None,
                single_user,
            }
        }
        None => Found::Nothing {
            misleading_pid: proposed.filter(|pid| process::process_id(*pid).is_some()),
        },
    }
}

/// Server processes of `data_dir` that outlived their postmaster. Empty while a postmaster lives.
///
/// They still use shared memory and may still write, so no new server may start before they are gone.
pub fn orphans(data_dir: &Path, program: &str) -> Vec<ProcessId> {
    let all = servers_in(data_dir, program);
    if all.iter().any(|p| is_main_server(*p, data_dir, program)) {
        return Vec::new();
    }
    all
}

/// All living children of a postmaster.
pub fn server_children(postmaster: ProcessId) -> Vec<ProcessId> {
    process::children(postmaster)
}

/// The children of a postmaster that serve users, told by their titles.
pub fn user_backends(postmaster: ProcessId) -> Vec<ProcessId> {
    process::children(postmaster)
        .into_iter()
        .filter(|p| is_user_title(&process::title(p.pid)))
        .collect()
}

fn servers_in(data_dir: &Path, program: &str) -> Vec<ProcessId> {
    process::all_pids()
        .into_iter()
        .filter(|pid| is_server(*pid, data_dir, program))
        .filter_map(process::process_id)
        .collect()
}

fn is_server(pid: i32, data_dir: &Path, program: &str) -> bool {
    process::works_in(pid, data_dir)
        && process::program_name(pid).is_some_and(|n| n == program || SERVER_PROGRAMS.contains(&n.as_str()))
}

/// A server process that is nobody's backend: backends carry a title, and so do orphans.
fn is_main_server(process: ProcessId, data_dir: &Path, program: &str) -> bool {
    is_server(process.pid, data_dir, program)
        && !process::title(process.pid).starts_with("postgres: ")
        && process::stat(process.pid).is_some_and(|s| !is_server(s.parent, data_dir, program))
}

/// `postgres: [cluster_name: ]what`: a user's backend names user, database and client instead of an auxiliary process.
fn is_user_title(title: &str) -> bool {
    let Some(rest) = title.strip_prefix("postgres: ") else {
        return false;
    };
    let what = rest.split_once(": ").map_or(rest, |(_, what)| what);
    ![rest, what].iter().any(|t| {
        AUXILIARY
            .iter()
            .any(|a| t.starts_with(a) && !t[a.len()..].starts_with(char::is_alphanumeric))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_lines_of_the_pid_file_are_told_apart_and_a_torn_file_proposes_nobody() {
        let text = "123\n/data\n1700000000\n5433\n/run/pg\nlocalhost\n  5433001   1234\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!(
            (file.pid, file.port, file.phase()),
            (123, Some(5433), PostmasterPhase::Ready)
        );
        assert_eq!(file.listen.as_deref(), Some("localhost"));
        let early = PidFile::parse("123\n/data\n1700000000\n5433\n\n").unwrap();
        assert_eq!(
            (early.socket_dir.clone(), early.phase()),
            (None, PostmasterPhase::Starting)
        );
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("xyz\n"), None);
    }

    #[test]
    fn an_empty_line_keeps_its_place() {
        let file = PidFile::parse("1\n/d\n1\n5432\n\n*\n 1 2\nstopping\n").unwrap();
        assert_eq!((file.socket_dir, file.listen.as_deref()), (None, Some("*")));
        assert_eq!(file.status.as_deref(), Some("stopping"));
    }

    #[test]
    fn backends_of_users_are_told_from_the_servers_own_processes() {
        for title in [
            "postgres: postgres postgres [local] idle",
            "postgres: main: app startupdb 10.0.0.1(33) SELECT",
            "postgres: archiverx db [local] idle",
        ] {
            assert!(is_user_title(title), "{title}");
        }
        for title in [
            "postgres: checkpointer ",
            "postgres: 15/main: walwriter ",
            "postgres: main: walsender rep 10.0.0.1(1) streaming 0/1",
            "postgres: autovacuum worker postgres",
            "/usr/bin/postgres -D /data",
        ] {
            assert!(!is_user_title(title), "{title}");
        }
    }

    #[test]
    fn another_living_process_under_the_recorded_pid_is_reported_as_misleading() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        std::fs::write(
            dir.path().join("postmaster.pid"),
            format!("{own}\n{}\n1\n5432\n", dir.path().display()),
        )
        .unwrap();
        let found = find_postmaster(dir.path(), "postgres");
        assert_eq!(
            found,
            Found::Nothing {
                misleading_pid: i32::try_from(own).ok()
            }
        );
    }
}
