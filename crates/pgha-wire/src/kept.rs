//! What a daemon keeps on disk for its next life: `pgha.cluster.json` in the data directory.
//!
//! pgha's own file; Patroni neither reads nor writes it. Whatever is wrong in it is an error, and the daemon then knows no more
//! than etcd tells it.

use std::collections::BTreeMap;

use pgha_core::known::KnownCluster;
use pgha_core::units::{MemberName, SystemId, Timeline};
use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::limits::MAX_KEPT_BYTES;

#[derive(Serialize, Deserialize)]
struct Kept {
    system_id: u64,
    leader: Option<String>,
    members: BTreeMap<String, Option<String>>,
    timeline: Option<u32>,
}

/// The text of the file; `None` while the system identifier is not known.
pub fn render_kept(known: &KnownCluster) -> Option<String> {
    let members = known.members.iter();
    let kept = Kept {
        system_id: known.system_id?.0,
        leader: known.leader.as_ref().map(|name| name.as_str().to_owned()),
        members: members
            .map(|(name, url)| (name.as_str().to_owned(), url.clone()))
            .collect(),
        timeline: known.timeline.map(|t| t.0),
    };
    serde_json::to_string_pretty(&kept).ok()
}

/// Reads the file.
///
/// # Errors
/// [`WireError::Kept`] when it is longer than [`MAX_KEPT_BYTES`] or no such JSON.
pub fn parse_kept(text: &str) -> Result<KnownCluster, WireError> {
    let wrong = |reason: String| WireError::Kept { reason };
    if text.len() > MAX_KEPT_BYTES {
        return Err(wrong(format!(
            "{} bytes are more than the allowed {MAX_KEPT_BYTES}",
            text.len()
        )));
    }
    let kept: Kept = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    Ok(KnownCluster {
        system_id: Some(SystemId(kept.system_id)),
        leader: kept.leader.map(MemberName::new),
        members: kept
            .members
            .into_iter()
            .map(|(name, url)| (MemberName::new(name), url))
            .collect(),
        timeline: kept.timeline.filter(|t| *t > 0).map(Timeline),
        ..KnownCluster::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let known = KnownCluster {
            system_id: Some(SystemId(7_001_234_567_890_123_456)),
            leader: Some("a".into()),
            members: [
                ("a".into(), Some("http://a:8008/patroni".to_owned())),
                ("b".into(), None),
            ]
            .into(),
            timeline: Some(Timeline(3)),
            ..KnownCluster::default()
        };
        assert_eq!(parse_kept(&render_kept(&known).unwrap()).unwrap(), known);
        assert_eq!(render_kept(&KnownCluster::default()), None, "nothing is known yet");
    }

    #[test]
    fn a_broken_file_is_an_error() {
        for text in ["", "[]", "{\"system_id\": -1}", &"x".repeat(MAX_KEPT_BYTES + 1)] {
            assert!(parse_kept(text).is_err(), "{}", text.len());
        }
    }
}
