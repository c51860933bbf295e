//! One node: the agent and its PostgreSQL, and what a test may do to them.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::Agent;
use crate::config::{merge, render_yaml};
use crate::http::{self, Answer};
use crate::netns::NetHost;
use crate::process::{self, Found, Process, Usage};
use crate::scratch::Scratch;
use crate::sql::Sql;
use crate::wait::wait_for;

/// Limit of a REST request that only asks.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Member name.
    pub name: String,
    /// Everything of this node is below this directory.
    pub dir: PathBuf,
    /// PGDATA.
    pub data_dir: PathBuf,
    /// The YAML file.
    pub config: PathBuf,
    pub(crate) settings: Value,
    /// What the agent and PostgreSQL's start write.
    pub log: PathBuf,
    /// Where PostgreSQL listens.
    pub postgres: SocketAddrV4,
    /// Where the REST API listens.
    pub rest: SocketAddrV4,
    /// The host, if it is not this one.
    pub host: Option<Arc<NetHost>>,
    pub(crate) agent: Agent,
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) password: String,
    pub(crate) process: Option<Process>,
}

/// What PostgreSQL says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// The timeline it writes or receives; 0 when it does neither.
    pub timeline: i32,
    /// Whether its wal receiver streams.
    pub streaming: bool,
}

impl Node {
    /// Merges into the YAML file, as RFC 7396 does it. A running agent learns of it by a reload.
    pub fn configure(&mut self, patch: &Value) -> Result<()> {
        merge(&mut self.settings, patch);
        self.scratch.write(&self.config, &render_yaml(&self.settings))
    }

    /// Starts the agent.
    pub fn start(&mut self) -> Result<()> {
        let command = self.agent.command(&self.scratch, &self.dir, &self.config)?;
        let host = self.host.as_deref();
        self.process = Some(Process::start_on(
            host,
            command,
            self.scratch.user(),
            &self.dir,
            &self.log,
        )?);
        Ok(())
    }

    /// Starts the agent once more on another file, as an operator does by mistake; the log is `name`.log.
    pub fn start_second(&self, config: &std::path::Path, name: &str) -> Result<Process> {
        let command = self.agent.command(&self.scratch, &self.dir, config)?;
        Process::start(
            command,
            self.scratch.user(),
            &self.dir,
            &self.dir.join(format!("{name}.log")),
        )
    }

    /// The agent's process id, if it was started and has not ended.
    pub fn agent_pid(&mut self) -> Option<Pid> {
        let process = self.process.as_mut()?;
        process.exit_status().is_none().then(|| process.pid())
    }

    /// Sends a signal to the agent alone.
    pub fn signal_agent(&mut self, signal: Signal) -> Result<()> {
        self.process
            .as_mut()
            .with_context(|| format!("{} was never started", self.name))?
            .signal(signal)
    }

    /// Kills the agent alone, with `SIGKILL`.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.signal_agent(Signal::SIGKILL)?;
        // Dropping it also collects its exit status, so no zombie holds its place.
        self.process = None;
        Ok(())
    }

    /// Freezes the agent alone.
    pub fn freeze_agent(&mut self) -> Result<()> {
        self.signal_agent(Signal::SIGSTOP)
    }

    /// Lets a frozen agent go on.
    pub fn thaw_agent(&mut self) -> Result<()> {
        self.signal_agent(Signal::SIGCONT)
    }

    /// Asks the agent to stop and waits for its end.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal_agent(Signal::SIGTERM)?;
        let name = self.name.clone();
        let process = self.process.as_mut().context("signalled just now")?;
        let status = wait_for(&format!("the agent of {name} ends"), limit, async || {
            process.exit_status()
        })
        .await?;
        self.process = None;
        Ok(status)
    }

    /// How the agent ended, if it has.
    pub fn agent_exit(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.exit_status()
    }

    /// The node loses power: agent, fence, postmaster and every backend are killed together.
    pub fn kill_node(&mut self) -> Result<()> {
        process::kill_all(&self.dir)?;
        self.process = None;
        Ok(())
    }

    /// Every living process of the node.
    pub fn processes(&self) -> Vec<Found> {
        process::belonging_to(&self.dir)
    }

    /// Whether a process of PostgreSQL lives on this node.
    pub fn has_postgres(&self) -> bool {
        self.processes().iter().any(|found| found.program == "postgres")
    }

    /// The postmaster, by its lock file.
    pub fn postmaster_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data_dir.join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
    }

    /// Kills the postmaster alone.
    pub fn kill_postmaster(&self) -> Result<()> {
        let pid = self
            .postmaster_pid()
            .with_context(|| format!("{} has no postmaster.pid", self.name))?;
        kill(pid, Signal::SIGKILL).with_context(|| format!("cannot kill the postmaster {pid} of {}", self.name))
    }

    /// Freezes the wal senders, so that what is written from now on stays on this node alone.
    pub fn freeze_wal_senders(&self) -> Result<usize> {
        let senders: Vec<Found> = self
            .processes()
            .into_iter()
            .filter(|found| found.title.contains("walsender"))
            .collect();
        for sender in &senders {
            kill(sender.pid, Signal::SIGSTOP).with_context(|| format!("cannot freeze {}", sender.title))?;
        }
        Ok(senders.len())
    }

    /// A connection to this node's PostgreSQL.
    pub async fn sql(&self) -> Result<Sql> {
        Sql::connect(self.postgres, &self.password).await
    }

    /// What PostgreSQL says, nothing if it does not answer.
    pub async fn facts(&self) -> Option<Facts> {
        const ASK: &str = "SELECT pg_is_in_recovery(),
            CASE WHEN pg_is_in_recovery()
                 THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0)
                 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
            coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false)";
        let row = self.sql().await.ok()?.row(ASK).await.ok()?;
        Some(Facts {
            in_recovery: row.get(0),
            timeline: row.get(1),
            streaming: row.get(2),
        })
    }

    /// Whether PostgreSQL accepts writes, as far as it says so.
    pub async fn is_primary(&self) -> bool {
        self.facts().await.is_some_and(|facts| !facts.in_recovery)
    }

    /// Whether PostgreSQL streams from a primary on this timeline.
    pub async fn streams_on(&self, timeline: i32) -> bool {
        self.facts()
            .await
            .is_some_and(|facts| facts.streaming && facts.timeline == timeline)
    }

    /// The REST API's answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        http::get(self.rest, path, ASK_LIMIT).await
    }

    /// Whether the REST API answers 200 there.
    pub async fn says(&self, path: &str) -> bool {
        self.get(path).await.is_ok_and(|answer| answer.status.is_success())
    }

    /// Sends an order to the REST API. Orders such as a switchover answer when they are carried out.
    pub async fn post(&self, path: &str, body: &Value, limit: Duration) -> Result<Answer> {
        http::post(self.rest, path, body, limit).await
    }

    /// Memory, threads and CPU time of the agent and, for pgha, its fence.
    pub fn agent_usage(&mut self) -> Vec<(String, Usage)> {
        let agent = self.agent_pid();
        self.processes()
            .into_iter()
            .filter(|found| Some(found.pid) == agent || found.program == "pgha-fence")
            .filter_map(|found| Some((found.program, process::usage(found.pid)?)))
            .collect()
    }

    /// What the agent has logged so far.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}
