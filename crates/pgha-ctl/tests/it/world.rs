//! A real etcd, members that are played, and the program under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pgha_core::commit::CommitOutcome;
use pgha_dcs::Dcs;
use pgha_dcs::etcd::{EtcdConfig, EtcdDcs};
use pgha_wire::kv::{Op, Txn};
use tempfile::TempDir;

pub const SYSTEM_ID: &str = "7123456789012345678";
const START_LIMIT: Duration = Duration::from_secs(20);
const BUDGET: Duration = Duration::from_secs(5);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One etcd with a configuration file for `pgha-ctl` beside it. Both end with the value.
pub struct World {
    etcd: Child,
    pub folder: TempDir,
    pub endpoint: String,
    runtime: tokio::runtime::Runtime,
    dcs: EtcdDcs,
}

impl World {
    pub fn start() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .args([
                "--listen-client-urls",
                &url(client),
                "--advertise-client-urls",
                &url(client),
            ])
            .args([
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
            ])
            .args(["--initial-cluster", &format!("default={}", url(peer))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed");
        let endpoint = format!("127.0.0.1:{client}");
        std::fs::write(
            folder.path().join("ctl.yml"),
            format!("scope: batman\netcd3:\n  hosts: {endpoint}\nctl:\n  authentication:\n    username: admin\n    password: sesame\n"),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let dcs = EtcdDcs::new(EtcdConfig::new([endpoint.clone()])).unwrap();
        let world = World {
            etcd,
            folder,
            endpoint,
            runtime,
            dcs,
        };
        let started = Instant::now();
        while world
            .runtime
            .block_on(world.dcs.read("/nothing/", Duration::from_secs(1)))
            .is_err()
        {
            assert!(started.elapsed() < START_LIMIT, "etcd does not start");
            thread::sleep(Duration::from_millis(50));
        }
        world
    }

    /// Puts keys of the cluster `batman`.
    pub fn put(&self, keys: &[(&str, String)]) {
        let put = |(key, value): &(&str, String)| Op::Put {
            key: format!("/service/batman/{key}"),
            value: value.clone().into_bytes(),
            lease: None,
        };
        let txn = Txn {
            compares: Vec::new(),
            ops: keys.iter().map(put).collect(),
        };
        let outcome = self.runtime.block_on(self.dcs.commit(&txn, BUDGET));
        assert!(matches!(outcome, CommitOutcome::Applied { .. }), "{outcome:?}");
    }

    /// The value of a key of `batman`.
    pub fn get(&self, key: &str) -> Option<String> {
        let snapshot = self
            .runtime
            .block_on(self.dcs.read("/service/batman/", BUDGET))
            .unwrap();
        let full = format!("/service/batman/{key}");
        snapshot
            .keys
            .into_iter()
            .find(|kv| kv.key == full)
            .map(|kv| String::from_utf8(kv.value).unwrap())
    }

    /// Three members, `node1` leading, whose REST APIs are at these ports.
    pub fn put_cluster(&self, ports: [u16; 3]) {
        self.put(&[
            ("initialize", SYSTEM_ID.to_owned()),
            ("leader", "node1".to_owned()),
            ("config", r#"{"ttl":30,"loop_wait":1}"#.to_owned()),
            ("status", r#"{"optime":50331648}"#.to_owned()),
            ("members/node1", member(1, ports[0], "primary", "")),
            ("members/node2", member(2, ports[1], "replica", "")),
            ("members/node3", member(3, ports[2], "replica", "")),
        ]);
    }

    pub fn config_file(&self) -> String {
        self.folder.path().join("ctl.yml").display().to_string()
    }

    /// Runs `pgha-ctl -c FILE LINE` with this input.
    pub fn run(&self, line: &str, input: &str) -> Ran {
        let mut args = vec!["-c".to_owned(), self.config_file()];
        args.extend(line.split(' ').map(str::to_owned));
        run(&args, input, &[])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.etcd.kill().unwrap();
        self.etcd.wait().unwrap();
    }
}

pub fn member(n: u16, port: u16, role: &str, more: &str) -> String {
    format!(
        r#"{{"conn_url":"postgres://10.0.0.{n}:5432/postgres","api_url":"http://127.0.0.1:{port}/patroni","state":"running","role":"{role}","version":"4.1.5","timeline":3{more}}}"#
    )
}

/// How the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn run(args: &[String], input: &str, env: &[(&str, &str)]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgha-ctl"))
        .args(args)
        .env_clear()
        .env("TZ", "UTC")
        .env("PATH", std::env::var("PATH").unwrap())
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that asks nothing may have ended by now.
    let _ended = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What a played member was asked: `METHOD /path body`, and its `Authorization`.
pub type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Plays a member: `answer` gives status and body for `METHOD /path`; `None` hangs up without an answer.
pub fn play(answer: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
            thread::spawn(move || serve(stream, &noted, answer.as_ref()));
        }
    });
    (port, asked)
}

fn serve(mut stream: TcpStream, asked: &Asked, answer: &dyn Fn(&str) -> Option<(u16, String)>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = head
            .iter()
            .find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let request = head[0].trim_end_matches(" HTTP/1.1").to_owned();
    let line = format!("{request} {}", String::from_utf8(body).unwrap())
        .trim_end()
        .to_owned();
    asked.lock().unwrap().push((line, header("authorization")));
    if let Some((status, body)) = answer(&request) {
        // HTTP/1.0 without a length, as Patroni answers.
        let _sent =
            stream.write_all(format!("HTTP/1.0 {status} X\r\nContent-Type: text/html\r\n\r\n{body}").as_bytes());
    }
}

/// What a member was asked, without credentials.
pub fn lines(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
}
