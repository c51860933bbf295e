//! The sections `restapi` and `ctl`: the agent's REST server, and how clients reach those of other members.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::finding::Severity;
use super::section::Section;
use crate::pgconf::address::{HostPort, is_any, is_loopback, parse_host_port};
use crate::pgconf::credentials::Secret;

/// What `HOST:PORT` keys allow.
pub(super) const HOST_PORT: &str = "\"HOST:PORT\"";

/// User and password of HTTP basic authentication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BasicAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// `restapi.verify_client`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VerifyClient {
    /// No client certificates.
    #[default]
    None,
    /// Needed for endpoints that change something.
    Optional,
    /// Needed for every connection.
    Required,
}

/// `restapi.server_tokens`: what the `Server` header tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServerTokens {
    /// Everything.
    #[default]
    Original,
    /// Product and version.
    Minimal,
    /// Product.
    ProductOnly,
}

/// The section `restapi`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestApi {
    /// Where to listen; the host may be `*` or an any-address.
    pub listen: HostPort,
    /// How others reach this node.
    pub connect_address: HostPort,
    /// Needed for endpoints that change something.
    pub authentication: Option<BasicAuth>,
    /// Addresses, networks and host names that may use endpoints that change something; empty = all.
    pub allowlist: Vec<String>,
    /// Members of the cluster are on the list, too.
    pub allowlist_include_members: bool,
    /// Headers for every answer.
    pub http_extra_headers: BTreeMap<String, String>,
    /// Headers for answers over TLS, over those above.
    pub https_extra_headers: BTreeMap<String, String>,
    /// Client certificates.
    pub verify_client: VerifyClient,
    /// Server certificate; its presence turns TLS on.
    pub certfile: Option<PathBuf>,
    /// Its key, when not in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Password of the key.
    pub keyfile_password: Option<Secret>,
    /// Authorities of client certificates.
    pub cafile: Option<PathBuf>,
    /// Allowed ciphers.
    pub ciphers: Option<String>,
    /// Length of the queue of connections that nobody has accepted yet.
    pub request_queue_size: u32,
    /// What the `Server` header tells.
    pub server_tokens: ServerTokens,
}

/// The section `ctl`: for requests to other members.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ctl {
    /// User and password; those of `restapi` when absent.
    pub authentication: Option<BasicAuth>,
    /// Do not check the server's certificate.
    pub insecure: bool,
    /// Authorities of server certificates.
    pub cacert: Option<PathBuf>,
    /// Client certificate.
    pub certfile: Option<PathBuf>,
    /// Its key.
    pub keyfile: Option<PathBuf>,
    /// Password of the key.
    pub keyfile_password: Option<Secret>,
}

/// Patroni's default for `request_queue_size`.
const DEFAULT_REQUEST_QUEUE_SIZE: u32 = 5;
/// And its largest value.
const MAX_REQUEST_QUEUE_SIZE: i64 = 4096;

/// Reads `restapi`; `None` when something that has no default is missing or wrong.
pub(super) fn read_restapi(mut section: Section<'_>) -> Option<RestApi> {
    let restapi = read_restapi_keys(&mut section);
    section.accept(&["thread_pool_size"]);
    section.finish();
    restapi
}

fn read_restapi_keys(section: &mut Section<'_>) -> Option<RestApi> {
    const VERIFY: [(&str, VerifyClient); 3] = [
        ("none", VerifyClient::None),
        ("optional", VerifyClient::Optional),
        ("required", VerifyClient::Required),
    ];
    const TOKENS: [(&str, ServerTokens); 3] = [
        ("original", ServerTokens::Original),
        ("minimal", ServerTokens::Minimal),
        ("productonly", ServerTokens::ProductOnly),
    ];
    let listen = section.parsed("listen", HOST_PORT, |text| parse_host_port(text, None));
    let listen = section.required("listen", HOST_PORT, listen);
    let connect_address = read_connect_address(section, "connect_address", listen.clone(), None);
    let verify_client = section.word("verify_client", &VERIFY).unwrap_or_default();
    let cafile = section.file("cafile");
    if verify_client != VerifyClient::None && cafile.is_none() {
        section.note(
            Severity::Error,
            "verify_client",
            "needs `cafile`, or no client certificate could be checked",
        );
    }
    // What may be missing comes last, so that the rest has been read and checked by then.
    Some(RestApi {
        authentication: read_auth(section.secret_section("authentication")),
        allowlist: section.strings("allowlist").unwrap_or_default(),
        allowlist_include_members: section.flag("allowlist_include_members").unwrap_or(false),
        http_extra_headers: section.text_map("http_extra_headers").unwrap_or_default(),
        https_extra_headers: section.text_map("https_extra_headers").unwrap_or_default(),
        verify_client,
        certfile: section.file("certfile"),
        keyfile: section.file("keyfile"),
        keyfile_password: section.secret("keyfile_password"),
        cafile,
        ciphers: section.text("ciphers"),
        request_queue_size: section
            .int("request_queue_size", 0..=MAX_REQUEST_QUEUE_SIZE, None)
            .and_then(|size| u32::try_from(size).ok())
            .unwrap_or(DEFAULT_REQUEST_QUEUE_SIZE),
        server_tokens: section.word("server_tokens", &TOKENS).unwrap_or_default(),
        listen: listen?,
        connect_address: connect_address?,
    })
}

/// Reads `ctl`.
pub(super) fn read_ctl(mut section: Section<'_>) -> Ctl {
    let ctl = Ctl {
        authentication: read_auth(section.secret_section("authentication")),
        insecure: section.flag("insecure").unwrap_or(false),
        cacert: section.file("cacert"),
        certfile: section.file("certfile"),
        keyfile: section.file("keyfile"),
        keyfile_password: section.secret("keyfile_password"),
    };
    section.finish();
    ctl
}

fn read_auth(mut section: Section<'_>) -> Option<BasicAuth> {
    if section.is_empty() {
        return None;
    }
    let username = section.loose_text("username", false);
    let username = section.required("username", "a user name", username);
    let password = section.secret("password");
    let password = section.required("password", "a password", password);
    section.finish();
    username
        .zip(password)
        .map(|(username, password)| BasicAuth { username, password })
}

/// An address under which others reach this node: the key itself, else the address it listens on. It must be concrete;
/// a loopback address gets a warning, since it works as long as all members share one machine.
pub(super) fn read_connect_address(
    section: &mut Section<'_>,
    key: &'static str,
    listen: Option<HostPort>,
    default_port: Option<u16>,
) -> Option<HostPort> {
    let written = section.parsed(key, HOST_PORT, |text| parse_host_port(text, default_port));
    let Some(address) = written else {
        // A wrong one has been reported; the address to listen on would only hide that.
        let fallback = if section.node(key).is_none() {
            listen
        } else {
            return None;
        };
        if fallback.as_ref().is_some_and(|address| is_any(&address.host)) {
            section.missing(
                key,
                "the \"HOST:PORT\" under which others reach this node, since `listen` names no single address",
            );
            return None;
        }
        return fallback;
    };
    if is_any(&address.host) {
        section.wrong_key(
            key,
            "the \"HOST:PORT\" under which others reach this node; not 0.0.0.0, * or ::",
        );
        return None;
    }
    if is_loopback(&address.host) {
        section.note(
            Severity::Warning,
            key,
            "is a loopback address, which works only while all members run on this machine",
        );
    }
    Some(address)
}
