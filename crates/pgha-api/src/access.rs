//! Who may use the routes that change something: first the allowlist, then the password.
//!
//! Absent on purpose: client certificates, which come between the two once the API speaks TLS.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use pgha_core::units::Mono;
use pgha_wire::rest::reply::Reply;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use crate::limits::{MAX_ALLOWED_NAMES, RESOLVE_KEPT, RESOLVE_TIMEOUT};

/// `restapi.authentication`. Its `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// `username`.
    pub username: String,
    /// `password`.
    pub password: String,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What `restapi` says about access.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessSettings {
    /// `allowlist`: networks (`10.0.0.0/8`), addresses and host names. Empty: everybody.
    pub allowlist: Vec<String>,
    /// `allowlist_include_members`: the addresses in the members' `api_url` may too.
    pub include_members: bool,
    /// `authentication`, when both of its parts are set.
    pub authentication: Option<BasicAuth>,
}

/// Why somebody is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Denied {
    /// Not on the allowlist.
    Address,
    /// No `Authorization` header.
    NoAuthorization,
    /// Another user or password.
    WrongAuthorization,
}

impl Denied {
    /// Patroni's words.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Denied::Address => Reply::text(403, "Access is denied"),
            Denied::NoAuthorization => Reply::text(401, "no auth header received"),
            Denied::WrongAuthorization => Reply::text(401, "not authenticated"),
        }
    }
}

/// The rules in force.
pub(crate) struct Access {
    networks: Vec<Network>,
    names: Vec<String>,
    include_members: bool,
    /// Of `user:password`; the clear text is not kept.
    digest: Option<[u8; 32]>,
    resolved: Mutex<Option<Resolved>>,
}

/// Addresses of host names, as looked up together.
struct Resolved {
    names: Vec<String>,
    addresses: BTreeSet<IpAddr>,
    at: Mono,
}

impl Access {
    pub(crate) fn new(settings: &AccessSettings) -> Access {
        let mut networks = Vec::new();
        let mut names = Vec::new();
        for entry in &settings.allowlist {
            match Network::parse(entry) {
                Some(network) => networks.push(network),
                None => names.push(entry.trim().to_owned()),
            }
        }
        let digest = settings
            .authentication
            .as_ref()
            .map(|a| digest(format!("{}:{}", a.username, a.password).as_bytes()));
        Access {
            networks,
            names,
            include_members: settings.include_members,
            digest,
            resolved: Mutex::new(None),
        }
    }

    /// May `address` with these headers use an unsafe route? `members` are the hosts of the members' `api_url`; they
    /// count only where `for_members` says that the route is open to them.
    pub(crate) async fn check(
        &self,
        address: IpAddr,
        headers: &HeaderMap,
        members: impl FnOnce() -> Vec<String>,
        for_members: bool,
        now: Mono,
    ) -> Result<(), Denied> {
        self.check_address(
            address.to_canonical(),
            members,
            self.include_members && for_members,
            now,
        )
        .await?;
        self.check_password(headers)
    }

    async fn check_address(
        &self,
        address: IpAddr,
        members: impl FnOnce() -> Vec<String>,
        include_members: bool,
        now: Mono,
    ) -> Result<(), Denied> {
        let is_open = self.networks.is_empty() && self.names.is_empty() && !include_members;
        if is_open || self.networks.iter().any(|n| n.contains(address)) {
            return Ok(());
        }
        let mut names = self.names.clone();
        if include_members {
            for host in members() {
                match host.parse::<IpAddr>() {
                    Ok(member) if member.to_canonical() == address => return Ok(()),
                    Ok(_) => {}
                    Err(_) => names.push(host),
                }
            }
        }
        names.truncate(MAX_ALLOWED_NAMES);
        if !names.is_empty() && self.resolve(names, now).await.contains(&address) {
            Ok(())
        } else {
            Err(Denied::Address)
        }
    }

    async fn resolve(&self, names: Vec<String>, now: Mono) -> BTreeSet<IpAddr> {
        let kept = self
            .resolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|r| (r.names == names && now.since(r.at) < RESOLVE_KEPT).then(|| r.addresses.clone()));
        if let Some(addresses) = kept {
            return addresses;
        }
        let mut addresses = BTreeSet::new();
        let looked_up = timeout(RESOLVE_TIMEOUT, async {
            for name in &names {
                match tokio::net::lookup_host((name.as_str(), 0)).await {
                    Ok(found) => addresses.extend(found.map(|a| a.ip().to_canonical())),
                    Err(e) => tracing::warn!(%name, error = %e, "a host name of the allowlist cannot be resolved"),
                }
            }
        })
        .await;
        if looked_up.is_err() {
            tracing::warn!("the host names of the allowlist were not resolved in time");
        }
        // Kept even when incomplete: a resolver that hangs must not be asked again by each request.
        let resolved = Resolved {
            names,
            addresses: addresses.clone(),
            at: now,
        };
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
        addresses
    }

    fn check_password(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let Some(expected) = &self.digest else {
            return Ok(());
        };
        let header = headers.get(AUTHORIZATION).ok_or(Denied::NoAuthorization)?;
        let given = header
            .as_bytes()
            .strip_prefix(b"Basic ")
            .and_then(|b| STANDARD.decode(b.trim_ascii()).ok());
        // Digests have one length, so the time of the comparison tells nothing about the password.
        let equal = given.is_some_and(|given| bool::from(digest(&given).ct_eq(expected)));
        if equal { Ok(()) } else { Err(Denied::WrongAuthorization) }
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// An address range: the first `prefix` bits of `address`.
#[derive(Clone, Copy)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// `10.0.0.0/8` or `10.0.0.1`; `None` when it is neither, and thus a name.
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|p| *p <= width)?,
            None => width,
        };
        Some(Network { address, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u32::from(a) ^ u32::from(b)).checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b))
                    .checked_shr(128 - self.prefix)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allowlist: &[&str], include_members: bool, password: Option<&str>) -> Access {
        Access::new(&AccessSettings {
            allowlist: allowlist.iter().map(|e| (*e).to_owned()).collect(),
            include_members,
            authentication: password.map(|p| BasicAuth {
                username: "admin".into(),
                password: p.into(),
            }),
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    async fn verdict(access: &Access, from: &str) -> Result<(), Denied> {
        access
            .check(ip(from), &HeaderMap::new(), || vec!["10.9.9.9".into()], true, Mono(0))
            .await
    }

    #[tokio::test]
    async fn networks_addresses_and_names_open_the_door() {
        let a = access(
            &["10.1.0.0/16", "192.168.0.7", "2001:db8::/32", "localhost"],
            false,
            None,
        );
        for inside in [
            "10.1.255.1",
            "192.168.0.7",
            "::ffff:10.1.2.3",
            "2001:db8:ffff::1",
            "127.0.0.1",
        ] {
            assert_eq!(verdict(&a, inside).await, Ok(()), "{inside}");
        }
        for outside in ["10.2.0.1", "192.168.0.8", "2001:db9::1", "10.9.9.9"] {
            assert_eq!(verdict(&a, outside).await, Err(Denied::Address), "{outside}");
        }
        assert_eq!(verdict(&access(&["0.0.0.0/0"], false, None), "8.8.8.8").await, Ok(()));
        assert_eq!(verdict(&access(&[], false, None), "8.8.8.8").await, Ok(()));
    }

    #[tokio::test]
    async fn members_may_enter_only_where_the_route_allows_it() {
        let a = access(&[], true, None);
        assert_eq!(verdict(&a, "10.9.9.9").await, Ok(()));
        assert_eq!(verdict(&a, "10.9.9.8").await, Err(Denied::Address));
        let not_for_members = a
            .check(ip("10.9.9.8"), &HeaderMap::new(), Vec::new, false, Mono(0))
            .await;
        assert_eq!(
            not_for_members,
            Ok(()),
            "an empty allowlist that leaves members out is no allowlist"
        );
    }

    #[tokio::test]
    async fn the_password_is_compared_whole() {
        let a = access(&[], false, Some("qwerty"));
        let with = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("header"));
            headers
        };
        let ask = async |headers: HeaderMap| a.check(ip("10.0.0.1"), &headers, Vec::new, true, Mono(0)).await;
        assert_eq!(ask(HeaderMap::new()).await, Err(Denied::NoAuthorization));
        for wrong in ["admin:qwert", "admin:qwertyy", "Admin:qwerty", ""] {
            let header = format!("Basic {}", STANDARD.encode(wrong));
            assert_eq!(ask(with(header)).await, Err(Denied::WrongAuthorization), "{wrong}");
        }
        assert_eq!(ask(with("Bearer x".into())).await, Err(Denied::WrongAuthorization));
        assert_eq!(ask(with("Basic %%%".into())).await, Err(Denied::WrongAuthorization));
        assert_eq!(
            ask(with(format!("Basic {}", STANDARD.encode("admin:qwerty")))).await,
            Ok(())
        );
    }

    #[test]
    fn the_password_is_not_in_debug() {
        let auth = BasicAuth {
            username: "u".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
