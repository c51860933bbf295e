//! Observes and runs one PostgreSQL instance, versions 13 to 18.
//!
//! This crate chooses nothing. It reports facts as [`pgha_core::pg`] types ([`Instance::observe`]) and performs flows
//! that somebody else decided on: start, stop, promote, base backup, rewind. A flow reports typed [`Progress`], can be
//! cancelled at any await, and returns an outcome whose variants say what is known, not what to do next.
//!
//! Invariants:
//! - Nothing here waits without a limit, and no limit is taken from the wall clock.
//! - A secret never stands in an argument list, a log line or a `Debug` text.
//! - Whatever leaves a data directory unusable while it runs is written down in the state directory before it begins
//!   and crossed out after it ended ([`UnfinishedMarker`]), so a killed agent never starts half a clone.
//! - A pid is only believed together with its start time; signals go through pidfds.
//!
//! Absent on purpose: Patroni's spellings and YAML (texts of configuration files arrive ready made), the choice of a
//! source, retries, and being the postmaster's parent (see [`Launcher`]).
#![warn(missing_docs)]

mod archive;
mod child;
mod clock;
mod config_files;
mod conninfo;
mod control;
mod data_dir;
mod error;
mod files;
mod flows;
mod history;
mod instance;
mod kept_wal;
mod launcher;
mod mount;
mod next_wal;
mod pg_bin;
mod postmaster;
mod process;
mod remote;
mod removal;
mod spec;
mod sql;
mod unfinished;
mod wal;

pub use child::clean_environment;
pub use config_files::{ConfigTexts, KEPT_CLUSTER};
pub use conninfo::ConnInfo;
pub use control::{ControlFile, parse_control, read_control};
pub use error::Error;
pub use files::{PassEntry, atomic_write, write_pgpass};
pub use flows::basebackup::BasebackupRequest;
pub use flows::bootstrap::PostBootstrap;
pub use flows::promote::PromoteOutcome;
pub use flows::rewind::{RewindOutcome, RewindRequest};
pub use flows::start::{StartOutcome, StartRequest};
pub use flows::stop::{AfterTimeout, StopMode, StopOutcome, StopRequest};
pub use flows::{Job, Progress};
pub use history::{HistoryEntry, HistoryFile, parse_history};
pub use instance::Instance;
pub use kept_wal::KeptWal;
pub use launcher::{DirectLauncher, LaunchSpec, Launcher};
pub use next_wal::WaitsForWal;
pub use pg_bin::{PgBin, PgVersion};
pub use postmaster::{Found, PidFile, find_postmaster, orphans, server_children, user_backends};
pub use process::{ProcessId, is_alive, process_id, send_signal, wait_exit};
pub use remote::Identity;
pub use rustix::process::Signal;
pub use spec::{Credentials, InstanceSpec, LocalAddress, Secret};
pub use sql::settings::Setting;
pub use sql::slots::{SlotAction, SlotOutcome};
pub use sql::sync::SyncProbe;
pub use unfinished::UnfinishedMarker;
pub use wal::{ShutdownCheckpoint, WalRecord};
