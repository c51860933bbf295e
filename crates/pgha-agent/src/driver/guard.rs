//! The fence as the driver uses it: guard orders in, postmasters launched, events out; started again when it is lost.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::effect::FenceOrder;
use pgha_core::event::{Event, Wake};
use pgha_postgres::{DirectLauncher, LaunchSpec, Launcher, ProcessId, Signal};
use tokio::sync::{Mutex, mpsc};

use crate::clock;
use crate::error::AgentError;
use crate::fence::client::{Attached, FenceClient, FenceEvent};
use crate::fence::wire::{self, Guard, NoGuard, RefusalKind, StartSpec};
use crate::state_dir::StateDir;

/// How long the fence may take to clear the processes of a dead postmaster away before a new one is given up.
const CLEARING_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const CLEARING_POLL: Duration = Duration::from_millis(10);
/// Pause before a lost fence is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// The fence, or its absence by the configuration's will.
#[derive(Clone)]
pub enum FenceGuard {
    /// There is one.
    On(Arc<On>),
    /// `pgha.fence: off`: PostgreSQL is a plain child and the agent alone enforces the deadline.
    Off,
}

/// A running fence.
pub struct On {
    state_dir: Arc<StateDir>,
    client: Mutex<Option<FenceClient>>,
    events: mpsc::Sender<Event>,
}

impl FenceGuard {
    /// Connects to the fence of this data directory, or starts one. Tells what a fence found running enforces.
    ///
    /// # Errors
    /// As [`FenceClient::connect_or_spawn`].
    pub async fn attach(
        state_dir: Arc<StateDir>,
        events: mpsc::Sender<Event>,
    ) -> Result<(FenceGuard, Option<FenceOrder>), AgentError> {
        let attached = FenceClient::connect_or_spawn(&state_dir, None).await?;
        let found = attached
            .status
            .postmaster
            .is_some()
            .then(|| order_of(&attached.status))
            .flatten();
        tracing::info!(
            fence_pid = attached.client.fence_pid(),
            reattached = attached.reattached,
            "attached to the fence"
        );
        let on = Arc::new(On {
            state_dir,
            client: Mutex::new(None),
            events,
        });
        on.take(attached).await;
        Ok((FenceGuard::On(on), found))
    }

    /// `Effect::SetFence`. Returns whether the order is in force.
    pub async fn set(&self, order: FenceOrder) -> bool {
        let FenceGuard::On(on) = self else { return true };
        let Some(client) = on.client.lock().await.clone() else {
            return false;
        };
        let done = match order {
            FenceOrder::Until(at) => client.set_deadline(at).await,
            FenceOrder::StandbyOnly => client.lift_deadline(NoGuard::Standby).await,
            FenceOrder::Paused => client.lift_deadline(NoGuard::Pause).await,
        };
        if let Err(error) = &done {
            tracing::error!(%error, ?order, "the fence did not confirm its order");
        }
        done.is_ok()
    }

    /// Puts a postmaster that somebody else started under the fence.
    pub async fn adopt(&self, process: ProcessId) {
        let FenceGuard::On(on) = self else { return };
        let Some(client) = on.client.lock().await.clone() else {
            return;
        };
        match client.adopt(process.pid, process.start_ticks, 0).await {
            Ok(_) => tracing::info!(pid = process.pid, "adopted the running postmaster"),
            Err(error) => tracing::warn!(%error, pid = process.pid, "could not adopt the running postmaster"),
        }
    }

    /// Is this postmaster under the fence?
    pub async fn guards(&self, process: ProcessId) -> bool {
        let FenceGuard::On(on) = self else { return true };
        let Some(client) = on.client.lock().await.clone() else {
            return false;
        };
        client.status().await.is_ok_and(|s| {
            s.postmaster
                .is_some_and(|p| p.pid == process.pid && p.start_ticks == process.start_ticks)
        })
    }

    /// Ends the fence when nothing runs under it any more.
    pub async fn quit(&self) {
        let FenceGuard::On(on) = self else { return };
        if let Some(client) = on.client.lock().await.take()
            && let Err(error) = client.quit().await
        {
            tracing::info!(%error, "the fence stays");
        }
    }
}

impl On {
    async fn take(self: &Arc<On>, attached: Attached) {
        *self.client.lock().await = Some(attached.client);
        tokio::spawn(forward(Arc::clone(self), attached.events));
    }

    async fn restart(self: &Arc<On>) {
        loop {
            tokio::time::sleep(RESTART_PAUSE).await;
            match FenceClient::connect_or_spawn(&self.state_dir, None).await {
                Ok(attached) => return self.take(attached).await,
                Err(error) => tracing::error!(%error, "cannot start the fence again; trying on"),
            }
        }
    }
}

/// Passes the fence's events to the driver, and starts a new fence when this one is lost.
fn forward(on: Arc<On>, mut from: mpsc::Receiver<FenceEvent>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let mut lost = "the connection ended".to_owned();
        while let Some(event) = from.recv().await {
            let told = match event {
                FenceEvent::Happened(wire::Event::Fired { .. }) => {
                    tracing::error!("the fence's deadline passed: PostgreSQL was killed");
                    Event::FenceFired
                }
                FenceEvent::Happened(wire::Event::Exited { .. }) => Event::Wake(Wake::PostmasterExited),
                FenceEvent::Lost(reason) => {
                    lost = reason;
                    break;
                }
            };
            if on.events.send(told).await.is_err() {
                return;
            }
        }
        if on.client.lock().await.take().is_none() || on.events.is_closed() {
            return;
        }
        tracing::error!(reason = lost, "the fence is gone; PostgreSQL goes with it");
        on.restart().await;
        if on.events.send(Event::FenceLost).await.is_err() {
            tracing::debug!("the driver has ended");
        }
    })
}

fn order_of(status: &wire::Status) -> Option<FenceOrder> {
    match status.guard? {
        Guard::Deadline(at) => Some(FenceOrder::Until(at)),
        Guard::Unguarded(NoGuard::Pause) => Some(FenceOrder::Paused),
        Guard::Unguarded(_) => Some(FenceOrder::StandbyOnly),
    }
}

impl Launcher for FenceGuard {
    async fn launch(&self, what: &LaunchSpec) -> Result<ProcessId, pgha_postgres::Error> {
        let FenceGuard::On(on) = self else {
            return DirectLauncher::default().launch(what).await;
        };
        let failed = |e: AgentError| pgha_postgres::Error::Spawn {
            program: what.program.display().to_string(),
            source: std::io::Error::other(e),
        };
        let client = on.client.lock().await.clone();
        let client = client.ok_or_else(|| {
            failed(AgentError::FenceLost {
                what: "start PostgreSQL",
                reason: "there is none now".to_owned(),
            })
        })?;
        let spec = StartSpec {
            program: what.program.clone(),
            args: what.args.clone(),
            env: what
                .env
                .iter()
                .map(|(k, v): &(OsString, OsString)| (k.clone(), v.clone()))
                .collect(),
            cwd: what.cwd.clone(),
            epoch: 0,
            log: None,
        };
        let give_up = clock::boot().plus(CLEARING_LIMIT);
        let (pid, start_ticks) = loop {
            match client.start(spec.clone()).await {
                Ok(started) => break started,
                // The exit of the postmaster is known before the fence has cleared its last process away.
                Err(e) if e.refusal() == Some(RefusalKind::Running) && clock::boot() < give_up => {
                    tokio::time::sleep(CLEARING_POLL).await;
                }
                Err(e) => return Err(failed(e)),
            }
        };
        Ok(ProcessId { pid, start_ticks })
    }

    async fn signal(&self, process: ProcessId, signal: Signal) -> Result<bool, pgha_postgres::Error> {
        // By pidfd: it reaches exactly this process, whoever is its parent.
        pgha_postgres::send_signal(process, signal)
    }
}
