//! The cluster as it was while somebody led: for the race when keys have vanished, and for the day etcd has lost the scope.
//!
//! A part of it is kept on disk. A daemon that begins anew would otherwise know of nobody whom an etcd does not tell of that was
//! emptied or restored from a snapshot meanwhile, and could not ask the primary that lives.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::cluster::{ClusterView, Initialize};
use crate::units::{Lsn, MemberName, Mono, Revision, SystemId, Timeline};

/// Most members that are remembered. A cluster that has more counts as not known completely.
pub const MAX_KNOWN_MEMBERS: usize = 128;

/// What is remembered of the cluster.
///
/// Whoever is a member while somebody leads is remembered, with its address, until a view with a leader lacks it. A
/// view without a leader takes nobody away: a lease that etcd dropped takes the leader's own member key along, and an
/// etcd that was emptied takes all of them. Nor does one whose leader took the key less than a ttl ago, be it this node itself:
/// after such an outage the others may be on their way back. A new system identifier under `/initialize` begins the memory anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownCluster {
    /// `/initialize`, as last read.
    pub system_id: Option<SystemId>,
    /// Who led last.
    pub leader: Option<MemberName>,
    /// The leader key that is there, and when it was first seen.
    pub led_since: Option<(Revision, Mono)>,
    /// The other members, with the address to ask them at, if they published one.
    pub members: BTreeMap<MemberName, Option<String>>,
    /// The highest timeline known from `/history` or from a leader's member key.
    pub timeline: Option<Timeline>,
    /// The position published last.
    pub optime: Lsn,
    /// The text of `/config`, as last read: what a leader restores when the key is lost.
    pub config: Option<String>,
}

impl KnownCluster {
    /// Takes in what was read.
    pub fn note(&mut self, me: &MemberName, cluster: &ClusterView, now: Mono) {
        let key = cluster.leader.as_ref().map(|l| l.create_revision);
        self.led_since = key.map(|key| match self.led_since {
            Some((same, since)) if same == key => (key, since),
            Some(_) | None => (key, now),
        });
        let ttl = cluster.settings().ttl;
        let settled = self.led_since.is_some_and(|(_, since)| since.plus(ttl) <= now);
        if let Initialize::Done(id) = cluster.initialize {
            if self.system_id.is_some_and(|known| known != id) {
                *self = KnownCluster::default();
            }
            self.system_id = Some(id);
        }
        if let Some(leader) = cluster.leader_name() {
            if settled {
                self.members
                    .retain(|name, _| name == leader || cluster.members.contains_key(name));
            }
            self.leader = Some(leader.clone());
            self.remember(me, leader, None);
            let timeline = cluster.members.get(leader).and_then(|m| m.timeline);
            self.timeline = self.timeline.max(timeline);
        }
        for (name, member) in &cluster.members {
            self.remember(me, name, member.api_url.as_ref());
        }
        self.timeline = self.timeline.max(cluster.timeline_by_history());
        if let Some(status) = &cluster.status {
            self.optime = status.optime;
        }
        if let Some(config) = &cluster.config {
            self.config = Some(config.text.clone());
        }
    }

    fn remember(&mut self, me: &MemberName, name: &MemberName, api_url: Option<&String>) {
        if name == me || (self.members.len() >= MAX_KNOWN_MEMBERS && !self.members.contains_key(name)) {
            return;
        }
        let known = self.members.entry(name.clone()).or_default();
        if api_url.is_some() {
            *known = api_url.cloned();
        }
    }

    /// What is kept on disk of it, this node included: a copy of the data directory takes the file along.
    pub fn to_keep(&self, me: &MemberName, api_url: &str) -> KnownCluster {
        let mut members = self.members.clone();
        members.insert(me.clone(), Some(api_url.into()));
        KnownCluster {
            members,
            led_since: None,
            optime: Lsn(0),
            config: None,
            ..self.clone()
        }
    }

    /// Is there nothing new to be kept?
    pub fn keeps_the_same_as(&self, other: &KnownCluster) -> bool {
        let kept = |k: &KnownCluster| (k.system_id, k.timeline);
        kept(self) == kept(other) && self.leader == other.leader && self.members == other.members
    }

    /// What was kept, as the node `me` goes by it.
    pub fn kept(mut self, me: &MemberName) -> KnownCluster {
        self.members.remove(me);
        while self.members.len() > MAX_KNOWN_MEMBERS {
            self.members.pop_last();
        }
        self
    }

    /// May there be members that are not remembered?
    pub fn is_incomplete(&self) -> bool {
        self.members.len() >= MAX_KNOWN_MEMBERS
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::{KnownCluster, MAX_KNOWN_MEMBERS};
    use crate::cluster::{ClusterView, Initialize, LeaderKey, Member};
    use crate::units::{MemberName, Mono, SystemId};

    const START: Mono = Mono(1_000_000);

    fn view(leader: Option<&str>, members: &[&str]) -> ClusterView {
        let member = |name: &&str| {
            let member = Member {
                api_url: Some(format!("http://{name}")),
                ..Member::default()
            };
            (MemberName::from(*name), member)
        };
        ClusterView {
            initialize: Initialize::Done(SystemId(42)),
            leader: leader.map(|name| LeaderKey {
                name: name.into(),
                create_revision: Default::default(),
                mod_revision: Default::default(),
                lease: None,
            }),
            members: members.iter().map(member).map(|(name, m)| (name, m.into())).collect(),
            ..ClusterView::default()
        }
    }

    fn names(known: &KnownCluster) -> alloc::vec::Vec<&str> {
        known.members.keys().map(MemberName::as_str).collect()
    }

    #[test]
    fn members_that_vanish_are_remembered_until_somebody_has_led_without_them_for_a_ttl() {
        let me = "a".into();
        let mut known = KnownCluster::default();
        known.note(&me, &view(Some("b"), &["a", "b", "c"]), START);
        known.note(&me, &view(None, &["a"]), START);
        assert_eq!(names(&known), ["b", "c"]);
        assert_eq!(known.members[&"b".into()].as_deref(), Some("http://b"));
        let led = view(Some("c"), &["a", "c"]);
        known.note(&me, &led, START);
        assert_eq!(names(&known), ["b", "c"]);
        known.note(&me, &led, START.plus(led.settings().ttl));
        assert_eq!(names(&known), ["c"]);
    }

    #[test]
    fn a_leader_without_a_member_key_keeps_the_address_it_had() {
        let me = "a".into();
        let mut known = KnownCluster::default();
        known.note(&me, &view(Some("b"), &["a", "b"]), START);
        known.note(&me, &view(Some("b"), &["a"]), START);
        assert_eq!(known.members[&"b".into()].as_deref(), Some("http://b"));
    }

    #[test]
    fn another_system_identifier_is_another_cluster() {
        let me = "a".into();
        let mut known = KnownCluster::default();
        known.note(&me, &view(Some("b"), &["a", "b"]), START);
        let other = ClusterView {
            initialize: Initialize::Done(SystemId(43)),
            ..view(None, &["a"])
        };
        known.note(&me, &other, START);
        assert!(known.members.is_empty());
    }

    #[test]
    fn names_that_come_and_go_without_a_leader_are_bounded() {
        let me = "a".into();
        let mut known = KnownCluster::default();
        for i in 0..2 * MAX_KNOWN_MEMBERS {
            known.note(&me, &view(None, &[&format!("m{i}")]), START);
        }
        assert_eq!(known.members.len(), MAX_KNOWN_MEMBERS);
        assert!(known.is_incomplete());
    }
}
