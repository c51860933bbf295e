//! A cluster as read from etcd, and the choice of members in it.

use pgha_core::cluster::ClusterView;
use pgha_core::commit::Key;
use pgha_core::units::{MemberName, Revision};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::keys::full_key;
use pgha_wire::kv::{Compare, Snapshot};
use pgha_wire::rest::cluster::{ClusterTable, cluster_table};

use crate::args::RoleFilter;
use crate::error::CtlError;

/// One scope at one revision.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    /// Its name.
    pub scope: String,
    /// Where its keys lie.
    pub base: String,
    /// What they say.
    pub view: ClusterView,
    snapshot: Snapshot,
}

impl Cluster {
    /// Reads a snapshot of the prefix of `base`.
    pub fn new(scope: &str, base: String, snapshot: Snapshot) -> Cluster {
        Cluster {
            scope: scope.to_owned(),
            view: parse_cluster(&base, &snapshot),
            base,
            snapshot,
        }
    }

    /// The members as a table.
    pub fn table(&self) -> ClusterTable {
        cluster_table(&self.scope, &self.view)
    }

    /// A condition that holds while nobody has written, created or deleted the key since the snapshot.
    pub fn unchanged(&self, key: &Key) -> Compare {
        let name = full_key(&self.base, key);
        let revision = self
            .snapshot
            .keys
            .iter()
            .find(|kv| kv.key == name)
            .map_or(Revision(0), |kv| kv.mod_revision);
        Compare::ModRevision(name, revision)
    }

    /// Is the key there, readable or not?
    pub fn has(&self, key: &Key) -> bool {
        let name = full_key(&self.base, key);
        self.snapshot.keys.iter().any(|kv| kv.key == name)
    }

    /// Why a key that is there cannot be read.
    pub fn unreadable(&self, key: &Key) -> Option<&str> {
        let name = full_key(&self.base, key);
        self.view
            .unreadable
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, reason)| reason.as_str())
    }

    /// Where the member's REST API is.
    pub fn api_url(&self, name: &MemberName) -> Option<&str> {
        self.view.members.get(name)?.api_url.as_deref()
    }

    /// Members of a role, by name; `names` picks among them, none picks all.
    ///
    /// # Errors
    /// [`CtlError::Refused`] when there are no members, a name is unknown, or nobody named has the role.
    pub fn select(&self, role: RoleFilter, names: &[String]) -> Result<Vec<MemberName>, CtlError> {
        if self.view.members.is_empty() {
            return Err(CtlError::refused(format!(
                "{} cluster doesn't have any members",
                self.scope
            )));
        }
        if let Some(stranger) = names
            .iter()
            .find(|n| !self.view.members.contains_key(&MemberName::new(n.as_str())))
        {
            return Err(CtlError::refused(format!(
                "{stranger} is not a member of cluster {}",
                self.scope
            )));
        }
        let named = |name: &&MemberName| names.is_empty() || names.iter().any(|n| n == name.as_str());
        let chosen: Vec<MemberName> = self
            .view
            .members
            .keys()
            .filter(|name| self.has_role(name, role))
            .filter(named)
            .cloned()
            .collect();
        if chosen.is_empty() {
            let text = if names.is_empty() {
                format!("cluster {} has no member with role {}", self.scope, role.word())
            } else {
                format!("No {} among provided members", role.word())
            };
            return Err(CtlError::Refused(text));
        }
        Ok(chosen)
    }

    fn has_role(&self, name: &MemberName, role: RoleFilter) -> bool {
        let is_leader = self.view.leader_name() == Some(name);
        let is_standby_cluster = self.view.settings().standby_cluster.is_some();
        match role {
            RoleFilter::Leader => is_leader,
            RoleFilter::Primary => is_leader && !is_standby_cluster,
            RoleFilter::StandbyLeader => is_leader && is_standby_cluster,
            RoleFilter::Replica | RoleFilter::Standby => !is_leader,
            RoleFilter::Any => true,
        }
    }
}

/// Names as a person reads them: `a, b`.
pub fn joined(names: &[MemberName]) -> String {
    names.iter().map(MemberName::as_str).collect::<Vec<&str>>().join(", ")
}
