//! Real servers for the tests: each in a scratch directory of its own, on a free port, gone when the value is dropped.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, Once};
use std::time::Duration;

use pgha_core::pg::{PgView, SqlRole};
use pgha_core::units::Mono;
use pgha_postgres::{
    BasebackupRequest, ConfigTexts, ConnInfo, Credentials, DirectLauncher, Instance, InstanceSpec, Job, LocalAddress,
    PostBootstrap, Progress, Signal, StartOutcome, StartRequest, find_postmaster, orphans, send_signal,
    server_children,
};
use tokio_util::sync::CancellationToken;

pub const SUPER_PASSWORD: &str = "sup3r-secret";
pub const REPLICATION_PASSWORD: &str = "rep:l\\ication";
pub const LIMIT: Duration = Duration::from_secs(20);

/// Where PostgreSQL's programs are: in `PGHA_PG_BIN`, else the newest version that Debian's packages installed.
pub fn bin() -> &'static str {
    static BIN: LazyLock<String> = LazyLock::new(|| {
        std::env::var("PGHA_PG_BIN").unwrap_or_else(|_| {
            let newest = std::fs::read_dir("/usr/lib/postgresql")
                .expect("PostgreSQL is installed as on Debian")
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
                .filter(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/initdb")).exists())
                .max();
            format!("/usr/lib/postgresql/{}/bin", newest.expect("some version is installed"))
        })
    });
    &BIN
}

/// PostgreSQL refuses to run as root; from here on the whole process is the user `postgres`.
pub fn drop_root() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            nix::unistd::setgroups(&[]).unwrap();
            nix::unistd::setgid(user.gid).unwrap();
            nix::unistd::setuid(user.uid).unwrap();
        }
    });
}

/// Time since boot.
pub fn boot_time() -> Duration {
    nix::time::ClockId::CLOCK_BOOTTIME.now().unwrap().into()
}

pub struct Node {
    pub root: tempfile::TempDir,
    pub instance: Instance,
    pub launcher: DirectLauncher,
    pub cancel: CancellationToken,
    pub heard: Mutex<Vec<Progress>>,
}

impl Node {
    pub fn new() -> Node {
        drop_root();
        let root = tempfile::Builder::new().prefix("pgha-pg-").tempdir_in("/tmp").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let data_dir = root.path().join("data");
        let spec = InstanceSpec {
            config_dir: data_dir.clone(),
            state_dir: root.path().join("state"),
            data_dir,
            bin_dir: Some(bin().into()),
            bin_name: Default::default(),
            superuser: Credentials::new("postgres", SUPER_PASSWORD),
            replication: Credentials::new("replicator", REPLICATION_PASSWORD),
            rewind: Some(Credentials::new("rewind o'user", "rewind-secret")),
            database: "postgres".into(),
            local: LocalAddress::Unix {
                dir: root.path().into(),
                port,
            },
            pgpass: root.path().join("pgpass"),
        };
        let launcher = DirectLauncher {
            log: Some(root.path().join("log")),
        };
        Node {
            root,
            instance: Instance::new(spec),
            launcher,
            cancel: CancellationToken::new(),
            heard: Mutex::default(),
        }
    }

    pub fn data(&self) -> PathBuf {
        self.instance.spec().data_dir.clone()
    }
    pub fn port(&self) -> u16 {
        self.instance.spec().local.port()
    }
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }
    pub fn address(&self) -> ConnInfo {
        ConnInfo::new()
            .with("host", "127.0.0.1")
            .with("port", &self.port().to_string())
    }

    /// Runs a flow with a job that remembers what it heard.
    pub fn listen(&self) -> impl Fn(Progress) + Send + Sync + '_ {
        |p| self.heard.lock().unwrap().push(p)
    }
    pub fn heard(&self) -> Vec<Progress> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    pub fn config(&self, more: &str) -> ConfigTexts {
        let postgresql_conf = format!(
            "include 'postgresql.base.conf'\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             fsync = off\nwal_level = replica\nwal_log_hints = on\nhot_standby = on\nmax_wal_senders = 5\n\
             max_replication_slots = 5\nwal_keep_size = '128MB'\nshared_buffers = '16MB'\nmax_connections = 20\n{more}\n",
            self.port(),
            self.root.path().display()
        );
        let pg_hba = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
                      host replication all 127.0.0.1/32 scram-sha-256\nlocal replication all scram-sha-256\n";
        ConfigTexts {
            postgresql_conf,
            pg_hba: Some(pg_hba.into()),
            pg_ident: None,
        }
    }

    pub async fn initdb(&self) {
        let options = [
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=scram-sha-256",
        ]
        .map(String::from);
        let report = self.listen();
        self.instance
            .initdb(
                &options,
                &Job {
                    cancel: &self.cancel,
                    report: &report,
                },
            )
            .await
            .unwrap();
    }

    pub async fn start(&self) -> StartOutcome {
        let request = StartRequest {
            options: vec!["--cluster_name=t".into()],
            timeout: LIMIT,
            during_bootstrap: true,
        };
        let report = self.listen();
        self.instance
            .start(
                &request,
                &self.launcher,
                &Job {
                    cancel: &self.cancel,
                    report: &report,
                },
            )
            .await
            .unwrap()
    }

    pub async fn start_up(&self) {
        let outcome = self.start().await;
        assert!(
            matches!(
                outcome,
                StartOutcome::Up {
                    accepts_connections: true,
                    ..
                }
            ),
            "{outcome:?}\n{}",
            self.log()
        );
    }

    /// A running primary with its roles.
    pub async fn primary() -> Node {
        let node = Node::new();
        node.initdb().await;
        node.instance.write_config(&node.config("")).await.unwrap();
        node.start_up().await;
        let report = node.listen();
        let job = Job {
            cancel: &node.cancel,
            report: &report,
        };
        node.instance
            .post_bootstrap(&PostBootstrap::default(), &job)
            .await
            .unwrap();
        drop(report);
        node.instance.unfinished().finish().unwrap();
        node
    }

    /// Follow `primary` from the next start on.
    pub async fn follow(&self, primary: &Node) {
        let pass = self.instance.spec().pgpass.clone();
        let entry = pgha_postgres::PassEntry {
            host: "127.0.0.1".into(),
            port: primary.port(),
            user: "replicator".into(),
            password: pgha_postgres::Secret::new(REPLICATION_PASSWORD),
        };
        pgha_postgres::write_pgpass(&pass, &[entry]).unwrap();
        let info = primary
            .address()
            .with("user", "replicator")
            .with("passfile", &pass.display().to_string());
        let info = info.with("application_name", "standby").render();
        let more = format!("primary_conninfo = '{info}'\nrecovery_target_timeline = 'latest'\n");
        self.instance.write_config(&self.config(&more)).await.unwrap();
        self.instance.set_standby(true).await.unwrap();
    }

    /// A running standby of `primary`, cloned from it.
    pub async fn standby_of(primary: &Node) -> Node {
        let node = Node::new();
        let request = BasebackupRequest {
            source: primary.address(),
            options: vec!["--checkpoint=fast".into(), "--no-sync".into()],
        };
        let report = node.listen();
        node.instance
            .basebackup(
                &request,
                &Job {
                    cancel: &node.cancel,
                    report: &report,
                },
            )
            .await
            .unwrap();
        drop(report);
        node.follow(primary).await;
        node.start_up().await;
        node
    }

    pub async fn observe(&self) -> PgView {
        self.instance.observe(Mono(1), Duration::from_secs(3)).await
    }

    /// Observes until `wanted`, for at most ten seconds.
    pub async fn until(&self, what: &str, wanted: impl Fn(&PgView) -> bool) -> PgView {
        let mut last = None;
        for _ in 0..200 {
            let view = self.observe().await;
            if wanted(&view) {
                return view;
            }
            last = Some(view);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what} did not come: {last:?}\n{}", self.log());
    }

    /// Runs SQL as superuser and returns the trimmed output.
    pub fn sql(&self, sql: &str) -> String {
        let out = Command::new(format!("{}/psql", bin()))
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                sql,
            ])
            .args([
                "-h",
                &self.root.path().display().to_string(),
                "-p",
                &self.port().to_string(),
            ])
            .env("PGPASSWORD", SUPER_PASSWORD)
            .output()
            .unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    }

    pub fn kill_postmaster(&self) {
        let server = find_postmaster(&self.data(), "postgres").process().unwrap();
        assert!(send_signal(server, Signal::KILL).unwrap());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let data = self.data();
        let server = find_postmaster(&data, "postgres").process();
        if let Some(server) = server {
            // An immediate shutdown removes the shared memory, which SIGKILL would leave to this machine for ever.
            send_signal(server, Signal::QUIT).ok();
            send_signal(server, Signal::CONT).ok();
            let pid_file = data.join("postmaster.pid");
            let rounds = 200;
            (0..rounds)
                .take_while(|_| pid_file.exists())
                .for_each(|_| std::thread::sleep(LIMIT / rounds / 10));
        }
        let mut all: Vec<_> = server.into_iter().flat_map(server_children).collect();
        all.extend(server);
        all.extend(orphans(&data, "postgres"));
        for process in all {
            send_signal(process, Signal::KILL).ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", data.display(), self.log());
        }
    }
}

pub fn is_streaming(view: &PgView) -> bool {
    match view.facts().map(|f| &f.role) {
        Some(SqlRole::Standby(s)) => s.wal_receiver.as_ref().is_some_and(|w| w.status == "streaming"),
        _ => false,
    }
}
