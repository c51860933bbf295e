//! Just enough of connection strings to see whether PostgreSQL follows whom it should.

use alloc::string::{String, ToString};

use crate::job::Upstream;
use crate::pg::StandbyFacts;

/// Host and port of a `conn_url` (`postgres://HOST:PORT/DB`, IPv6 hosts bracketed). The port defaults to 5432.
pub fn host_port(conn_url: &str) -> Option<(String, u16)> {
    let rest = conn_url.split_once("://")?.1;
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, tail) = v6.split_once(']')?;
            (host, tail.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return None;
    }
    let port = match port {
        Some(text) => text.parse().ok()?,
        None => 5432,
    };
    Some((host.to_string(), port))
}

/// The value of one keyword in a libpq `key=value` string, quotes and backslashes undone.
pub fn keyword(conninfo: &str, wanted: &str) -> Option<String> {
    let mut chars = conninfo.chars().peekable();
    loop {
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        chars.peek()?;
        let mut key = String::new();
        for c in chars.by_ref() {
            if c == '=' {
                break;
            }
            if !c.is_whitespace() {
                key.push(c);
            }
        }
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        let quoted = chars.peek() == Some(&'\'');
        if quoted {
            chars.next();
        }
        let mut value = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\\' => value.extend(chars.next()),
                '\'' if quoted => break,
                c if c.is_whitespace() && !quoted => break,
                c => value.push(c),
            }
        }
        if key == wanted {
            return Some(value);
        }
    }
}

/// Is this standby configured to stream from `upstream`?
pub fn follows(standby: &StandbyFacts, upstream: Option<&Upstream>) -> bool {
    let Some(upstream) = upstream else {
        return standby.primary_conninfo.trim().is_empty();
    };
    let Some((host, port)) = host_port(&upstream.conn_url) else {
        return false;
    };
    keyword(&standby.primary_conninfo, "host").as_deref() == Some(host.as_str())
        && keyword(&standby.primary_conninfo, "port").and_then(|p| p.parse().ok()) == Some(port)
        && upstream.slot.as_deref().unwrap_or("") == standby.primary_slot_name
}

#[cfg(test)]
mod tests {
    use super::{host_port, keyword};

    #[test]
    fn conn_urls_give_host_and_port() {
        assert_eq!(
            host_port("postgres://10.0.0.1:5433/postgres"),
            Some(("10.0.0.1".into(), 5433))
        );
        assert_eq!(host_port("postgres://[::1]:5432/postgres"), Some(("::1".into(), 5432)));
        assert_eq!(host_port("postgres://db/postgres"), Some(("db".into(), 5432)));
        assert_eq!(host_port("postgres://:5432/x"), None);
        assert_eq!(host_port("postgres://h:port/x"), None);
        assert_eq!(host_port("nonsense"), None);
    }

    #[test]
    fn keywords_are_found_behind_quotes_and_backslashes() {
        let text = r"user='a b' host=h\ x port = 5433 passfile='/x\'y'";
        assert_eq!(keyword(text, "user").as_deref(), Some("a b"));
        assert_eq!(keyword(text, "host").as_deref(), Some("h x"));
        assert_eq!(keyword(text, "port").as_deref(), Some("5433"));
        assert_eq!(keyword(text, "passfile").as_deref(), Some("/x'y"));
        assert_eq!(keyword(text, "dbname"), None);
        assert_eq!(keyword("garbage", "host"), None);
    }
}
