//! Who may join: not another cluster's data, not a second bearer of a name, not a second agent on one data directory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pgha_integration::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use pgha_integration::programs;
use pgha_integration::wait::{holds_for, wait_for};

use crate::scene::{FAILOVER_LIMIT, Scene, TTL};

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_cluster_is_refused_and_left_alone() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("wrong-sysid")).await?;
    let stranger = scene.cluster.add_node("stranger")?;
    init_database(&scene.cluster, &scene.cluster.node(stranger)?.data_dir.clone())?;
    let before = system_identifier(&scene.cluster.node(stranger)?.data_dir)?;

    let node = scene.cluster.node_mut(stranger)?;
    node.start()?;
    let status = wait_for("the stranger's agent gives up", FAILOVER_LIMIT, async || {
        node.agent_exit()
    })
    .await?;
    assert_eq!(status.code(), Some(1));
    let log = node.log_text().to_lowercase();
    assert!(
        log.contains("system id") && log.contains(&before),
        "the log names the identifiers:\n{log}"
    );
    assert_eq!(system_identifier(&node.data_dir)?, before, "the data is as it was");
    assert!(!node.has_postgres(), "PostgreSQL was not left running");

    scene.cluster.nodes.truncate(3);
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bearer_of_a_name_is_refused() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("duplicate-name")).await?;
    let other = scene.cluster.add_node("pg1-again")?;
    let node = scene.cluster.node(other)?;
    let text = std::fs::read_to_string(&node.config)?.replace("name: \"pg1-again\"", "name: \"pg1\"");
    scene.cluster.scratch().write(&node.config.clone(), &text)?;

    let node = scene.cluster.node_mut(other)?;
    node.start()?;
    let status = wait_for("the second pg1 gives up", FAILOVER_LIMIT, async || node.agent_exit()).await?;
    assert_eq!(status.code(), Some(1));
    assert!(
        node.log_text().contains("pg1"),
        "the log names the name:\n{}",
        node.log_text()
    );
    assert!(
        !node.data_dir.join("PG_VERSION").exists(),
        "it made no copy of the data first"
    );

    scene.cluster.nodes.truncate(3);
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_one_data_directory_is_refused() -> Result<()> {
    let mut scene = Scene::start(ClusterSpec::new("second-agent")).await?;
    let first = scene.first;
    let before = scene.cluster.node(first)?.postmaster_pid();
    let other = scene.cluster.add_node("other")?;
    let (owner, node) = (scene.cluster.node(first)?, scene.cluster.node(other)?);
    let (theirs, ours) = (
        owner.data_dir.display().to_string(),
        node.data_dir.display().to_string(),
    );
    let text = std::fs::read_to_string(&node.config)?.replace(&ours, &theirs);
    scene.cluster.scratch().write(&node.config.clone(), &text)?;

    let node = scene.cluster.node_mut(other)?;
    node.start()?;
    let status = wait_for("the second agent gives up", FAILOVER_LIMIT, async || node.agent_exit()).await?;
    assert_eq!(status.code(), Some(1));
    assert!(
        node.log_text().contains(&theirs),
        "the log names the directory:\n{}",
        node.log_text()
    );

    scene.cluster.nodes.truncate(3);
    assert_eq!(
        scene.cluster.node(first)?.postmaster_pid(),
        before,
        "the owner's PostgreSQL was not touched"
    );
    scene.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_other_files_is_never_taken_for_an_empty_one() -> Result<()> {
    let mut cluster = ClusterSpec::new("not-empty").prepare().await?;
    let data_dir = cluster.node(0)?.data_dir.clone();
    std::fs::create_dir(&data_dir)?;
    let precious = data_dir.join("precious.txt");
    cluster.scratch().write(&precious, "not PostgreSQL's")?;
    own(&cluster, &data_dir)?;
    for node in &mut cluster.nodes {
        node.start()?;
    }
    let others = cluster.others(0);
    cluster.wait_primary_among(&others, BOOT_LIMIT).await?;
    holds_for(
        "the file stays and no database is made beside it",
        TTL * 2,
        async || precious.exists() && !data_dir.join("PG_VERSION").exists(),
    )
    .await
}

fn init_database(cluster: &Cluster, data_dir: &Path) -> Result<()> {
    let mut command = Command::new(programs::postgres_bin()?.join("initdb"));
    command
        .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
        .arg(data_dir)
        .current_dir("/");
    cluster.scratch().user().apply(&mut command);
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn own(cluster: &Cluster, dir: &Path) -> Result<()> {
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    cluster.scratch().user().own(dir)
}

fn system_identifier(data_dir: &Path) -> Result<String> {
    let output = Command::new(programs::postgres_bin()?.join("pg_controldata"))
        .arg(data_dir)
        .env("LC_ALL", "C")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("Database system identifier:"))
        .map(|id| id.trim().to_owned())
        .context("pg_controldata names the system identifier")
}
