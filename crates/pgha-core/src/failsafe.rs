//! Failsafe mode: a leader that has lost etcd goes on while everybody who could take its place agrees.
//!
//! The argument, which [ADR 14](../../../docs/adr/0014-failsafe.md) has in full. Whoever may ever take the leader key is listed in
//! `/failsafe`, and only the leader writes that key, under its own guard. A listed node that is asked gives its word not to
//! become a primary for a `ttl` from then; the leader counts four fifths of a `ttl` from before it asked. So while the words of
//! *all* listed members hold, the deadline of the leader may move on. Nobody's word can come too late: the leader takes none
//! after its deadline, and until then each of them is still bound by the proof or the word before.
//!
//! A word is memory only. A restarted agent has forgotten it, and waits a `ttl` from its first look at etcd (R10).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::cluster::{ClusterView, DcsView, FailsafeKey};
use crate::commit::{Change, Commit, Guard, Key, Purpose};
use crate::horizon::REGRESSION_GRACE;
use crate::pg::{DataDir, Postmaster};
use crate::plan;
use crate::race;
use crate::units::{Lsn, MemberName, Mono, Revision};
use crate::view::View;

/// Most time that somebody's question may bind this node; a question that needs more is refused.
pub const LONGEST_WORD: Duration = Duration::from_secs(3600);

/// What a leader without etcd asks: may I go on for a ttl?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who asks.
    pub name: MemberName,
    /// Its `conn_url`.
    pub conn_url: String,
    /// Its `api_url`.
    pub api_url: String,
    /// Positions of its slots, its own included.
    pub slots: BTreeMap<String, Lsn>,
    /// The ttl it counts with; Patroni does not tell.
    pub ttl: Option<Duration>,
    /// Scope and name of whom it means to ask; Patroni does not tell.
    pub addressee: Option<(String, MemberName)>,
}

/// What this node answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It gives its word.
    Accepted {
        /// Its own position, if it knows.
        lsn: Option<Lsn>,
        /// How long ago it asked etcd the last time, if that was answered.
        dcs_read_ago: Option<Duration>,
    },
    /// `failsafe_mode` is off here.
    Off,
    /// It accepts writes, may yet do so, or holds the leader key.
    RunsAsLeader,
    /// Another reason, in words.
    Refused(String),
}

/// What came back from one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It gave its word.
    Accepted(Ack),
    /// It refused.
    Refused(String),
    /// Nothing came in time, or nothing that could be understood.
    Silent,
}

/// The word of one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Just before the request was sent that it answered.
    pub sent_at: Mono,
    /// Its position.
    pub lsn: Option<Lsn>,
    /// At or before the time it asked etcd for what it knows, if etcd answered; Patroni does not tell.
    pub dcs_read_at: Option<Mono>,
}

/// What is remembered of the mode, on both sides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failsafe {
    /// As a standby: to whom the word was given.
    pub word: Option<Word>,
    /// As a leader: the last word of each member.
    pub acks: BTreeMap<MemberName, Ack>,
    /// As a leader: until when the words of all of them allow it to go on.
    pub grant: Option<Mono>,
    /// As a leader: when the members were asked last.
    pub asked_at: Option<Mono>,
    /// As a leader: cycles without an answer of etcd since the last proof.
    pub silences: u32,
    /// As a leader: since when all others have reached etcd, and this node has not.
    pub alone_since: Option<Mono>,
    /// As a leader: a write of `/failsafe` whose end is not known.
    pub in_doubt: Option<InDoubt>,
    /// As a leader: when a listed member was first missed in etcd.
    pub missed: BTreeMap<MemberName, Mono>,
}

/// The word this node has given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// To whom.
    pub leader: MemberName,
    /// Where it is asked whether it still leads.
    pub api_url: String,
    /// When.
    pub at: Mono,
    /// Until when.
    pub until: Mono,
    /// Its slots.
    pub slots: BTreeMap<String, Lsn>,
}

/// A write of `/failsafe` that may be there or may still come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InDoubt {
    /// The mod revision that the write was guarded by; another one in the store means that it cannot come any more.
    pub base: Option<Revision>,
    /// Everybody it would list.
    pub members: BTreeMap<MemberName, String>,
    /// It would take the key away.
    pub removal: bool,
}

/// Does failsafe mode keep the cluster going right now, as far as this node knows?
pub fn is_active(v: &View) -> bool {
    let goes_on = v.memory.maybe_writable && v.memory.failsafe.grant.is_some_and(|until| v.now.mono < until);
    goes_on || word(v).is_some()
}

// ---- the side of a standby ----

/// The word that binds this node now: not yet over, and not taken back by what is known of whom it was given to.
pub fn word(v: &View) -> Option<&Word> {
    let word = v.memory.failsafe.word.as_ref()?;
    let over = v.now.mono >= word.until;
    // Only a leader that leads no more writes so, and it needs a new proof to be a primary again. A restored etcd may tell
    // of a release of long ago.
    let released = v.cluster().and_then(|c| c.status.as_ref()).is_some_and(|s| {
        let replaced = v.memory.store_replaced_at.is_some_and(|at| at >= word.at);
        s.released && s.writer.as_ref() == Some(&word.leader) && !replaced
    });
    let says_so = race::answer(v, &word.leader).is_some_and(race::no_longer_primary);
    (!over && !released && !says_so).then_some(word)
}

/// The word of another member that answered in this cycle: who gave it and to whom. The leader's own answer, that it writes
/// no more, outdoes it.
pub fn word_of_another(v: &View) -> Option<(&MemberName, &MemberName)> {
    let given = race::answers(v).filter_map(|(name, peer)| Some((name, peer.failsafe_leader.as_ref()?)));
    let mut counts = given
        .filter(|(_, leader)| **leader != v.me.name && !race::answer(v, leader).is_some_and(race::no_longer_primary));
    counts.next()
}

/// Why `/failsafe` forbids this node to take the leader key; `None` when it does not. It counts whatever the mode is by now:
/// a leader that is cut off from etcd may not have heard that the mode is off. A leader that has heard it removes the key.
pub fn not_listed(v: &View, c: &ClusterView) -> Option<String> {
    if !lists(c, &v.me.name) {
        return Some(
            "not listed in /failsafe: a leader that lost etcd does not ask this node. If no leader is left, remove that key".into(),
        );
    }
    match &c.failsafe {
        None if v.settings().failsafe_mode && c.is_unreadable("failsafe") => {
            Some("/failsafe holds nothing that can be understood: a person must remove it".into())
        }
        Some(_) | None => None,
    }
}

/// Does `/failsafe` leave this member free to take the leader key? An empty list lists no leader either, so nobody goes on
/// by it.
pub(crate) fn lists(c: &ClusterView, name: &MemberName) -> bool {
    let forbids = |key: &FailsafeKey| !key.members.is_empty() && !key.members.contains_key(name);
    !c.failsafe.as_ref().is_some_and(forbids)
}

/// Answers a question. `taking_key`: a commit that takes the leader key is under way.
pub fn judge(v: &View, question: &Question, taking_key: bool) -> Verdict {
    if let Some((scope, name)) = &question.addressee
        && (*scope != v.me.scope || *name != v.me.name)
    {
        return Verdict::Refused(format!(
            "this is {} of {}, not {name} of {scope}",
            v.me.name, v.me.scope
        ));
    }
    if !v.settings().failsafe_mode {
        return Verdict::Off;
    }
    let unobserved =
        matches!(v.pg.data_dir, DataDir::NotObserved) || matches!(v.pg.postmaster, Postmaster::NotObserved);
    if unobserved {
        return Verdict::Refused("PostgreSQL was not looked at yet".into());
    }
    let may_write = v.may_write()
        || v.memory.loose_promotion
        || v.memory.job.as_ref().is_some_and(|j| plan::makes_writable(&j.job));
    if may_write || taking_key || v.holds_leader_key() || question.name == v.me.name {
        return Verdict::RunsAsLeader;
    }
    if let Some(other) = v
        .cluster()
        .and_then(|c| c.leader_name())
        .filter(|n| **n != question.name)
    {
        return Verdict::Refused(format!("{other} is the leader"));
    }
    if let Some(given) = word(v).filter(|w| w.leader != question.name) {
        return Verdict::Refused(format!("{} was given leave to go on", given.leader));
    }
    if word_length(v, question) > LONGEST_WORD {
        return Verdict::Refused("that is a longer time than anybody may ask for".into());
    }
    let read_at = match &v.dcs {
        DcsView::Fresh(_) => v.memory.dcs_read_at,
        DcsView::NotRead | DcsView::Unreachable { .. } => None,
    };
    Verdict::Accepted {
        lsn: v.pg.facts().and_then(|f| f.lsn()),
        dcs_read_ago: read_at.map(|at| v.now.mono.since(at)),
    }
}

/// How long the word lasts that is given to this question.
pub fn word_length(v: &View, question: &Question) -> Duration {
    v.longest_ttl().max(question.ttl.unwrap_or_default())
}

// ---- the side of the leader ----

/// Everybody who has to give leave, with the address; `None` when this node may not ask for it: the mode is off, nobody is
/// known to be listed, this node is not, or it is not certain what the key says.
pub fn listed(v: &View) -> Option<BTreeMap<MemberName, String>> {
    let m = &v.memory;
    if !v.settings().failsafe_mode || v.settings().pause || !m.maybe_writable || m.proof.is_none() || m.cycle.refuted {
        return None;
    }
    let c = v.last_cluster()?;
    if c.leader_name().is_some_and(|name| *name != v.me.name) {
        return None;
    }
    let key = c.failsafe.as_ref().filter(|key| key.members.contains_key(&v.me.name))?;
    let mut all = key.members.clone();
    if let Some(doubt) = &m.failsafe.in_doubt {
        if doubt.removal {
            return None;
        }
        all.extend(doubt.members.clone());
    }
    all.remove(&v.me.name);
    Some(all)
}

/// Whom to ask now, because there is no word, or an old one; `None` when nobody is to be asked in this cycle.
pub fn due(v: &View) -> Option<Vec<MemberName>> {
    let m = &v.memory.failsafe;
    let soon = m
        .asked_at
        .is_some_and(|at| v.now.mono.since(at) < crate::decide::RACE_POLL);
    // One lost answer is nothing to ask about: the time is better spent on etcd.
    let first_silence = v.cluster().is_some() && m.silences == 0;
    if v.memory.cycle.failsafe_asked || soon || first_silence {
        return None;
    }
    let listed = listed(v)?;
    let interval = v.settings().loop_wait.min(v.settings().proof_lifetime() / 3);
    let old = |at: Option<Mono>| at.is_none_or(|at| v.now.mono.since(at) >= interval);
    if listed.is_empty() {
        return old(m.asked_at).then(Vec::new);
    }
    let who: Vec<MemberName> = listed
        .into_keys()
        .filter(|name| old(m.acks.get(name).map(|ack| ack.sent_at)))
        .collect();
    (!who.is_empty()).then_some(who)
}

/// Folds in what came back, as long as the deadline has not passed.
pub fn fold(v: &mut View, replies: BTreeMap<MemberName, Reply>) {
    v.memory.cycle.failsafe_asked = true;
    let in_time = v.deadline().is_some_and(|at| v.now.mono < at);
    let Some(listed) = listed(v).filter(|_| in_time) else {
        return;
    };
    let lifetime = v.settings().proof_lifetime();
    let m = &mut v.memory.failsafe;
    for (name, reply) in replies {
        match reply {
            Reply::Accepted(ack) => {
                m.acks.insert(name, ack);
            }
            Reply::Refused(_) => {
                m.acks.remove(&name);
            }
            Reply::Silent => {}
        }
    }
    m.acks.retain(|name, _| listed.contains_key(name));
    let since = listed.keys().map(|name| m.acks.get(name).map(|ack| ack.sent_at)).min();
    // Nobody else is listed: nobody else can lead.
    if let Some(from) = since.unwrap_or(m.asked_at) {
        m.grant = m.grant.max(Some(from.plus(lifetime)));
    }
    let alone = is_alone(v, &listed);
    let now = v.now.mono;
    let m = &mut v.memory.failsafe;
    m.alone_since = alone.then(|| m.alone_since.unwrap_or(now));
}

/// Have all others read etcd since this node failed to?
fn is_alone(v: &View, listed: &BTreeMap<MemberName, String>) -> bool {
    let DcsView::Unreachable { since, .. } = &v.dcs else {
        return false;
    };
    let read_since = |name: &MemberName| {
        let ack = v.memory.failsafe.acks.get(name);
        ack.and_then(|a| a.dcs_read_at).is_some_and(|at| at > *since)
    };
    !listed.is_empty() && listed.keys().all(read_since)
}

/// The outage has been this node's alone for as long as a proof lasts, and one of the others can lead: who.
pub fn successor(v: &View) -> Option<MemberName> {
    let since = v.memory.failsafe.alone_since.filter(|_| v.cluster().is_none())?;
    if v.now.mono.since(since) < v.settings().proof_lifetime() {
        return None;
    }
    let c = v.last_cluster()?;
    let mine = v.pg.facts().and_then(|f| f.lsn()).unwrap_or_default();
    let limit = v.settings().maximum_lag_on_failover;
    let fits = |name: &MemberName, ack: &Ack| {
        let allowed = c.members.get(name).is_some_and(|m| m.tags.may_lead()) && race::in_sync_set(v, c, name);
        allowed && ack.lsn.is_some_and(|lsn| mine.ahead_of(lsn) <= limit)
    };
    let mut acks = v.memory.failsafe.acks.iter();
    acks.find(|(name, ack)| fits(name, ack)).map(|(name, _)| name.clone())
}

/// `/failsafe` lists those who have to agree when this leader loses etcd. A leader that knows the mode to be off takes the key
/// away, because it keeps everybody who is not listed from leading. After a write whose end is unknown the key is written
/// again, so that it is certain who is listed.
pub(crate) fn update(v: &View, c: &ClusterView, guard: &Guard) -> Option<Commit> {
    let unchanged = match &c.failsafe {
        Some(key) => Guard::Unchanged(Key::Failsafe, key.mod_revision),
        None => Guard::Absent(Key::Failsafe),
    };
    let change = if v.settings().failsafe_mode {
        let wanted = wanted(v, c);
        let is_so = c.failsafe.as_ref().is_some_and(|key| key.members == wanted);
        if (is_so && v.memory.failsafe.in_doubt.is_none()) || c.is_unreadable("failsafe") {
            return None;
        }
        Change::PutFailsafe(wanted)
    } else {
        c.failsafe.as_ref()?;
        Change::Delete(Key::Failsafe)
    };
    Some(Commit {
        purpose: Purpose::UpdateFailsafe,
        guards: vec![guard.clone(), unchanged],
        changes: vec![change],
    })
}

/// What this leader asks when it has lost etcd.
pub(crate) fn question(v: &View) -> Question {
    let facts = v.pg.facts();
    Question {
        name: v.me.name.clone(),
        conn_url: v.me.conn_url.clone(),
        api_url: v.me.api_url.clone(),
        slots: facts
            .and_then(|f| Some(plan::published_slots(v, f, f.lsn()?)))
            .unwrap_or_default(),
        ttl: Some(v.settings().ttl),
        addressee: None,
    }
}

/// How long a member whose key is missing stays listed: as long as it may take to come back by itself. An outage of etcd takes
/// every member's key, and whoever leads first after it must not strike the others off. One that etcd was restored after is
/// over for a node that has seen the old state only when it believes the new one: a restarted leader believes it at once.
fn kept_listed(v: &View) -> Duration {
    let s = v.settings();
    let believed = REGRESSION_GRACE + s.loop_wait * 2 + s.retry_timeout;
    v.longest_ttl().max(believed)
}

/// Who is to be listed: this node, all members that can be asked, and those who have been away for a short time only.
fn wanted(v: &View, c: &ClusterView) -> BTreeMap<MemberName, String> {
    let members = c.members.iter().filter(|(name, _)| **name != v.me.name);
    let mut wanted: BTreeMap<MemberName, String> = members
        .filter_map(|(name, m)| Some((name.clone(), m.api_url.clone()?)))
        .collect();
    let listed = c.failsafe.iter().flat_map(|key| &key.members);
    for (name, url) in listed.filter(|(name, _)| **name != v.me.name) {
        let missed = v.memory.failsafe.missed.get(name);
        if missed.is_some_and(|at| v.now.mono.since(*at) < kept_listed(v)) {
            wanted.entry(name.clone()).or_insert_with(|| url.clone());
        }
    }
    wanted.insert(v.me.name.clone(), v.me.api_url.clone());
    wanted
}

/// Notes what was read of the key and of the members it lists.
pub fn note_read(m: &mut Failsafe, c: &ClusterView, now: Mono) {
    let revision = c.failsafe.as_ref().map(|key| key.mod_revision);
    m.in_doubt.take_if(|doubt| doubt.base != revision);
    m.alone_since = None;
    let listed = || c.failsafe.iter().flat_map(|key| key.members.keys());
    let is_missed = |name: &MemberName| c.members.get(name).is_none_or(|member| member.api_url.is_none());
    m.missed
        .retain(|name, _| is_missed(name) && listed().any(|n| n == name));
    for name in listed().filter(|name| is_missed(name)) {
        m.missed.entry(name.clone()).or_insert(now);
    }
}
