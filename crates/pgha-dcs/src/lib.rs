//! Everything pgha says to its distributed configuration store (DCS).
//!
//! - [`Dcs`]: what a store must be able to do. A new backend implements it and passes [`conformance`].
//! - [`etcd`]: the etcd v3 backend.
//! - [`Hint`]s: watch events, which are reasons to look and never facts.
//!
//! Invariants: every call ends within the budget it was given; a transaction that may have reached the store is never
//! sent twice; an answer from the past is never handed on. Absent on purpose: keys and JSON of a cluster (pgha-wire),
//! and every decision (pgha-core).

mod clock;
pub mod conformance;
mod dcs;
mod error;
pub mod etcd;
mod hints;

pub use dcs::{Dcs, DcsFuture, DcsStatus, EndpointStatus, KeepAlive};
pub use error::{BoxError, DcsError};
pub use hints::{Hint, HintSender, WatchHints};
