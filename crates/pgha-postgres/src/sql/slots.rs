//! Creates, drops and advances replication slots. Which ones is decided elsewhere.

use std::time::Duration;

use pgha_core::units::Lsn;

use crate::error::Error;
use crate::instance::Instance;
use crate::sql::{Purpose, Session, literal};

/// One change of one slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotAction {
    /// Create a physical slot that reserves WAL at once.
    CreatePhysical {
        /// Slot name.
        name: String,
    },
    /// Drop a slot.
    Drop {
        /// Slot name.
        name: String,
    },
    /// Move a slot forward.
    Advance {
        /// Slot name.
        name: String,
        /// To where.
        to: Lsn,
    },
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotOutcome {
    /// Done.
    Done,
    /// Created: it existed already; dropped: it was not there.
    Unchanged,
    /// Somebody uses it right now.
    Active,
    /// PostgreSQL refused.
    Failed {
        /// Its words.
        reason: String,
    },
}

impl Instance {
    /// Performs the actions one after the other on one connection; one outcome each.
    ///
    /// # Errors
    /// The connection failed or an answer did not come within `limit` (each); what was done before stays done.
    pub async fn change_slots(&self, actions: &[SlotAction], limit: Duration) -> Result<Vec<SlotOutcome>, Error> {
        if actions.is_empty() {
            return Ok(Vec::new());
        }
        let session = Session::open(self.spec(), Purpose::Action, limit).await?;
        let mut outcomes = Vec::with_capacity(actions.len());
        for action in actions {
            let answer = session
                .rows("change a replication slot", &statement(action), limit)
                .await;
            outcomes.push(match answer {
                Ok(rows) if rows.is_empty() => SlotOutcome::Unchanged,
                Ok(_) => SlotOutcome::Done,
                Err(Error::Sql {
                    sqlstate: Some(code),
                    reason,
                    ..
                }) => match code.as_str() {
                    "55006" => SlotOutcome::Active,
                    // Somebody else created or dropped it between the test and the deed.
                    "42710" | "42704" => SlotOutcome::Unchanged,
                    _ => SlotOutcome::Failed { reason },
                },
                Err(e) => return Err(e),
            });
        }
        Ok(outcomes)
    }
}

fn statement(action: &SlotAction) -> String {
    match action {
        SlotAction::CreatePhysical { name } => format!(
            "SELECT pg_catalog.pg_create_physical_replication_slot({0}, true) WHERE NOT EXISTS \
             (SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = {0})",
            literal(name)
        ),
        SlotAction::Drop { name } => format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = {}",
            literal(name)
        ),
        SlotAction::Advance { name, to } => {
            format!(
                "SELECT * FROM pg_catalog.pg_replication_slot_advance({}, '{to}')",
                literal(name)
            )
        }
    }
}
