//! Core's words in the words of the callback runner and the watchdog.

use std::time::Duration;

use pgha_core::effect::{CallbackAction, CallbackRole};
use pgha_core::view::WatchdogView;
use pgha_wire::config::WatchdogMode;

use super::local::Local;
use crate::callbacks::{Action, Callbacks};
use crate::error::AgentError;
use crate::watchdog::{Driver as Device, Mode, WatchdogConfig, WatchdogStatus};

/// The callbacks of the configuration.
///
/// # Errors
/// A command cannot be split into words.
pub fn callbacks_of(local: &Local) -> Result<Callbacks, AgentError> {
    let c = &local.effective.callbacks;
    let all = [
        (Action::OnStart, &c.on_start),
        (Action::OnStop, &c.on_stop),
        (Action::OnRestart, &c.on_restart),
        (Action::OnReload, &c.on_reload),
        (Action::OnRoleChange, &c.on_role_change),
    ];
    Callbacks::parse(
        all.into_iter()
            .filter_map(|(action, text)| Some((action, text.as_deref()?))),
    )
}

/// Which script.
pub fn callback_action(action: CallbackAction) -> Action {
    match action {
        CallbackAction::OnStart => Action::OnStart,
        CallbackAction::OnStop => Action::OnStop,
        CallbackAction::OnRestart => Action::OnRestart,
        CallbackAction::OnReload => Action::OnReload,
        CallbackAction::OnRoleChange => Action::OnRoleChange,
    }
}

/// The word for its second argument.
pub fn callback_role(role: CallbackRole) -> &'static str {
    match role {
        CallbackRole::Primary => "primary",
        CallbackRole::Replica => "replica",
        CallbackRole::StandbyLeader => "standby_leader",
        CallbackRole::Demoted => "demoted",
        CallbackRole::Uninitialized => "uninitialized",
    }
}

/// The watchdog's settings, with those of the dynamic configuration that its time-out follows from.
pub fn watchdog_config(local: &Local) -> WatchdogConfig {
    let (w, settings) = (&local.config.watchdog, local.settings());
    WatchdogConfig {
        mode: match w.mode {
            WatchdogMode::Off => Mode::Off,
            WatchdogMode::Automatic => Mode::Automatic,
            WatchdogMode::Required => Mode::Required,
        },
        driver: if w.testing { Device::Testing } else { Device::Linux },
        device: w.device.clone(),
        safety_margin: u64::try_from(w.safety_margin).ok().map(Duration::from_secs),
        ttl: settings.ttl,
        loop_wait: settings.loop_wait,
    }
}

/// The watchdog's state as core knows it.
pub fn watchdog_view(status: &WatchdogStatus) -> WatchdogView {
    match (status.mode, status.active, &status.failed) {
        (Mode::Off, _, _) => WatchdogView::Off,
        (_, true, _) => WatchdogView::Armed,
        (_, false, Some(_)) => WatchdogView::Failed,
        (_, false, None) => WatchdogView::Usable,
    }
}
