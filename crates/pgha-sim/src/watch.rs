//! Watches: one per daemon, on the member that its requests go to. They give hints and nothing else, and they may be late,
//! lose an event, fall silent, be cancelled, or tell an old story again.
//!
//! What pgha-dcs makes of that is modelled here: it resumes after the last event it saw, says `Resync` when something may
//! have been missed, and takes a watch for broken that gives no sign of life.

use pgha_core::event::{Event, Wake};
use pgha_core::units::Revision;
use pgha_wire::keys;

use crate::etcd::{Standing, Time};
use crate::world::{BASE, MS, SEC, World};

/// Silence after which a watch without a sign of life is given up: it is asked after ten seconds and has five to answer.
const SILENCE: Time = 15 * SEC;
/// Pause before a broken watch is opened again.
const PAUSE: Time = 200 * MS;
/// A late hint is late by so much at most.
const LATE_BY: Time = 20 * SEC;

/// A daemon's watch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// The member that it stands on.
    member: Option<usize>,
    /// The last revision that was seen; 0 when there is none to resume from.
    seen: i64,
    /// The last revision that the member has sent.
    sent: i64,
    /// Something may have been missed.
    gap: bool,
    /// The member has forgotten the watch without a word.
    pub forgotten: bool,
    silent_since: Option<Time>,
    next_try: Time,
    /// Which replacement of the store the revisions belong to.
    resets: u32,
}

impl World {
    /// The members tell their watches what has changed.
    pub(crate) fn tell_watches(&mut self) {
        for i in 0..self.nodes.len() {
            self.tell_watch(i);
        }
    }

    fn tell_watch(&mut self, i: usize) {
        let watch = self.nodes[i].client.watch;
        let Some(member) = watch.member.filter(|_| !watch.forgotten) else {
            return;
        };
        if self.etcd_is_down() || self.etcd.members.standing(member) != Standing::Serving {
            return;
        }
        if !self.hears_member(i, member) {
            return;
        }
        let Ok(changes) = self.etcd.changes_after(watch.sent) else {
            return self.cancel_watch(i);
        };
        let told: Vec<_> = changes
            .iter()
            // A watch on a revision to come may begin with events from before it (etcd issue 20221).
            .filter(|c| c.revision > watch.seen)
            .filter_map(|c| Some((keys::parse_key(BASE, &c.key)?, c.revision)))
            .collect();
        let revision = self.etcd.revision();
        let watch = &mut self.nodes[i].client.watch;
        watch.sent = revision;
        watch.seen = told
            .last()
            .map_or(watch.seen, |(_, revision)| *revision)
            .max(watch.seen);
        let epoch = self.nodes[i].epoch;
        for (key, revision) in told {
            let mod_revision = Revision(revision);
            let event = Event::Wake(Wake::Hint { key, mod_revision });
            if self.network.chance(self.plan.settings.lost_hint_per_mille) {
                self.count("watch event lost");
                continue;
            }
            let after = if self.network.chance(self.plan.settings.late_hint_per_mille) {
                self.count("watch event late");
                self.network.range(SEC, LATE_BY)
            } else {
                self.latency()
            };
            self.later(i, epoch, after, event);
        }
    }

    /// Every daemon looks after its watch.
    pub(crate) fn tend_watches(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].agent_runs() {
                self.tend_watch(i);
            }
        }
    }

    fn tend_watch(&mut self, i: usize) {
        let now = self.now;
        let resets = self.nodes[i].client.horizon.resets();
        let wanted = self.nodes[i].client.current();
        let watch = self.nodes[i].client.watch;
        if watch.resets != resets {
            self.nodes[i].client.watch.resets = resets;
            self.forget_position(i);
            return;
        }
        let Some(member) = watch.member else {
            if now >= watch.next_try {
                self.open_watch(i);
            }
            return;
        };
        if member != wanted {
            self.nodes[i].client.watch.member = None;
            return;
        }
        let alive = self.reaches_member(i, member) && self.hears_member(i, member) && !watch.forgotten;
        let watch = &mut self.nodes[i].client.watch;
        if alive && self.etcd.members.standing(member) != Standing::Down {
            if watch.silent_since.take().is_some() {
                self.tell_watch(i);
            }
            return;
        }
        let since = *watch.silent_since.get_or_insert(now);
        if now >= since + SILENCE {
            self.break_watch(i);
            self.count("silent watch given up");
        }
    }

    /// A watch is opened on the member that comes first.
    fn open_watch(&mut self, i: usize) {
        let boot = self.boot(i);
        let first = self.nodes[i].client.order(boot).first().copied();
        let Some(member) = first.filter(|m| {
            self.reaches_member(i, *m) && self.hears_member(i, *m) && self.etcd.members.standing(*m) != Standing::Down
        }) else {
            self.nodes[i].client.watch.next_try = self.now + PAUSE;
            return;
        };
        let newest = self.etcd.revision();
        let watch = &mut self.nodes[i].client.watch;
        watch.member = Some(member);
        watch.forgotten = false;
        watch.silent_since = None;
        watch.sent = if watch.seen > 0 { watch.seen } else { newest };
        if std::mem::take(&mut watch.gap) {
            self.resync(i);
        }
        self.tell_watch(i);
    }

    /// The connection is gone; what was seen is still known.
    pub(crate) fn break_watch(&mut self, i: usize) {
        let now = self.now;
        let watch = &mut self.nodes[i].client.watch;
        watch.member = None;
        watch.silent_since = None;
        watch.gap |= watch.seen == 0;
        watch.next_try = now + PAUSE;
    }

    /// etcd cancels the watch: what it would resume from is compacted away, or etcd does as it likes.
    pub(crate) fn cancel_watch(&mut self, i: usize) {
        self.count("watch cancelled");
        self.forget_position(i);
    }

    fn forget_position(&mut self, i: usize) {
        let watch = &mut self.nodes[i].client.watch;
        watch.seen = 0;
        watch.gap = true;
        self.resync(i);
        self.break_watch(i);
    }

    /// A member tells the last changes once more.
    pub(crate) fn replay_to_watch(&mut self, i: usize) {
        let watch = &mut self.nodes[i].client.watch;
        if watch.member.is_some() {
            watch.sent = watch.sent.saturating_sub(5);
            self.tell_watch(i);
        }
    }

    fn resync(&mut self, i: usize) {
        let (epoch, after) = (self.nodes[i].epoch, self.latency());
        self.later(i, epoch, after, Event::Wake(Wake::Resync));
    }
}
