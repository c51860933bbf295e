//! Several sources as one tree: later ones are patches over earlier ones, `null` deletes.

use crate::yaml::{Entry, Node, Value};

/// Applies the mapping `patch` to the mapping `base`. What is no mapping stays out.
pub(super) fn patch(base: &mut Vec<Entry>, patch_entries: Vec<Entry>) {
    for entry in patch_entries {
        let existing = base
            .iter()
            .position(|old| old.key.kind == entry.key.kind && old.key.text == entry.key.text);
        match existing {
            Some(i) if entry.value.is_null() => {
                base.remove(i);
            }
            None if entry.value.is_null() => {}
            Some(i) => match (&mut base[i].value, entry) {
                (
                    Node {
                        value: Value::Map(old), ..
                    },
                    Entry {
                        value: Node {
                            value: Value::Map(new), ..
                        },
                        ..
                    },
                ) => {
                    patch(old, new);
                }
                (_, entry) => base[i] = entry,
            },
            None => base.push(entry),
        }
    }
}
