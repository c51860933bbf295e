//! The endpoints of a store, and which of them to try in which order. Time is an argument; what a connection is, its user
//! says with `D`.
//!
//! The current endpoint is kept while it works (sticky): its raft term is known, its connection is warm. One that fails is
//! avoided for a while that doubles with each failure, together with every other address of the same member; it is
//! still tried when all the others fail too.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::units::Mono;

/// How long an endpoint is avoided after its first failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// It is never avoided for longer than this.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// No attempt is cut shorter than this, unless the budget itself is.
const MIN_ATTEMPT: Duration = Duration::from_millis(300);
/// A budget is shared among at most so many attempts, so that a slow etcd is not mistaken for a dead one.
const MAX_SHARES: u32 = 3;
/// It is shared among at least two: a single endpoint gets a second try on a new connection.
const MIN_SHARES: u32 = 2;
/// Less than this is not worth an attempt.
pub const SHORTEST_REST: Duration = Duration::from_millis(5);
/// Pause after every endpoint has failed, doubled each time.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Endpoints discovered beyond this number are ignored.
const MAX_DISCOVERED: usize = 32;

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint<D> {
    /// Its url.
    pub url: Arc<str>,
    /// From the configuration; otherwise discovered.
    pub configured: bool,
    /// Version of the member, once known.
    pub version: Option<String>,
    /// Id of the member, once known.
    pub member_id: Option<u64>,
    /// Its connection.
    pub door: D,
    failures: u32,
    avoid_until: Mono,
}

/// All of them.
#[derive(Debug)]
pub struct Roster<D> {
    endpoints: Vec<Endpoint<D>>,
    current: Arc<str>,
}

impl<D: Default> Roster<D> {
    /// Starts with one of `configured` that a random number picks, so that not every agent leans on the first in the
    /// list.
    pub fn new(configured: &[String], dice: u64) -> Roster<D> {
        let endpoints: Vec<Endpoint<D>> = configured.iter().map(|url| Endpoint::new(url, true)).collect();
        let count = u64::try_from(endpoints.len()).unwrap_or(u64::MAX).max(1);
        let first = usize::try_from(dice % count).unwrap_or(0);
        let current = endpoints
            .get(first)
            .map_or_else(|| Arc::from(""), |endpoint| Arc::clone(&endpoint.url));
        Roster { endpoints, current }
    }

    /// Everything, configured endpoints first.
    pub fn all(&self) -> &[Endpoint<D>] {
        &self.endpoints
    }

    /// Where requests go first.
    pub fn current(&self) -> Arc<str> {
        Arc::clone(&self.current)
    }

    /// The endpoint with this url, unless it has left the list.
    pub fn find(&self, url: &str) -> Option<&Endpoint<D>> {
        self.endpoints.iter().find(|endpoint| &*endpoint.url == url)
    }

    fn find_mut(&mut self, url: &str) -> Option<&mut Endpoint<D>> {
        self.endpoints.iter_mut().find(|endpoint| &*endpoint.url == url)
    }

    /// Urls in the order to try them: the current one, the others from there on, then the avoided ones, the one that
    /// is free again soonest first.
    pub fn order(&self, now: Mono) -> Vec<Arc<str>> {
        let start = self
            .endpoints
            .iter()
            .position(|endpoint| endpoint.url == self.current)
            .unwrap_or(0);
        let turned = self.endpoints.iter().cycle().skip(start).take(self.endpoints.len());
        let (usable, mut avoided): (Vec<_>, Vec<_>) = turned.partition(|endpoint| endpoint.is_usable(now));
        // Of one member's addresses the one that has not failed itself comes first: it may be the way round a proxy.
        avoided.sort_by_key(|endpoint| (endpoint.avoid_until, endpoint.failures));
        usable
            .into_iter()
            .chain(avoided)
            .map(|endpoint| Arc::clone(&endpoint.url))
            .collect()
    }

    /// Number of members that are not avoided, addresses of one member counted once where that is known.
    pub fn usable_members(&self, now: Mono) -> usize {
        let usable = self.endpoints.iter().filter(|endpoint| endpoint.is_usable(now));
        let mut seen = Vec::new();
        let mut unknown = 0;
        for endpoint in usable {
            match endpoint.member_id {
                Some(id) if seen.contains(&id) => {}
                Some(id) => seen.push(id),
                None => unknown += 1,
            }
        }
        seen.len() + unknown
    }

    /// The part of a request's budget that one attempt gets.
    pub fn share_of(&self, budget: Duration, now: Mono) -> Duration {
        let shares = u32::try_from(self.usable_members(now))
            .unwrap_or(MAX_SHARES)
            .clamp(MIN_SHARES, MAX_SHARES);
        (budget / shares).max(MIN_ATTEMPT)
    }

    /// The endpoint served a request: it is current from now on. Returns true when it was not before.
    pub fn succeeded(&mut self, url: &str) -> bool {
        let Some(endpoint) = self.find_mut(url) else {
            return false;
        };
        endpoint.failures = 0;
        endpoint.avoid_until = Mono::default();
        let url = Arc::clone(&endpoint.url);
        let moved = self.current != url;
        self.current = url;
        moved
    }

    /// The endpoint failed: it and all other addresses of its member are avoided for a while.
    pub fn failed(&mut self, url: &str, now: Mono) {
        let Some(endpoint) = self.find_mut(url) else {
            return;
        };
        endpoint.failures = endpoint.failures.saturating_add(1);
        let doublings = endpoint.failures.saturating_sub(1).min(8);
        let until = now.plus((FIRST_BACKOFF * 2_u32.pow(doublings)).min(MAX_BACKOFF));
        endpoint.avoid_until = until;
        let member = endpoint.member_id;
        for twin in self
            .endpoints
            .iter_mut()
            .filter(|twin| member.is_some() && twin.member_id == member)
        {
            twin.avoid_until = twin.avoid_until.max(until);
        }
    }

    /// What a new connection found out.
    pub fn introduced(&mut self, url: &str, version: Option<String>, member_id: u64) {
        if let Some(endpoint) = self.find_mut(url) {
            if version.is_some() {
                endpoint.version = version;
            }
            endpoint.member_id = Some(member_id);
        }
    }

    /// Replaces the discovered endpoints; configured ones always stay. `urls` are normalized.
    pub fn discovered(&mut self, urls: &[(String, u64)]) {
        self.endpoints
            .retain(|old| old.configured || urls.iter().any(|(url, _)| **url == *old.url));
        for (url, member_id) in urls.iter().take(MAX_DISCOVERED) {
            if self.find(url).is_none() {
                self.endpoints.push(Endpoint::new(url, false));
            }
            self.introduced(url, None, *member_id);
        }
        if self.find(&self.current).is_none()
            && let Some(first) = self.endpoints.first()
        {
            self.current = Arc::clone(&first.url);
        }
    }
}

impl<D: Default> Endpoint<D> {
    fn new(url: &str, configured: bool) -> Endpoint<D> {
        Endpoint {
            url: Arc::from(url),
            configured,
            version: None,
            member_id: None,
            door: D::default(),
            failures: 0,
            avoid_until: Mono::default(),
        }
    }

    /// Not avoided now.
    pub fn is_usable(&self, now: Mono) -> bool {
        self.avoid_until <= now
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use alloc::borrow::ToOwned;
    use alloc::string::ToString;

    use super::*;

    const NOW: Mono = Mono(1_000_000_000_000);

    fn roster(urls: &[&str]) -> Roster<()> {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let mut roster = Roster::new(&urls, 0);
        roster.succeeded(&urls[0]);
        roster
    }

    fn order(roster: &Roster<()>, now: Mono) -> Vec<String> {
        roster.order(now).iter().map(|url| url.to_string()).collect()
    }

    #[test]
    fn the_current_endpoint_is_kept_while_it_works() {
        let mut roster = roster(&["a", "b", "c"]);
        roster.succeeded("b");
        assert_eq!(order(&roster, NOW), ["b", "c", "a"]);
    }

    #[test]
    fn a_failed_endpoint_is_tried_last_and_for_longer_each_time() {
        let mut roster = roster(&["a", "b"]);
        roster.failed("a", NOW);
        assert_eq!(order(&roster, NOW), ["b", "a"]);
        assert_eq!(order(&roster, NOW.plus(Duration::from_secs(1))), ["a", "b"]);
        roster.failed("a", NOW);
        assert_eq!(order(&roster, NOW.plus(Duration::from_secs(1))), ["b", "a"]);
        for _ in 0..40 {
            roster.failed("a", NOW);
        }
        assert_eq!(order(&roster, NOW.plus(MAX_BACKOFF)), ["a", "b"]);
    }

    #[test]
    fn other_addresses_of_a_failed_member_are_avoided_too() {
        let mut roster = roster(&["a", "b"]);
        roster.introduced("a", None, 1);
        roster.discovered(&[("a-by-ip".to_owned(), 1), ("b-by-ip".to_owned(), 2)]);
        roster.failed("a", NOW);
        assert_eq!(order(&roster, NOW), ["b", "b-by-ip", "a-by-ip", "a"]);
        roster.introduced("b", None, 2);
        assert_eq!(roster.usable_members(NOW), 1);
    }

    #[test]
    fn configured_endpoints_stay_when_the_member_list_does_not_name_them() {
        let mut roster = roster(&["vip"]);
        roster.discovered(&[("m1".to_owned(), 1), ("m2".to_owned(), 2)]);
        roster.succeeded("m2");
        roster.discovered(&[("m1".to_owned(), 1)]);
        assert_eq!(order(&roster, NOW), ["vip", "m1"]);
    }

    #[test]
    fn with_everything_failed_all_are_still_tried() {
        let mut roster = roster(&["a", "b"]);
        roster.failed("b", NOW);
        roster.failed("a", NOW.plus(Duration::from_millis(1)));
        assert_eq!(order(&roster, NOW), ["b", "a"]);
        assert_eq!(roster.usable_members(NOW), 0);
    }
}
