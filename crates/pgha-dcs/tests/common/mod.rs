//! Real etcd for tests: members on free ports, data in a temporary directory, gone when the test ends.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod proxy;

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_dcs::etcd::{EtcdConfig, EtcdDcs};
use pgha_dcs::{Dcs, Hint, WatchHints};
use pgha_wire::kv::{Compare, Op, Snapshot, Txn};
use tempfile::TempDir;

/// Budget of a call that should succeed.
pub const BUDGET: Duration = Duration::from_secs(5);
/// Tries to find free ports; another test may take one between the look and the use.
const START_TRIES: u32 = 5;
/// Polls of 50 ms until a member must answer.
const READY_POLLS: u32 = 400;
const POLL: Duration = Duration::from_millis(50);

/// One etcd process.
pub struct Member {
    pub url: String,
    name: String,
    data_dir: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// A cluster of them.
pub struct Etcd {
    pub members: Vec<Member>,
    dir: TempDir,
}

impl Etcd {
    /// A single member.
    pub fn single() -> Etcd {
        Etcd::start(1, &[], "http")
    }

    /// A single member with further arguments.
    pub fn single_with(args: &[&str]) -> Etcd {
        Etcd::start(1, args, "http")
    }

    /// Three members.
    pub fn three() -> Etcd {
        Etcd::start(3, &[], "http")
    }

    pub fn start(count: usize, args: &[&str], scheme: &str) -> Etcd {
        for _ in 0..START_TRIES {
            let mut etcd = Etcd::configure(count, args, scheme);
            etcd.members.iter_mut().for_each(Member::spawn);
            if etcd.members.iter_mut().all(Member::wait_ready) {
                etcd.wait_published();
                return etcd;
            }
        }
        panic!("etcd did not start; is it installed?");
    }

    /// A member that takes connections may not have told the others its addresses yet, and is in no list until then.
    fn wait_published(&self) {
        let [first, _, ..] = self.members.as_slice() else {
            return;
        };
        for _ in 0..READY_POLLS {
            let list = first.try_ctl(&["member", "list"]);
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            if list.lines().filter(|line| line.contains(", started, ")).count() == self.members.len() {
                return;
            }
            std::thread::sleep(POLL);
        }
        panic!("not every member of etcd has published its addresses");
    }

    fn configure(count: usize, args: &[&str], scheme: &str) -> Etcd {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(count * 2);
        let peers: Vec<String> = (0..count)
            .map(|n| format!("m{n}=http://127.0.0.1:{}", ports[count + n]))
            .collect();
        let members = (0..count).map(|n| {
            let url = format!("{scheme}://127.0.0.1:{}", ports[n]);
            let peer = format!("http://127.0.0.1:{}", ports[count + n]);
            let name = format!("m{n}");
            let data_dir = dir.path().join(&name);
            let mut all: Vec<String> = [
                ("--name", name.as_str()),
                ("--data-dir", data_dir.to_str().unwrap()),
                ("--listen-client-urls", &url),
                ("--advertise-client-urls", &url),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &peers.join(",")),
                ("--initial-cluster-state", "new"),
            ]
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
            .collect();
            all.extend(args.iter().map(|arg| (*arg).to_owned()));
            let log = dir.path().join(format!("{name}.log"));
            Member {
                url,
                name,
                data_dir,
                args: all,
                log,
                child: None,
            }
        });
        Etcd {
            members: members.collect(),
            dir,
        }
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// A backend with all members as endpoints and defaults.
    pub fn dcs(&self) -> Arc<EtcdDcs> {
        Arc::new(EtcdDcs::new(EtcdConfig::new(self.urls())).unwrap())
    }

    /// The member with this url.
    pub fn member(&mut self, url: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.url == url).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Member {
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        // The process goes when the test does, however the test ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd"])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("setpriv and etcd are installed");
        self.child = Some(child);
    }

    /// Waits until the port answers; false when the process ended instead.
    pub fn wait_ready(&mut self) -> bool {
        let address = self.url.rsplit('/').next().unwrap().to_owned();
        for _ in 0..READY_POLLS {
            if self
                .child
                .as_mut()
                .is_none_or(|child| child.try_wait().unwrap().is_some())
            {
                return false;
            }
            if std::net::TcpStream::connect(&address).is_ok() {
                return true;
            }
            std::thread::sleep(POLL);
        }
        false
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Returns when no thread of it runs any more, which on a busy machine is some time after the signal.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.child.as_ref().unwrap().id());
        while !std::fs::read_dir(&tasks)
            .unwrap()
            .all(|task| is_stopped(&task.unwrap().path()))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends the process at once; the data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.wait_ready(), "{} did not come back", self.name);
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Runs etcdctl, which must succeed; returns what it wrote.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.try_ctl(args);
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn try_ctl(&self, args: &[&str]) -> Output {
        let command = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(&self.url)
            .args(args)
            .output();
        command.expect("etcdctl is installed")
    }
}

/// Is this thread, a directory below `/proc`, stopped? One that has ended is.
fn is_stopped(task: &Path) -> bool {
    std::fs::read_to_string(task.join("stat")).map_or(true, |stat| {
        // The name before it may contain anything but ends with the last bracket.
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
    })
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate authority of its own, a server certificate for this host and a client certificate, in `dir`.
pub struct Pki {
    dir: TempDir,
}

impl Pki {
    pub fn new() -> Pki {
        let pki = Pki {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::write(pki.path("host.ext"), "subjectAltName=IP:127.0.0.1").unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        pki.openssl(
            &[
                "req",
                "-x509",
                "-subj",
                "/CN=authority",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ],
            &key,
        );
        for name in ["server", "client"] {
            let (key_file, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            let subject = format!("/CN={name}");
            pki.openssl(
                &["req", "-subj", &subject, "-keyout", &key_file, "-out", &request],
                &key,
            );
            let sign = [
                "x509", "-req", "-in", &request, "-out", &cert, "-CA", "ca.pem", "-CAkey", "ca.key",
            ];
            pki.openssl(&sign, &["-CAcreateserial", "-extfile", "host.ext"]);
        }
        pki
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn openssl(&self, args: &[&str], more: &[&str]) {
        let output = Command::new("openssl")
            .current_dir(self.dir.path())
            .args(args)
            .args(more)
            .output();
        let output = output.expect("openssl is installed");
        assert!(
            output.status.success(),
            "openssl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Ports that nobody listens on now.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}

pub fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Op {
    Op::Put {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        lease,
    }
}

pub fn absent(key: &str) -> Compare {
    Compare::CreateRevision(key.to_owned(), Revision(0))
}

pub fn txn(compares: Vec<Compare>, ops: Vec<Op>) -> Txn {
    Txn { compares, ops }
}

/// A write that must succeed.
pub async fn write(dcs: &dyn Dcs, key: &str, value: &str) -> Revision {
    match dcs.commit(&txn(vec![], vec![put(key, value, None)]), BUDGET).await {
        CommitOutcome::Applied { revision } => revision,
        other => panic!("{key}={value}: {other:?}; {:?}", dcs.status().last_error),
    }
}

/// A read that must succeed.
pub async fn read(dcs: &dyn Dcs) -> Snapshot {
    dcs.read("/t/", BUDGET).await.expect("etcd can be read")
}

/// Waits for a hint that fulfils the condition; others are passed over.
pub async fn wait_hint(hints: &mut WatchHints, within: Duration, wanted: impl Fn(&Hint) -> bool) -> Option<Hint> {
    let search = async {
        loop {
            match hints.next().await {
                Some(hint) if wanted(&hint) => return Some(hint),
                Some(_) => {}
                None => return None,
            }
        }
    };
    tokio::time::timeout(within, search).await.ok().flatten()
}

/// The hint is about this key.
pub fn about(key: &str) -> impl Fn(&Hint) -> bool {
    move |hint| matches!(hint, Hint::Changed { key: found, .. } if found == key)
}
