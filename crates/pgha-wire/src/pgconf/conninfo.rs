//! libpq connection strings: rendering with Patroni's order of keywords, parsing, and lines of a password file.
//!
//! Invariants: a rendered value reads back as itself, whatever characters it has; the role's password is never in a
//! connection string, it travels by passfile. (`sslpassword` is, as libpq has no other place for it.)

use super::PgConfError;
use super::credentials::{Credentials, Secret};
use crate::url::{host_and_port, percent_decode};

/// What a standby, pg_basebackup or pg_rewind needs to know to connect to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConninfoInput<'a> {
    /// Host, or several joined by commas.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database; a replication connection names it for PostgreSQL 17's slot synchronisation.
    pub dbname: &'a str,
    /// Role and security options.
    pub credentials: &'a Credentials,
    /// Password file, when the role has a password.
    pub passfile: Option<&'a str>,
    /// The member's name; synchronous replication goes by it.
    pub application_name: Option<&'a str>,
    /// Kerberos service name.
    pub krbsrvname: Option<&'a str>,
    /// `target_session_attrs`, for instance `read-write` for pg_rewind.
    pub target_session_attrs: Option<&'a str>,
    /// Major version of the server program that will read the string.
    pub major_version: u32,
}

/// A connection string for `primary_conninfo` and the `--dbname` and `--source-server` of programs.
pub fn render_conninfo(input: &ConninfoInput<'_>) -> String {
    let c = input.credentials;
    let port = input.port.to_string();
    let from = |major: u32, value: Option<&'_ str>| value.filter(|_| input.major_version >= major).map(str::to_string);
    let pairs: [(&str, Option<String>); 18] = [
        ("dbname", Some(input.dbname.to_string())),
        ("user", c.username.clone()),
        ("passfile", input.passfile.map(str::to_string)),
        ("host", Some(input.host.to_string())),
        ("port", Some(port)),
        (
            "sslmode",
            Some(c.sslmode.clone().unwrap_or_else(|| "prefer".to_string())),
        ),
        ("sslcert", c.sslcert.clone()),
        ("sslkey", c.sslkey.clone()),
        ("sslpassword", c.sslpassword.as_ref().map(|s| s.expose().to_string())),
        ("sslrootcert", c.sslrootcert.clone()),
        ("sslcrl", c.sslcrl.clone()),
        ("sslcrldir", from(14, c.sslcrldir.as_deref())),
        ("application_name", input.application_name.map(str::to_string)),
        ("krbsrvname", input.krbsrvname.map(str::to_string)),
        (
            "gssencmode",
            Some(c.gssencmode.clone().unwrap_or_else(|| "prefer".to_string())),
        ),
        (
            "channel_binding",
            Some(c.channel_binding.clone().unwrap_or_else(|| "prefer".to_string())),
        ),
        ("target_session_attrs", input.target_session_attrs.map(str::to_string)),
        (
            "sslnegotiation",
            from(17, Some(c.sslnegotiation.as_deref().unwrap_or("postgres"))),
        ),
    ];
    let set = pairs
        .iter()
        .filter_map(|(key, value)| value.as_deref().map(|value| (*key, value)));
    render_pairs(set)
}

/// `key=value` pairs joined by blanks, each value escaped so that libpq reads it back unchanged.
pub fn render_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(key);
        out.push('=');
        if value.is_empty() {
            // libpq skips blanks behind `=`, so nothing at all would swallow the next pair.
            out.push_str("''");
        }
        for c in value.chars() {
            if matches!(c, '\'' | '\\') || c.is_ascii_whitespace() || c == '\x0B' {
                out.push('\\');
            }
            out.push(c);
        }
    }
    out
}

/// Where a `conn_url` of a member key points to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnUrl {
    /// Host, an IPv6 address without brackets.
    pub host: String,
    /// Port, 5432 when the URL has none.
    pub port: u16,
    /// Database, when the URL has one.
    pub dbname: Option<String>,
}

/// Reads `postgres://[USER[:PASSWORD]@]HOST[:PORT][/DBNAME][?...]`; user, password and options are left out. `None` when
/// it is no such URL.
pub fn parse_conn_url(url: &str) -> Option<ConnUrl> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    let (host, port) = host_and_port(url)?;
    let path = rest
        .split(['?', '#'])
        .next()
        .and_then(|rest| rest.split_once('/'))
        .map(|(_, path)| percent_decode(path));
    Some(ConnUrl {
        host,
        port,
        dbname: path.filter(|dbname| !dbname.is_empty()),
    })
}

/// The pairs of a libpq `key=value` string, in order.
pub fn parse_conninfo(text: &str) -> Result<Vec<(String, String)>, PgConfError> {
    let chars: Vec<char> = text.chars().collect();
    let is_space = |at: usize| chars.get(at).is_some_and(|c| c.is_ascii_whitespace() || *c == '\x0B');
    let skip_spaces = |mut at: usize| {
        while is_space(at) {
            at += 1;
        }
        at
    };
    let wrong = |reason, at: usize| PgConfError::Conninfo { reason, at: at + 1 };
    let mut pairs = Vec::new();
    let mut at = skip_spaces(0);
    while at < chars.len() {
        let start = at;
        while at < chars.len() && chars[at] != '=' && !is_space(at) {
            at += 1;
        }
        let key: String = chars[start..at].iter().collect();
        at = skip_spaces(at);
        if chars.get(at) != Some(&'=') {
            return Err(wrong("`=` is missing behind a keyword", at));
        }
        if key.is_empty() {
            return Err(wrong("a keyword is missing before `=`", start));
        }
        at = skip_spaces(at + 1);
        let value_start = at;
        let quoted = chars.get(at) == Some(&'\'');
        at += usize::from(quoted);
        let mut value = String::new();
        let mut closed = !quoted;
        while at < chars.len() {
            match chars[at] {
                '\'' if quoted => {
                    closed = true;
                    at += 1;
                    break;
                }
                '\\' => {
                    at += 1;
                    value.extend(chars.get(at));
                    at += 1;
                }
                _ if !quoted && is_space(at) => break,
                c => {
                    value.push(c);
                    at += 1;
                }
            }
        }
        if !closed {
            return Err(wrong("the quote is not closed", value_start));
        }
        pairs.push((key, value));
        at = skip_spaces(at);
    }
    Ok(pairs)
}

/// Lines of a password file, one for each host of a comma list. A socket directory gets a `localhost` line as well,
/// since that is what libpq looks for.
pub fn pgpass_lines(host: &str, port: Option<u16>, user: &str, password: &Secret) -> Result<String, PgConfError> {
    let escape = |what: &'static str, text: &str| {
        if text.contains(['\n', '\r']) {
            return Err(PgConfError::PasswordFile { what });
        }
        Ok(text.replace('\\', "\\\\").replace(':', "\\:"))
    };
    let mut hosts: Vec<&str> = host.split(',').map(str::trim).filter(|h| !h.is_empty()).collect();
    if hosts.is_empty() {
        hosts.push("*");
    }
    if hosts.iter().any(|h| h.starts_with('/')) && !hosts.contains(&"localhost") {
        hosts.push("localhost");
    }
    let port = port.map_or_else(|| "*".to_string(), |port| port.to_string());
    let user = if user.is_empty() {
        "*".to_string()
    } else {
        escape("the user name", user)?
    };
    let password = escape("the password", password.expose())?;
    let mut out = String::new();
    for host in hosts {
        out.push_str(&format!("{}:{port}:*:{user}:{password}\n", escape("the host", host)?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(credentials: &Credentials, major_version: u32) -> ConninfoInput<'_> {
        ConninfoInput {
            host: "10.0.0.1",
            port: 5432,
            dbname: "postgres",
            credentials,
            passfile: Some("/run/my pgpass"),
            application_name: Some("node'1"),
            krbsrvname: None,
            target_session_attrs: None,
            major_version,
        }
    }

    #[test]
    fn a_connection_string_has_patronis_order_and_defaults_and_no_password() {
        let credentials = Credentials {
            username: Some("replicator".into()),
            password: Some(Secret::new("hunter2")),
            sslcrldir: Some("/crl".into()),
            ..Credentials::default()
        };
        assert_eq!(
            render_conninfo(&input(&credentials, 13)),
            r"dbname=postgres user=replicator passfile=/run/my\ pgpass host=10.0.0.1 port=5432 sslmode=prefer application_name=node\'1 gssencmode=prefer channel_binding=prefer"
        );
        assert_eq!(
            render_conninfo(&ConninfoInput {
                target_session_attrs: Some("read-write"),
                ..input(&credentials, 17)
            }),
            r"dbname=postgres user=replicator passfile=/run/my\ pgpass host=10.0.0.1 port=5432 sslmode=prefer sslcrldir=/crl application_name=node\'1 gssencmode=prefer channel_binding=prefer target_session_attrs=read-write sslnegotiation=postgres"
        );
    }

    #[test]
    fn a_url_gives_host_port_and_database() {
        let url = |text: &str| parse_conn_url(text).map(|u| (u.host, u.port, u.dbname.unwrap_or_default()));
        let expected = |host: &str, port, dbname: &str| Some((host.to_string(), port, dbname.to_string()));
        assert_eq!(
            url("postgres://10.0.0.1:5433/my%20db?x=/y"),
            expected("10.0.0.1", 5433, "my db")
        );
        assert_eq!(url("postgresql://u:p@[::1]"), expected("::1", 5432, ""));
        assert_eq!(url("http://h:1/x"), None);
        assert_eq!(url("postgres://:1/x"), None);
    }

    #[test]
    fn connection_strings_of_people_are_understood() {
        let pairs =
            parse_conninfo(r" host = '10.0.0.1 ' port=5433 passfile='/x\'y' user=a\ b empty='' ").expect("is valid");
        let expected = [
            ("host", "10.0.0.1 "),
            ("port", "5433"),
            ("passfile", "/x'y"),
            ("user", "a b"),
            ("empty", ""),
        ];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_string(), v.to_string())));
        for broken in ["host", "host 5", "=x", "a='x", "a=1 b"] {
            assert!(parse_conninfo(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn password_files_get_a_line_per_host_with_escapes() {
        let line = |host: &str| pgpass_lines(host, Some(5432), "re:pl", &Secret::new(r"a:b\c"));
        assert_eq!(
            line("10.0.0.1, [::1]"),
            Ok("10.0.0.1:5432:*:re\\:pl:a\\:b\\\\c\n[\\:\\:1]:5432:*:re\\:pl:a\\:b\\\\c\n".into())
        );
        assert!(line("/run/postgresql").expect("is valid").contains("localhost:5432"));
        assert!(pgpass_lines("h", None, "u", &Secret::new("a\nh:*:*:u:x")).is_err());
    }

    proptest! {
        #[test]
        fn rendered_pairs_read_back_unchanged(pairs in prop::collection::vec(("[a-z_]{1,10}", any::<String>()), 0..5)) {
            let pairs: Vec<(String, String)> = pairs;
            let text = render_pairs(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            prop_assert_eq!(parse_conninfo(&text), Ok(pairs));
        }

        #[test]
        fn any_text_is_refused_or_understood(text in "[a-c= '\\\\\t]{0,20}") {
            if let Ok(pairs) = parse_conninfo(&text) {
                let again = render_pairs(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
                prop_assert_eq!(parse_conninfo(&again), Ok(pairs), "{}", text);
            }
        }
    }
}
