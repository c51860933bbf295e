//! S18: what is written to synchronous_standby_names is understood by PostgreSQL, names members only, never the server
//! itself, and asks for no more standbys than it names.

use crate::postgres::SyncRules;
use crate::world::World;

pub(super) fn check(world: &World, i: usize, text: &str) -> Option<String> {
    let me = &world.nodes[i].name;
    let Some(rules) = SyncRules::parse(text) else {
        return Some(format!("S18: {me} writes {text:?}, which PostgreSQL refuses"));
    };
    let is = |name: &String, node: &crate::world::SimNode| node.name.as_str().eq_ignore_ascii_case(name);
    if let Some(name) = rules
        .names
        .names
        .iter()
        .find(|n| !world.nodes.iter().any(|node| is(n, node)))
    {
        return Some(format!("S18: {me} writes {text:?}, and {name} is no member"));
    }
    if rules.names.names.iter().any(|n| is(n, &world.nodes[i])) {
        return Some(format!("S18: {me} writes {text:?} and waits for itself"));
    }
    let named = rules.names.names.len();
    let too_many = named > 0 && !rules.names.has_star && usize::try_from(rules.names.num).is_ok_and(|n| n > named);
    too_many.then(|| format!("S18: {me} writes {text:?}, which can never be fulfilled"))
}
