//! Tags that members of a plan have, at most one each.

use std::collections::BTreeMap;
use std::fmt;

use pgha_core::tags::Tags;

use crate::network::MAX_NODES;
use crate::rng::Rng;

/// A tag that the simulator knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SimTag {
    /// Never a synchronous standby.
    NoSync,
    /// Never promoted.
    NoFailover,
    /// Preferred, or not, as a synchronous standby.
    SyncPriority(u8),
}

/// Tags by node, counted from zero.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SimTags(BTreeMap<usize, SimTag>);

impl SimTag {
    /// Its name and its value as JSON.
    fn published(self) -> (&'static str, String) {
        match self {
            SimTag::NoSync => ("nosync", "true".into()),
            SimTag::NoFailover => ("nofailover", "true".into()),
            SimTag::SyncPriority(priority) => ("sync_priority", priority.to_string()),
        }
    }
}

impl SimTags {
    /// Now and then somebody has a tag. One node at most may not lead, and only where there are enough others.
    pub fn draw(r: &mut Rng, nodes: usize) -> SimTags {
        let mut tags = BTreeMap::new();
        if nodes > 2 && r.chance(150) {
            tags.insert(r.index(nodes), SimTag::NoFailover);
        }
        for _ in 0..2 {
            if r.chance(120) {
                let priority = u8::try_from(r.range(0, 3)).unwrap_or_default();
                let tag = if priority == 0 {
                    SimTag::NoSync
                } else {
                    SimTag::SyncPriority(priority)
                };
                tags.entry(r.index(nodes)).or_insert(tag);
            }
        }
        SimTags(tags)
    }

    /// The tags of a node as its configuration has them.
    pub fn of(&self, node: usize) -> Tags {
        let Some(tag) = self.0.get(&node) else {
            return Tags::default();
        };
        let (name, value) = tag.published();
        Tags {
            nofailover: *tag == SimTag::NoFailover,
            nosync: *tag == SimTag::NoSync,
            sync_priority: match tag {
                SimTag::SyncPriority(priority) => Some(i64::from(*priority)),
                SimTag::NoSync | SimTag::NoFailover => None,
            },
            published: [(name.to_owned(), value)].into(),
            ..Tags::default()
        }
    }

    /// `n2:nosync,n3:sync_priority=2`, or `none`.
    pub(crate) fn parse(text: &str) -> Result<SimTags, String> {
        let mut tags = BTreeMap::new();
        for item in text.split(',').filter(|_| text != "none") {
            let (node, tag) = parse_item(item).ok_or("tags look like n2:nosync,n3:nofailover,n1:sync_priority=2")?;
            tags.insert(node, tag);
        }
        Ok(SimTags(tags))
    }
}

fn parse_item(item: &str) -> Option<(usize, SimTag)> {
    let (node, tag) = item.split_once(':')?;
    let number: usize = node.strip_prefix('n')?.parse().ok()?;
    let tag = match tag {
        "nosync" => SimTag::NoSync,
        "nofailover" => SimTag::NoFailover,
        other => SimTag::SyncPriority(other.strip_prefix("sync_priority=")?.parse().ok()?),
    };
    (1..=MAX_NODES).contains(&number).then(|| (number - 1, tag))
}

impl fmt::Display for SimTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "none");
        }
        for (place, (node, tag)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}n{}:", node + 1)?;
            match tag {
                SimTag::NoSync => write!(f, "nosync")?,
                SimTag::NoFailover => write!(f, "nofailover")?,
                SimTag::SyncPriority(priority) => write!(f, "sync_priority={priority}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_the_same_after_they_were_written_and_read() {
        for text in ["none", "n2:nosync", "n1:sync_priority=3,n3:nofailover"] {
            assert_eq!(SimTags::parse(text).map(|t| t.to_string()).as_deref(), Ok(text));
        }
        for wrong in ["", "n2", "n0:nosync", "n99:nosync", "n2:sync_priority=x", "2:nosync"] {
            assert!(SimTags::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tag_says_the_same_in_the_configuration_and_in_the_member_key() {
        let tags = SimTags::parse("n1:nosync,n2:nofailover,n3:sync_priority=2").expect("this is how tags look");
        assert!(!tags.of(0).may_sync() && tags.of(0).may_lead());
        assert!(tags.of(1).may_sync() && !tags.of(1).may_lead());
        assert_eq!(tags.of(2).sync_priority, Some(2));
        assert_eq!(tags.of(3), Tags::default());
        for node in 0..3 {
            let published = pgha_wire::tags::published_tags(&tags.of(node), false);
            assert_eq!(pgha_wire::tags::parse_tags(&published), tags.of(node));
        }
    }
}
