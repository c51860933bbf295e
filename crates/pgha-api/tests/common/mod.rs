//! An agent made of plain values, a server in front of it, and a client that shows bytes as they are.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgha_api::{Api, ApiServer, ApiSettings, Backend, Clock, Later, StatusBoard};
use pgha_core::cluster::{ClusterView, ConfigKey, FailoverKey, LeaderKey, Member, MemberRole, MemberState};
use pgha_core::commit::{CommitOutcome, FailoverValue};
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::pg::{SqlFacts, SqlRole};
use pgha_core::request::{Answer, Request};
use pgha_core::settings::Settings;
use pgha_core::tags::Tags;
use pgha_core::units::{Lsn, MemberName, Mono, Now, Revision, SystemId, Timeline, Wall};
use pgha_wire::rest::status::{Counters, DecisionNote, LeaderUntil, NodeStatus, SyncStanding};

/// 2026-11-20T12:00:00Z.
pub const WALL: Wall = Wall(1_795_176_000_000_000);

/// A healthy primary that leads until boot time 1000 s.
pub fn primary() -> NodeStatus {
    NodeStatus {
        name: "pg1".into(),
        scope: "batman".into(),
        version: "4.1.5".into(),
        system_id: Some(SystemId(77)),
        state: MemberState::Running,
        role: MemberRole::Primary,
        postmaster_running: true,
        sql: Some(SqlFacts {
            response_time: Duration::from_millis(1),
            server_version: 150_004,
            postmaster_start_time: "2026-11-20 10:00:00.000000+00:00".into(),
            role: SqlRole::Primary {
                timeline: Timeline(3),
                flush: Lsn(0x5000_0000),
                write: Lsn(0x5000_0000),
            },
            wal_senders: Vec::new(),
            slots: BTreeMap::new(),
            synchronous_standby_names: String::new(),
            synchronous_commit: "on".into(),
            pending_restart: Vec::new(),
        }),
        sync_standing: SyncStanding::None,
        leader_until: LeaderUntil::Proven(seconds(1000)),
        may_write: true,
        standby_cluster: false,
        pause: false,
        cluster_unlocked: false,
        dcs_reachable: true,
        dcs_last_seen_s: 1_795_176_000,
        failsafe_enabled: false,
        failsafe_active: false,
        failsafe_leader: None,
        failsafe_member: false,
        optime: Some(Lsn(0x5000_0000)),
        maximum_lag_on_failover: 1_048_576,
        tags: Tags::default(),
        release_from_sync: false,
        pending_restart: Vec::new(),
        scheduled_restart: None,
        watchdog_failed: false,
        next_run: seconds(110),
        ttl: Duration::from_secs(30),
        loop_duration: None,
        decision: Some(DecisionNote {
            rule: 400,
            text: "no action. I am (pg1), the leader with the lock".into(),
            waits_for: Some("a \"quote\"".into()),
        }),
        job: None,
        diverged_wal: None,
        counters: Counters::default(),
    }
}

pub fn seconds(s: u64) -> Mono {
    Mono(s * 1_000_000_000)
}

/// pg1 leads, pg2 follows; `/config` at revision 5.
pub fn cluster() -> ClusterView {
    let member = |n: u8| Member {
        conn_url: Some(format!("postgres://10.0.0.{n}:5432/postgres")),
        api_url: Some(format!("http://10.0.0.{n}:8008/patroni")),
        state: MemberState::Running,
        text: r#"{"state":"running"}"#.into(),
        ..Member::default()
    };
    ClusterView {
        leader: Some(leader("pg1", 1)),
        members: BTreeMap::from([("pg1".into(), member(1).into()), ("pg2".into(), member(2).into())]),
        config: Some(ConfigKey {
            mod_revision: Revision(5),
            text: r#"{"ttl":30,"postgresql":{"use_slots":true}}"#.into(),
            settings: Settings::default(),
        }),
        ..ClusterView::default()
    }
}

pub fn leader(name: &str, revision: i64) -> LeaderKey {
    LeaderKey {
        name: name.into(),
        create_revision: Revision(revision),
        mod_revision: Revision(revision),
        lease: None,
    }
}

/// The agent.
pub struct Fake {
    pub board: Arc<StatusBoard>,
    pub etcd: Mutex<ClusterView>,
    pub mono: AtomicU64,
    /// Nothing that returns a future returns.
    pub hangs: AtomicBool,
    /// etcd answers that it is not there.
    pub etcd_down: AtomicBool,
    /// How writes end; the write is done only when `Applied`, or when `writes_anyway`.
    pub outcome: Mutex<CommitOutcome>,
    pub writes_anyway: AtomicBool,
    pub answer: Mutex<Answer>,
    pub peers: Mutex<BTreeMap<MemberName, PeerView>>,
    /// Who leads as soon as `/failover` is written.
    pub successor: Mutex<Option<&'static str>>,
    /// `/failover` disappears as soon as it is written.
    pub clears_failover: AtomicBool,
    pub calls: Mutex<Vec<String>>,
}

impl Fake {
    pub fn called(&self, text: String) {
        self.calls.lock().unwrap().push(text);
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn later<'a, T: Send + 'a>(&'a self, value: impl FnOnce() -> T + Send + 'a) -> Later<'a, T> {
        Box::pin(async move {
            if self.hangs.load(Ordering::SeqCst) {
                return pending().await;
            }
            value()
        })
    }

    fn commit(
        &self,
        expected: Option<Revision>,
        found: Revision,
        write: impl FnOnce(&mut ClusterView),
    ) -> CommitOutcome {
        let outcome = *self.outcome.lock().unwrap();
        if expected.is_some_and(|e| e != found) {
            return CommitOutcome::Conflict;
        }
        if matches!(outcome, CommitOutcome::Applied { .. }) || self.writes_anyway.load(Ordering::SeqCst) {
            write(&mut self.etcd.lock().unwrap());
        }
        outcome
    }
}

impl Backend for Fake {
    fn now(&self) -> Now {
        Now {
            mono: Mono(self.mono.load(Ordering::SeqCst)),
            wall: WALL,
        }
    }
    fn read_cluster(&self) -> Later<'_, Option<ClusterView>> {
        self.later(|| (!self.etcd_down.load(Ordering::SeqCst)).then(|| self.etcd.lock().unwrap().clone()))
    }
    fn write_config(&self, text: String, expected: Option<Revision>) -> Later<'_, CommitOutcome> {
        self.later(move || {
            self.called(format!("config {text} if {:?}", expected.map(|r| r.0)));
            let found = self
                .etcd
                .lock()
                .unwrap()
                .config
                .as_ref()
                .map_or(Revision(0), |c| c.mod_revision);
            self.commit(expected, found, |etcd| {
                let settings = Settings::default();
                etcd.config = Some(ConfigKey {
                    mod_revision: Revision(found.0 + 1),
                    text,
                    settings,
                });
            })
        })
    }
    fn write_failover(&self, value: Option<FailoverValue>, expected: Option<Revision>) -> Later<'_, CommitOutcome> {
        self.later(move || {
            self.called(format!("failover {value:?} if {:?}", expected.map(|r| r.0)));
            let found = self
                .etcd
                .lock()
                .unwrap()
                .failover
                .as_ref()
                .map_or(Revision(0), |f| f.mod_revision);
            let successor = *self.successor.lock().unwrap();
            let clears = self.clears_failover.load(Ordering::SeqCst);
            self.commit(expected, found, |etcd| {
                etcd.failover = value.filter(|_| !clears).map(|v| FailoverKey {
                    mod_revision: Revision(found.0 + 1),
                    leader: v.leader,
                    candidate: v.candidate,
                    scheduled_at: v.scheduled_at,
                    schedule_unreadable: false,
                });
                if let Some(name) = successor {
                    etcd.leader = Some(leader(name, 9));
                }
            })
        })
    }
    fn request(&self, request: Request) -> Later<'_, Answer> {
        self.later(move || {
            self.called(format!("{request:?}"));
            self.answer.lock().unwrap().clone()
        })
    }
    fn ask_peers(&self, peers: Vec<(MemberName, String)>) -> Later<'_, BTreeMap<MemberName, PeerView>> {
        self.later(move || {
            let known = self.peers.lock().unwrap();
            let view = |name| {
                known
                    .get(name)
                    .cloned()
                    .unwrap_or(PeerView::Unreachable { at: Mono(0) })
            };
            peers.iter().map(|(name, _)| (name.clone(), view(name))).collect()
        })
    }
    fn refresh(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
    fn reload(&self) {
        self.called("reload".into());
    }
    fn wake(&self) {
        self.called("wake".into());
    }
}

/// A standby that could take over.
pub fn fit_peer() -> PeerView {
    PeerView::Answered {
        at: Mono(0),
        status: PeerStatus {
            name: None,
            scope: None,
            system_id: None,
            state: MemberState::Running,
            role: MemberRole::Replica,
            timeline: Some(Timeline(3)),
            in_recovery: Some(true),
            lsn: Some(Lsn(0x5000_0000)),
            may_write: false,
            failsafe_leader: None,
            watchdog_failed: false,
            tags: Tags::default(),
        },
    }
}

/// A server with an agent behind it.
pub struct Rig {
    pub fake: Arc<Fake>,
    pub api: Arc<Api>,
    pub server: ApiServer,
}

fn clock() -> Clock {
    let began = Instant::now();
    Arc::new(move || Mono(u64::try_from(began.elapsed().as_nanos()).unwrap()))
}

pub fn rig() -> Rig {
    rig_with(&ApiSettings::default())
}

pub fn rig_with(settings: &ApiSettings) -> Rig {
    let now = Now {
        mono: seconds(100),
        wall: WALL,
    };
    let board = Arc::new(StatusBoard::new(primary(), Some(Arc::new(cluster())), now));
    let fake = Arc::new(Fake {
        board: Arc::clone(&board),
        etcd: Mutex::new(cluster()),
        mono: AtomicU64::new(seconds(107).0),
        hangs: AtomicBool::new(false),
        etcd_down: AtomicBool::new(false),
        outcome: Mutex::new(CommitOutcome::Applied { revision: Revision(10) }),
        writes_anyway: AtomicBool::new(false),
        answer: Mutex::new(Answer::Done("restarted successfully".into())),
        peers: Mutex::new(BTreeMap::from([("pg2".into(), fit_peer())])),
        successor: Mutex::new(None),
        clears_failover: AtomicBool::new(false),
        calls: Mutex::default(),
    });
    let api = Api::new(board, Arc::clone(&fake) as Arc<dyn Backend>, settings).unwrap();
    let server = ApiServer::start("127.0.0.1", 0, api.router(), clock()).unwrap();
    Rig { fake, api, server }
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(": "));
        lines
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
            .next()
    }
    pub fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body), "{self:?}");
    }
    /// An error page.
    pub fn is_page(&self, status: u16) {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, Some("text/html;charset=utf-8")),
            "{self:?}"
        );
    }
}

impl Rig {
    pub fn get(&self, path: &str) -> Got {
        self.send("GET", path, None)
    }

    pub fn send(&self, method: &str, path: &str, body: Option<&str>) -> Got {
        self.send_with(method, path, "", body)
    }

    pub fn send_with(&self, method: &str, path: &str, headers: &str, body: Option<&str>) -> Got {
        let length = body
            .map(|b| format!("Content-Length: {}\r\n", b.len()))
            .unwrap_or_default();
        let body = body.unwrap_or_default();
        exchange(
            self.server.address(),
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n{body}")
                .as_bytes(),
        )
    }
}

/// Sends bytes and reads until the server closes.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Got {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server that refuses early may close before everything is sent.
    let sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "no answer: {sent:?} {read:?}");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Got {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
