//! Real clusters under real faults. Each test ends by checking that no acknowledged row is missing where the mode
//! promises it, and that two nodes never accepted writes at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod agent_alone;
mod bootstrap;
mod broken_keys;
mod crash;
mod ctl;
mod data_dir;
mod failsafe;
mod handover;
mod hooks;
mod identity;
mod orders;
mod pause;
mod rejoin;
mod scene;
mod store;
mod sync;
mod watchdog;
