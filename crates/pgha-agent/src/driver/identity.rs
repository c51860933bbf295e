//! Who this node is to others.

use pgha_core::tags::Tags;
use pgha_core::units::MemberName;
use pgha_wire::config::LocalConfig;

/// The unchanging part of the member key.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    /// Member name.
    pub name: MemberName,
    /// What standbys connect to.
    pub conn_url: String,
    /// Where the status is served.
    pub api_url: String,
    /// A pooler in front of PostgreSQL.
    pub proxy_url: Option<String>,
    /// Tags.
    pub tags: Tags,
}

impl Identity {
    /// From the configuration; `database` is what the URLs name.
    pub fn new(config: &LocalConfig, database: &str) -> Identity {
        let scheme = if config.restapi.certfile.is_some() {
            "https"
        } else {
            "http"
        };
        let pg = &config.postgresql;
        Identity {
            name: config.name.clone(),
            conn_url: format!("postgres://{}/{database}", pg.connect_address),
            api_url: format!("{scheme}://{}/patroni", config.restapi.connect_address),
            proxy_url: pg.proxy_address.as_ref().map(|p| format!("postgres://{p}/{database}")),
            tags: config.tags.clone(),
        }
    }
}
