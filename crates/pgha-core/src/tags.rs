//! Tags of a member, as Patroni evaluates them.
//!
//! A new tag: one field here, its spelling in `pgha-wire`, a rule that uses it, a scenario.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::units::MemberName;

/// Effective tags. The default is a member without any tag.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tags {
    /// Never promote this node. Wins over `failover_priority`.
    pub nofailover: bool,
    /// Among equally fresh candidates the higher one wins; 0 or less means nofailover.
    pub failover_priority: Option<i64>,
    /// Preferred source of base backups.
    pub clonefrom: bool,
    /// `/replica` answers 503.
    pub noloadbalance: bool,
    /// Stream from this member instead of the leader.
    pub replicatefrom: Option<MemberName>,
    /// Never a synchronous standby.
    pub nosync: bool,
    /// Preference among synchronous standbys.
    pub sync_priority: Option<i64>,
    /// No streaming: archive recovery only.
    pub nostream: bool,
    /// All configured tags as `name -> JSON text`, for publication and the `tag_` filter of the REST API.
    pub published: BTreeMap<String, String>,
}

impl Tags {
    /// May this member be promoted without an operator?
    pub fn may_lead(&self) -> bool {
        self.effective_failover_priority() > 0
    }
    /// Patroni's effective priority: 0 when nofailover, else `failover_priority`, else 1.
    pub fn effective_failover_priority(&self) -> i64 {
        if self.nofailover {
            0
        } else {
            self.failover_priority.unwrap_or(1).max(0)
        }
    }
    /// May this member be a synchronous standby?
    pub fn may_sync(&self) -> bool {
        !self.nosync && self.sync_priority.unwrap_or(1) > 0 && !self.nostream
    }
}
