//! Directives for the keys in etcd, and an etcd just large enough to answer a node's commits truthfully.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgha_core::cluster::{
    ClusterView, ConfigKey, FailoverKey, FailsafeKey, HistoryKey, HistoryLine, Initialize, LeaderKey, Member,
    MemberRole, MemberState, StatusKey, SyncKey,
};
use pgha_core::commit::{Change, Commit, CommitOutcome, Guard, Key, StatusValue};
use pgha_core::rewind::DivergedWal;
use pgha_core::settings::Settings;
use pgha_core::units::{LeaseId, Lsn, MemberName, Mono, Revision, SystemId, Timeline};
use pgha_core::view::LeaseMemory;

use super::line::{Line, lsn};
use super::world::{Reach, World, api_url, conn_url, lease_of, set_tags};

/// Sets a fact about etcd; `false` when the directive is none of etcd's.
pub fn set(w: &mut World, directive: &str, line: &mut Line) -> Result<bool, String> {
    match directive {
        "etcd" => {
            w.reach = match line.needs("fresh, unreachable or not-read")?.as_str() {
                "fresh" => Reach::Fresh,
                "unreachable" => {
                    w.unreachable_since = line.duration("age")?.map(|age| w.now.mono.minus(age));
                    Reach::Unreachable
                }
                "not-read" => Reach::NotRead,
                // Another etcd stands in its place, or its data were lost: it counts its revisions from the beginning.
                "emptied" => {
                    w.cluster = ClusterView {
                        revision: Revision(3),
                        ..ClusterView::default()
                    };
                    Reach::Fresh
                }
                other => {
                    return Err(format!(
                        "etcd {other}: fresh, unreachable, not-read or emptied was expected"
                    ));
                }
            }
        }
        "initialize" => initialize(w, line)?,
        "config" => config(w, line)?,
        "leader" => leader(w, line)?,
        "member" => member(w, line)?,
        "status" => status(w, line)?,
        "sync" => sync(w, line)?,
        "failover" => failover(w, line)?,
        "history" => history(w, line)?,
        "failsafe" => failsafe(w, line)?,
        "lease" => lease(w, line)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The next revision: each key set by a scenario is a write of its own.
fn next(w: &mut World) -> Revision {
    w.cluster.revision = Revision(w.cluster.revision.0 + 1);
    w.cluster.revision
}

fn initialize(w: &mut World, line: &mut Line) -> Result<(), String> {
    let revision = next(w);
    w.cluster.initialize = match line.needs("none, unreadable, claimed or a system identifier")?.as_str() {
        "none" => Initialize::Absent,
        "unreadable" => Initialize::Unreadable,
        "claimed" => Initialize::InProgress {
            mod_revision: revision,
            lease: line.value("by").map(|name| lease_of(&name.as_str().into())),
        },
        id => Initialize::Done(SystemId(id.parse().map_err(|_| format!("initialize {id}: no number"))?)),
    };
    Ok(())
}

fn config(w: &mut World, line: &mut Line) -> Result<(), String> {
    let mod_revision = next(w);
    w.cluster.config = match line.needs("none or rewritten")?.as_str() {
        "none" => None,
        "rewritten" => Some(ConfigKey {
            mod_revision,
            text: "{}".into(),
            settings: Settings::default(),
        }),
        other => return Err(format!("config {other}: none or rewritten was expected")),
    };
    Ok(())
}

fn leader(w: &mut World, line: &mut Line) -> Result<(), String> {
    let name = line.needs("a name, none or unreadable")?;
    let revision = next(w);
    if name == "unreadable" {
        w.cluster.leader = None;
        let key = "/service/demo/leader".to_owned();
        w.cluster.unreadable.push((key, "it names nobody".to_owned()));
        return Ok(());
    }
    let create_revision = line.number("create")?.map_or(revision, Revision);
    let lease = line.number("lease")?.map(LeaseId);
    w.cluster.leader = (name != "none").then(|| LeaderKey {
        lease: Some(lease.unwrap_or_else(|| lease_of(&name.as_str().into()))),
        name: MemberName::new(name),
        create_revision,
        mod_revision: revision,
    });
    Ok(())
}

fn member(w: &mut World, line: &mut Line) -> Result<(), String> {
    let name = MemberName::new(line.needs("a name")?);
    let mod_revision = next(w);
    if line.flag("gone") {
        w.cluster.members.remove(&name);
        return Ok(());
    }
    let mut m = Member {
        mod_revision,
        lease: Some(lease_of(&name)),
        conn_url: Some(conn_url(name.as_str())),
        api_url: Some(api_url(name.as_str())),
        state: MemberState::Running,
        role: MemberRole::Replica,
        lsn: line.lsn("lsn")?,
        timeline: line.number("tl")?.map(Timeline),
        checkpoint_outstanding: line.flag("checkpoint_outstanding"),
        diverged_wal: line.value("diverged").map(|text| diverged(&text)).transpose()?,
        ..Member::default()
    };
    if line.flag("primary") {
        m.role = MemberRole::Primary;
    }
    if line.flag("stopped") {
        m.state = MemberState::Stopped;
    }
    if line.flag("uninitialized") {
        (m.state, m.role) = (MemberState::Stopped, MemberRole::Uninitialized);
    }
    if line.flag("no_address") {
        (m.conn_url, m.api_url) = (None, None);
    }
    set_tags(&mut m.tags, line)?;
    w.cluster.members.insert(name, m.into());
    Ok(())
}

/// `1@0/500..0/700`.
fn diverged(text: &str) -> Result<DivergedWal, String> {
    let (begin, to) = text.split_once("..").ok_or("write diverged=1@0/500..0/700")?;
    let (timeline, from) = timeline_end(begin)?;
    let to = Lsn::parse(to).ok_or_else(|| format!("{to} is no position"))?;
    Ok(DivergedWal { timeline, from, to })
}

fn status(w: &mut World, line: &mut Line) -> Result<(), String> {
    let mod_revision = next(w);
    let none = line.flag("none");
    w.cluster.status = (!none).then_some(StatusKey {
        mod_revision,
        optime: line.lsn("lsn")?.unwrap_or_default(),
        writer: line.value("writer").map(MemberName::new),
        released: line.flag("released"),
        retain_slots: line
            .value("retain")
            .map(|names| names.split(',').map(String::from).collect())
            .unwrap_or_default(),
        ..StatusKey::default()
    });
    Ok(())
}

fn sync(w: &mut World, line: &mut Line) -> Result<(), String> {
    let mod_revision = next(w);
    let none = line.flag("none");
    w.cluster.sync = (!none).then_some(SyncKey {
        mod_revision,
        leader: line.value("leader").map(MemberName::new),
        quorum: line.number("quorum")?.unwrap_or(0),
        standbys: line
            .value("standbys")
            .map(|names| names.split(',').map(MemberName::new).collect())
            .unwrap_or_default(),
    });
    Ok(())
}

fn failover(w: &mut World, line: &mut Line) -> Result<(), String> {
    let mod_revision = next(w);
    let none = line.flag("none");
    let scheduled_at = line.value("at").map(|text| w.wall_at(&text)).transpose()?;
    w.cluster.failover = (!none).then_some(FailoverKey {
        mod_revision,
        leader: line.value("leader").map(MemberName::new),
        candidate: line.value("candidate").map(MemberName::new),
        scheduled_at,
        schedule_unreadable: line.flag("schedule_unreadable"),
    });
    Ok(())
}

/// `failsafe a,b,c`, `none` or `unreadable`.
fn failsafe(w: &mut World, line: &mut Line) -> Result<(), String> {
    let mod_revision = next(w);
    let names = line.needs("names, none or unreadable")?;
    let member = |name: &str| (MemberName::new(name), api_url(name));
    w.cluster.failsafe = match names.as_str() {
        "none" => None,
        "unreadable" => {
            let key = "/service/demo/failsafe".to_owned();
            w.cluster.unreadable.push((key, "no object".to_owned()));
            None
        }
        names => Some(FailsafeKey {
            mod_revision,
            members: names.split(',').map(member).collect(),
        }),
    };
    Ok(())
}

/// `history 1@0/500 2@0/600`, or `none`.
fn history(w: &mut World, line: &mut Line) -> Result<(), String> {
    let mod_revision = next(w);
    if line.flag("none") {
        w.cluster.history = None;
        return Ok(());
    }
    let mut lines = Vec::new();
    while let Some(word) = line.word() {
        let (timeline, switchpoint) = timeline_end(&word)?;
        lines.push(HistoryLine {
            timeline,
            switchpoint,
            reason: "no recovery target specified".into(),
            timestamp: "2025-12-31T00:00:00+00:00".into(),
            new_leader: "b".into(),
        });
    }
    w.cluster.history = Some(HistoryKey { mod_revision, lines });
    Ok(())
}

/// `1@0/500`: a timeline and where it ended.
pub fn timeline_end(text: &str) -> Result<(Timeline, Lsn), String> {
    let (timeline, at) = text
        .split_once('@')
        .ok_or_else(|| format!("`{text}` is no timeline's end such as 1@0/500"))?;
    let timeline = timeline.parse().map_err(|_| format!("`{timeline}` is no timeline"))?;
    Ok((Timeline(timeline), lsn(at)?))
}

/// The lease of this node as remembered; `none` when it has none.
fn lease(w: &mut World, line: &mut Line) -> Result<(), String> {
    let none = line.flag("none");
    let id = line.number("id")?.map_or_else(|| lease_of(&w.me.name), LeaseId);
    let kept_at = w.age(line)?;
    let ttl = line.duration("ttl")?.unwrap_or(w.settings.ttl);
    w.memory.lease = (!none).then_some(LeaseMemory { id, ttl, kept_at });
    Ok(())
}

/// First lease that a node is granted in a scenario.
const FIRST_GRANT: i64 = 70;

/// Leases, and the keys of the world under the guards of each commit.
pub struct MiniEtcd {
    granted: i64,
    gone: BTreeSet<LeaseId>,
    ends: BTreeMap<LeaseId, Mono>,
}

impl MiniEtcd {
    pub fn new() -> MiniEtcd {
        MiniEtcd {
            granted: 0,
            gone: BTreeSet::new(),
            ends: BTreeMap::new(),
        }
    }

    pub fn grant(&mut self, now: Mono, ttl: Duration) -> LeaseId {
        self.granted += 1;
        let lease = LeaseId(FIRST_GRANT + self.granted - 1);
        self.ends.insert(lease, now.plus(ttl));
        lease
    }

    /// A keepalive arrives; `false` when the lease is gone.
    pub fn keep(&mut self, lease: LeaseId, now: Mono, ttl: Duration) -> bool {
        if self.gone.contains(&lease) {
            return false;
        }
        self.ends.insert(lease, now.plus(ttl));
        true
    }

    /// When a lease that was granted or kept here ends.
    pub fn lease_ends(&self, lease: LeaseId) -> Option<Mono> {
        self.ends.get(&lease).copied()
    }

    fn is_alive(&self, lease: LeaseId) -> bool {
        !self.gone.contains(&lease)
    }

    /// The lease ends: the keys on it vanish.
    pub fn expire(&mut self, w: &mut World, lease: LeaseId) {
        self.gone.insert(lease);
        next(w);
        let c = &mut w.cluster;
        c.leader = c.leader.take().filter(|l| l.lease != Some(lease));
        c.members.retain(|_, m| m.lease != Some(lease));
        if matches!(c.initialize, Initialize::InProgress { lease: Some(l), .. } if l == lease) {
            c.initialize = Initialize::Absent;
        }
    }

    /// Performs one transaction.
    pub fn commit(&self, w: &mut World, commit: &Commit) -> CommitOutcome {
        if !commit.guards.iter().all(|g| holds(&w.cluster, g)) {
            return CommitOutcome::Conflict;
        }
        if !commit.changes.iter().filter_map(lease_used).all(|l| self.is_alive(l)) {
            return CommitOutcome::LeaseGone;
        }
        let revision = next(w);
        let settings = w.settings.clone();
        for change in &commit.changes {
            apply(&mut w.cluster, &settings, change, revision);
        }
        CommitOutcome::Applied { revision }
    }
}

pub fn lease_used(change: &Change) -> Option<LeaseId> {
    match change {
        Change::PutLeader { lease, .. } | Change::PutMember { lease, .. } => Some(*lease),
        Change::PutInitialize { lease, .. } => *lease,
        Change::PutConfig(_)
        | Change::PutFailover(_)
        | Change::PutHistory(_)
        | Change::PutStatus(_)
        | Change::PutSync { .. }
        | Change::PutFailsafe(_)
        | Change::Delete(_) => None,
    }
}

pub fn holds(c: &ClusterView, guard: &Guard) -> bool {
    match guard {
        Guard::LeaderIsMine { create_revision, lease } => c
            .leader
            .as_ref()
            .is_some_and(|l| l.create_revision == *create_revision && l.lease == Some(*lease)),
        Guard::Absent(key) => mod_revision(c, key).is_none(),
        Guard::Unchanged(key, revision) => mod_revision(c, key) == Some(*revision),
    }
}

/// The mod revision of a key; `None` when it is missing.
fn mod_revision(c: &ClusterView, key: &Key) -> Option<Revision> {
    match key {
        Key::Leader => c.leader.as_ref().map(|k| k.mod_revision),
        Key::Member(name) => c.members.get(name).map(|m| m.mod_revision),
        Key::Initialize => match c.initialize {
            Initialize::Absent => None,
            Initialize::InProgress { mod_revision, .. } => Some(mod_revision),
            // Nobody guards on the revision of a finished initialisation, only on its absence.
            Initialize::Done(_) | Initialize::Unreadable => Some(Revision(1)),
        },
        Key::Config => c.config.as_ref().map(|k| k.mod_revision),
        Key::Failover => c.failover.as_ref().map(|k| k.mod_revision),
        Key::History => c.history.as_ref().map(|k| k.mod_revision),
        Key::Status => c.status.as_ref().map(|k| k.mod_revision),
        Key::Sync => c.sync.as_ref().map(|k| k.mod_revision),
        Key::Failsafe => c.failsafe.as_ref().map(|k| k.mod_revision),
    }
}

pub fn apply(c: &mut ClusterView, settings: &Settings, change: &Change, revision: Revision) {
    match change {
        Change::PutLeader { name, lease } => {
            let create_revision = c.leader.as_ref().map_or(revision, |l| l.create_revision);
            c.leader = Some(LeaderKey {
                name: name.clone(),
                create_revision,
                mod_revision: revision,
                lease: Some(*lease),
            });
        }
        Change::PutMember { name, lease, value } => {
            let old = c.members.remove(name).unwrap_or_default();
            let member = Member {
                mod_revision: revision,
                lease: Some(*lease),
                conn_url: Some(conn_url(name.as_str())),
                api_url: Some(api_url(name.as_str())),
                state: value.state,
                role: value.role,
                lsn: value.lsn,
                timeline: value.timeline,
                checkpoint_outstanding: value.checkpoint_outstanding,
                diverged_wal: value.diverged_wal,
                tags: old.tags.clone(),
                ..Member::default()
            };
            c.members.insert(name.clone(), member.into());
        }
        Change::PutInitialize { system_id, lease } => {
            c.initialize = match system_id {
                Some(id) => Initialize::Done(*id),
                None => Initialize::InProgress {
                    mod_revision: revision,
                    lease: *lease,
                },
            };
        }
        Change::PutConfig(text) => {
            c.config = Some(ConfigKey {
                mod_revision: revision,
                text: text.clone(),
                settings: settings.clone(),
            });
        }
        Change::PutFailover(value) => {
            c.failover = value.as_ref().map(|v| FailoverKey {
                mod_revision: revision,
                leader: v.leader.clone(),
                candidate: v.candidate.clone(),
                scheduled_at: v.scheduled_at,
                schedule_unreadable: false,
            });
        }
        Change::PutHistory(lines) => {
            c.history = Some(HistoryKey {
                mod_revision: revision,
                lines: lines.clone(),
            });
        }
        Change::PutStatus(value) => c.status = Some(status_key(value, revision)),
        Change::PutSync {
            leader,
            quorum,
            standbys,
        } => {
            c.sync = Some(SyncKey {
                mod_revision: revision,
                leader: leader.clone(),
                quorum: *quorum,
                standbys: standbys.clone(),
            });
        }
        Change::PutFailsafe(members) => {
            c.failsafe = Some(FailsafeKey {
                mod_revision: revision,
                members: members.clone(),
            });
        }
        Change::Delete(key) => delete(c, key),
    }
}

fn status_key(value: &StatusValue, mod_revision: Revision) -> StatusKey {
    StatusKey {
        mod_revision,
        optime: value.optime,
        slots: value.slots.clone(),
        retain_slots: value.retain_slots.clone(),
        writer: value.writer.clone(),
        released: value.released,
    }
}

fn delete(c: &mut ClusterView, key: &Key) {
    match key {
        Key::Leader => c.leader = None,
        Key::Member(name) => {
            c.members.remove(name);
        }
        Key::Initialize => c.initialize = Initialize::Absent,
        Key::Config => c.config = None,
        Key::Failover => c.failover = None,
        Key::History => c.history = None,
        Key::Status => c.status = None,
        Key::Sync => c.sync = None,
        Key::Failsafe => c.failsafe = None,
    }
}
