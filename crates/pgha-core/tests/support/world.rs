//! The facts of a scenario, and the directives that set those about this node, its settings and the clocks.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::cluster::{ClusterView, ConfigKey, DcsView, Initialize};
use pgha_core::known::KnownCluster;
use pgha_core::peer::PeerView;
use pgha_core::pg::PgView;
use pgha_core::settings::{Settings, StandbyCluster, SynchronousMode};
use pgha_core::tags::Tags;
use pgha_core::units::{LeaseId, Lsn, MemberName, Mono, Now, Revision, SystemId, Wall};
use pgha_core::view::{LeaseMemory, Memory, NodeSpec, Proof, TimelineEnd, View};

use super::line::{Line, duration};
use super::{etcd, memory, postgres};

/// Boot time at the beginning of each scenario. Times are printed as what has passed since.
pub const START: Mono = Mono(1_000_000_000_000);
/// Wall time at the beginning: 2026-01-01T00:00:00Z.
const START_WALL: Wall = Wall(1_767_225_600_000_000);
/// The system identifier of the cluster.
pub const SYSTEM_ID: SystemId = SystemId(42);

/// What is known of etcd.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    NotRead,
    Fresh,
    Unreachable,
}

/// A proof whose revisions follow from the keys when the scenario does not name them.
#[derive(Clone, Copy)]
pub struct ProofSpec {
    pub kept_at: Mono,
    pub create: Option<Revision>,
    pub revision: Option<Revision>,
}

/// All facts of a scenario.
#[derive(Clone)]
pub struct World {
    pub now: Now,
    pub me: NodeSpec,
    pub settings: Settings,
    pub reach: Reach,
    /// Since when etcd does not answer; from now on, when nothing is said.
    pub unreachable_since: Option<Mono>,
    pub cluster: ClusterView,
    pub pg: PgView,
    pub timeline_history: Vec<TimelineEnd>,
    pub peers: BTreeMap<MemberName, PeerView>,
    pub memory: Memory,
    pub proof: Option<ProofSpec>,
    /// What members answer to a leader without etcd; nobody else answers.
    pub failsafe_replies: BTreeMap<MemberName, FailsafeReply>,
}

/// What a member answers to a leader without etcd.
#[derive(Clone)]
pub enum FailsafeReply {
    /// It gives its word, with its position and how long ago it read etcd.
    Accepted(Option<Lsn>, Option<Duration>),
    /// It refuses.
    Refused(String),
}

impl World {
    /// Node `a` with nothing but an initialized scope, a configuration and a fresh lease of its own.
    pub fn new() -> World {
        let me = node_spec("a");
        let settings = Settings::default();
        World {
            now: Now {
                mono: START,
                wall: START_WALL,
            },
            reach: Reach::Fresh,
            unreachable_since: None,
            cluster: ClusterView {
                revision: Revision(100),
                initialize: Initialize::Done(SYSTEM_ID),
                config: Some(ConfigKey {
                    mod_revision: Revision(1),
                    text: "{}".into(),
                    settings: settings.clone(),
                }),
                ..ClusterView::default()
            },
            pg: PgView::not_observed(),
            timeline_history: Vec::new(),
            peers: BTreeMap::new(),
            memory: Memory {
                lease: Some(LeaseMemory {
                    id: lease_of(&me.name),
                    ttl: settings.ttl,
                    kept_at: START.minus(Duration::from_secs(1)),
                }),
                ..Memory::default()
            },
            proof: None,
            failsafe_replies: BTreeMap::new(),
            me,
            settings,
        }
    }

    /// The view that `decide` shall judge.
    pub fn view(&self) -> View {
        let cluster = self.cluster_as_read();
        let dcs = match self.reach {
            Reach::NotRead => DcsView::NotRead,
            Reach::Fresh => DcsView::Fresh(cluster),
            Reach::Unreachable => DcsView::Unreachable {
                since: self.unreachable_since.unwrap_or(self.now.mono),
                last: Some(Box::new(cluster)),
            },
        };
        View {
            now: self.now,
            me: self.me.clone(),
            dcs,
            pg: PgView {
                observed_at: self.now.mono,
                ..self.pg.clone()
            },
            timeline_history: self.timeline_history.clone(),
            peers: self.peers.clone(),
            memory: Memory {
                proof: self.proof.map(|p| self.proof(p)),
                settings: self.settings.clone(),
                ..self.memory.clone()
            },
        }
    }

    /// The keys, with the settings in force in `/config`.
    pub fn cluster_as_read(&self) -> ClusterView {
        let mut cluster = self.cluster.clone();
        if let Some(config) = &mut cluster.config {
            config.settings = self.settings.clone();
        }
        cluster
    }

    fn proof(&self, spec: ProofSpec) -> Proof {
        let leader = self.cluster.leader.as_ref();
        let status = self.cluster.status.as_ref().map(|s| s.mod_revision);
        Proof {
            create_revision: spec
                .create
                .or(leader.map(|l| l.create_revision))
                .unwrap_or(Revision(10)),
            kept_at: spec.kept_at,
            revision: spec.revision.or(status).unwrap_or(Revision(10)),
            deadline: spec.kept_at.plus(self.settings.proof_lifetime()),
        }
    }

    /// Moves both clocks on.
    pub fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.plus(time);
        self.now.wall = self.wall_in(time);
    }

    /// Wall time `time` from now.
    pub fn wall_in(&self, time: Duration) -> Wall {
        Wall(
            self.now
                .wall
                .0
                .saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// `+5s` or `-5s` from now, on the wall clock.
    pub fn wall_at(&self, text: &str) -> Result<Wall, String> {
        match text.strip_prefix('-') {
            Some(ago) => {
                let micros = i64::try_from(duration(ago)?.as_micros()).unwrap_or(i64::MAX);
                Ok(Wall(self.now.wall.0.saturating_sub(micros)))
            }
            None => Ok(self.wall_in(duration(text.trim_start_matches('+'))?)),
        }
    }

    /// `age=3s`: the point in boot time so long ago; now when it is not given.
    pub fn age(&self, line: &mut Line) -> Result<Mono, String> {
        Ok(self.now.mono.minus(line.duration("age")?.unwrap_or_default()))
    }

    /// Sets one fact.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let mut line = Line::parse(text)?;
        let directive = line.needs("the directive")?;
        let understood = self.set_own(&directive, &mut line)?
            || etcd::set(self, &directive, &mut line)?
            || postgres::set(self, &directive, &mut line)?
            || memory::set(self, &directive, &mut line)?;
        if !understood {
            return Err(format!("there is no directive `{directive}`"));
        }
        line.done()
    }

    fn set_own(&mut self, directive: &str, line: &mut Line) -> Result<bool, String> {
        match directive {
            "me" => self.set_me(line)?,
            "settings" => set_settings(&mut self.settings, line)?,
            "after" => {
                let time = duration(&line.needs("a duration")?)?;
                self.pass(time);
            }
            "at" => {
                let time = duration(&line.needs("a time since the beginning")?)?;
                let passed = self.now.mono.since(START);
                let left = time
                    .checked_sub(passed)
                    .ok_or_else(|| format!("the clock is already at {passed:?}"))?;
                self.pass(left);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_me(&mut self, line: &mut Line) -> Result<(), String> {
        if let Some(name) = line.value("name") {
            self.me = node_spec(&name);
            if let Some(lease) = &mut self.memory.lease {
                lease.id = lease_of(&self.me.name);
            }
        }
        let me = &mut self.me;
        me.may_bootstrap = line.yes_no("may_bootstrap")?.unwrap_or(me.may_bootstrap);
        me.watchdog_required |= line.flag("watchdog_required");
        me.use_pg_rewind = line.yes_no("use_pg_rewind")?.or(me.use_pg_rewind);
        me.remove_on_rewind_failure = line.yes_no("remove_on_rewind_failure")?.or(me.remove_on_rewind_failure);
        me.remove_on_diverged_timelines = line
            .yes_no("remove_on_diverged_timelines")?
            .or(me.remove_on_diverged_timelines);
        me.keep_diverged_wal = line.yes_no("keep_diverged_wal")?.or(me.keep_diverged_wal);
        if line.flag("cached_pause") {
            me.cached_settings = Some(Settings {
                pause: true,
                ..Settings::default()
            });
        }
        if line.flag("cached_failsafe") {
            me.cached_settings = Some(Settings {
                failsafe_mode: true,
                ..Settings::default()
            });
        }
        if let Some(names) = line.value("kept") {
            let known = |name: &str| (MemberName::from(name), Some(api_url(name)));
            me.kept_cluster = Some(KnownCluster {
                system_id: Some(SYSTEM_ID),
                members: names.split('+').map(known).collect(),
                ..KnownCluster::default()
            });
        }
        me.cached_config = line.value("cached_config").or(me.cached_config.take());
        set_tags(&mut me.tags, line)
    }
}

pub fn node_spec(name: &str) -> NodeSpec {
    NodeSpec {
        name: name.into(),
        scope: "demo".into(),
        conn_url: conn_url(name),
        api_url: api_url(name),
        tags: Tags::default(),
        may_bootstrap: true,
        bootstrap_config: r#"{"from":"bootstrap.dcs"}"#.into(),
        cached_config: None,
        kept_cluster: None,
        cached_settings: None,
        watchdog_required: false,
        use_pg_rewind: None,
        remove_on_rewind_failure: None,
        remove_on_diverged_timelines: None,
        keep_diverged_wal: None,
        fenced: true,
    }
}

/// Where member `name` is reached for replication.
pub fn conn_url(name: &str) -> String {
    format!("postgres://{name}:5432/postgres")
}

/// Where member `name` is asked.
pub fn api_url(name: &str) -> String {
    format!("http://{name}:8008/patroni")
}

/// The lease each member has from the beginning: 10 for `a`, 11 for `b` and so on.
pub fn lease_of(name: &MemberName) -> LeaseId {
    let first = name.as_str().bytes().next().unwrap_or(b'a');
    LeaseId(i64::from(first) - i64::from(b'a') + 10)
}

/// Tags of this node or of a member or peer.
pub fn set_tags(tags: &mut Tags, line: &mut Line) -> Result<(), String> {
    tags.nofailover |= line.flag("nofailover");
    tags.clonefrom |= line.flag("clonefrom");
    tags.nostream |= line.flag("nostream");
    tags.nosync |= line.flag("nosync");
    tags.sync_priority = line.number("sync_priority")?.or(tags.sync_priority);
    tags.failover_priority = line.number("failover_priority")?.or(tags.failover_priority);
    tags.replicatefrom = line
        .value("replicatefrom")
        .map(MemberName::new)
        .or(tags.replicatefrom.take());
    Ok(())
}

fn set_settings(s: &mut Settings, line: &mut Line) -> Result<(), String> {
    s.ttl = line.duration("ttl")?.unwrap_or(s.ttl);
    s.loop_wait = line.duration("loop_wait")?.unwrap_or(s.loop_wait);
    s.retry_timeout = line.duration("retry_timeout")?.unwrap_or(s.retry_timeout);
    s.primary_start_timeout = line
        .duration("primary_start_timeout")?
        .unwrap_or(s.primary_start_timeout);
    s.maximum_lag_on_failover = line
        .number("maximum_lag_on_failover")?
        .unwrap_or(s.maximum_lag_on_failover);
    s.failsafe_mode = line.yes_no("failsafe")?.unwrap_or(s.failsafe_mode);
    s.pause = line.yes_no("pause")?.unwrap_or(s.pause);
    s.member_slots_ttl = line.duration("member_slots_ttl")?.unwrap_or(s.member_slots_ttl);
    s.use_slots = line.yes_no("use_slots")?.unwrap_or(s.use_slots);
    s.use_pg_rewind = line.yes_no("use_pg_rewind")?.unwrap_or(s.use_pg_rewind);
    s.remove_on_rewind_failure = line
        .yes_no("remove_on_rewind_failure")?
        .unwrap_or(s.remove_on_rewind_failure);
    s.remove_on_diverged_timelines = line
        .yes_no("remove_on_diverged_timelines")?
        .unwrap_or(s.remove_on_diverged_timelines);
    s.keep_diverged_wal = line.yes_no("keep_diverged_wal")?.unwrap_or(s.keep_diverged_wal);
    if let Some(on) = line.yes_no("standby_cluster")? {
        s.standby_cluster = on.then(StandbyCluster::default);
    }
    s.synchronous_mode = match line.value("synchronous").as_deref() {
        None => s.synchronous_mode,
        Some("yes") => SynchronousMode::On,
        Some("no") => SynchronousMode::Off,
        Some("quorum") => SynchronousMode::Quorum,
        Some(other) => return Err(format!("synchronous={other}: yes, no or quorum was expected")),
    };
    s.synchronous_mode_strict = line.yes_no("strict")?.unwrap_or(s.synchronous_mode_strict);
    s.synchronous_node_count = line.number("node_count")?.unwrap_or(s.synchronous_node_count);
    s.maximum_lag_on_syncnode = line.number("maximum_lag_on_syncnode")?.or(s.maximum_lag_on_syncnode);
    Ok(())
}
