//! S18: what is written to synchronous_standby_names is understood by PostgreSQL, names members only, never the server
//! itself, and asks for no more standbys than it names.

use pgha_core::units::MemberName;

use crate::postgres::SyncRules;
use crate::world::{SimNode, World};

pub(super) fn check(world: &World, i: usize, text: &str) -> Option<String> {
    let me = &world.nodes[i].name;
    let Some(rules) = SyncRules::parse(text) else {
        return Some(format!("S18: {me} writes {text:?}, which PostgreSQL refuses"));
    };
    let is = |name: &MemberName, node: &SimNode| node.name.as_str().eq_ignore_ascii_case(name.as_str());
    let mut real = rules.names.real();
    if let Some(name) = real.find(|name| !world.nodes.iter().any(|node| is(name, node))) {
        return Some(format!("S18: {me} writes {text:?}, and {name} is no member"));
    }
    if rules.names.real().any(|name| is(name, &world.nodes[i])) {
        return Some(format!("S18: {me} writes {text:?} and waits for itself"));
    }
    // The name that nobody has is how one says so on purpose.
    let never = rules.names.acknowledges_nothing() && rules.names.real().count() == rules.names.list.len();
    never.then(|| format!("S18: {me} writes {text:?}, which can never be fulfilled"))
}
