//! The live table, and the lines to paste.

use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use indicatif::ProgressBar;
use pgha_integration::boottime;
use pgha_integration::cluster::Cluster;
use pgha_integration::programs;
use serde_json::Value;

use crate::console::Console;

/// How often the table is drawn anew.
const LOOK: Duration = Duration::from_millis(500);
/// A node whose agent has ended is started again after this time, as a service manager would do it.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// Shows the cluster until the demo is interrupted.
pub async fn watch(cluster: &mut Cluster, console: &Console) -> Result<()> {
    let panel = console.panel();
    let mut shown = String::new();
    let mut ended: Vec<Option<Duration>> = vec![None; cluster.nodes.len()];
    loop {
        restart_ended(cluster, console, &mut ended)?;
        let members = members(cluster).await;
        match &panel {
            Some(panel) => draw(panel, cluster, &members)?,
            None => {
                let summary = summary(&members);
                if summary != shown {
                    console.line(&summary);
                    if shown.is_empty() {
                        console.block(&lines_to_paste(cluster, &members)?);
                    }
                    shown = summary;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn draw(panel: &ProgressBar, cluster: &Cluster, members: &[Member]) -> Result<()> {
    panel.set_message(format!("{}\n{}", table(members), lines_to_paste(cluster, members)?));
    Ok(())
}

/// A row of `GET /cluster`.
struct Member {
    name: String,
    role: String,
    state: String,
    timeline: String,
    lag: String,
}

/// The members as the first node that answers lists them.
async fn members(cluster: &Cluster) -> Vec<Member> {
    for node in &cluster.nodes {
        let Ok(body) = node.get("/cluster").await.and_then(|answer| answer.json()) else {
            continue;
        };
        let Some(list) = body.get("members").and_then(Value::as_array) else {
            continue;
        };
        return list.iter().map(Member::read).collect();
    }
    Vec::new()
}

impl Member {
    fn read(row: &Value) -> Self {
        let text = |key: &str| match row.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        Self {
            name: text("name"),
            role: text("role"),
            state: text("state"),
            timeline: text("timeline"),
            lag: text("lag"),
        }
    }

    fn is_leader(&self) -> bool {
        self.role == "leader"
    }
}

fn table(members: &[Member]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(["Member", "Role", "State", "Timeline", "Lag (bytes)"]);
    for member in members {
        table.add_row([&member.name, &member.role, &member.state, &member.timeline, &member.lag]);
    }
    if members.is_empty() {
        table.add_row(["no agent answers"]);
    }
    table
}

fn summary(members: &[Member]) -> String {
    let rows: Vec<String> = members
        .iter()
        .map(|m| format!("{} {} {} timeline {}", m.name, m.role, m.state, m.timeline))
        .collect();
    if rows.is_empty() {
        "no agent answers".to_owned()
    } else {
        rows.join("; ")
    }
}

fn lines_to_paste(cluster: &Cluster, members: &[Member]) -> Result<String> {
    let haproxy = cluster.haproxy.as_ref().context("the demo runs HAProxy")?;
    let ctl = programs::own("pgha-ctl").map_or_else(|_| "pgha-ctl".to_owned(), |path| path.display().to_string());
    let leader = members
        .iter()
        .find(|member| member.is_leader())
        .map(|member| member.name.as_str());
    let node = cluster.nodes.iter().find(|node| Some(node.name.as_str()) == leader);
    let mut text = format!(
        "Paste into another terminal:\n  # a session on the primary, through HAProxy\n  PGPASSWORD={} psql -h {} -p {} -U postgres\n",
        cluster.secrets.superuser,
        haproxy.read_write.ip(),
        haproxy.read_write.port(),
    );
    if let Some(node) = node {
        text.push_str(&format!(
            "  # kill the primary's PostgreSQL, or the whole node (started again after {} s)\n  kill -9 $(head -1 {}/postmaster.pid)\n  pkill -9 -f {}/\n  # make another node the primary\n  {ctl} -c {} switchover --force\n",
            RESTART_AFTER.as_secs(),
            node.data_dir.display(),
            node.dir.display(),
            node.config.display(),
        ));
    }
    text.push_str("Ctrl-C stops everything and removes it.");
    Ok(text)
}

fn restart_ended(cluster: &mut Cluster, console: &Console, ended: &mut [Option<Duration>]) -> Result<()> {
    for (node, since) in cluster.nodes.iter_mut().zip(ended) {
        if node.agent_pid().is_some() {
            *since = None;
            continue;
        }
        let at = *since.get_or_insert_with(boottime::now);
        if boottime::since(at) >= RESTART_AFTER {
            console.line(&format!("{}: the agent has ended; starting it again", node.name));
            node.start()?;
            *since = None;
        }
    }
    Ok(())
}
