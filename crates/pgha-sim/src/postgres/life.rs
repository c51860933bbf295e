//! How a server begins and ends: launch, recovery, shutdown, promotion, death.

use pgha_core::job::StartRole;
use pgha_core::pg::ControlState;

use super::archive::LAST_TRIES;
use super::{Branch, PgEvent, Receiver, SEGMENT, Server, Stopping};
use crate::etcd::Time;
use crate::world::{Happening, MS, SEC, World};

/// How often a shutdown looks whether it can go on.
const SHUTDOWN_LOOK: Time = 100 * MS;
/// Bytes that recovery replays in a millisecond.
const REPLAY_PER_MS: u64 = 16 << 10;

impl World {
    /// A server does something by itself after a while.
    pub(crate) fn server_does(&mut self, i: usize, after: Time, what: PgEvent) {
        let life = self.nodes[i].pg.life;
        self.at(self.now + after, Happening::Postgres { node: i, life, what });
    }

    pub(crate) fn postgres_event(&mut self, i: usize, life: u64, what: PgEvent) {
        if self.nodes[i].pg.life != life {
            return;
        }
        match what {
            PgEvent::Flush => self.wal_flushed(i),
            PgEvent::WalArrives { connection, upto } => self.wal_arrives(i, connection, upto),
            PgEvent::Received(upto) => self.wal_received(i, upto),
            PgEvent::Feedback {
                connection,
                write,
                flush,
                replay,
            } => self.feedback(i, connection, [write, flush, replay]),
            PgEvent::Reload(process) => self.process_reloads(i, process),
            PgEvent::CheckpointDue => self.checkpoint_due(i),
            PgEvent::CheckpointEnds => self.checkpoint_ends(i),
            PgEvent::RecoveryEnds => self.recovery_ends(i),
            PgEvent::ShutdownGoesOn => self.shutdown_goes_on(i),
            PgEvent::ArchiveCommandEnds => self.archive_command_ends(i),
            PgEvent::RestoreCommandEnds => self.restore_command_ends(i),
            PgEvent::PromotionEnds => self.promotion_ends(i),
            PgEvent::PromotionBreaks(new_timeline) => self.promotion_breaks(i, new_timeline),
        }
    }

    // ---- start ----

    /// Launches a postmaster.
    pub(crate) fn launch(&mut self, i: usize, role: StartRole) {
        let node = &mut self.nodes[i];
        node.pg.incarnation += 1;
        node.pg.life += 1;
        node.pg.server = Server::Starting;
        let standby = !matches!(role, StartRole::Primary);
        node.pg.role = role;
        node.pg.sync.start();
        let mut to_replay = 0;
        if let Some(d) = node.pg.data_mut() {
            d.signal = standby;
            d.written = d.written.max(d.flushed);
            d.flushed = d.written;
            to_replay = d.written.saturating_sub(d.checkpoint);
        }
        let factor = node.pg.trouble.recovery_factor.unwrap_or(1);
        let base = self.postgres.range(100 * MS, 1500 * MS) + to_replay / REPLAY_PER_MS * MS;
        self.server_does(i, base * factor, PgEvent::RecoveryEnds);
    }

    fn recovery_ends(&mut self, i: usize) {
        if self.nodes[i].pg.trouble.disk_full > 0 {
            // It cannot write the record that ends recovery, and panics.
            self.count("start failed for want of space");
            return self.server_dies(i);
        }
        let role = self.nodes[i].pg.role.clone();
        let pg = &mut self.nodes[i].pg;
        match role {
            StartRole::Primary => {
                let clean = pg.data().is_some_and(|d| d.state == ControlState::ShutDown);
                pg.server = Server::Primary;
                pg.enter(ControlState::InProduction);
                if let Some(d) = pg.data_mut() {
                    d.min_recovery = 0;
                    if !clean {
                        d.checkpoint = d.written;
                        d.checkpoint_timeline = d.timeline();
                        d.append_record();
                    }
                    d.replayed = d.written;
                }
                self.became_primary(i);
                self.archiver_looks(i);
            }
            StartRole::Standby { upstream } => {
                pg.server = Server::Standby(Receiver::new(upstream));
                pg.enter(ControlState::InArchiveRecovery);
                let to = pg.data().map_or(0, |d| d.written);
                if let Some(d) = pg.data_mut() {
                    d.replayed = d.replayed.max(d.min_recovery.min(to));
                }
                // Connections are accepted once it is consistent; what else is on disk is replayed then.
                let after = self.postgres.range(MS, 50 * MS);
                self.server_does(i, after, PgEvent::Received(to));
                self.wants_wal(i);
            }
        }
        let first = self.postgres.range(5 * SEC, 30 * SEC);
        self.server_does(i, first, PgEvent::CheckpointDue);
        self.job_sees_start(i);
    }

    // ---- end ----

    /// The postmaster exits by itself: a panic.
    pub(crate) fn server_dies(&mut self, i: usize) {
        self.crash_postgres(i);
    }

    /// A fast shutdown is asked for: sessions are told to end.
    pub(crate) fn begin_shutdown(&mut self, i: usize) {
        let pg = &mut self.nodes[i].pg;
        let primary = match pg.server {
            Server::Primary => true,
            Server::Standby(_) => false,
            Server::Starting => return pg.crash(),
            Server::Stopping { .. } | Server::Down => return,
        };
        pg.promoting = false;
        pg.server = Server::Stopping {
            primary,
            phase: Stopping::Backends,
        };
        let after = self.postgres.range(5 * MS, 100 * MS);
        self.server_does(i, after, PgEvent::ShutdownGoesOn);
    }

    fn shutdown_goes_on(&mut self, i: usize) {
        let pg = &self.nodes[i].pg;
        let Server::Stopping { primary, phase } = pg.server else {
            return;
        };
        match phase {
            Stopping::Backends if pg.trouble.deaf_backends > 0 => {
                self.count("shutdown waits for a session that does not listen");
                self.server_does(i, SHUTDOWN_LOOK, PgEvent::ShutdownGoesOn);
            }
            Stopping::Backends => self.write_shutdown_checkpoint(i, primary),
            Stopping::WalSenders => {
                let end = pg.data().map_or(0, |d| d.flushed);
                let behind = primary && pg.senders.iter().any(|s| s.flush < end);
                if behind {
                    return self.server_does(i, SHUTDOWN_LOOK, PgEvent::ShutdownGoesOn);
                }
                self.nodes[i].pg.server = Server::Stopping {
                    primary,
                    phase: Stopping::Archiver,
                };
                let archiving = match primary {
                    true if self.nodes[i].pg.archives => LAST_TRIES,
                    true if self.postgres.chance(20) => self.postgres.range(SEC, 20 * SEC),
                    true => self.postgres.range(MS, 200 * MS),
                    false => MS,
                };
                self.server_does(i, archiving, PgEvent::ShutdownGoesOn);
            }
            Stopping::Archiver if primary && self.archiver_has_more(i) => {
                self.count("shutdown waits for the archiver");
                self.server_does(i, SHUTDOWN_LOOK, PgEvent::ShutdownGoesOn);
            }
            Stopping::Archiver => {
                self.nodes[i].pg.end();
                self.job_sees_end(i);
            }
        }
    }

    /// No session is left. From here on nothing is acknowledged, and wal senders bring the record to their standbys.
    fn write_shutdown_checkpoint(&mut self, i: usize, primary: bool) {
        if self.nodes[i].pg.trouble.disk_full > 0 {
            return self.server_dies(i);
        }
        self.abandon_sessions(i);
        let pg = &mut self.nodes[i].pg;
        pg.server = Server::Stopping {
            primary,
            phase: Stopping::WalSenders,
        };
        pg.checkpoint = None;
        let archives = pg.archives;
        let mut checkpoint = None;
        if let Some(d) = pg.data_mut() {
            if primary {
                // So that the rest of what was written is archived, WAL is switched to the next segment.
                let switched_at = d.written;
                if archives {
                    d.written = d.written.next_multiple_of(SEGMENT);
                }
                d.checkpoint = d.written;
                d.checkpoint_timeline = d.timeline();
                d.append_record();
                d.state = ControlState::ShutDown;
                checkpoint = Some(switched_at);
            } else {
                d.flushed = d.written;
                d.min_recovery = d.replayed;
                d.state = ControlState::ShutDownInRecovery;
            }
        }
        if let Some(checkpoint) = checkpoint {
            self.job_sees_shutdown_checkpoint(i, checkpoint);
        }
        self.feed_standbys(i);
        self.archiver_looks(i);
        self.server_does(i, MS, PgEvent::ShutdownGoesOn);
    }

    // ---- promotion ----

    /// The startup process is told to leave recovery. Nobody can take this back but the end of the server.
    pub(crate) fn begin_promotion(&mut self, i: usize) {
        let pg = &mut self.nodes[i].pg;
        if pg.promoting || !matches!(pg.server, Server::Standby(_)) {
            return;
        }
        pg.promoting = true;
        let unreplayed = pg.data().map_or(0, |d| d.written - d.replayed.min(d.written));
        let replay = unreplayed / REPLAY_PER_MS * MS;
        let slow = if self.postgres.chance(10) { 40 } else { 1 };
        let after = (self.postgres.range(50 * MS, 700 * MS) + replay) * slow;
        match self.nodes[i].pg.trouble.promote_breaks.take() {
            Some(new_timeline) => self.server_does(i, after / 2, PgEvent::PromotionBreaks(new_timeline)),
            None => self.server_does(i, after, PgEvent::PromotionEnds),
        }
    }

    fn promotion_ends(&mut self, i: usize) {
        if !self.nodes[i].pg.promoting {
            return;
        }
        if self.nodes[i].pg.trouble.disk_full > 0 {
            return self.server_dies(i);
        }
        self.restore_the_rest(i);
        self.leave_recovery(i);
        let pg = &mut self.nodes[i].pg;
        pg.promoting = false;
        pg.server = Server::Primary;
        pg.enter(ControlState::InProduction);
        self.count("promotion");
        self.became_primary(i);
        self.archiver_looks(i);
        self.feed_standbys(i);
        self.job_sees_promotion(i);
    }

    fn promotion_breaks(&mut self, i: usize, new_timeline: bool) {
        if !self.nodes[i].pg.promoting {
            return;
        }
        self.count(if new_timeline {
            "promotion broke off on the new timeline"
        } else {
            "promotion broke off"
        });
        if new_timeline {
            self.leave_recovery(i);
        }
        self.server_dies(i);
    }

    /// All local WAL is replayed, the new timeline begins, the signal file goes. The server still says that it recovers.
    fn leave_recovery(&mut self, i: usize) {
        self.next_branch += 1;
        let id = self.next_branch;
        let timeline = self.new_timeline(i);
        // A restartpoint under way is no checkpoint of the new timeline.
        self.nodes[i].pg.checkpoint = None;
        if let Some(d) = self.nodes[i].pg.data_mut() {
            d.history.fork(Branch {
                id,
                timeline,
                start: d.written,
            });
            // What it received as a standby counts as archived by whoever wrote it.
            d.to_archive = d.written / SEGMENT;
            d.history_to_archive = true;
            d.append_record();
            d.min_recovery = 0;
            d.signal = false;
        }
    }
}
