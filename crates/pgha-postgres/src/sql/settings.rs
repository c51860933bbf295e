//! Reads settings from `pg_settings`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Error;
use crate::instance::Instance;
use crate::sql::{Purpose, Session};

/// One row of `pg_settings`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Value in the setting's base unit.
    pub setting: String,
    /// Base unit, e.g. `8kB`, `ms`.
    pub unit: Option<String>,
    /// `bool`, `enum`, `integer`, `real`, `string`.
    pub vartype: String,
    /// `postmaster`, `sighup`, `user`, ...
    pub context: String,
    /// Where the value came from, e.g. `command line`, `configuration file`.
    pub source: String,
    /// The value that stands when nothing sets it.
    pub boot_value: Option<String>,
    /// A changed value waits for a restart.
    pub pending_restart: bool,
}

impl Instance {
    /// All settings of the running server by name.
    ///
    /// # Errors
    /// No connection, or no answer within `limit`.
    pub async fn settings(&self, limit: Duration) -> Result<BTreeMap<String, Setting>, Error> {
        const SQL: &str = "SELECT name, setting, unit, vartype, context, source, boot_val, pending_restart \
                           FROM pg_catalog.pg_settings";
        let session = Session::open(self.spec(), Purpose::Action, limit).await?;
        let rows = session.rows("read settings", SQL, limit).await?;
        let one = |row: &tokio_postgres::SimpleQueryRow| {
            let text = |i: usize| row.try_get(i).ok().flatten().map(str::to_string);
            let setting = Setting {
                setting: text(1).unwrap_or_default(),
                unit: text(2),
                vartype: text(3).unwrap_or_default(),
                context: text(4).unwrap_or_default(),
                source: text(5).unwrap_or_default(),
                boot_value: text(6),
                pending_restart: text(7).as_deref() == Some("t"),
            };
            Some((text(0)?, setting))
        };
        Ok(rows.iter().filter_map(one).collect())
    }
}
