//! The scripts of the configuration: which of them run, when, and with which arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use pgha_integration::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use pgha_integration::wait::wait_for;
use pgha_integration::{http, programs};
use serde_json::json;

use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT};

/// An order such as a restart answers when it is carried out.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// How soon a script has to have run after what it tells.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// While this is in the shared directory, the first that asks before a promotion is refused.
const ARMED: &str = "armed";

/// Notes its arguments, and fails where a test wants it: post_bootstrap the first time, pre_promote for the first
/// candidate while the file `armed` is there. `mkdir` succeeds for one caller only.
const SCRIPT: &str = r#"#!/bin/sh
calls=$1 shared=$2 psql=$3 what=$4
shift 4
case $what in
post_bootstrap)
    mkdir "$shared/bootstrap-failed" 2>/dev/null && { echo "post_bootstrap fails" >>"$calls"; exit 1; }
    echo "post_bootstrap with $# argument" >>"$calls"
    exec "$psql" -X -v ON_ERROR_STOP=1 -d "$1" -c 'CREATE TABLE from_post_bootstrap (n int)' ;;
pre_promote)
    echo "pre_promote $*" >>"$calls"
    [ -e "$shared/armed" ] && mkdir "$shared/refused" 2>/dev/null && exit 1
    exit 0 ;;
*) echo "$what $*" >>"$calls" ;;
esac
"#;

/// What the scripts of one node noted.
struct Calls {
    node: String,
    file: PathBuf,
    seen: usize,
}

impl Calls {
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits for these calls and no others since the last time.
    async fn expect(&mut self, when: &str, calls: &[&str]) -> Result<()> {
        let until = self.seen + calls.len();
        let what = format!("{}: {calls:?} are called at {when}", self.node);
        wait_for(&what, CALL_LIMIT, async || (self.lines().len() >= until).then_some(()))
            .await
            .with_context(|| format!("{:?} were called", self.new_lines()))?;
        let new = self.new_lines();
        ensure!(
            new == calls,
            "{}: at {when} {new:?} were called, not {calls:?}",
            self.node
        );
        self.seen = until;
        Ok(())
    }

    fn new_lines(&self) -> Vec<String> {
        self.lines().split_off(self.seen)
    }
}

/// Lets every script of every node note its calls.
fn hook_up(cluster: &mut Cluster) -> Result<(Vec<Calls>, PathBuf)> {
    let shared = cluster.scratch().dir("shared")?;
    let script = shared.join("note.sh");
    cluster.scratch().write(&script, SCRIPT)?;
    let psql = programs::postgres_bin()?.join("psql");
    let mut calls = Vec::new();
    for node in &mut cluster.nodes {
        let file = node.dir.join("calls");
        let command = |path: &Path| {
            format!(
                "sh {} {} {} {}",
                script.display(),
                path.display(),
                shared.display(),
                psql.display()
            )
        };
        let callback = command(&file) + " callback";
        node.configure(&json!({
            "bootstrap": {"post_bootstrap": command(&file) + " post_bootstrap"},
            "postgresql": {
                "callbacks": {
                    "on_start": callback, "on_stop": callback, "on_restart": callback,
                    "on_reload": callback, "on_role_change": callback,
                },
                "pre_promote": command(&file) + " pre_promote",
                "before_stop": command(&file) + " before_stop",
            },
        }))?;
        calls.push(Calls {
            node: node.name.clone(),
            file,
            seen: 0,
        });
    }
    Ok((calls, shared))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_script_runs_when_patroni_runs_it() -> Result<()> {
    let mut cluster = ClusterSpec::new("hooks").prepare().await?;
    let (mut calls, shared) = hook_up(&mut cluster)?;

    // A bootstrap whose script fails leaves no cluster behind and is tried again.
    cluster.node_mut(0)?.start()?;
    cluster.wait_primary_among(&[0], BOOT_LIMIT).await?;
    calls[0]
        .expect(
            "bootstrap",
            &[
                "post_bootstrap fails",
                "post_bootstrap with 1 argument",
                "callback on_start primary hooks",
            ],
        )
        .await?;
    cluster
        .node(0)?
        .sql()
        .await?
        .run("INSERT INTO from_post_bootstrap VALUES (1)")
        .await?;
    cluster.node_mut(1)?.start()?;
    cluster.node_mut(2)?.start()?;
    cluster.wait_whole(BOOT_LIMIT).await?;
    for standby in [1, 2] {
        calls[standby]
            .expect("the first start of a standby", &["callback on_start replica hooks"])
            .await?;
    }

    restart(&cluster, 1).await?;
    calls[1]
        .expect("restart", &["before_stop", "callback on_restart replica hooks"])
        .await?;
    restart(&cluster, 0).await?;
    calls[0]
        .expect("restart", &["before_stop", "callback on_restart primary hooks"])
        .await?;
    cluster.wait_whole(HEAL_LIMIT).await?;

    let patch = json!({"postgresql": {"parameters": {"work_mem": "5MB"}}});
    let answer = http::request(
        cluster.node(0)?.rest,
        Method::PATCH,
        "/config",
        Some(&patch),
        ORDER_LIMIT,
    )
    .await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for (number, role) in [(0, "primary"), (1, "replica"), (2, "replica")] {
        let line = format!("callback on_reload {role} hooks");
        calls[number].expect("a change of parameters", &[&line]).await?;
    }

    switchover_calls(&cluster, &mut calls).await?;
    failover_calls(&mut cluster, &mut calls, &shared).await
}

async fn switchover_calls(cluster: &Cluster, calls: &mut [Calls]) -> Result<()> {
    let order = json!({"leader": "pg1", "candidate": "pg2"});
    let answer = cluster.node(0)?.post("/switchover", &order, ORDER_LIMIT).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(cluster.wait_whole(HEAL_LIMIT).await?, 1);
    calls[0]
        .expect(
            "switchover",
            &[
                "before_stop",
                "callback on_stop primary hooks",
                "callback on_role_change replica hooks",
            ],
        )
        .await?;
    calls[1]
        .expect("switchover", &["pre_promote", "callback on_role_change primary hooks"])
        .await?;
    // The third only reloads its new primary_conninfo.
    calls[2]
        .expect("switchover", &["callback on_reload replica hooks"])
        .await
}

async fn failover_calls(cluster: &mut Cluster, calls: &mut [Calls], shared: &Path) -> Result<()> {
    std::fs::write(shared.join(ARMED), "")?;
    cluster.node_mut(1)?.kill_node()?;
    let new = cluster.wait_primary_among(&[0, 2], FAILOVER_LIMIT).await?;
    let refused = 2 - new;
    // While the first candidate held the key, the other may have begun to follow it.
    let followed = calls[new]
        .new_lines()
        .iter()
        .take_while(|line| line.contains(" on_reload "))
        .count();
    calls[new].seen += followed;
    calls[new]
        .expect("failover", &["pre_promote", "callback on_role_change primary hooks"])
        .await?;
    assert!(
        shared.join("refused").exists(),
        "the first candidate was refused by its script"
    );
    let log = cluster.node(refused)?.log_text();
    assert!(
        log.contains("Promotion cancelled") && log.contains("pre-promote"),
        "the log says why the race was given up:\n{log}"
    );

    cluster.node_mut(1)?.start()?;
    assert_eq!(cluster.wait_whole(HEAL_LIMIT).await?, new);
    calls[1]
        .expect("the start after a crash", &["callback on_start replica hooks"])
        .await?;
    let status = cluster.node_mut(1)?.terminate(FAILOVER_LIMIT).await?;
    assert_eq!(status.code(), Some(0));
    calls[1]
        .expect("the end", &["before_stop", "callback on_stop replica hooks"])
        .await?;
    // The one that was refused followed the winner, and nothing else happened anywhere.
    calls[refused]
        .expect("failover", &["pre_promote", "callback on_reload replica hooks"])
        .await?;
    calls[new].expect("the end", &[]).await
}

async fn restart(cluster: &Cluster, number: usize) -> Result<()> {
    let answer = cluster.node(number)?.post("/restart", &json!({}), ORDER_LIMIT).await?;
    ensure!(
        answer.status == 200 && answer.body == "restarted successfully",
        "{} {}",
        answer.status,
        answer.body
    );
    Ok(())
}
