//! Where the keys of a scope lie in etcd: `/<namespace>/<scope>/<key>`.

use pgha_core::commit::Key;
use pgha_core::units::MemberName;

/// The key of the leader's position in Patroni before 2.1; read only when `/status` is missing.
pub const OPTIME_LEADER: &str = "optime/leader";

const MEMBERS: &str = "members/";

/// `/` + namespace + `/` + scope with runs of `/` collapsed: `service`, `/service` and `/service/` are the same.
pub fn base_path(namespace: &str, scope: &str) -> String {
    let mut out = String::with_capacity(namespace.len() + scope.len() + 2);
    for part in namespace.split('/').chain(scope.split('/')).filter(|p| !p.is_empty()) {
        out.push('/');
        out.push_str(part);
    }
    out
}

/// The prefix of all keys of a scope. Its `/` at the end keeps `/service/a` and `/service/ab` apart.
pub fn prefix(base: &str) -> String {
    format!("{base}/")
}

/// The full name of a key.
pub fn full_key(base: &str, key: &Key) -> String {
    match key {
        Key::Leader => format!("{base}/leader"),
        Key::Member(name) => format!("{base}/{MEMBERS}{name}"),
        Key::Initialize => format!("{base}/initialize"),
        Key::Config => format!("{base}/config"),
        Key::Failover => format!("{base}/failover"),
        Key::History => format!("{base}/history"),
        Key::Status => format!("{base}/status"),
        Key::Sync => format!("{base}/sync"),
        Key::Failsafe => format!("{base}/failsafe"),
    }
}

/// Which key of the scope a full name is; `None` for all that is nobody's business here, such as the keys of another
/// scope, of a Citus group, or anything deeper below `members/`.
pub fn parse_key(base: &str, full: &str) -> Option<Key> {
    match relative(base, full)? {
        "leader" => Some(Key::Leader),
        "initialize" => Some(Key::Initialize),
        "config" => Some(Key::Config),
        "failover" => Some(Key::Failover),
        "history" => Some(Key::History),
        "status" => Some(Key::Status),
        "sync" => Some(Key::Sync),
        "failsafe" => Some(Key::Failsafe),
        other => {
            let name = other.strip_prefix(MEMBERS)?;
            (!name.is_empty() && !name.contains('/')).then(|| Key::Member(MemberName::new(name)))
        }
    }
}

/// The part of a full name behind the prefix of the scope.
pub(crate) fn relative<'a>(base: &str, full: &'a str) -> Option<&'a str> {
    full.strip_prefix(base)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_base_path_comes_from_any_spelling_of_the_namespace() {
        for namespace in ["service", "/service", "/service/", "//service//"] {
            assert_eq!(base_path(namespace, "batman"), "/service/batman");
        }
        assert_eq!(base_path("", "batman"), "/batman");
        assert_eq!(base_path("a//b", "c"), "/a/b/c");
    }

    #[test]
    fn each_key_is_found_again_from_its_full_name() {
        let base = "/service/batman";
        let keys = [
            Key::Leader,
            Key::Member("node 1".into()),
            Key::Initialize,
            Key::Config,
            Key::Failover,
            Key::History,
            Key::Status,
            Key::Sync,
            Key::Failsafe,
        ];
        for key in keys {
            assert_eq!(parse_key(base, &full_key(base, &key)), Some(key));
        }
    }

    #[test]
    fn what_is_not_a_key_of_the_scope_is_left_alone() {
        for other in [
            "/service/batman",
            "/service/batman/",
            "/service/batman2/leader",
            "/service/batman/0/leader",
            "/service/batman/members/",
            "/service/batman/members/a/b",
            "/service/batman/leader/",
            "/service/batman/optime/leader",
            "leader",
            "",
        ] {
            assert_eq!(parse_key("/service/batman", other), None, "{other}");
        }
    }
}
