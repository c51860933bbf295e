//! A real etcd of one or three members.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::http;
use crate::net::Addresses;
use crate::netns::{Drop, NetHost, Way};
use crate::process::Process;
use crate::programs;
use crate::scratch::Scratch;
use crate::user::RunAs;
use crate::wait::wait_for;

/// Last byte of the first member's address.
const FIRST_HOST: u8 = 201;
/// Limit of one request to etcd.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Limit of etcd's start, election included.
const START_LIMIT: Duration = Duration::from_secs(30);

/// An etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    program: PathBuf,
    user: RunAs,
}

#[derive(Debug)]
struct Member {
    name: String,
    dir: PathBuf,
    client: SocketAddrV4,
    peer: SocketAddrV4,
    host: Option<Arc<NetHost>>,
    process: Option<Process>,
}

impl Etcd {
    /// Starts that many members and waits until they answer.
    pub async fn start(scratch: &Scratch, addresses: &Addresses, count: usize) -> Result<Self> {
        let mut members = Vec::new();
        for (host, number) in (FIRST_HOST..).zip(1..=count) {
            let name = format!("etcd{number}");
            let site = addresses.site(host)?;
            let [client, peer] = site.ports([2379, 2380])?;
            members.push(Member {
                dir: scratch.dir(&name)?,
                name,
                client,
                peer,
                host: site.host,
                process: None,
            });
        }
        let mut etcd = Self {
            members,
            program: programs::find("etcd")?,
            user: scratch.user().clone(),
        };
        etcd.start_all()?;
        etcd.wait_ready().await?;
        Ok(etcd)
    }

    /// Client addresses.
    pub fn endpoints(&self) -> Vec<SocketAddrV4> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// Starts the members that do not run.
    pub fn start_all(&mut self) -> Result<()> {
        let all: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("{}=http://{}", m.name, m.peer))
            .collect();
        for member in &mut self.members {
            if member.process.is_some() {
                continue;
            }
            let mut command = Command::new(&self.program);
            // A setting from the caller's environment would go before nothing but still surprise: etcd reads ETCD_*.
            for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("ETCD_")) {
                command.env_remove(key);
            }
            command
                .arg(format!("--name={}", member.name))
                .arg(format!("--data-dir={}", member.dir.join("db").display()))
                .arg(format!("--listen-client-urls=http://{}", member.client))
                .arg(format!("--advertise-client-urls=http://{}", member.client))
                .arg(format!("--listen-peer-urls=http://{}", member.peer))
                .arg(format!("--initial-advertise-peer-urls=http://{}", member.peer))
                .arg(format!("--initial-cluster={}", all.join(",")));
            let log = member.dir.join("etcd.log");
            member.process = Some(Process::start_on(
                member.host.as_deref(),
                command,
                &self.user,
                &member.dir,
                &log,
            )?);
        }
        Ok(())
    }

    /// Waits until a quorum answers a linearizable read.
    pub async fn wait_ready(&self) -> Result<()> {
        wait_for("etcd answers", START_LIMIT, async || self.get("/ready").await.ok()).await?;
        Ok(())
    }

    /// Stops every member in an orderly way and waits for their end.
    pub async fn stop_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                process.signal(Signal::SIGTERM)?;
            }
        }
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                wait_for("etcd has stopped", START_LIMIT, async || process.exit_status()).await?;
            }
            member.process = None;
        }
        Ok(())
    }

    /// Kills one member, by number.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.member_mut(number)?.process = None;
        Ok(())
    }

    /// Kills every member; the data stay.
    pub fn kill_all(&mut self) {
        self.members.iter_mut().for_each(|member| member.process = None);
    }

    /// Kills every member and removes what etcd holds.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill_all();
        for member in &self.members {
            std::fs::remove_dir_all(member.dir.join("db"))?;
        }
        Ok(())
    }

    /// The members' addresses.
    pub fn ips(&self) -> Vec<Ipv4Addr> {
        self.members.iter().map(|member| *member.client.ip()).collect()
    }

    /// Cuts one member from the others, or joins it with them again. It takes own hosts.
    pub fn set_alone(&self, number: usize, alone: bool) -> Result<()> {
        let member = self
            .members
            .get(number)
            .with_context(|| format!("etcd has no member {number}"))?;
        let host = member.host.as_deref().context("etcd's members share one network")?;
        let others = self.ips().into_iter().filter(|ip| *ip != host.ip());
        let drops = others.flat_map(|peer| [Way::In, Way::Out].map(|way| Drop { way, peer, port: None }));
        host.filter(|rules| {
            for drop in drops {
                if alone {
                    rules.insert(drop);
                } else {
                    rules.remove(&drop);
                }
            }
        })
    }

    /// Sends a signal to one member.
    pub fn signal(&mut self, number: usize, signal: Signal) -> Result<()> {
        match &mut self.member_mut(number)?.process {
            None => Ok(()),
            Some(process) => process.signal(signal),
        }
    }

    fn member_mut(&mut self, number: usize) -> Result<&mut Member> {
        self.members
            .get_mut(number)
            .with_context(|| format!("etcd has no member {number}"))
    }

    /// The lease that a key is attached to.
    pub async fn lease_of(&self, key: &str) -> Result<Option<String>> {
        let answer = self.ask("/v3/kv/range", &json!({"key": STANDARD.encode(key)})).await?;
        Ok(answer
            .pointer("/kvs/0/lease")
            .and_then(Value::as_str)
            .map(str::to_owned))
    }

    /// Revokes a lease.
    pub async fn revoke(&self, lease: &str) -> Result<()> {
        self.ask("/v3/lease/revoke", &json!({"ID": lease})).await.map(drop)
    }

    /// Compacts away every revision but the present one.
    pub async fn compact(&self) -> Result<()> {
        let answer = self.ask("/v3/kv/range", &json!({"key": STANDARD.encode("/")})).await?;
        let revision = answer.pointer("/header/revision").cloned().context("no revision")?;
        self.ask("/v3/kv/compaction", &json!({"revision": revision}))
            .await
            .map(drop)
    }

    /// Makes another member lead etcd.
    pub async fn move_leader(&self) -> Result<()> {
        for member in &self.members {
            let status = member.post("/v3/maintenance/status", &json!({})).await?;
            let me = status.pointer("/header/member_id").and_then(Value::as_str);
            let leader = status.get("leader").and_then(Value::as_str);
            if me.is_some() && me == leader {
                let list = member.post("/v3/cluster/member/list", &json!({})).await?;
                let ids = list.get("members").and_then(Value::as_array).into_iter().flatten();
                let target = ids
                    .filter_map(|m| m.get("ID").and_then(Value::as_str))
                    .find(|id| Some(*id) != leader)
                    .context("etcd has no other member")?;
                let order = json!({"targetID": target});
                return member
                    .post("/v3/maintenance/transfer-leadership", &order)
                    .await
                    .map(drop);
            }
        }
        anyhow::bail!("no member of etcd says that it leads")
    }

    /// Raises the alarm of a full database on every member, or takes it back: writes are refused meanwhile.
    pub async fn no_space(&self, raised: bool) -> Result<()> {
        let action = if raised { "ACTIVATE" } else { "DEACTIVATE" };
        for member in &self.members {
            let status = member.post("/v3/maintenance/status", &json!({})).await?;
            let id = status.pointer("/header/member_id").cloned().context("no member id")?;
            let order = json!({"action": action, "memberID": id, "alarm": "NOSPACE"});
            member.post("/v3/maintenance/alarm", &order).await?;
        }
        Ok(())
    }

    /// The value of a key, `None` when it is absent. Asks each member in turn until one answers.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        let body = json!({"key": STANDARD.encode(key)});
        let answer = self.ask("/v3/kv/range", &body).await?;
        let Some(value) = answer
            .pointer("/kvs/0")
            .map(|kv| kv.get("value").and_then(Value::as_str).unwrap_or_default())
        else {
            return Ok(None);
        };
        let bytes = STANDARD
            .decode(value)
            .context("etcd's JSON gateway sends values in base64")?;
        Ok(Some(String::from_utf8(bytes).context("the value is no text")?))
    }

    /// Writes a key, without a lease.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ask(
            "/v3/kv/put",
            &json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)}),
        )
        .await?;
        Ok(())
    }

    /// Removes a key.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.ask("/v3/kv/deleterange", &json!({"key": STANDARD.encode(key)}))
            .await?;
        Ok(())
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let mut last = anyhow::anyhow!("no etcd member");
        for member in &self.members {
            match member.post(path, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Member {
    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = http::post(self.client, path, body, REQUEST_LIMIT).await?;
        anyhow::ensure!(
            answer.status.is_success(),
            "etcd answers {}: {}",
            answer.status,
            answer.body
        );
        answer.json()
    }
}
