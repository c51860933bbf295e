//! `HOST:PORT` as Patroni reads it: the last colon separates the port, IPv6 addresses stand in brackets.
//!
//! Absent on purpose: looking names up.

use std::fmt;

use super::PgConfError;
use crate::limits::quoted;

/// One host and its port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a server listens on: several hosts, one port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Names, addresses or `*`, without brackets; at least one.
    pub hosts: Vec<String>,
    /// TCP port, never 0.
    pub port: u16,
}

impl Listen {
    /// The value of `listen_addresses`.
    pub fn listen_addresses(&self) -> String {
        self.hosts.join(",")
    }

    /// A host under which this machine reaches the listener: the first that is concrete, else the loopback.
    pub fn local_host(&self) -> &str {
        match self.hosts.iter().find(|host| !is_any(host)) {
            Some(host) => host,
            None if self.hosts.iter().all(|host| host == "::") => "::1",
            None => "127.0.0.1",
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listen_addresses(), self.port)
    }
}

/// Does this stand for every address of the machine, so that nobody can connect to it by that name?
pub fn is_any(host: &str) -> bool {
    matches!(host, "*" | "0.0.0.0" | "::")
}

/// Does this reach only the machine itself?
pub fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "::1") || host.starts_with("127.")
}

/// Parses one address. `default_port` is for a text without a colon; with `None` the port has to be there.
pub fn parse_host_port(text: &str, default_port: Option<u16>) -> Result<HostPort, PgConfError> {
    let listen = parse_listen(text, default_port)?;
    match <[String; 1]>::try_from(listen.hosts) {
        Ok([host]) => Ok(HostPort {
            host,
            port: listen.port,
        }),
        Err(_) => Err(wrong(text, "there is more than one host")),
    }
}

/// Parses `HOST[,HOST...]:PORT`.
pub fn parse_listen(text: &str, default_port: Option<u16>) -> Result<Listen, PgConfError> {
    let text = text.trim();
    let (hosts, port) = match text.rsplit_once(':') {
        Some((_, port)) if port.contains(']') => {
            (text, default_port.ok_or_else(|| wrong(text, "the port is missing"))?)
        }
        Some((hosts, port)) => (
            hosts,
            parse_port(port).ok_or_else(|| wrong(text, "the port is not between 1 and 65535"))?,
        ),
        None => (text, default_port.ok_or_else(|| wrong(text, "the port is missing"))?),
    };
    let hosts: Vec<String> = hosts
        .split(',')
        .map(|host| host.trim().trim_matches(['[', ']']).to_string())
        .collect();
    for host in &hosts {
        if host.is_empty() {
            return Err(wrong(text, "the host is empty"));
        }
        if !host
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '*' | '%'))
        {
            return Err(wrong(text, "the host has a character that no name or address has"));
        }
    }
    Ok(Listen { hosts, port })
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.trim();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port > 0)
}

fn wrong(found: &str, reason: &'static str) -> PgConfError {
    PgConfError::Address {
        found: quoted(found),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_the_last_colon() {
        for (text, default, expected) in [
            ("10.0.0.1:5432", None, Some(("10.0.0.1", 5432))),
            ("[fe80::1]:5432", None, Some(("fe80::1", 5432))),
            ("fe80::1:5432", None, Some(("fe80::1", 5432))),
            ("db-1.example.org", Some(5433), Some(("db-1.example.org", 5433))),
            ("[::1]", Some(5433), Some(("::1", 5433))),
            (" *:8008 ", None, Some(("*", 8008))),
            ("db", None, None),
            ("db:", None, None),
            ("db:0", None, None),
            ("db:65536", None, None),
            ("db:+5", None, None),
            ("db:5432/x", None, None),
            (":5432", None, None),
            ("", Some(1), None),
            ("a b:1", None, None),
            ("a,b:1", None, None),
        ] {
            let found = parse_host_port(text, default).ok();
            assert_eq!(
                found,
                expected.map(|(h, p)| HostPort {
                    host: h.into(),
                    port: p
                }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn an_address_prints_as_it_is_parsed() {
        for text in ["[fe80::1]:5432", "10.0.0.1:1"] {
            assert_eq!(parse_host_port(text, None).map(|a| a.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn a_listener_may_have_several_hosts() {
        let listen = parse_listen("*, [::1],10.0.0.1:5432", None).expect("is valid");
        assert_eq!(listen.listen_addresses(), "*,::1,10.0.0.1");
        assert_eq!(listen.local_host(), "::1");
        assert_eq!(
            parse_listen("0.0.0.0:1", None).expect("is valid").local_host(),
            "127.0.0.1"
        );
        assert_eq!(parse_listen("[::]:1", None).expect("is valid").local_host(), "::1");
    }
}
