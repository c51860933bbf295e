//! The watchdog, by the driver that Patroni's own tests use: a FIFO takes the device's place, and what is written to it
//! can be read. What a kernel's device does with it (softdog, hardware) is not tested here.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use nix::libc::O_NONBLOCK;
use pgha_integration::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use pgha_integration::http;
use pgha_integration::wait::{holds_for, wait_for};
use serde_json::{Value, json};

use crate::scene::{FAILOVER_LIMIT, HEAL_LIMIT, TTL};

/// `ttl` 5 less the safety margin of 1.
const ARMED: &str = "Ctimeout=4\n1";
/// How soon something shows.
const SEEN_LIMIT: Duration = Duration::from_secs(10);

/// The reading end of a device that is a FIFO.
struct Device {
    reader: File,
    text: String,
}

impl Device {
    fn make(cluster: &Cluster, path: &Path) -> Result<Self> {
        ensure!(
            Command::new("mkfifo").arg(path).status()?.success(),
            "mkfifo {}",
            path.display()
        );
        cluster.scratch().user().own(path)?;
        let reader = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
        Ok(Self {
            reader,
            text: String::new(),
        })
    }

    /// All that was written to it so far.
    fn text(&mut self) -> &str {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.reader.read(&mut bytes)
            && length > 0
        {
            self.text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        &self.text
    }

    fn forget(&mut self) {
        self.text();
        self.text.clear();
    }

    async fn wait(&mut self, what: &str, cond: impl Fn(&str) -> bool) -> Result<()> {
        let found = wait_for(what, SEEN_LIMIT, async || cond(self.text()).then_some(())).await;
        found.with_context(|| format!("written to the device: {:?}", self.text))
    }
}

fn is_armed(text: &str) -> bool {
    text.starts_with(ARMED)
}

/// A required watchdog whose device is at this path.
fn required(device: &Path) -> Value {
    json!({"watchdog": {
        "mode": "required", "driver": "testing", "safety_margin": 1, "device": device.display().to_string()}})
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_with_a_working_watchdog_leads_and_feeds_it_while_it_does() -> Result<()> {
    let mut cluster = ClusterSpec::new("watchdog").nodes(2).prepare().await?;
    let devices: Vec<PathBuf> = cluster.nodes.iter().map(|node| node.dir.join("watchdog")).collect();
    for (node, device) in cluster.nodes.iter_mut().zip(&devices) {
        node.configure(&required(device))?;
    }
    let (without, with) = (0, 1);
    let mut device = Device::make(&cluster, &devices[with])?;

    // Alone and without a device it founds no cluster, since it could not lead it.
    cluster.node_mut(without)?.start()?;
    wait_for("it says that its watchdog failed", SEEN_LIMIT, async || {
        watchdog_failed(&cluster, without).await.then_some(())
    })
    .await?;
    holds_for("nothing is made", Duration::from_secs(3), async || {
        !cluster.nodes[without].data_dir.exists()
            && cluster
                .etcd
                .get(&cluster.key("initialize"))
                .await
                .is_ok_and(|key| key.is_none())
    })
    .await?;

    cluster.node_mut(with)?.start()?;
    assert_eq!(cluster.wait_whole(BOOT_LIMIT).await?, with);
    device.wait("it is armed and fed", is_armed).await?;
    let log = cluster.node(with)?.log_text();
    let (armed, up) = (
        log.find(" activated with 4 second timeout"),
        log.find("start as primary is done"),
    );
    assert!(
        armed.is_some() && armed < up,
        "armed before PostgreSQL could accept writes:\n{log}"
    );
    let fed = device.text().len();
    device
        .wait("it is fed with every heartbeat", |text| {
            text.len() >= fed + 3 && text.ends_with("111")
        })
        .await?;
    assert!(watchdog_failed(&cluster, without).await, "a standby tells too");

    // In pause the machine is not reset: a person is in charge.
    pause(&cluster, true).await?;
    device
        .wait("it is switched off in pause", |text| text.ends_with('V'))
        .await?;
    device.forget();
    pause(&cluster, false).await?;
    device.wait("it is armed again after the pause", is_armed).await?;

    // An orderly end switches it off when PostgreSQL is down, and the other may not take over.
    let status = cluster.node_mut(with)?.terminate(FAILOVER_LIMIT).await?;
    assert_eq!(status.code(), Some(0));
    assert!(device.text().ends_with("1V"), "{:?}", device.text());
    holds_for("nobody leads", TTL + Duration::from_secs(2), async || {
        cluster.primaries().await.is_empty() && cluster.leader_key().await.is_ok_and(|key| key.is_none())
    })
    .await?;
    assert!(
        cluster
            .node(without)?
            .log_text()
            .contains("Watchdog device is not usable")
    );

    device.forget();
    cluster.node_mut(with)?.start()?;
    assert_eq!(cluster.wait_whole(HEAL_LIMIT).await?, with);
    device.wait("it is armed before the promotion", is_armed).await?;

    // A killed agent says no farewell, so a device would reset the machine. The other got a device meanwhile.
    let mut other = Device::make(&cluster, &devices[without])?;
    wait_for("the other says that its watchdog works", SEEN_LIMIT, async || {
        (!watchdog_failed(&cluster, without).await).then_some(())
    })
    .await?;
    cluster.node_mut(with)?.kill_agent()?;
    cluster.wait_primary_among(&[without], FAILOVER_LIMIT).await?;
    assert!(device.text().ends_with('1'), "{:?}", device.text());
    other.wait("the new leader's is armed", is_armed).await
}

async fn watchdog_failed(cluster: &Cluster, number: usize) -> bool {
    match cluster.nodes[number]
        .get("/patroni")
        .await
        .and_then(|answer| answer.json())
    {
        Ok(status) => status["watchdog_failed"] == json!(true),
        Err(_) => false,
    }
}

async fn pause(cluster: &Cluster, on: bool) -> Result<()> {
    let patch = json!({"pause": on.then_some(true)});
    let answer = http::request(
        cluster.node(1)?.rest,
        Method::PATCH,
        "/config",
        Some(&patch),
        SEEN_LIMIT,
    )
    .await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(())
}
