//! How to reach etcd. Independent of any file format: the caller converts its own settings into [`EtcdConfig`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::DcsError;

/// Port of an endpoint that names none.
const DEFAULT_PORT: u16 = 2379;
/// More endpoints than this are a mistake in the configuration, not a cluster.
const MAX_CONFIGURED_ENDPOINTS: usize = 32;

/// Everything needed to talk to one etcd cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdConfig {
    /// `host:port`, or a URL with `http://` or `https://`. A bare one is https when [`EtcdConfig::tls`] is set.
    pub endpoints: Vec<String>,
    /// User and password; `None` sends no token.
    pub credentials: Option<Credentials>,
    /// TLS files; `None` with an `https` endpoint trusts the system's certificate authorities.
    pub tls: Option<TlsFiles>,
    /// Learn further endpoints from the member list. Off behind proxies and load balancers (`use_proxies`).
    pub discover_members: bool,
    /// Bound on opening one connection, TLS included. The budget of a call may cut it shorter.
    pub connect_timeout: Duration,
    /// An HTTP/2 ping is sent this often while a request or a watch is open. Must be above etcd's
    /// `--grpc-keepalive-min-time` (5 s), or etcd closes the connection for too many pings.
    pub ping_every: Duration,
    /// A ping without an answer for this long closes the connection.
    pub ping_timeout: Duration,
    /// How long answers that regress are refused before a restored or replaced etcd is accepted. At least the ttl of
    /// the leader's lease is sensible.
    pub regression_grace: Duration,
    /// Largest answer accepted, in bytes.
    pub max_answer_bytes: usize,
}

impl EtcdConfig {
    /// The given endpoints, no authentication, no TLS, discovery on, and defaults fit for `ttl: 30`.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> EtcdConfig {
        EtcdConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            credentials: None,
            tls: None,
            discover_members: true,
            connect_timeout: Duration::from_secs(3),
            ping_every: Duration::from_secs(6),
            ping_timeout: Duration::from_secs(3),
            regression_grace: pgha_core::horizon::REGRESSION_GRACE,
            max_answer_bytes: 16 * 1024 * 1024,
        }
    }

    /// From the `etcd3` section of a configuration file.
    ///
    /// # Errors
    /// [`DcsError::Config`] when it names no endpoints, which is so with `srv` alone.
    pub fn from_section(etcd: &pgha_wire::config::Etcd) -> Result<EtcdConfig, DcsError> {
        if etcd.endpoints.is_empty() {
            return Err(DcsError::Config {
                setting: "etcd3.srv".to_owned(),
                detail: "is not supported yet; name the endpoints in etcd3.hosts".to_owned(),
            });
        }
        let mut config = EtcdConfig::new(etcd.endpoints.iter().map(ToString::to_string));
        if etcd.https || etcd.cacert.is_some() || etcd.cert.is_some() {
            config.tls = Some(TlsFiles {
                ca: etcd.cacert.clone(),
                cert: etcd.cert.clone(),
                key: etcd.key.clone(),
            });
        }
        config.discover_members = !etcd.use_proxies;
        config.credentials = etcd.username.clone().map(|username| Credentials {
            username,
            password: etcd
                .password
                .as_ref()
                .map(|p| p.expose().to_owned())
                .unwrap_or_default(),
        });
        Ok(config)
    }

    /// Endpoints as URLs `scheme://host:port`, without duplicates, in the configured order.
    ///
    /// # Errors
    /// [`DcsError::Config`] when there is none, or one cannot be used.
    pub fn urls(&self) -> Result<Vec<String>, DcsError> {
        let mut urls: Vec<String> = Vec::new();
        for endpoint in &self.endpoints {
            let url = normalize_url(endpoint, self.tls.is_some()).map_err(|detail| DcsError::Config {
                setting: "endpoints".into(),
                detail,
            })?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        let problem = match urls.len() {
            0 => Some("none is given; at least one host:port is needed".to_owned()),
            n if n > MAX_CONFIGURED_ENDPOINTS => {
                Some(format!("{n} are given; at most {MAX_CONFIGURED_ENDPOINTS} are allowed"))
            }
            _ => None,
        };
        match problem {
            Some(detail) => Err(DcsError::Config {
                setting: "endpoints".into(),
                detail,
            }),
            None => Ok(urls),
        }
    }

    /// Checks what can be checked without I/O.
    ///
    /// # Errors
    /// [`DcsError::Config`] with the setting and the remedy.
    pub fn check(&self) -> Result<(), DcsError> {
        let urls = self.urls()?;
        let fault = |setting: &str, detail: &str| {
            Err(DcsError::Config {
                setting: setting.to_owned(),
                detail: detail.to_owned(),
            })
        };
        if let Some(tls) = &self.tls {
            if tls.cert.is_some() != tls.key.is_some() {
                return fault("cert, key", "a client certificate needs both files; give both or none");
            }
            if urls.iter().any(|url| url.starts_with("http://")) {
                return fault(
                    "endpoints",
                    "an http:// endpoint stands beside TLS files; use https:// or drop the files",
                );
            }
        }
        for (setting, value) in [
            ("connect_timeout", self.connect_timeout),
            ("ping_every", self.ping_every),
            ("ping_timeout", self.ping_timeout),
        ] {
            if value.is_zero() {
                return fault(setting, "is zero; a positive time is needed");
            }
        }
        Ok(())
    }
}

/// User and password. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &"***")
            .finish()
    }
}

/// PEM files. They are read anew for every connection, so a renewed certificate needs no restart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    /// Certificate authorities; `None` trusts the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Key of the client certificate, not encrypted.
    pub key: Option<PathBuf>,
}

/// Brings an endpoint into the form `scheme://host:port`, lower case.
///
/// # Errors
/// What was found and what is allowed.
pub(crate) fn normalize_url(endpoint: &str, tls: bool) -> Result<String, String> {
    let text = endpoint.trim().to_ascii_lowercase();
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => ("http", rest),
        Some(("https", rest)) => ("https", rest),
        Some((other, _)) => return Err(format!("scheme {other:?} is not supported; use http or https")),
        None => (if tls { "https" } else { "http" }, text.as_str()),
    };
    if rest.contains('@') {
        // The text is not repeated: it holds a password.
        return Err("an endpoint carries a user name; give username and password as settings of their own".into());
    }
    let authority = rest.trim_end_matches('/');
    let fault = |why: &str| Err(format!("{endpoint:?} {why}; write host:port"));
    if authority.contains(['/', '?', '#', ' ', ',']) {
        return fault("has more than a host and a port");
    }
    let (host, port) = split_port(authority);
    if host.is_empty() || host == "[]" || (host.contains(':') && !host.starts_with('[')) {
        return fault("has no host, or an IPv6 address without brackets");
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return fault("has no valid port (1 to 65535)"),
        },
    };
    Ok(format!("{scheme}://{host}:{port}"))
}

/// Splits at the last colon that does not belong to a bracketed IPv6 address.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn endpoints_are_brought_into_one_form() {
        for (given, tls, expected) in [
            ("db1:2379", false, "http://db1:2379"),
            ("DB1", true, "https://db1:2379"),
            ("http://10.0.0.1:4001/", false, "http://10.0.0.1:4001"),
            ("https://[::1]:2379", false, "https://[::1]:2379"),
            ("[fe80::1]", false, "http://[fe80::1]:2379"),
        ] {
            assert_eq!(normalize_url(given, tls).unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn an_unusable_endpoint_is_refused_with_the_remedy() {
        for (given, part) in [
            ("", "no host"),
            (":2379", "no host"),
            ("::1", "IPv6"),
            ("db1:0", "valid port"),
            ("db1:99999", "valid port"),
            ("db1:x", "valid port"),
            ("http://db1:2379/v3", "more than a host"),
            ("db1:2379,db2:2379", "more than a host"),
            ("unix:///run/etcd", "not supported"),
            ("http://root:secret@db1", "settings of their own"),
        ] {
            let fault = normalize_url(given, false).unwrap_err();
            assert!(fault.contains(part), "{given}: {fault}");
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let mut none = EtcdConfig::new(Vec::<String>::new());
        assert!(none.check().is_err());
        none.endpoints = vec!["a".into(), "a:2379".into()];
        assert_eq!(none.urls().unwrap(), ["http://a:2379"]);
        assert!(none.check().is_ok());
        none.tls = Some(TlsFiles {
            cert: Some("c".into()),
            ..TlsFiles::default()
        });
        assert!(none.check().unwrap_err().to_string().contains("both files"));
        none.tls = Some(TlsFiles::default());
        none.endpoints = vec!["http://a".into()];
        assert!(none.check().unwrap_err().to_string().contains("https://"));
    }

    #[test]
    fn a_password_never_shows_in_debug_output() {
        let mut config = EtcdConfig::new(["a"]);
        config.credentials = Some(Credentials {
            username: "root".into(),
            password: "hunter2".into(),
        });
        let text = format!("{config:?}");
        assert!(text.contains("root") && !text.contains("hunter2"), "{text}");
    }
}
