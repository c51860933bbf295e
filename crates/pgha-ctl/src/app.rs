//! What every command works with.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Zoned;
use pgha_core::cluster::Initialize;
use pgha_core::units::MemberName;
use pgha_dcs::etcd::EtcdDcs;

use crate::args::Cli;
use crate::cluster::Cluster;
use crate::console::Console;
use crate::error::CtlError;
use crate::listing::{Style, render_listing};
use crate::rest::{Answer, Call, CallError, Rest};
use crate::settings::{Settings, read_inputs, read_settings};
use crate::store::Store;

/// The world of a command.
pub struct App {
    /// The user.
    pub console: Console,
    /// etcd.
    pub store: Store,
    rest: Rest,
    scope: Option<String>,
    clock: fn() -> Zoned,
}

impl App {
    /// Reads the configuration and prepares the clients. Connects to nothing yet.
    ///
    /// # Errors
    /// [`CtlError::Config`].
    pub fn new(
        cli: &Cli,
        env: BTreeMap<String, String>,
        console: Console,
        clock: fn() -> Zoned,
    ) -> Result<App, CtlError> {
        let inputs = read_inputs(
            cli.config_file.clone(),
            cli.dcs_url.clone().filter(|url| !url.is_empty()),
            env,
        )?;
        let Settings {
            scope,
            namespace,
            etcd,
            auth,
        } = read_settings(&inputs)?;
        let tried = etcd.urls().map_err(|e| CtlError::Config(e.to_string()))?.join(", ");
        let dcs = EtcdDcs::new(etcd).map_err(|e| CtlError::Config(e.to_string()))?;
        let store = Store::new(Arc::new(dcs), namespace, tried);
        Ok(App {
            console,
            store,
            rest: Rest::new(auth.as_ref()),
            scope,
            clock,
        })
    }

    /// The time, with the user's zone.
    pub fn now(&self) -> Zoned {
        (self.clock)()
    }

    /// The cluster that was named, or that of the configuration.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when there is neither.
    pub fn scope(&self, named: Option<&str>) -> Result<String, CtlError> {
        let scope = named
            .map(str::to_owned)
            .or_else(|| self.scope.clone())
            .filter(|s| !s.is_empty())
            .ok_or_else(|| {
                CtlError::Usage("no cluster was named; name one, or write `scope` into the configuration".to_owned())
            })?;
        if scope.contains('/') {
            return Err(CtlError::Usage(format!(
                "{scope:?} cannot be a cluster: there is a `/` in it"
            )));
        }
        Ok(scope)
    }

    /// Prints the cluster in some style.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn show(&mut self, cluster: &Cluster, style: Style) -> Result<(), CtlError> {
        for (key, reason) in &cluster.view.unreadable {
            self.console.warn(&format!("{key} cannot be read: {reason}"));
        }
        let initialize: Initialize = cluster.view.initialize;
        self.console.print(&render_listing(&cluster.table(), initialize, style))
    }

    /// Asks a member something over REST.
    ///
    /// # Errors
    /// [`CallError`], also when it has not published an address.
    pub async fn call(&self, cluster: &Cluster, member: &MemberName, call: Call<'_>) -> Result<Answer, CallError> {
        match cluster.api_url(member) {
            Some(url) => self.rest.call(url, call).await,
            None => Err(CallError::NotSent(
                "it has not published the address of its REST API".to_owned(),
            )),
        }
    }
}
