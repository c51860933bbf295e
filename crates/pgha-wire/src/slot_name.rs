//! Names of replication slots; how a member name becomes one is core's [`slot_name`].

pub use pgha_core::slots::slot_name;

use crate::limits::MAX_SLOT_NAME_CHARS;

/// Is this a name PostgreSQL accepts for a slot, and Patroni for a permanent one?
pub fn is_valid_slot_name(name: &str) -> bool {
    (1..=MAX_SLOT_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use pgha_core::units::MemberName;

    use super::*;

    #[test]
    fn member_names_are_translated_as_patroni_does() {
        for (member, slot) in [
            ("Postgresql-0.db", "postgresql_0_db"),
            ("a b", "au0032b"),
            ("nöde", "nu0246de"),
            ("x😀", "xu128512"),
            (&"a".repeat(64), &"a".repeat(63)),
        ] {
            assert_eq!(slot_name(&MemberName::new(member)), slot);
            assert!(is_valid_slot_name(slot));
        }
    }

    #[test]
    fn only_names_postgresql_takes_are_valid() {
        for bad in ["", "Node", "a-b", "ü", &"a".repeat(64)] {
            assert!(!is_valid_slot_name(bad), "{bad}");
        }
    }
}
