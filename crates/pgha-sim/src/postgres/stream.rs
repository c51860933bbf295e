//! Streaming replication: connections between wal receivers and wal senders, WAL one way and positions the other.
//!
//! Only flushed WAL is sent. One message per connection is on its way at a time and carries all there is. What a cut link
//! swallows is sent again at the next [`World::tend_connections`], until one end has waited for too long.

use std::sync::Arc;

use super::{Connection, Data, PgEvent, Sender, Server, Stopping};
use crate::etcd::Time;
use crate::world::{MS, SEC, World};

/// `wal_sender_timeout` and `wal_receiver_timeout`.
const SILENCE: Time = 60 * SEC;
/// A wal sender that has sent all but so many bytes has caught up.
const CAUGHT_UP: u64 = 32 << 10;
/// Bytes that a connection carries in a millisecond.
const BYTES_PER_MS: u64 = 64 << 10;

impl World {
    /// Do replication packets go from `from` to `to`?
    pub(crate) fn wal_passes(&self, from: usize, to: usize) -> bool {
        let awake = self.nodes[from].frozen == 0 && self.nodes[to].frozen == 0;
        awake && self.links.passes(from, to) && self.replication.passes(from, to)
    }

    fn wal_flows(&self, a: usize, b: usize) -> bool {
        self.wal_passes(a, b) && self.wal_passes(b, a)
    }

    /// Connects a standby to its upstream, if that is possible now.
    pub(crate) fn connect(&mut self, i: usize) {
        let Some(receiver) = self.nodes[i].pg.receiver().filter(|r| r.connection.is_none()) else {
            return;
        };
        let Some(upstream) = &receiver.upstream else { return };
        let (name, slot) = (upstream.name.clone(), upstream.slot.clone());
        let Some(source) = self.nodes.iter().position(|n| n.name == name) else {
            return;
        };
        if source == i || self.nodes[i].pg.trouble.disk_full > 0 || !self.wal_flows(i, source) {
            return;
        }
        let theirs = &self.nodes[source].pg;
        let answers = matches!(theirs.server, Server::Primary | Server::Standby(_)) && !theirs.mute;
        if !answers || self.nodes[i].pg.promoting {
            return;
        }
        let (Some(mine), Some(data)) = (self.nodes[i].pg.data(), theirs.data()) else {
            return;
        };
        let from = mine.written;
        if !can_stream(mine, data) {
            return;
        }
        if let Some(wanted) = &slot {
            let usable = data.slots.get(wanted).is_some_and(|s| !s.lost);
            let taken = theirs.senders.iter().any(|s| s.slot.as_ref() == Some(wanted));
            if !usable || taken {
                return;
            }
        }
        self.next_connection += 1;
        let (id, now) = (self.next_connection, self.now);
        let application = self.nodes[i].name.as_str().to_owned();
        let theirs = &mut self.nodes[source].pg;
        let rules = Arc::clone(&theirs.sync.loaded);
        theirs
            .senders
            .push(Sender::new(id, i, application, slot, rules, from, now));
        if let Some(receiver) = self.nodes[i].pg.receiver_mut() {
            receiver.has_received = true;
            receiver.connection = Some(Connection { id, source, heard: now });
        }
        self.send_feedback(i);
        self.feed_standbys(source);
    }

    /// Closes a standby's connection, at both ends as far as they can hear each other.
    pub(crate) fn disconnect(&mut self, i: usize) {
        let Some(gone) = self.nodes[i].pg.receiver_mut().and_then(|r| r.connection.take()) else {
            return;
        };
        if self.wal_flows(i, gone.source) {
            let senders = &mut self.nodes[gone.source].pg.senders;
            senders.retain(|s| s.connection != gone.id);
        }
    }

    /// Every wal sender of a node sends what there is.
    pub(crate) fn feed_standbys(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let Some(flushed) = pg.data().map(|d| d.flushed) else {
            return;
        };
        if self.nodes[i].frozen > 0 || pg.trouble.frozen_senders > 0 {
            return;
        }
        for number in 0..pg.senders.len() {
            let sender = &mut self.nodes[i].pg.senders[number];
            if sender.in_flight || sender.sent >= flushed {
                sender.streaming |= !sender.in_flight;
                continue;
            }
            let size = flushed - sender.sent;
            sender.in_flight = true;
            sender.sent = flushed;
            let (connection, standby) = (sender.connection, sender.standby);
            let after = self.wal_latency() + size / BYTES_PER_MS * MS;
            let upto = flushed;
            self.server_does(standby, after, PgEvent::WalArrives { connection, upto });
        }
    }

    fn wal_latency(&mut self) -> Time {
        self.postgres.range(MS / 4, 2 * MS)
    }

    pub(super) fn wal_arrives(&mut self, i: usize, connection: u64, upto: u64) {
        let now = self.now;
        let link = self.nodes[i].pg.receiver().and_then(|r| r.connection);
        let Some(link) = link.filter(|c| c.id == connection) else {
            return;
        };
        let source = link.source;
        let arrives = self.wal_passes(source, i);
        let written = self.nodes[i].pg.data().map_or(0, |d| d.written);
        let from_there = &mut self.nodes[source].pg;
        let flushed_there = from_there.data().map_or(0, |d| d.flushed);
        let Some(sender) = from_there.senders.iter_mut().find(|s| s.connection == connection) else {
            return;
        };
        sender.in_flight = false;
        sender.streaming |= arrives && flushed_there < sender.sent + CAUGHT_UP;
        if !arrives {
            // Lost on the way: sent again from where the standby is.
            sender.sent = written;
            return;
        }
        if self.nodes[i].pg.trouble.disk_full > 0 {
            self.count("standby cannot write WAL");
            return self.disconnect(i);
        }
        let Some(data) = self.nodes[source].pg.data() else {
            return;
        };
        if upto > data.flushed {
            return;
        }
        if upto > written {
            let mine = self.nodes[i].pg.data().map(|d| d.history.current());
            let other = mine != Some(data.history.current());
            let history = other.then(|| data.history.up_to(upto));
            self.nodes[i].pg.take_in(history, upto);
        }
        if let Some(c) = self.nodes[i].pg.receiver_mut().and_then(|r| r.connection.as_mut()) {
            c.heard = now;
        }
        let after = self.postgres.range(MS / 5, 3 * MS);
        self.server_does(i, after, PgEvent::Received(upto));
        self.feed_standbys(source);
    }

    /// A standby has flushed what it received; replay follows at once unless it is held up.
    pub(super) fn wal_received(&mut self, i: usize, upto: u64) {
        let pg = &mut self.nodes[i].pg;
        let paused = pg.trouble.replay_paused > 0;
        if let Some(d) = pg.data_mut() {
            d.flushed = d.flushed.max(upto.min(d.written));
            if !paused {
                d.replayed = d.replayed.max(d.flushed);
            }
        }
        self.send_feedback(i);
        self.feed_standbys(i);
    }

    /// Replay is resumed.
    pub(crate) fn replay_goes_on(&mut self, i: usize) {
        if let Some(flushed) = self.nodes[i]
            .pg
            .receiver()
            .and(self.nodes[i].pg.data())
            .map(|d| d.flushed)
        {
            self.wal_received(i, flushed);
        }
    }

    /// A standby tells its positions.
    fn send_feedback(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let link = pg.receiver().and_then(|r| r.connection);
        let (Some(link), Some(d)) = (link, pg.data()) else {
            return;
        };
        if !self.wal_passes(i, link.source) {
            return;
        }
        let what = PgEvent::Feedback {
            connection: link.id,
            write: d.written,
            flush: d.flushed,
            replay: d.replayed,
        };
        let after = self.wal_latency();
        self.server_does(link.source, after, what);
    }

    pub(super) fn feedback(&mut self, i: usize, connection: u64, [write, flush, replay]: [u64; 3]) {
        let now = self.now;
        let pg = &mut self.nodes[i].pg;
        if pg.trouble.frozen_senders > 0 {
            return;
        }
        let Some(number) = pg.senders.iter().position(|s| s.connection == connection) else {
            return;
        };
        let sender = &mut pg.senders[number];
        sender.write = sender.write.max(write);
        sender.flush = sender.flush.max(flush);
        sender.replay = sender.replay.max(replay);
        sender.heard = now;
        let (flush, slot) = (sender.flush, sender.slot.clone());
        if let (Some(slot), Some(d)) = (slot, pg.data_mut())
            && let Some(slot) = d.slots.get_mut(&slot)
        {
            slot.restart = slot.restart.max(flush);
        }
        self.release_waiting(i, number);
        if matches!(
            self.nodes[i].pg.server,
            Server::Stopping {
                phase: Stopping::WalSenders,
                ..
            }
        ) {
            self.server_does(i, 0, PgEvent::ShutdownGoesOn);
        }
    }

    /// Both ends of every connection look at each other: dead ones are closed, silent ones are given up, lost messages are
    /// sent again, and standbys without a connection try to get one.
    pub(crate) fn tend_connections(&mut self) {
        let now = self.now;
        for i in 0..self.nodes.len() {
            if self.nodes[i].frozen > 0 {
                continue;
            }
            self.tend_senders(i, now);
            if !matches!(self.nodes[i].pg.server, Server::Standby(_)) {
                continue;
            }
            if let Some(link) = self.nodes[i].pg.receiver().and_then(|r| r.connection) {
                let there = self.nodes[link.source]
                    .pg
                    .senders
                    .iter()
                    .any(|s| s.connection == link.id);
                let flows = self.wal_flows(i, link.source);
                if flows && !there || now.saturating_sub(link.heard) > SILENCE {
                    self.disconnect(i);
                } else if flows {
                    if let Some(c) = self.nodes[i].pg.receiver_mut().and_then(|r| r.connection.as_mut()) {
                        c.heard = now;
                    }
                    self.catch_up_feedback(i, link);
                }
            }
            self.wants_wal(i);
        }
    }

    /// Positions that were lost on the way are told again.
    fn catch_up_feedback(&mut self, i: usize, link: Connection) {
        let flushed = self.nodes[i].pg.data().map_or(0, |d| d.flushed);
        let sender = self.nodes[link.source]
            .pg
            .senders
            .iter()
            .find(|s| s.connection == link.id);
        if sender.is_some_and(|s| s.flush < flushed) {
            self.send_feedback(i);
        }
    }

    fn tend_senders(&mut self, i: usize, now: Time) {
        for number in (0..self.nodes[i].pg.senders.len()).rev() {
            let sender = &self.nodes[i].pg.senders[number];
            let (standby, connection) = (sender.standby, sender.connection);
            let there = self.nodes[standby]
                .pg
                .receiver()
                .is_some_and(|r| r.connection.is_some_and(|c| c.id == connection));
            let flows = self.wal_flows(i, standby);
            if flows && !there || now.saturating_sub(sender.heard) > SILENCE {
                self.nodes[i].pg.senders.remove(number);
            } else if flows && self.nodes[i].pg.trouble.frozen_senders == 0 {
                self.nodes[i].pg.senders[number].heard = now;
            }
        }
        self.feed_standbys(i);
    }
}

/// Is the end of the standby's WAL on the upstream's history, and is what follows still there?
fn can_stream(mine: &Data, theirs: &Data) -> bool {
    theirs.system_id == mine.system_id
        && theirs.history.contains(theirs.flushed, mine.end())
        && mine.written >= theirs.oldest
}
