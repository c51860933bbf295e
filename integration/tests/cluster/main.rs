//! Real clusters under real faults. Each test ends by checking that no acknowledged row is missing where the mode
//! promises it, and that two nodes never accepted writes at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod agent_alone;
mod bootstrap;
mod crash;
mod ctl;
mod handover;
mod identity;
mod pause;
mod rejoin;
mod scene;
mod store;
