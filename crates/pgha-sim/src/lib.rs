//! Deterministic simulation of whole clusters: the production step machine against a simulated etcd, PostgreSQL, network
//! and fence. One seed derives everything; the same seed twice gives the same trace.
#![allow(
    clippy::indexing_slicing,
    reason = "indexes of nodes come from this crate's own loops"
)]

pub mod bench;
mod calendar;
pub mod campaign;
mod client;
pub mod clients;
mod clock;
pub mod counters;
mod daemon;
mod effects;
pub mod etcd;
pub mod faults;
mod jobs;
pub mod network;
pub mod oracles;
pub mod plan;
pub mod planted;
pub mod postgres;
mod rest;
pub mod rng;
pub mod settings;
pub mod shrink;
mod store;
pub mod tags;
pub mod trace;
mod watch;
mod watchdog;
pub mod world;
