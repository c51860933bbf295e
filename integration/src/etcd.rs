//! A real etcd of one or three members.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::http;
use crate::net::{AddressBlock, free_ports};
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
    process: Option<Process>,
}

impl Etcd {
    /// Starts that many members and waits until they answer.
    pub async fn start(scratch: &Scratch, block: &AddressBlock, count: usize) -> Result<Self> {
        let mut members = Vec::new();
        for (host, number) in (FIRST_HOST..).zip(1..=count) {
            let name = format!("etcd{number}");
            let ip = block.host(host);
            let [client, peer] = free_ports(ip, [2379, 2380])?;
            members.push(Member {
                dir: scratch.dir(&name)?,
                name,
                client,
                peer,
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
            member.process = Some(Process::start(command, &self.user, &member.dir, &log)?);
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
        self.members
            .get_mut(number)
            .with_context(|| format!("etcd has no member {number}"))?
            .process = None;
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
            match http::post(member.client, path, body, REQUEST_LIMIT).await {
                Ok(answer) if answer.status.is_success() => return answer.json(),
                Ok(answer) => last = anyhow::anyhow!("etcd answers {}: {}", answer.status, answer.body),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
