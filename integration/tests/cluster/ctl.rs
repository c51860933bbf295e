//! `pgha-ctl` against a real cluster.

use std::process::{Command, Output};

use anyhow::{Context, Result};
use pgha_integration::cluster::Cluster;
use pgha_integration::cluster::ClusterSpec;
use pgha_integration::programs;
use serde_json::Value;

use crate::scene::{HEAL_LIMIT, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_pauses_resumes_and_switches_over() -> Result<()> {
    let scene = Scene::start(ClusterSpec::new("ctl")).await?;
    let (first, second) = (scene.first, scene.cluster.others(scene.first)[0]);
    let (leader, candidate) = (
        scene.cluster.node(first)?.name.clone(),
        scene.cluster.node(second)?.name.clone(),
    );

    let rows: Value = serde_json::from_str(&says(&scene.cluster, &["list", "-f", "json"]).await?)?;
    let roles: Vec<(&str, &str)> = rows
        .as_array()
        .context("a list of members")?
        .iter()
        .map(|row| {
            (
                row["Member"].as_str().unwrap_or_default(),
                row["Role"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(roles.len(), 3, "{roles:?}");
    assert!(roles.contains(&(leader.as_str(), "Leader")), "{roles:?}");
    assert!(roles.contains(&(candidate.as_str(), "Replica")), "{roles:?}");

    says(&scene.cluster, &["pause", "--wait"]).await?;
    assert!(says(&scene.cluster, &["list"]).await?.contains("Maintenance mode: on"));
    says(&scene.cluster, &["resume", "--wait"]).await?;

    says(
        &scene.cluster,
        &["switchover", "--leader", &leader, "--candidate", &candidate, "--force"],
    )
    .await?;
    assert_eq!(scene.cluster.wait_whole(HEAL_LIMIT).await?, second);

    let history = says(&scene.cluster, &["history", "-f", "json"]).await?;
    assert!(
        history.contains(&candidate),
        "the history names the new leader: {history}"
    );
    assert!(says(&scene.cluster, &["show-config"]).await?.contains("loop_wait: 1"));

    let refused = ctl(&scene.cluster, &["switchover", "--leader", &leader, "--force"]).await?;
    assert!(!refused.status.success(), "the old leader does not lead any more");
    scene.finish().await?;
    Ok(())
}

/// What it prints when it succeeds.
pub async fn says(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let output = ctl(cluster, args).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "pgha-ctl {args:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

async fn ctl(cluster: &Cluster, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(programs::own("pgha-ctl")?);
    command.arg("-c").arg(&cluster.node(0)?.config).args(args);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}
