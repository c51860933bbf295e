//! HAProxy with the configuration that the project ships, its addresses replaced by this cluster's.

use std::net::SocketAddrV4;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::net::{Addresses, free_ports};
use crate::process::Process;
use crate::programs;
use crate::scratch::Scratch;

/// Last byte of HAProxy's address in the block, when it does not listen on 127.0.0.1.
const HOST: u8 = 101;

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    /// Leads to the primary.
    pub read_write: SocketAddrV4,
    /// Leads to the standbys.
    pub read_only: SocketAddrV4,
    /// Statistics page.
    pub statistics: SocketAddrV4,
    _process: Process,
}

/// A server line: name, PostgreSQL, REST port.
pub type Server = (String, SocketAddrV4, u16);

impl Haproxy {
    /// Starts HAProxy in front of these servers; `on_localhost` makes it listen on 127.0.0.1 for people.
    pub fn start(scratch: &Scratch, addresses: &Addresses, servers: &[Server], on_localhost: bool) -> Result<Self> {
        let program = programs::find("haproxy")?;
        let ip = if on_localhost {
            std::net::Ipv4Addr::LOCALHOST
        } else {
            addresses.site(HOST)?.ip
        };
        let [read_write, read_only, statistics] = free_ports(ip, [5000, 5001, 7000])?;
        let shipped = programs::repository().join("config/haproxy.cfg");
        let text = std::fs::read_to_string(&shipped).with_context(|| format!("cannot read {}", shipped.display()))?;
        let binds = [("*:5000", read_write), ("*:5001", read_only), ("*:7000", statistics)];
        let text = fill_in(&text, &binds, servers)?;
        let dir = scratch.dir("haproxy")?;
        let file = dir.join("haproxy.cfg");
        scratch.write(&file, &text)?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::start(command, scratch.user(), &dir, &dir.join("haproxy.log"))?;
        Ok(Self {
            read_write,
            read_only,
            statistics,
            _process: process,
        })
    }
}

/// The shipped configuration with these addresses. Every placeholder must be there, so that a changed file is noticed.
pub fn fill_in(shipped: &str, binds: &[(&str, SocketAddrV4)], servers: &[Server]) -> Result<String> {
    let mut text = shipped.to_owned();
    for (placeholder, addr) in binds {
        let from = format!("bind {placeholder}\n");
        ensure!(
            text.contains(&from),
            "config/haproxy.cfg has no line `bind {placeholder}`"
        );
        text = text.replace(&from, &format!("bind {addr}\n"));
    }
    let mut out = String::new();
    let mut sections = 0;
    let mut in_servers = false;
    for line in text.lines() {
        if !line.trim_start().starts_with("server ") {
            in_servers = false;
            out.push_str(line);
            out.push('\n');
            continue;
        }
        if !in_servers {
            in_servers = true;
            sections += 1;
            for (name, addr, rest) in servers {
                out.push_str(&format!("    server {name} {addr} maxconn 100 check port {rest}\n"));
            }
        }
    }
    ensure!(
        sections == 2,
        "config/haproxy.cfg has {sections} blocks of server lines instead of 2"
    );
    Ok(out)
}
