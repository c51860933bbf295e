//! Which standbys answer. A network that is cut between two machines ends no connection: the wal sender goes on to say
//! `streaming` until `wal_sender_timeout` (60 s), the standby's own key says so until `wal_receiver_timeout`, and all
//! that time commits would wait for it while another standby has everything.
//!
//! All of it may be lost: it is noted anew.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::candidates::position;
use crate::pg::{PgView, SqlRole, WalSender};
use crate::units::{Lsn, Mono};

/// What each standby has yet to answer, by the pid of its wal sender. Who has everything is not in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Heard(BTreeMap<i32, Asked>);

/// A position that the primary had flushed and the standby had not, and when that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
struct Asked {
    upto: Lsn,
    since: Mono,
}

impl Heard {
    /// Notes a look at PostgreSQL.
    pub fn note(&mut self, view: &PgView) {
        let Some((pg, flush)) = view.facts().and_then(|pg| match pg.role {
            SqlRole::Primary { flush, .. } => Some((pg, flush)),
            SqlRole::Standby(_) => None,
        }) else {
            self.0.clear();
            return;
        };
        let asked = |sender: &WalSender| {
            let at = position(sender, &pg.synchronous_commit)?;
            let now = Asked {
                upto: flush,
                since: view.observed_at,
            };
            let before = self.0.get(&sender.pid).filter(|asked| at < asked.upto);
            (at < flush).then(|| (sender.pid, before.copied().unwrap_or(now)))
        };
        self.0 = pg.wal_senders.iter().filter_map(asked).collect();
    }

    /// Has the standby behind this wal sender not answered for so long?
    pub fn is_silent(&self, sender: &WalSender, now: Mono, limit: Duration) -> bool {
        let asked = self.0.get(&sender.pid);
        asked.is_some_and(|asked| now.since(asked.since) >= limit)
    }
}
