//! Directives for the local PostgreSQL and for what peers answer.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::peer::{PeerStatus, PeerView};
use pgha_core::pg::{
    ControlData, ControlState, DataDir, PendingRestart, PgView, Postmaster, PostmasterPhase, Slot, SqlFacts, SqlRole,
    SqlView, StandbyFacts, UnfinishedWork, WalReceiver, WalSender,
};
use pgha_core::slots::slot_name;
use pgha_core::tags::Tags;
use pgha_core::units::{Lsn, MemberName, SystemId, Timeline};
use pgha_core::view::TimelineEnd;

use super::etcd::timeline_end;
use super::line::Line;
use super::world::{SYSTEM_ID, World, set_tags};

/// Where everybody stands unless a scenario says otherwise.
const LSN: Lsn = Lsn(0x500);

/// Where a server stands.
#[derive(Clone, Copy)]
struct Position {
    timeline: Timeline,
    lsn: Lsn,
}

/// Sets a fact about PostgreSQL or a peer; `false` when the directive is none of theirs.
pub fn set(w: &mut World, directive: &str, line: &mut Line) -> Result<bool, String> {
    match directive {
        "pg" => w.pg = pg(w, line)?,
        "peer" => peer(w, line)?,
        "asked" => w.memory.cycle.peers_asked = true,
        "names" => facts_of(w)?.synchronous_standby_names = line.needs("a text")?,
        "senders" => senders(w, line)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn facts_of(w: &mut World) -> Result<&mut SqlFacts, String> {
    match &mut w.pg.sql {
        SqlView::Answered(facts) => Ok(facts),
        SqlView::NotAsked | SqlView::Unanswered { .. } => Err("PostgreSQL does not answer".into()),
    }
}

/// `senders b@0/500:1 c`: who streams from here, up to where, with the priority it shows. No name: nobody.
fn senders(w: &mut World, line: &mut Line) -> Result<(), String> {
    let facts = facts_of(w)?;
    facts.wal_senders.clear();
    while let Some(word) = line.word() {
        let (rest, priority) = word.split_once(':').unwrap_or((word.as_str(), "0"));
        let (name, at) = rest.split_once('@').unwrap_or((rest, "0/500"));
        let at = Some(super::line::lsn(at)?);
        let pid = name.bytes().next().map_or(0, i32::from);
        facts.wal_senders.push(WalSender {
            pid,
            usename: "replicator".into(),
            application_name: name.into(),
            client_addr: None,
            state: "streaming".into(),
            sync_state: "async".into(),
            sync_priority: priority.parse().map_err(|_| format!("{priority} is no priority"))?,
            write: at,
            flush: at,
            replay: at,
        });
    }
    Ok(())
}

/// What PostgreSQL shows once everybody has read a new text.
pub fn read_names(w: &mut World, text: &str) {
    let Ok(facts) = facts_of(w) else { return };
    facts.synchronous_standby_names = text.into();
    let Some(names) = pgha_core::sync::names::parse(text) else {
        return;
    };
    for sender in &mut facts.wal_senders {
        sender.sync_priority = names.priority_of(&sender.application_name);
    }
}

fn pg(w: &mut World, line: &mut Line) -> Result<PgView, String> {
    let what = line.needs("what PostgreSQL is")?;
    let nothing = |data_dir| PgView {
        data_dir,
        postmaster: Postmaster::NotRunning,
        ..PgView::not_observed()
    };
    w.timeline_history.clear();
    let here = Position {
        timeline: Timeline(line.number("tl")?.unwrap_or(1)),
        lsn: line.lsn("lsn")?.unwrap_or(LSN),
    };
    Ok(match what.as_str() {
        "unknown" => PgView::not_observed(),
        "empty" => nothing(DataDir::Empty),
        "inaccessible" => nothing(DataDir::Inaccessible {
            reason: line.needs("a reason")?,
        }),
        "foreign" => nothing(DataDir::Foreign {
            reason: line.needs("a reason")?,
        }),
        "unfinished" => nothing(DataDir::Unfinished {
            what: match line.needs("bootstrap, clone or rewind")?.as_str() {
                "bootstrap" => UnfinishedWork::Bootstrap,
                "clone" => UnfinishedWork::Clone,
                "rewind" => UnfinishedWork::Rewind,
                other => {
                    return Err(format!(
                        "pg unfinished {other}: bootstrap, clone or rewind was expected"
                    ));
                }
            },
        }),
        "down" => {
            let was = line.needs("standby or primary")?;
            PgView {
                data_dir: DataDir::Present(control(&was, false, here, line)?),
                postmaster: Postmaster::NotRunning,
                ..PgView::not_observed()
            }
        }
        "unobserved_postmaster" => PgView {
            data_dir: DataDir::Present(control("standby", true, here, line)?),
            ..PgView::not_observed()
        },
        "starting" | "stopping" | "silent" => {
            let was = line.needs("standby or primary")?;
            let (phase, cannot_connect_now) = match what.as_str() {
                "starting" => (PostmasterPhase::Starting, true),
                "stopping" => (PostmasterPhase::Stopping, true),
                _ => (PostmasterPhase::Ready, false),
            };
            PgView {
                data_dir: DataDir::Present(control(&was, true, here, line)?),
                postmaster: running(phase),
                sql: SqlView::Unanswered {
                    reason: "no answer in time".into(),
                    cannot_connect_now,
                },
                ..PgView::not_observed()
            }
        }
        "primary" | "standby" => {
            let facts = facts(w, &what, here, line)?;
            PgView {
                data_dir: DataDir::Present(control(&what, true, here, line)?),
                postmaster: running(PostmasterPhase::Ready),
                sql: SqlView::Answered(facts),
                ..PgView::not_observed()
            }
        }
        other => return Err(format!("pg {other} is not known")),
    })
}

fn running(phase: PostmasterPhase) -> Postmaster {
    Postmaster::Running {
        pid: 4711,
        start_ticks: 1,
        phase,
    }
}

/// pg_control of a server that was last run as this; `crashed` leaves the state of a server that was cut off.
fn control(was: &str, is_running: bool, here: Position, line: &mut Line) -> Result<ControlData, String> {
    let primary = match was {
        "primary" => true,
        "standby" => false,
        other => return Err(format!("`{other}`: primary or standby was expected")),
    };
    let crashed = line.flag("crashed") || is_running;
    let checkpoint = line.lsn("checkpoint")?.unwrap_or(here.lsn);
    Ok(ControlData {
        system_id: line.number("sysid")?.map_or(SYSTEM_ID, SystemId),
        state: match (primary, crashed) {
            (true, true) => ControlState::InProduction,
            (true, false) => ControlState::ShutDown,
            (false, true) => ControlState::InArchiveRecovery,
            (false, false) => ControlState::ShutDownInRecovery,
        },
        checkpoint_timeline: Timeline(line.number("checkpoint_tl")?.unwrap_or(here.timeline.0)),
        checkpoint,
        redo: checkpoint,
        min_recovery: Lsn(0),
        min_recovery_timeline: None,
        data_checksums: line.flag("checksums"),
        wal_log_hints: false,
        recovery_signal: !primary || line.flag("with_signal"),
        major_version: 15,
    })
}

fn facts(w: &mut World, what: &str, here: Position, line: &mut Line) -> Result<SqlFacts, String> {
    let role = if what == "primary" {
        if let Some(ends) = line.value("branched") {
            w.timeline_history = ends.split(',').map(history_end).collect::<Result<_, _>>()?;
        }
        SqlRole::Primary {
            timeline: here.timeline,
            flush: here.lsn,
            write: here.lsn,
        }
    } else {
        SqlRole::Standby(standby(w, here, line)?)
    };
    Ok(SqlFacts {
        response_time: Duration::from_millis(1),
        server_version: line.number("version")?.unwrap_or(150_014),
        postmaster_start_time: line
            .value("started")
            .unwrap_or_else(|| "2025-12-31 00:00:00.000000+00:00".into()),
        role,
        wal_senders: w.pg.facts().map(|f| f.wal_senders.clone()).unwrap_or_default(),
        slots: slots(w, line.flag("without_slots"), line.value("left_slots")),
        synchronous_standby_names: match w.pg.facts() {
            Some(before) => before.synchronous_standby_names.clone(),
            None => line.value("names").unwrap_or_default(),
        },
        synchronous_commit: "on".into(),
        pending_restart: if line.flag("pending_restart") {
            vec![PendingRestart {
                name: "max_connections".into(),
                old_value: "100".into(),
                new_value: "200".into(),
            }]
        } else {
            Vec::new()
        },
    })
}

/// What upkeep has made by now: a slot in use for each other member. `left_slots=c,d`: slots that nobody uses.
fn slots(w: &World, none: bool, left: Option<String>) -> BTreeMap<String, Slot> {
    let slot = Slot {
        logical: false,
        active: true,
        restart: Some(Lsn(0x400)),
        confirmed_flush: None,
        has_xmin: false,
        lost: false,
        temporary: false,
        failover: false,
        database: None,
        plugin: None,
    };
    let others = w.cluster.members.keys().filter(|name| !none && **name != w.me.name);
    let mut slots: BTreeMap<String, Slot> = others.map(|name| (slot_name(name), slot.clone())).collect();
    let idle = Slot { active: false, ..slot };
    let left = left.unwrap_or_default();
    slots.extend(
        left.split(',')
            .filter(|n| !n.is_empty())
            .map(|n| (n.into(), idle.clone())),
    );
    slots
}

fn history_end(text: &str) -> Result<TimelineEnd, String> {
    let (timeline, switchpoint) = timeline_end(text)?;
    Ok(TimelineEnd {
        timeline,
        switchpoint,
        reason: "no recovery target specified".into(),
    })
}

/// `from=b` is what primary_conninfo says; `streaming` that a wal receiver is connected.
fn standby(w: &World, here: Position, line: &mut Line) -> Result<StandbyFacts, String> {
    let from = line.value("from");
    let slot = if w.settings.use_slots {
        slot_name(&w.me.name)
    } else {
        String::new()
    };
    let wal_receiver = line.flag("streaming").then(|| WalReceiver {
        status: "streaming".into(),
        sender_host: from.clone(),
        sender_port: Some(5432),
        latest_end: None,
    });
    Ok(StandbyFacts {
        timeline: (!line.flag("no_timeline")).then_some(here.timeline),
        received: Some(here.lsn),
        replayed: Some(line.lsn("replayed")?.unwrap_or(here.lsn)),
        replayed_timestamp: None,
        replay_paused: false,
        wal_receiver,
        primary_slot_name: if from.is_some() { slot } else { String::new() },
        primary_conninfo: from
            .map(|host| format!("host={host} port=5432 application_name={}", w.me.name))
            .unwrap_or_default(),
        has_restore_command: false,
    })
}

/// An answer of a peer means that peers were asked in this cycle.
fn peer(w: &mut World, line: &mut Line) -> Result<(), String> {
    let name = MemberName::new(line.needs("a name")?);
    let what = line.needs("what it answered")?;
    w.memory.cycle.peers_asked = true;
    let at = w.now.mono;
    let answered = |status| PeerView::Answered { at, status };
    let mut status = PeerStatus {
        name: Some(name.clone()),
        scope: Some(w.me.scope.clone()),
        system_id: Some(SYSTEM_ID),
        state: MemberState::Running,
        role: MemberRole::Replica,
        timeline: Some(Timeline(line.number("tl")?.unwrap_or(1))),
        in_recovery: Some(true),
        lsn: Some(line.lsn("lsn")?.unwrap_or(LSN)),
        may_write: line.flag("may_write"),
        failsafe_leader: line.value("failsafe_leader").as_deref().map(Into::into),
        watchdog_failed: line.flag("watchdog_failed"),
        tags: Tags::default(),
    };
    set_tags(&mut status.tags, line)?;
    let view = match what.as_str() {
        "standby" => answered(status),
        "primary" => answered(PeerStatus {
            role: MemberRole::Primary,
            in_recovery: Some(false),
            ..status
        }),
        "stopped" => answered(PeerStatus {
            state: MemberState::Stopped,
            in_recovery: None,
            lsn: None,
            timeline: None,
            ..status
        }),
        "empty" => answered(PeerStatus {
            system_id: None,
            state: MemberState::Stopped,
            role: MemberRole::Uninitialized,
            in_recovery: None,
            lsn: None,
            timeline: None,
            ..status
        }),
        "unreachable" => PeerView::Unreachable { at },
        "impostor" => PeerView::Impostor {
            at,
            reason: "its scope is other".into(),
        },
        other => return Err(format!("peer {name} {other} is not known")),
    };
    w.peers.insert(name, view);
    Ok(())
}
