//! The fence with real processes: whatever happens to the daemon, PostgreSQL does not outlive its deadline.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod postgres;
mod processes;
mod rig;
