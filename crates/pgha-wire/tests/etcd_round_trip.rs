//! Whatever we write into etcd is read back as it was.

mod common;

use common::{BASE, any_json, name};
use pgha_core::cluster::{ClusterView, HistoryLine, Initialize, MemberRole, MemberState};
use pgha_core::commit::{Change, Commit, FailoverValue, Key, MemberValue, Purpose, StatusValue};
use pgha_core::pg::PendingRestart;
use pgha_core::rewind::DivergedWal;
use pgha_core::tags::Tags;
use pgha_core::units::{LeaseId, Lsn, MemberName, Revision, SystemId, Timeline, Wall};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::commit::{MemberIdentity, render_txn};
use pgha_wire::keys::{base_path, full_key, parse_key};
use pgha_wire::kv::{KeyValue, Op, Snapshot};
use pgha_wire::tags::parse_tags;
use proptest::prelude::*;
use serde_json::json;

fn member_name() -> impl Strategy<Value = MemberName> {
    // Commas separate names in /sync and blanks round them are dropped; a slash would make another key.
    "[a-zA-Z0-9_.é😀\"'-]{1,12}".prop_map(MemberName::new)
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn some_lsn() -> impl Strategy<Value = Option<Lsn>> {
    prop::option::of((1..=u64::MAX).prop_map(Lsn))
}

fn wall() -> impl Strategy<Value = Wall> {
    (0..4_000_000_000_000_000_i64).prop_map(Wall)
}

fn state() -> impl Strategy<Value = MemberState> {
    prop::sample::select(vec![
        MemberState::Running,
        MemberState::Crashed,
        MemberState::StartFailed,
        MemberState::Unknown,
    ])
}

fn role() -> impl Strategy<Value = MemberRole> {
    use MemberRole::{Demoted, Primary, Promoted, Replica, StandbyLeader, Uninitialized};
    prop::sample::select(vec![Demoted, Primary, Promoted, Replica, StandbyLeader, Uninitialized])
}

/// Writes one change and reads it back, at revision 7.
fn round_trip(identity: &MemberIdentity<'_>, change: Change) -> ClusterView {
    let commit = Commit {
        purpose: Purpose::TouchMember,
        guards: Vec::new(),
        changes: vec![change],
    };
    let ops = render_txn(BASE, identity, &commit).ops;
    let keys = ops.into_iter().filter_map(|op| match op {
        Op::Put { key, value, lease } => Some(KeyValue {
            key,
            value,
            create_revision: Revision(5),
            mod_revision: Revision(7),
            lease,
        }),
        Op::Delete(_) | Op::DeletePrefix(_) => None,
    });
    let view = parse_cluster(
        BASE,
        &Snapshot {
            revision: Revision(9),
            keys: keys.collect(),
        },
    );
    assert_eq!(view.unreadable, Vec::new());
    view
}

fn put(change: Change) -> ClusterView {
    let (me, tags) = (name("n1"), Tags::default());
    let identity = MemberIdentity {
        name: &me,
        conn_url: "",
        api_url: "",
        proxy_url: None,
        version: "",
        tags: &tags,
    };
    round_trip(&identity, change)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_are_found_again(namespace in "[a-z/]{0,8}", scope in "[a-z-]{1,8}", member in member_name()) {
        let base = base_path(&namespace, &scope);
        for key in [Key::Leader, Key::Status, Key::Member(member)] {
            prop_assert_eq!(parse_key(&base, &full_key(&base, &key)), Some(key));
        }
    }

    #[test]
    fn leader_and_initialize_come_back(member in member_name(), id in 1_000_000_000..=u64::MAX) {
        let view = put(Change::PutLeader { name: member.clone(), lease: LeaseId(3) });
        prop_assert_eq!(view.leader.map(|l| (l.name, l.lease)), Some((member, Some(LeaseId(3)))));
        let view = put(Change::PutInitialize { system_id: Some(SystemId(id)), lease: None });
        prop_assert_eq!(view.initialize, Initialize::Done(SystemId(id)));
        let lease = Some(LeaseId(3));
        let claim = put(Change::PutInitialize { system_id: None, lease }).initialize;
        prop_assert_eq!(claim, Initialize::InProgress { mod_revision: Revision(7), lease });
    }

    #[test]
    fn failover_comes_back(
        leader in prop::option::of(member_name()), candidate in prop::option::of(member_name()), scheduled_at in prop::option::of(wall()),
    ) {
        let value = FailoverValue { leader, candidate, scheduled_at };
        let found = put(Change::PutFailover(Some(value.clone()))).failover;
        let found = found.map(|f| FailoverValue { leader: f.leader, candidate: f.candidate, scheduled_at: f.scheduled_at });
        let empty = value.leader.is_none() && value.candidate.is_none();
        prop_assert_eq!(found, (!empty).then_some(value));
    }

    #[test]
    fn history_comes_back(lines in prop::collection::vec((1..=u32::MAX, lsn(), ".{0,20}", ".{0,20}", ".{0,20}"), 0..6)) {
        let lines: Vec<HistoryLine> = lines.into_iter().map(|(timeline, switchpoint, reason, timestamp, new_leader)| {
            HistoryLine { timeline: Timeline(timeline), switchpoint, reason, timestamp, new_leader }
        }).collect();
        prop_assert_eq!(put(Change::PutHistory(lines.clone())).history.map(|h| h.lines), Some(lines));
    }

    #[test]
    fn status_comes_back(
        optime in lsn(), slots in prop::collection::btree_map("[a-z0-9_]{1,8}", lsn(), 0..4),
        retain_slots in prop::collection::vec("[a-z0-9_]{1,8}", 0..4), writer in prop::option::of(member_name()), released: bool,
    ) {
        let value = StatusValue { optime, slots, retain_slots, writer, released };
        let found = put(Change::PutStatus(value.clone())).status.map(|s| StatusValue {
            optime: s.optime, slots: s.slots, retain_slots: s.retain_slots, writer: s.writer, released: s.released,
        });
        prop_assert_eq!(found, Some(value));
    }

    #[test]
    fn sync_comes_back_sorted(leader in member_name(), quorum: u32, standbys in prop::collection::btree_set(member_name(), 0..5)) {
        let standbys: Vec<MemberName> = standbys.into_iter().collect();
        let shuffled = standbys.iter().rev().cloned().collect();
        let found = put(Change::PutSync { leader: Some(leader.clone()), quorum, standbys: shuffled }).sync;
        prop_assert_eq!(found.map(|s| (s.leader, s.quorum, s.standbys)), Some((Some(leader), quorum, standbys)));
    }

    #[test]
    fn failsafe_and_config_come_back(members in prop::collection::btree_map(member_name(), ".{0,20}", 0..4), config in any_json()) {
        prop_assert_eq!(put(Change::PutFailsafe(members.clone())).failsafe.map(|key| key.members), Some(members));
        let text = json!({ "postgresql": config }).to_string();
        prop_assert_eq!(put(Change::PutConfig(text.clone())).config.map(|c| c.text), Some(text));
    }

    #[test]
    fn members_come_back(
        me in member_name(), state in state(), role in role(), lsn in prop::option::of(lsn()), receive_lsn in some_lsn(), replay_lsn in some_lsn(),
        timeline in prop::option::of((1..=u32::MAX).prop_map(Timeline)), flags in any::<[bool; 4]>(), priority in prop::option::of(-3..9_i64), custom in any_json(),
        diverged in prop::option::of((1..=u32::MAX, lsn(), lsn())),
    ) {
        let [checkpoint_outstanding, pause, pending, nofailover] = flags;
        let tags = parse_tags(json!({"nofailover": nofailover, "failover_priority": priority, "custom": custom}).as_object().expect("an object"));
        let pending_restart = PendingRestart { name: "x".into(), old_value: "1".into(), new_value: "2".into() };
        let diverged_wal = diverged.map(|(timeline, from, to)| DivergedWal { timeline: Timeline(timeline), from, to });
        let value = MemberValue {
            state, role, lsn, receive_lsn, replay_lsn, timeline, checkpoint_outstanding, pause,
            replication_state: Some("streaming".into()),
            pending_restart: if pending { vec![pending_restart] } else { Vec::new() },
            scheduled_restart: None,
            diverged_wal,
            release_from_sync: false,
        };
        let identity = MemberIdentity {
            name: &me, conn_url: "postgres://h:5432/postgres", api_url: "http://h:8008/patroni", proxy_url: None, version: "4.1.5", tags: &tags,
        };
        let view = round_trip(&identity, Change::PutMember { name: me.clone(), lease: LeaseId(3), value: Box::new(value) });
        let found = &view.members[&me];
        prop_assert_eq!((found.state, found.role, found.lease), (state, role, Some(LeaseId(3))));
        prop_assert_eq!((found.lsn, found.receive_lsn, found.replay_lsn, found.timeline), (lsn, receive_lsn, replay_lsn, timeline));
        prop_assert_eq!((found.checkpoint_outstanding, found.pause, found.pending_restart), (checkpoint_outstanding, pause, pending));
        prop_assert_eq!(found.diverged_wal, diverged_wal);
        prop_assert_eq!(found.conn_url.as_deref(), Some(identity.conn_url));
        prop_assert_eq!(found.api_url.as_deref(), Some(identity.api_url));
        prop_assert_eq!(&found.tags, &tags);
    }
}
