//! Watch events to hints (rule R8).
//!
//! A background task keeps one watch on the endpoint that requests go to. It resumes after the last revision it saw,
//! follows when the endpoint changes, and says `Resync` whenever something may have been missed. A watch that is silent
//! is asked for a sign of life, since etcd does not close the connection of a watch it has forgotten.
//!
//! The revision to resume from is taken from events only: etcd before 3.4.25 sends progress notifications that run ahead
//! of the events (etcd#15220).

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, WatchOptions, WatchResponse, WatchStream};
use pgha_core::units::Revision;
use tokio::sync::watch;
use tokio::time::timeout;

use super::meaning::read_status;
use super::session::{Place, Session};
use crate::hints::{Hint, HintSender, WatchHints};
use pgha_wire::meaning::Meaning;

/// Silence after which a sign of life is asked for.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Time the sign of life may take; also bounds opening the connection and the watch.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Pause after the first failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest such pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Why a watch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Requests go elsewhere now, or the store was replaced.
    Moved,
    /// The endpoint failed.
    Broken,
    /// etcd cancelled the watch; the revision to resume from is of no use.
    Cancelled,
    /// etcd cancelled the watch for the token.
    TokenRejected,
}

struct Watcher {
    session: Arc<Session>,
    place: watch::Receiver<Place>,
    prefix: String,
    /// Last revision seen; 0 when there is none to resume from.
    seen: i64,
    /// Events may have been missed: to be told as soon as the next watch stands.
    gap: bool,
    hints: HintSender,
}

/// Starts the task; it ends when the hints are dropped.
pub(super) fn start(session: &Arc<Session>, prefix: &str, after: Revision) -> WatchHints {
    let (sender, hints) = WatchHints::channel();
    let watcher = Watcher {
        session: Arc::clone(session),
        place: session.place(),
        prefix: prefix.to_owned(),
        seen: after.0,
        gap: false,
        hints: sender,
    };
    hints.fed_by(tokio::spawn(watcher.run()))
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let place = self.place.borrow_and_update().clone();
            // The current endpoint may be the one that is being avoided.
            let url = self
                .session
                .order()
                .into_iter()
                .next()
                .unwrap_or_else(|| Arc::clone(&place.url));
            let (end, stood) = self.follow(&url, place.epoch).await;
            if self.place.borrow().epoch != place.epoch {
                self.forget_position();
            }
            match end {
                End::Moved => continue,
                End::Broken => self.session.failed(&url),
                End::Cancelled => self.forget_position(),
                End::TokenRejected => self.renew_token(&url).await,
            }
            if self.seen == 0 {
                self.gap = true;
            }
            if stood {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Resuming would lead to nothing, so the next watch begins at what is new then.
    fn forget_position(&mut self) {
        self.seen = 0;
        self.gap = true;
        self.hints.send(Hint::Resync);
    }

    async fn renew_token(&self, url: &str) {
        let renewed = timeout(ANSWER_LIMIT, async {
            match self.session.link(url).await {
                Ok(link) => link.authenticate(self.session.config()).await.is_ok(),
                Err(_) => false,
            }
        });
        if !renewed.await.unwrap_or(false) {
            self.session.failed(url);
        }
    }

    /// One watch on one endpoint, to its end. Also tells whether it ever stood.
    async fn follow(&mut self, url: &str, epoch: u32) -> (End, bool) {
        let Ok(Some(mut stream)) = timeout(ANSWER_LIMIT, self.open(url)).await else {
            return (End::Broken, false);
        };
        let mut stood = false;
        // The answer to the creation is due at once; later on silence is normal.
        let mut patience = ANSWER_LIMIT;
        let mut asked = true;
        loop {
            let answer = tokio::select! {
                changed = self.place.changed() => {
                    let place = self.place.borrow();
                    if changed.is_ok() && *place.url == *url && place.epoch == epoch {
                        continue;
                    }
                    return (End::Moved, stood);
                }
                answer = timeout(patience, stream.message()) => answer,
            };
            match answer {
                Err(_) if asked => return (End::Broken, stood),
                Err(_) => {
                    if stream.request_progress().await.is_err() {
                        return (End::Broken, stood);
                    }
                    asked = true;
                    patience = ANSWER_LIMIT;
                }
                Ok(Ok(Some(answer))) => {
                    if let Some(end) = self.take(&answer) {
                        return (end, stood);
                    }
                    stood = true;
                    asked = false;
                    patience = IDLE_LIMIT;
                }
                Ok(Ok(None) | Err(_)) => return (End::Broken, stood),
            }
        }
    }

    async fn open(&self, url: &str) -> Option<WatchStream> {
        let link = self.session.link(url).await.ok()?;
        let mut options = WatchOptions::new().with_prefix().with_progress_notify();
        if self.seen > 0 {
            options = options.with_start_revision(self.seen.saturating_add(1));
        }
        link.client
            .watch_client()
            .watch(self.prefix.as_str(), Some(options))
            .await
            .ok()
    }

    /// Turns one answer into hints; says when it ends the watch.
    fn take(&mut self, answer: &WatchResponse) -> Option<End> {
        if answer.canceled() {
            let reason = answer.cancel_reason();
            let compacted = answer.compact_revision();
            tracing::debug!(reason, compacted, "etcd cancelled the watch");
            return Some(match read_status(tonic::Code::Unknown, reason).meaning {
                // etcd 3.4 says "permission denied" for an expired token.
                Meaning::TokenRejected | Meaning::Denied => End::TokenRejected,
                Meaning::Unavailable
                | Meaning::LeaseNotFound
                | Meaning::NoSpace
                | Meaning::AuthNotEnabled
                | Meaning::RevisionUnavailable
                | Meaning::Malformed => End::Cancelled,
            });
        }
        if answer.created() && self.gap {
            self.gap = false;
            self.hints.send(Hint::Resync);
        }
        for kv in answer.events().iter().filter_map(Event::kv) {
            // A watch on a revision to come may begin with events from before it (etcd#20221).
            if kv.mod_revision() > self.seen {
                self.hints.send(Hint::Changed {
                    key: String::from_utf8_lossy(kv.key()).into_owned(),
                    mod_revision: Revision(kv.mod_revision()),
                    // The key of a delete event has no version. The library's own accessor panics on unknown kinds.
                    deleted: kv.version() == 0,
                });
            }
        }
        let newest = answer
            .events()
            .iter()
            .filter_map(Event::kv)
            .map(|kv| kv.mod_revision())
            .max();
        self.seen = self.seen.max(newest.unwrap_or(0));
        None
    }
}
