//! What an observation of the simulated server sees: the facts of `pgha_postgres::Instance::observe`.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::pg::{
    DataDir, PgView, Postmaster, PostmasterPhase, Slot, SqlFacts, SqlRole, SqlView, StandbyFacts, WalReceiver,
    WalSender,
};
use pgha_core::sync::names::Method;
use pgha_core::units::{Lsn, Mono, Timeline};

use super::data::{Data, Dir};
use super::server::{Receiver, Server};
use super::{SimPostgres, SyncRules};

impl SimPostgres {
    /// What an observation sees.
    pub fn observe(&self, at: Mono) -> PgView {
        let data_dir = match &self.dir {
            Dir::Empty => DataDir::Empty,
            Dir::Unfinished(what) => DataDir::Unfinished { what: *what },
            Dir::Data(d) => DataDir::Present(d.control()),
        };
        let cannot_connect = |reason: &str| SqlView::Unanswered {
            reason: reason.into(),
            cannot_connect_now: true,
        };
        let (phase, sql) = match (&self.server, self.data()) {
            (Server::Down, _) => {
                return PgView {
                    observed_at: at,
                    data_dir,
                    postmaster: Postmaster::NotRunning,
                    sql: SqlView::NotAsked,
                };
            }
            (Server::Starting, _) | (_, None) => (PostmasterPhase::Starting, cannot_connect("starting up")),
            (Server::Stopping { .. }, _) => (PostmasterPhase::Stopping, cannot_connect("shutting down")),
            (Server::Primary | Server::Standby(_), Some(_)) if self.mute => (
                PostmasterPhase::Ready,
                SqlView::Unanswered {
                    reason: "timed out".into(),
                    cannot_connect_now: false,
                },
            ),
            (Server::Primary, Some(d)) => (
                PostmasterPhase::Ready,
                SqlView::Answered(self.facts(d, primary_role(d))),
            ),
            (Server::Standby(receiver), Some(d)) => (
                PostmasterPhase::Ready,
                SqlView::Answered(self.facts(d, standby_role(d, receiver, self.archives))),
            ),
        };
        let pid = i32::try_from(self.incarnation).unwrap_or(1) + 1;
        PgView {
            observed_at: at,
            data_dir,
            postmaster: Postmaster::Running {
                pid,
                start_ticks: self.incarnation,
                phase,
            },
            sql,
        }
    }

    fn facts(&self, d: &Data, role: SqlRole) -> SqlFacts {
        SqlFacts {
            response_time: Duration::from_millis(1),
            server_version: 180_000,
            postmaster_start_time: format!("start {}", self.incarnation),
            role,
            wal_senders: self.wal_senders(),
            slots: self.slots(d),
            synchronous_standby_names: self.sync.loaded.text.clone(),
            synchronous_commit: "on".into(),
            pending_restart: Vec::new(),
        }
    }

    fn wal_senders(&self) -> Vec<WalSender> {
        let rules = &self.sync.loaded;
        let chosen = rules.chosen(&self.senders);
        let row = |(number, s): (usize, &super::Sender)| WalSender {
            pid: i32::try_from(s.connection).unwrap_or(i32::MAX),
            usename: "replicator".into(),
            application_name: s.name.clone(),
            client_addr: None,
            state: if s.streaming { "streaming" } else { "catchup" }.into(),
            sync_state: sync_state(rules, s.priority, chosen.contains(&number)).into(),
            sync_priority: i32::try_from(s.priority).unwrap_or(i32::MAX),
            write: Some(Lsn(s.write)),
            flush: Some(Lsn(s.flush)),
            replay: Some(Lsn(s.replay)),
        };
        self.senders.iter().enumerate().map(row).collect()
    }

    fn slots(&self, d: &Data) -> BTreeMap<String, Slot> {
        let active = |name: &String| self.senders.iter().any(|s| s.slot.as_ref() == Some(name));
        let row = |(name, slot): (&String, &super::Slot)| {
            let seen = Slot {
                logical: false,
                active: active(name),
                restart: (!slot.lost).then_some(Lsn(slot.restart)),
                confirmed_flush: None,
                has_xmin: false,
                lost: slot.lost,
                temporary: false,
                failover: false,
                database: None,
                plugin: None,
            };
            (name.clone(), seen)
        };
        d.slots.iter().map(row).collect()
    }
}

fn sync_state(rules: &SyncRules, priority: u32, chosen: bool) -> &'static str {
    match (rules.names.method, priority) {
        (_, 0) => "async",
        (Method::Quorum, _) => "quorum",
        (Method::Priority, _) if chosen => "sync",
        (Method::Priority, _) => "potential",
    }
}

fn primary_role(d: &Data) -> SqlRole {
    SqlRole::Primary {
        timeline: Timeline(d.timeline()),
        flush: Lsn(d.flushed),
        write: Lsn(d.written),
    }
}

fn standby_role(d: &Data, receiver: &Receiver, archives: bool) -> SqlRole {
    let upstream = receiver.upstream.as_ref();
    let conninfo = upstream.and_then(|u| pgha_core::conninfo::host_port(&u.conn_url));
    let streaming = receiver.connection.is_some();
    SqlRole::Standby(StandbyFacts {
        timeline: Some(Timeline(d.timeline())),
        received: receiver.has_received.then_some(Lsn(d.flushed)),
        replayed: Some(Lsn(d.replayed)),
        replayed_timestamp: None,
        replay_paused: false,
        wal_receiver: streaming.then(|| WalReceiver {
            status: "streaming".into(),
            sender_host: None,
            sender_port: None,
            latest_end: Some(Lsn(d.flushed)),
        }),
        primary_conninfo: conninfo.map(|(h, p)| format!("host={h} port={p}")).unwrap_or_default(),
        primary_slot_name: upstream.and_then(|u| u.slot.clone()).unwrap_or_default(),
        has_restore_command: archives,
    })
}
