//! A cluster comes to be.

use std::time::Duration;

use anyhow::Result;
use pgha_integration::cluster::{BOOT_LIMIT, ClusterSpec, HaproxyAt};
use pgha_integration::wait::wait_for;
use pgha_integration::workload::{Target, Workload};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_bootstrap_into_one_cluster() -> Result<()> {
    let cluster = ClusterSpec::new("bootstrap")
        .haproxy(HaproxyAt::OwnAddress)
        .start()
        .await?;
    let primary = cluster.wait_whole(BOOT_LIMIT).await?;

    let sysid: String = cluster
        .node(primary)?
        .sql()
        .await?
        .row("SELECT system_identifier::text FROM pg_control_system()")
        .await?
        .get(0);
    assert_eq!(
        cluster.etcd.get(&cluster.key("initialize")).await?,
        Some(sysid),
        "/initialize names the cluster"
    );

    let rows = cluster
        .primary_sql()
        .await?
        .query("SELECT application_name FROM pg_stat_replication", &[])
        .await?;
    let mut standbys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    standbys.sort();
    let expected: Vec<&str> = cluster
        .others(primary)
        .iter()
        .map(|n| cluster.nodes[*n].name.as_str())
        .collect();
    assert_eq!(standbys, expected, "each standby streams under its member name");

    let slots = cluster
        .primary_sql()
        .await?
        .query("SELECT slot_name::text FROM pg_replication_slots WHERE active", &[])
        .await?;
    assert_eq!(slots.len(), 2, "each standby uses a slot of its own");

    for node in &cluster.nodes {
        let mode = std::os::unix::fs::PermissionsExt::mode(&node.data_dir.metadata()?.permissions()) & 0o777;
        assert!(
            mode == 0o700 || mode == 0o750,
            "the data directory of {} is closed to others, not {mode:o}",
            node.name
        );
    }

    let members = cluster.node(0)?.get("/cluster").await?.json()?;
    assert_eq!(
        members["members"].as_array().map(Vec::len),
        Some(3),
        "GET /cluster lists the three"
    );

    let haproxy = cluster.haproxy.as_ref().expect("asked for");
    let workload = Workload::start(&cluster, Target::Proxy(haproxy.read_write), Duration::from_millis(5)).await?;
    workload.wait_acked(100, Duration::from_secs(30)).await?;
    drop(workload);
    let read_only = wait_for("port 5001 leads to a standby", Duration::from_secs(10), async || {
        let sql = pgha_integration::sql::Sql::connect(haproxy.read_only, &cluster.secrets.superuser)
            .await
            .ok()?;
        Some(sql.row("SELECT pg_is_in_recovery()").await.ok()?.get::<_, bool>(0))
    })
    .await?;
    assert!(read_only);
    Ok(())
}
