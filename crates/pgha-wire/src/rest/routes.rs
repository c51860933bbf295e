//! Which request is meant: the method and the first segment of the path choose, as in Patroni.
//!
//! A new endpoint: a row in [`ROUTES`], a pure answer, a golden file. `/sigterm` (for tests on Windows), `/citus` and
//! `/mpp` are absent on purpose.

use super::query::Target;
use super::reply::Reply;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A health check on the whole path; see [`super::health::health`].
    Health,
    /// The status of the node.
    Patroni,
    /// The table of the cluster.
    Cluster,
    /// The history key.
    History,
    /// The dynamic configuration.
    Config,
    /// The failsafe key.
    Failsafe,
    /// Prometheus.
    Metrics,
    /// Is the agent alive?
    Liveness,
    /// May this node get traffic?
    Readiness,
    /// Merge into the dynamic configuration.
    PatchConfig,
    /// Replace the dynamic configuration.
    PutConfig,
    /// Read the configuration file again.
    Reload,
    /// The leader asks for leave to go on without etcd.
    AskFailsafe,
    /// Restart PostgreSQL, now or later.
    Restart,
    /// Cancel a planned restart.
    CancelRestart,
    /// Make a new copy of the data directory.
    Reinitialize,
    /// Planned change of the leader.
    Switchover,
    /// Cancel a planned switchover.
    CancelSwitchover,
    /// Change of the leader, with or without one.
    Failover,
}

/// Who may do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Anybody.
    Open,
    /// Checked by allowlist (members included if so set), client certificate and password.
    Checked,
    /// Checked, and being a member alone does not open the allowlist.
    CheckedWithoutMembers,
}

/// A row of the routing table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// HTTP method.
    pub method: &'static str,
    /// First segment of the path.
    pub segment: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Who may do it.
    pub access: Access,
}

const fn open(method: &'static str, segment: &'static str, kind: Kind) -> Route {
    Route {
        method,
        segment,
        kind,
        access: Access::Open,
    }
}

const fn checked(method: &'static str, segment: &'static str, kind: Kind) -> Route {
    Route {
        method,
        segment,
        kind,
        access: Access::Checked,
    }
}

/// All endpoints besides the health checks.
pub const ROUTES: &[Route] = &[
    open("GET", "patroni", Kind::Patroni),
    open("GET", "cluster", Kind::Cluster),
    open("GET", "history", Kind::History),
    open("GET", "config", Kind::Config),
    open("GET", "failsafe", Kind::Failsafe),
    open("GET", "metrics", Kind::Metrics),
    open("GET", "liveness", Kind::Liveness),
    open("GET", "readiness", Kind::Readiness),
    checked("PATCH", "config", Kind::PatchConfig),
    checked("PUT", "config", Kind::PutConfig),
    checked("POST", "reload", Kind::Reload),
    Route {
        method: "POST",
        segment: "failsafe",
        kind: Kind::AskFailsafe,
        access: Access::CheckedWithoutMembers,
    },
    checked("POST", "restart", Kind::Restart),
    checked("DELETE", "restart", Kind::CancelRestart),
    checked("POST", "reinitialize", Kind::Reinitialize),
    checked("POST", "switchover", Kind::Switchover),
    checked("DELETE", "switchover", Kind::CancelSwitchover),
    checked("POST", "failover", Kind::Failover),
];

/// What to do with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Routed {
    /// It has a meaning.
    To(Kind, Access),
    /// It has none: this is the answer.
    Unsupported(Reply),
}

/// Routes by method and first segment; GET, HEAD and OPTIONS on anything else are health checks.
pub fn route(method: &str, path_and_query: &str) -> Routed {
    let segment = Target::parse(path_and_query).first_segment();
    match ROUTES.iter().find(|r| r.method == method && r.segment == segment) {
        Some(route) => Routed::To(route.kind, route.access),
        None if matches!(method, "GET" | "HEAD" | "OPTIONS") => Routed::To(Kind::Health, Access::Open),
        None => Routed::Unsupported(Reply::unsupported_method(method)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_first_segment_choose() {
        for (method, path, kind) in [
            ("GET", "/", Kind::Health),
            ("GET", "/patroni", Kind::Patroni),
            ("GET", "//config/any/thing?x=y", Kind::Config),
            ("GET", "/liveness", Kind::Liveness),
            ("HEAD", "/liveness", Kind::Health),
            ("OPTIONS", "/metrics", Kind::Health),
            ("HEAD", "/primary", Kind::Health),
            ("PATCH", "/config", Kind::PatchConfig),
            ("PUT", "/config", Kind::PutConfig),
            ("DELETE", "/switchover", Kind::CancelSwitchover),
            ("GET", "/switchover", Kind::Health),
            ("GET", "", Kind::Health),
        ] {
            assert!(
                matches!(route(method, path), Routed::To(k, _) if k == kind),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn whatever_changes_something_is_checked() {
        for route in ROUTES {
            assert_eq!(route.access == Access::Open, route.method == "GET", "{route:?}");
        }
    }

    #[test]
    fn other_methods_are_not_supported() {
        for (method, path) in [
            ("POST", "/"),
            ("POST", "/primary"),
            ("PUT", "/restart"),
            ("DELETE", "/config"),
            ("BREW", "/"),
            ("get", "/"),
        ] {
            assert_eq!(
                route(method, path),
                Routed::Unsupported(Reply::unsupported_method(method))
            );
        }
    }
}
