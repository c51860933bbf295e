//! One request against all endpoints, within a budget; and what was learnt from the answers.
//!
//! Reads, renewals and grants are harmless to repeat. They go to the current endpoint; one that is unreachable, silent for
//! its share of the budget, without a leader or answering from the past is passed over within the same call, so the
//! loss of one member of three does not cost a cycle (F05).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, Error};
use pgha_core::units::{Mono, Revision};
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::EtcdConfig;
use super::link::{Door, Link, OpenError};
use super::meaning::{explain, read_error};
use super::versions;
use crate::clock::boot_now;
use crate::dcs::{DcsFuture, DcsStatus, EndpointStatus};
use crate::error::{BoxError, DcsError};
use pgha_core::horizon::{Floor, Freshness, Header, Horizon, Regression};
use pgha_core::roster::{FIRST_PAUSE, MAX_PAUSE, Roster, SHORTEST_REST};
use pgha_wire::meaning::Meaning;

/// An answer and its origin.
pub(crate) struct Answer<T> {
    pub header: Option<Header>,
    pub value: T,
}

/// A request that may be repeated.
pub(crate) type Request<'a, T> = dyn Fn(Client) -> DcsFuture<'static, Result<Answer<T>, Error>> + Send + Sync + 'a;

/// Where requests go, for watches to follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub url: Arc<str>,
    /// Changes when a restored or replaced store was accepted: revisions known from before mean nothing any more.
    pub epoch: u32,
}

/// What the clones of a backend share.
pub(crate) struct Session {
    config: EtcdConfig,
    configured: Vec<String>,
    state: Mutex<State>,
    place: watch::Sender<Place>,
}

pub(super) struct State {
    pub roster: Roster<Arc<Door>>,
    pub horizon: Horizon,
    pub next_survey: Mono,
    trouble: [Option<Trouble>; Lane::COUNT],
    warned_of: Vec<String>,
}

/// What trouble is kept apart by: a full database refuses writes and serves reads, which is not an end of the trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    Ask,
    Commit,
}

impl Lane {
    const COUNT: usize = 2;

    fn word(self) -> &'static str {
        match self {
            Lane::Ask => "requests",
            Lane::Commit => "transactions",
        }
    }
}

/// The error that the last call ended with.
struct Trouble {
    kind: Discriminant<DcsError>,
    text: String,
}

/// Why an attempt failed.
enum Setback {
    /// Another endpoint may do better.
    Next(DcsError),
    /// The answer regressed.
    Stale(DcsError, Header),
    /// Asking another endpoint would not help.
    Final(DcsError),
}

impl Session {
    pub fn new(config: EtcdConfig) -> Result<Arc<Session>, DcsError> {
        config.check()?;
        let configured = config.urls()?;
        let roster = Roster::new(&configured, RandomState::new().build_hasher().finish());
        let (place, _) = watch::channel(Place {
            url: roster.current(),
            epoch: 0,
        });
        let state = State {
            roster,
            horizon: Horizon::default(),
            next_survey: Mono::default(),
            trouble: [None, None],
            warned_of: Vec::new(),
        };
        Ok(Arc::new(Session {
            config,
            configured,
            state: Mutex::new(state),
            place,
        }))
    }

    pub fn config(&self) -> &EtcdConfig {
        &self.config
    }

    pub fn place(&self) -> watch::Receiver<Place> {
        self.place.subscribe()
    }

    pub fn current(&self) -> String {
        self.state().roster.current().to_string()
    }

    pub fn order(&self) -> Vec<Arc<str>> {
        self.state().roster.order(boot_now())
    }

    /// A panic cannot leave the state inconsistent: every change is one call. Never held across an `.await`.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until an admissible answer comes, or the budget is over.
    pub async fn ask<T>(
        self: &Arc<Self>,
        budget: Duration,
        freshness: Freshness,
        request: &Request<'_, T>,
    ) -> Result<(Header, T), DcsError> {
        let result = self.ask_around(budget, freshness, request).await;
        match &result {
            Ok(_) => {
                self.note(Lane::Ask, None);
                self.survey_if_due();
            }
            Err(error) => self.note(Lane::Ask, Some(error)),
        }
        result
    }

    async fn ask_around<T>(
        self: &Arc<Self>,
        budget: Duration,
        freshness: Freshness,
        request: &Request<'_, T>,
    ) -> Result<(Header, T), DcsError> {
        let deadline = boot_now().plus(budget);
        let share = self.share_of(budget);
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            let mut refused = Vec::new();
            for url in self.order() {
                let left = deadline.since(boot_now());
                if left < SHORTEST_REST {
                    break;
                }
                match self.attempt(&url, share.min(left), budget, freshness, request).await {
                    Ok(answer) => return Ok(answer),
                    Err(Setback::Final(error)) => return Err(error),
                    Err(Setback::Next(error)) => last = Some(error),
                    Err(Setback::Stale(error, header)) => {
                        refused.push((url.to_string(), header));
                        last = Some(error);
                    }
                }
            }
            // Members that are behind do not catch up by being asked again at once.
            if !refused.is_empty() && freshness == Freshness::Linearizable {
                self.refused(&refused);
            }
            let over = deadline.since(boot_now()) < pause + SHORTEST_REST;
            if over || !refused.is_empty() {
                let url = self.current();
                return Err(last.unwrap_or(DcsError::TimedOut { endpoint: url, budget }));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// The time one attempt gets.
    pub(super) fn share_of(&self, budget: Duration) -> Duration {
        self.state().roster.share_of(budget, boot_now())
    }

    /// One request to one endpoint.
    async fn attempt<T>(
        &self,
        url: &str,
        allowed: Duration,
        budget: Duration,
        freshness: Freshness,
        request: &Request<'_, T>,
    ) -> Result<(Header, T), Setback> {
        let floor = self.state().horizon.floor();
        let result = match timeout(allowed, self.exchange(url, request)).await {
            Ok(result) => result,
            Err(_) => Err(Setback::Next(DcsError::TimedOut {
                endpoint: url.to_owned(),
                budget,
            })),
        };
        let result = result.and_then(|answer| self.admit(url, floor, freshness, answer));
        match &result {
            Ok(_) => self.succeeded(url),
            Err(Setback::Final(_)) => {}
            Err(Setback::Next(_) | Setback::Stale(..)) => self.failed(url),
        }
        result
    }

    /// Sends the request; with a new token once more when etcd did not like the old one.
    async fn exchange<T>(&self, url: &str, request: &Request<'_, T>) -> Result<Answer<T>, Setback> {
        let link = self
            .link(url)
            .await
            .map_err(|error| setback(url, error.meaning, error.source))?;
        let error = match request(link.client.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let meaning = read_error(&error).meaning;
        if !self.may_reauthenticate(meaning) {
            return Err(setback(url, meaning, explain(error)));
        }
        let refuse = |error: Error| setback(url, read_error(&error).meaning, explain(error));
        link.authenticate(&self.config).await.map_err(refuse)?;
        request(link.client.clone()).await.map_err(refuse)
    }

    /// A new token may turn this refusal around.
    pub(super) fn may_reauthenticate(&self, meaning: Meaning) -> bool {
        self.config.credentials.is_some() && matches!(meaning, Meaning::TokenRejected | Meaning::Denied)
    }

    fn admit<T>(
        &self,
        url: &str,
        floor: Floor,
        freshness: Freshness,
        answer: Answer<T>,
    ) -> Result<(Header, T), Setback> {
        let Some(header) = answer.header else {
            let detail = "an answer carries no header".to_owned();
            return Err(Setback::Next(DcsError::Protocol {
                endpoint: url.to_owned(),
                detail,
            }));
        };
        match self.state().horizon.admit(floor, header, freshness) {
            Ok(()) => Ok((header, answer.value)),
            Err(regression) => {
                let error = DcsError::Stale {
                    endpoint: url.to_owned(),
                    detail: regression.to_string(),
                };
                Err(match regression {
                    Regression::Overtaken => Setback::Next(error),
                    Regression::Cluster { .. } | Regression::Term { .. } | Regression::Revision { .. } => {
                        Setback::Stale(error, header)
                    }
                })
            }
        }
    }

    /// The connection to an endpoint, opened if need be.
    pub async fn link(&self, url: &str) -> Result<Link, OpenError> {
        let door = self.state().roster.find(url).map(|endpoint| Arc::clone(&endpoint.door));
        let Some(door) = door else {
            let source: BoxError = "the endpoint has left the member list".into();
            return Err(OpenError {
                meaning: Meaning::Unavailable,
                source,
            });
        };
        let (link, new) = door.open(url, &self.config).await?;
        if new {
            self.state()
                .roster
                .introduced(url, link.version.clone(), link.member_id);
            self.warn_of_version(url);
        }
        Ok(link)
    }

    /// Says once per version what is wrong with it (rule R9).
    fn warn_of_version(&self, url: &str) {
        let mut state = self.state();
        let version = state.roster.find(url).and_then(|endpoint| endpoint.version.clone());
        if let Some(version) = version
            && !state.warned_of.contains(&version)
            && let Some(warning) = versions::warning(&version)
        {
            tracing::warn!(endpoint = url, "{warning}");
            state.warned_of.push(version);
        }
    }

    pub(super) fn succeeded(&self, url: &str) {
        let mut state = self.state();
        if state.roster.succeeded(url) {
            drop(state);
            self.announce_place();
        }
    }

    /// Tells the watches where requests go, when that has changed.
    pub(super) fn announce_place(&self) {
        self.place.send_if_modified(|place| {
            let state = self.state();
            let new = Place {
                url: state.roster.current(),
                epoch: state.horizon.resets(),
            };
            drop(state);
            let changed = *place != new;
            if changed {
                tracing::info!(endpoint = &*new.url, "etcd requests go to this endpoint from now on");
                *place = new;
            }
            changed
        });
    }

    /// Avoids the endpoint for a while and forgets its connection.
    pub(super) fn failed(&self, url: &str) {
        let mut state = self.state();
        if let Some(endpoint) = state.roster.find(url) {
            endpoint.door.close();
        }
        state.roster.failed(url, boot_now());
    }

    /// A whole read was refused by rule R5; accepts a restored or replaced store when the time has come.
    fn refused(&self, refused: &[(String, Header)]) {
        let mut state = self.state();
        let before = state.horizon.known();
        if !state
            .horizon
            .refused_round(boot_now(), self.config.regression_grace, refused, &self.configured)
        {
            return;
        }
        let after = state.horizon.known();
        drop(state);
        tracing::error!(
            ?before,
            ?after,
            "etcd was restored from a snapshot or replaced: its answers have regressed for good and are accepted from now on"
        );
        self.announce_place();
    }

    /// Logs trouble when it begins, changes its kind and ends, and not each time.
    pub(super) fn note(&self, lane: Lane, error: Option<&DcsError>) {
        let new = error.map(|error| Trouble {
            kind: discriminant(error),
            text: describe(error),
        });
        let mut state = self.state();
        let [asks, commits] = &mut state.trouble;
        let place = match lane {
            Lane::Ask => asks,
            Lane::Commit => commits,
        };
        let changed = place.as_ref().map(|old| old.kind) != new.as_ref().map(|new| new.kind);
        let text = new.as_ref().map(|new| new.text.clone());
        *place = new;
        drop(state);
        match (changed, text) {
            (true, Some(text)) => tracing::warn!("{text}"),
            (true, None) => tracing::info!("etcd serves {} again", lane.word()),
            (false, _) => {}
        }
    }

    pub fn status(&self) -> DcsStatus {
        let now = boot_now();
        let state = self.state();
        let (cluster_id, raft_term, revision) = state.horizon.known();
        let endpoints = state.roster.all().iter().map(|endpoint| EndpointStatus {
            url: endpoint.url.to_string(),
            configured: endpoint.configured,
            usable: endpoint.is_usable(now),
            version: endpoint.version.clone(),
            member_id: endpoint.member_id,
        });
        DcsStatus {
            endpoints: endpoints.collect(),
            current: Some(state.roster.current().to_string()),
            cluster_id,
            raft_term,
            revision: Revision(revision),
            resets: state.horizon.resets(),
            last_error: state
                .trouble
                .iter()
                .flatten()
                .next()
                .map(|trouble| trouble.text.clone()),
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        let state = self.state();
        let mut warnings: Vec<String> = state
            .warned_of
            .iter()
            .filter_map(|version| versions::warning(version))
            .collect();
        match state.horizon.resets() {
            0 => {}
            n => warnings.push(format!(
                "etcd was restored or replaced {n} time(s) since the start of this process"
            )),
        }
        warnings
    }
}

/// The error with its causes, in one line.
fn describe(error: &DcsError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a failure means for the caller, and whether the next endpoint is worth a try.
pub(super) fn dcs_error(url: &str, meaning: Meaning, source: BoxError) -> DcsError {
    let endpoint = url.to_owned();
    match meaning {
        Meaning::Unavailable | Meaning::AuthNotEnabled => DcsError::Unreachable { endpoint, source },
        Meaning::NoSpace => DcsError::NoSpace { endpoint, source },
        Meaning::TokenRejected | Meaning::Denied => DcsError::Denied { endpoint, source },
        Meaning::LeaseNotFound | Meaning::RevisionUnavailable | Meaning::Malformed => DcsError::Protocol {
            endpoint,
            detail: source.to_string(),
        },
    }
}

fn setback(url: &str, meaning: Meaning, source: BoxError) -> Setback {
    let error = dcs_error(url, meaning, source);
    if meaning.elsewhere_may_help() {
        Setback::Next(error)
    } else {
        Setback::Final(error)
    }
}
