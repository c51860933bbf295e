//! The member list, now and then: more endpoints to fall back on than the configuration names.
//!
//! Advertised addresses may be unreachable from here; they are passed over like any endpoint that fails, and the
//! configured ones always stay. An address that would give up TLS is ignored: the token must not travel in the clear.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error};

use super::config::normalize_url;
use super::link::header_of;
use super::session::{Answer, Request, Session};
use crate::clock::boot_now;
use crate::dcs::DcsFuture;
use crate::error::DcsError;
use pgha_core::horizon::Freshness;

/// Time between two surveys.
const SURVEY_EVERY: Duration = Duration::from_secs(300);
/// Time after which a survey that failed is made again.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Budget of a survey that nobody waits for.
const BACKGROUND_BUDGET: Duration = Duration::from_secs(5);

/// Advertised client URLs, each with the id of its member.
type Addresses = Vec<(String, u64)>;

impl Session {
    /// Starts a survey in the background when one is due. Called after a success, so etcd is there.
    pub(super) fn survey_if_due(self: &Arc<Self>) {
        let now = boot_now();
        let mut state = self.state();
        if now < state.next_survey {
            return;
        }
        state.next_survey = now.plus(RETRY_AFTER);
        drop(state);
        let session = Arc::clone(self);
        tokio::spawn(async move {
            // A failure is noted in the status, and tried again.
            if let Err(error) = session.survey(BACKGROUND_BUDGET).await {
                tracing::debug!(%error, "the member list could not be read");
            }
        });
    }

    /// Connects if need be, and learns the members.
    pub async fn survey(self: &Arc<Self>, budget: Duration) -> Result<(), DcsError> {
        // Set first: `ask` would start another survey.
        self.state().next_survey = boot_now().plus(RETRY_AFTER);
        let list: &Request<'_, Addresses> = &|client: Client| -> DcsFuture<'static, Result<Answer<Addresses>, Error>> {
            Box::pin(async move {
                let answer = client.cluster_client().member_list().await?;
                let members = answer.members().iter();
                let urls = members.flat_map(|member| {
                    member
                        .client_urls()
                        .iter()
                        .map(|url| (url.clone(), member.id()))
                        .collect::<Vec<_>>()
                });
                Ok(Answer {
                    header: header_of(answer.header()),
                    value: urls.collect(),
                })
            })
        };
        let (_, members) = self.ask(budget, Freshness::Local, list).await?;
        let mut state = self.state();
        state.next_survey = boot_now().plus(SURVEY_EVERY);
        if self.config().discover_members {
            let tls = state
                .roster
                .all()
                .iter()
                .any(|endpoint| endpoint.url.starts_with("https://"));
            let scheme = if tls { "https://" } else { "http://" };
            let urls: Addresses = members
                .iter()
                .filter_map(|(url, id)| normalize_url(url, tls).ok().map(|url| (url, *id)))
                .filter(|(url, _)| url.starts_with(scheme))
                .collect();
            state.roster.discovered(&urls);
        }
        drop(state);
        self.announce_place();
        Ok(())
    }
}
