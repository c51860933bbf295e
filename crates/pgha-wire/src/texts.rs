//! Patroni's words for states and roles, and their fixed numbers in `/metrics`.

use pgha_core::cluster::{MemberRole, MemberState};

/// The Patroni release whose formats pgha writes.
///
/// It stands in `version` of the member key: Patroni peers choose between old and new formats by the lowest version
/// among the members, so pgha names the release it is compatible with rather than its own number.
pub const PATRONI_VERSION: &str = "4.1.5";

/// All states but `Unknown`: text, name in the comment of the metric. The position is the number in `/metrics`.
const STATES: [(MemberState, &str, &str); 15] = [
    (
        MemberState::InitializingNewCluster,
        "initializing new cluster",
        "initdb",
    ),
    (MemberState::InitdbFailed, "initdb failed", "initdb_failed"),
    (
        MemberState::RunningCustomBootstrap,
        "running custom bootstrap script",
        "custom_bootstrap",
    ),
    (
        MemberState::CustomBootstrapFailed,
        "custom bootstrap failed",
        "custom_bootstrap_failed",
    ),
    (MemberState::CreatingReplica, "creating replica", "creating_replica"),
    (MemberState::Running, "running", "running"),
    (MemberState::Starting, "starting", "starting"),
    (
        MemberState::StartingAfterCustomBootstrap,
        "starting after custom bootstrap",
        "bootstrap_starting",
    ),
    (MemberState::StartFailed, "start failed", "start_failed"),
    (MemberState::Restarting, "restarting", "restarting"),
    (MemberState::RestartFailed, "restart failed", "restart_failed"),
    (MemberState::Stopping, "stopping", "stopping"),
    (MemberState::Stopped, "stopped", "stopped"),
    (MemberState::StopFailed, "stop failed", "stop_failed"),
    (MemberState::Crashed, "crashed", "crashed"),
];

/// Patroni's text of a state; `unknown` for [`MemberState::Unknown`].
pub fn state_text(state: MemberState) -> &'static str {
    STATES
        .iter()
        .find(|(s, _, _)| *s == state)
        .map_or("unknown", |(_, text, _)| text)
}

/// The state a text stands for; [`MemberState::Unknown`] for any other text.
pub fn parse_state(text: &str) -> MemberState {
    STATES
        .iter()
        .find(|(_, t, _)| *t == text)
        .map_or(MemberState::Unknown, |(s, _, _)| *s)
}

/// The number of a state in `/metrics`; -1 when unknown.
pub fn state_number(state: MemberState) -> i64 {
    STATES
        .iter()
        .zip(0..)
        .find(|((s, _, _), _)| *s == state)
        .map_or(-1, |(_, number)| number)
}

/// The legend of the state metric: `0=initdb, 1=initdb_failed, ...`.
pub(crate) fn state_legend() -> String {
    let parts: Vec<String> = STATES
        .iter()
        .enumerate()
        .map(|(i, (_, _, name))| format!("{i}={name}"))
        .collect();
    parts.join(", ")
}

/// Patroni's text of a role.
pub fn role_text(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Primary => "primary",
        MemberRole::StandbyLeader => "standby_leader",
        MemberRole::Replica => "replica",
        MemberRole::Promoted => "promoted",
        MemberRole::Demoted => "demoted",
        MemberRole::Uninitialized => "uninitialized",
    }
}

/// The role a text stands for; `master` is what Patroni before 4.0 wrote. Any other text is `Uninitialized`.
pub fn parse_role(text: &str) -> MemberRole {
    match text {
        "primary" | "master" => MemberRole::Primary,
        "standby_leader" => MemberRole::StandbyLeader,
        "replica" => MemberRole::Replica,
        "promoted" => MemberRole::Promoted,
        "demoted" => MemberRole::Demoted,
        _ => MemberRole::Uninitialized,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_keeps_its_text_and_number() {
        for (number, (state, text, _)) in STATES.iter().enumerate() {
            assert_eq!(state_text(*state), *text);
            assert_eq!(parse_state(text), *state);
            assert_eq!(usize::try_from(state_number(*state)), Ok(number));
        }
        assert_eq!(state_number(MemberState::Running), 5);
        assert_eq!(state_number(MemberState::Crashed), 14);
        assert_eq!(state_number(parse_state("something else")), -1);
    }

    #[test]
    fn the_old_word_for_primary_is_understood_and_never_written() {
        assert_eq!(parse_role("master"), MemberRole::Primary);
        assert_eq!(role_text(MemberRole::Primary), "primary");
    }
}
