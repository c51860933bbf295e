//! Known faults of etcd versions (rule R9). pgha stays safe on all of them; an operator should still know.

/// A fault and the first release of each branch without it. `None`: the branch never had it, or is not known to.
struct Fault {
    text: &'static str,
    fixed_3_4: Option<u32>,
    fixed_3_5: Option<u32>,
    fixed_3_6: Option<u32>,
}

const FAULTS: &[Fault] = &[
    Fault {
        text: "a deposed leader may revoke live leases (etcd#15247)",
        fixed_3_4: Some(31),
        fixed_3_5: Some(13),
        fixed_3_6: None,
    },
    Fault {
        text: "a keepalive may succeed for a lease already revoked (etcd#20590)",
        fixed_3_4: Some(38),
        fixed_3_5: Some(23),
        fixed_3_6: Some(5),
    },
    Fault {
        text: "linearizable reads may be stale after a pause of the process (etcd#20418)",
        fixed_3_4: Some(42),
        fixed_3_5: Some(28),
        fixed_3_6: Some(9),
    },
    Fault {
        text: "watches may lose events (etcd#18089, etcd#17529)",
        fixed_3_4: Some(38),
        fixed_3_5: None,
        fixed_3_6: None,
    },
    Fault {
        text: "some calls are served without authentication (CVE-2026-33413)",
        fixed_3_4: Some(42),
        fixed_3_5: Some(28),
        fixed_3_6: Some(9),
    },
];

/// The remedy that every warning ends with.
const REMEDY: &str = "upgrade etcd to 3.5.28, 3.6.9 or later";

/// Major, minor, patch of `3.4.23` or `3.6.0-rc.1`.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.trim().trim_start_matches('v').splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let patch: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor, patch.parse().ok()?))
}

/// A warning about this version, or `None` when nothing is wrong with it.
pub(crate) fn warning(version: &str) -> Option<String> {
    let Some((major, minor, patch)) = parse(version) else {
        return Some(format!(
            "etcd reports the version {version:?}, which is not understood; {REMEDY}"
        ));
    };
    if (major, minor) < (3, 4) {
        return Some(format!("etcd {version} is too old to be supported; {REMEDY}"));
    }
    let faults: Vec<&str> = FAULTS
        .iter()
        .filter(|fault| {
            let fixed = match (major, minor) {
                (3, 4) => fault.fixed_3_4,
                (3, 5) => fault.fixed_3_5,
                (3, 6) => fault.fixed_3_6,
                _ => None,
            };
            fixed.is_some_and(|fixed| patch < fixed)
        })
        .map(|fault| fault.text)
        .collect();
    let end_of_life = (major, minor) == (3, 4);
    if faults.is_empty() && !end_of_life {
        return None;
    }
    let mut text = format!("etcd {version} is old");
    if end_of_life {
        text.push_str(", its branch has reached the end of its life");
    }
    if !faults.is_empty() {
        text.push_str("; known faults: ");
        text.push_str(&faults.join("; "));
    }
    Some(format!("{text}; {REMEDY}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn r9_old_versions_are_named_with_the_faults_they_have() {
        for (version, parts) in [
            ("3.4.23", &["15247", "20590", "20418", "end of its life"][..]),
            ("3.4.45", &["end of its life"]),
            ("3.5.12", &["15247", "20590", "20418"]),
            ("3.5.27", &["20418", "CVE-2026-33413"]),
            ("3.6.4", &["20590", "20418"]),
            ("3.6.0-rc.1", &["20590"]),
            ("3.3.25", &["too old"]),
            ("nonsense", &["not understood"]),
        ] {
            let text = warning(version).unwrap_or_else(|| panic!("{version} is not warned of"));
            for part in parts {
                assert!(text.contains(part), "{version}: {text}");
            }
            assert!(text.contains("3.5.28"), "{text}");
        }
    }

    #[test]
    fn versions_without_known_faults_are_not_warned_of() {
        for version in ["3.5.28", "3.5.31", "3.6.9", "3.6.14", "3.7.0", "4.0.0"] {
            assert_eq!(warning(version), None, "{version}");
        }
    }
}
