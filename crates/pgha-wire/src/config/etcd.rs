//! The section `etcd3` or `etcd`: how to reach etcd. pgha speaks the version 3 API in both cases.

use std::path::PathBuf;

use super::finding::Severity;
use super::section::Section;
use crate::pgconf::address::{HostPort, parse_host_port};
use crate::pgconf::credentials::Secret;
use crate::yaml::Value;

/// Port of etcd when none is written.
const DEFAULT_PORT: u16 = 2379;
const A_PORT: std::ops::RangeInclusive<i64> = 1..=65535;
const ADDRESS: &str = "\"HOST:PORT\", without http://";
const ADDRESSES: &str = "a list of \"HOST:PORT\", without http://, or such addresses separated by commas";
const A_URL: &str = "\"http://[USER:PASSWORD@]HOST:PORT\" or the same with https";

/// How to reach etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Etcd {
    /// Client endpoints, from `url`, `proxy`, `hosts` or `host`. Empty only when `srv` is there.
    pub endpoints: Vec<HostPort>,
    /// Domain whose SRV records name the endpoints.
    pub srv: Option<String>,
    /// Suffix of the service names.
    pub srv_suffix: Option<String>,
    /// Use TLS.
    pub https: bool,
    /// Keep to the endpoints as written; do not ask etcd for its members.
    pub use_proxies: bool,
    /// User.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Authorities of server certificates.
    pub cacert: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Reads the first of `etcd3` and `etcd` that is there.
pub(super) fn read_etcd(root: &mut Section<'_>) -> Option<Etcd> {
    let (v3, v2) = (root.node("etcd3").is_some(), root.node("etcd").is_some());
    for (key, what) in [
        ("consul", "Consul"),
        ("exhibitor", "Exhibitor"),
        ("kubernetes", "Kubernetes"),
        ("raft", "Raft"),
        ("zookeeper", "ZooKeeper"),
    ] {
        if root.node(key).is_some() {
            // Patroni takes the first section by name, so ignoring this one could mean a second, separate cluster.
            root.note(
                Severity::Error,
                key,
                format!("{what} is not supported yet by this version; use etcd3"),
            );
        }
    }
    match (v3, v2) {
        (true, true) => root.note(Severity::Warning, "etcd", "has no effect beside `etcd3`"),
        (false, true) => root.note(
            Severity::Warning,
            "etcd",
            "is read through etcd's version 3 API, where keys of Patroni's `etcd` section (version 2) are not seen; write `etcd3`",
        ),
        (true, false) => {}
        (false, false) => {
            root.missing("etcd3", "a section with `hosts`");
            return None;
        }
    }
    let section = root.section(if v3 { "etcd3" } else { "etcd" });
    read_section(section)
}

fn read_section(mut section: Section<'_>) -> Option<Etcd> {
    let protocol = section.word("protocol", &[("http", false), ("https", true)]);
    let port = section
        .int("port", A_PORT, None)
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(DEFAULT_PORT);
    let proxy = read_url(&mut section, "proxy");
    let url = read_url(&mut section, "url");
    let hosts = read_hosts(&mut section, port);
    let host = section.parsed("host", ADDRESS, |text| parse_host_port(text, Some(port)));
    let srv = ["srv", "discovery_srv", "srv_domain"]
        .into_iter()
        .fold(None, |found, key| section.text(key).or(found));
    const SOURCES: [&str; 7] = ["proxy", "url", "hosts", "host", "srv", "discovery_srv", "srv_domain"];
    let has_any = SOURCES.into_iter().any(|key| section.node(key).is_some());
    if !has_any {
        section.missing("hosts", ADDRESSES);
    }
    let use_proxies = section.flag("use_proxies").unwrap_or(false) || proxy.is_some();
    let mut etcd = Etcd {
        endpoints: hosts.or(host.map(|host| vec![host])).unwrap_or_default(),
        srv,
        srv_suffix: section.text("srv_suffix"),
        https: protocol.unwrap_or(false),
        use_proxies,
        username: section.loose_text("username", false),
        password: section.secret("password"),
        cacert: section.file("cacert"),
        cert: section.file("cert"),
        key: section.file("key"),
    };
    section.finish();
    if let Some(url) = proxy.or(url) {
        etcd.endpoints = vec![url.address];
        etcd.https = url.https;
        etcd.username = url.username.or(etcd.username);
        etcd.password = url.password.or(etcd.password);
    }
    (!etcd.endpoints.is_empty() || etcd.srv.is_some()).then_some(etcd)
}

/// `hosts`: a list, or a text with commas.
fn read_hosts(section: &mut Section<'_>, port: u16) -> Option<Vec<HostPort>> {
    let node = section.node("hosts")?;
    let texts: Vec<String> = match &node.value {
        Value::Scalar(_) => section
            .text_allowing("hosts", ADDRESSES)?
            .split(',')
            .map(|host| host.trim().to_string())
            .collect(),
        Value::List(_) | Value::Map(_) => section.strings("hosts")?,
    };
    let hosts: Option<Vec<HostPort>> = texts
        .iter()
        .map(|text| parse_host_port(text, Some(port)).ok())
        .collect();
    if hosts.as_ref().is_none_or(Vec::is_empty) {
        match &node.value {
            Value::List(items) if !items.is_empty() => {
                for (i, (item, text)) in items.iter().zip(&texts).enumerate() {
                    if parse_host_port(text, Some(port)).is_err() {
                        section.wrong_at(format!("{}[{i}]", section.path_of("hosts")), item, ADDRESS);
                    }
                }
            }
            Value::List(_) | Value::Scalar(_) | Value::Map(_) => section.wrong("hosts", node, ADDRESSES),
        }
        return None;
    }
    hosts
}

/// The parts of a URL.
struct Url {
    https: bool,
    address: HostPort,
    username: Option<String>,
    password: Option<Secret>,
}

fn read_url(section: &mut Section<'_>, key: &'static str) -> Option<Url> {
    let node = section.node(key)?;
    let text = section.text_allowing(key, A_URL)?;
    let parsed = parse_url(&text);
    if parsed.is_none() {
        // The URL may hold a password, so it is not repeated.
        section.note_at(
            Severity::Error,
            node.at,
            &section.path_of(key),
            format!("found a text that is no such URL, allowed: {A_URL}"),
        );
    }
    parsed
}

fn parse_url(text: &str) -> Option<Url> {
    let (scheme, rest) = text.split_once("://")?;
    let https = match scheme {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, address) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(user, address)| (Some(user), address));
    let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((name, password)) => (Some(name.to_string()), Some(password)),
        None => (None, None),
    };
    Some(Url {
        https,
        address: parse_host_port(address, Some(DEFAULT_PORT)).ok()?,
        username: username.filter(|name| !name.is_empty()),
        password: password.filter(|password| !password.is_empty()).map(Secret::new),
    })
}
