//! Hosts of their own: network namespaces on one bridge, each with a packet filter that a test changes while it runs.
//!
//! The namespaces have no names: they live as long as something runs in them or holds them open, so nothing has to be
//! cleaned up, however the harness ends. The bridge lies in a namespace that belongs to the calling thread
//! ([`enter_private`]), out of sight of the machine's own network and of its filters.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// The bridge.
const BRIDGE: &str = "pghabr";
/// First three bytes of every address.
const NETWORK: [u8; 3] = [10, 77, 1];
/// Last byte of the harness's own address.
const HARNESS: u8 = 1;

/// Gives the calling thread, and every thread and process it starts from now on, a network of its own, and mounts that
/// nobody else sees. Call it before anything else; what the thread had open before stays in the old network.
pub fn enter_private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("no namespaces can be made (it takes CAP_SYS_ADMIN)")?;
    run(Command::new("mount").args(["--make-rprivate", "/"]), "")?;
    ip(&["link", "set", "lo", "up"])
}

/// A network with a bridge in the middle.
#[derive(Debug)]
pub struct Lan(());

impl Lan {
    /// Makes the bridge in the thread's network, which must be a private one.
    pub fn new() -> Result<Self> {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["addr", "add", &cidr(HARNESS), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self(()))
    }

    /// The network as pg_hba.conf wants it.
    pub fn cidr(&self) -> String {
        let [a, b, c] = NETWORK;
        format!("{a}.{b}.{c}.0/24")
    }

    /// A new host with this last byte.
    pub fn host(&self, last: u8) -> Result<NetHost> {
        let namespace = new_namespace()?;
        let port = format!("pgha{last}");
        // `ip` takes a path for a namespace without a name.
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        ip(&[
            "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &path,
        ])?;
        ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        let host = NetHost {
            namespace,
            ip: address(last),
            drops: Mutex::default(),
        };
        host.enter(|| {
            ip(&["link", "set", "lo", "up"])?;
            ip(&["addr", "add", &cidr(last), "dev", "eth0"])?;
            ip(&["link", "set", "eth0", "up"])
        })??;
        Ok(host)
    }
}

fn address(last: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, last)
}

fn cidr(last: u8) -> String {
    format!("{}/24", address(last))
}

fn new_namespace() -> Result<File> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
    })?
}

/// Namespaces belong to threads, so what needs another one gets a thread that ends with it.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread panicked in its namespace"))
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args), "")
}

/// Runs a program to its end; its error text becomes the error.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Which way packets go, as the host sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// Towards the host.
    In,
    /// Away from it.
    Out,
}

/// Packets that a host drops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Drop {
    /// Which way.
    pub way: Way,
    /// From or to whom.
    pub peer: Ipv4Addr,
    /// Only connections to this port, on either end; `None`: everything.
    pub port: Option<u16>,
}

/// A host. Its filter is empty at first.
#[derive(Debug)]
pub struct NetHost {
    namespace: File,
    ip: Ipv4Addr,
    drops: Mutex<BTreeSet<Drop>>,
}

impl NetHost {
    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Does `work` in this host's network. Processes that it starts stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("setns")?;
            Ok(work())
        })?
    }

    /// Changes what is dropped. Connections that exist hang, as when a cable is pulled.
    pub fn filter(&self, change: impl FnOnce(&mut BTreeSet<Drop>)) -> Result<()> {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut drops);
        let rules = ruleset(&drops);
        self.enter(|| run(Command::new("nft").args(["-f", "-"]), &rules))?
    }
}

/// The whole filter as one transaction for `nft`.
fn ruleset(drops: &BTreeSet<Drop>) -> String {
    let mut chains = [String::new(), String::new()];
    for drop in drops {
        let (chain, side) = match drop.way {
            Way::In => (&mut chains[0], "saddr"),
            Way::Out => (&mut chains[1], "daddr"),
        };
        let ends: &[&str] = if drop.port.is_some() {
            &["sport", "dport"]
        } else {
            &[""]
        };
        for end in ends {
            let port = drop.port.map(|port| format!("tcp {end} {port} ")).unwrap_or_default();
            // Writing to a String cannot fail.
            writeln!(chain, "    ip {side} {} {port}drop", drop.peer).ok();
        }
    }
    let [input, output] = chains;
    format!(
        "table inet pgha\nflush table inet pgha\ntable inet pgha {{\n  chain input {{\n    type filter hook input priority 0;\n{input}  }}\n  \
         chain output {{\n    type filter hook output priority 0;\n{output}  }}\n}}\n"
    )
}

/// Where a server listens: an address, and the host that has it, if it is not this one.
#[derive(Clone, Debug)]
pub struct Site {
    /// The address.
    pub ip: Ipv4Addr,
    /// The host.
    pub host: Option<Arc<NetHost>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_of_one_port_names_either_end() {
        let drops = BTreeSet::from([Drop {
            way: Way::Out,
            peer: address(11),
            port: Some(5432),
        }]);
        let rules = ruleset(&drops);
        assert!(rules.contains("ip daddr 10.77.1.11 tcp sport 5432 drop"), "{rules}");
        assert!(rules.contains("ip daddr 10.77.1.11 tcp dport 5432 drop"), "{rules}");
    }
}
