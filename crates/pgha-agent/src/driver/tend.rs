//! Small upkeep inside PostgreSQL and its files. What fails is logged and planned again from the next observation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgha_core::effect::Tend;
use pgha_core::pg::PgView;
use pgha_postgres::{SlotAction, SlotOutcome};
use tokio::sync::mpsc;

use super::guard::FenceGuard;
use super::local::{Local, SyncNames, recovery_of};

/// Limit for a checkpoint.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);
/// Limit for one change of a slot, or one question.
const SLOT_LIMIT: Duration = Duration::from_secs(5);

/// One batch of upkeep.
pub struct Errand {
    /// Configuration in force; replaced when the dynamic part changed.
    pub local: Arc<ArcSwap<Local>>,
    /// Private state directory.
    pub state_dir: PathBuf,
    /// Who signals the postmaster.
    pub fence: FenceGuard,
    /// `/config` as read.
    pub config_text: Option<String>,
    /// Hears of a reload, for the callback.
    pub reloaded: mpsc::Sender<()>,
    /// The observation the batch was planned from.
    pub pg: PgView,
}

impl Errand {
    /// Does everything in order.
    pub async fn run(&self, items: Vec<Tend>) {
        let mut slots = Vec::new();
        for item in items {
            match item {
                Tend::CreateSlot(name) => slots.push(SlotAction::CreatePhysical { name }),
                Tend::DropSlot(name) => slots.push(SlotAction::Drop { name }),
                Tend::AdvanceSlot(name, to) => slots.push(SlotAction::Advance { name, to }),
                Tend::ApplyConfiguration => self.apply_configuration().await,
                Tend::Checkpoint => self.checkpoint().await,
            }
        }
        self.change_slots(&slots).await;
    }

    async fn checkpoint(&self) {
        match self.local.load().instance.checkpoint(CHECKPOINT_LIMIT).await {
            Ok(()) => tracing::info!("checkpoint after promotion is done"),
            Err(error) => tracing::warn!(error = error.chain(), "checkpoint after promotion"),
        }
    }

    async fn change_slots(&self, actions: &[SlotAction]) {
        let instance = Arc::clone(&self.local.load().instance);
        match instance.change_slots(actions, SLOT_LIMIT).await {
            Ok(outcomes) => {
                for (action, outcome) in actions.iter().zip(outcomes) {
                    match outcome {
                        // A standby moves the slots of the others on with every heartbeat.
                        SlotOutcome::Done if matches!(action, SlotAction::Advance { .. }) => {
                            tracing::debug!(?action, "slot");
                        }
                        SlotOutcome::Done => tracing::info!(?action, "slot"),
                        SlotOutcome::Unchanged | SlotOutcome::Active => tracing::debug!(?action, ?outcome, "slot"),
                        SlotOutcome::Failed { reason } => tracing::warn!(?action, reason, "slot"),
                    }
                }
            }
            Err(error) => tracing::warn!(error = error.chain(), "slots were not changed"),
        }
    }

    /// Puts the file over the new dynamic configuration, writes PostgreSQL's files and reloads it when they changed.
    async fn apply_configuration(&self) {
        let before = self.local.load_full();
        let text = self.config_text.clone().unwrap_or_else(|| before.dynamic_text.clone());
        let local = Arc::new(Local::new(
            before.config.clone(),
            &text,
            &self.state_dir,
            before.major,
            Some(&before),
        ));
        self.local.store(Arc::clone(&local));
        if let Err(error) = local.instance.write_dynamic_json(&text).await {
            tracing::warn!(
                error = error.chain(),
                "the dynamic configuration was not cached on disk"
            );
        }
        let Some(recovery) = recovery_of(&self.pg) else { return };
        let _files = local.files.lock().await;
        let Some(names) = self.sync_names(&local).await else {
            return;
        };
        match local
            .instance
            .write_config(&local.config_texts(&recovery, &names))
            .await
        {
            Ok(false) => tracing::debug!("No PostgreSQL configuration items changed, nothing to reload."),
            Ok(true) => match local.instance.reload(&self.fence).await {
                Ok(()) => {
                    tracing::info!("Reloading PostgreSQL configuration.");
                    // A full channel holds a callback that has not begun yet: one is enough.
                    let _full = self.reloaded.try_send(());
                }
                Err(error) => tracing::warn!(error = error.chain(), "PostgreSQL was not reloaded"),
            },
            Err(error) => tracing::error!(error = error.chain(), "PostgreSQL's configuration was not written"),
        }
    }

    /// A primary keeps the text in force, which only core changes; a standby carries the name that nobody has.
    async fn sync_names(&self, local: &Local) -> Option<SyncNames> {
        if self.pg.says_standby() {
            return Some(SyncNames::Nobody);
        }
        match local.instance.synchronous_standby_names(SLOT_LIMIT).await {
            Ok(text) => Some(SyncNames::Given(text)),
            Err(error) => {
                tracing::warn!(error = error.chain(), "PostgreSQL's configuration was not written");
                None
            }
        }
    }
}
