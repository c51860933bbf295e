//! The parts of `pgha-ctl`, the command line for a pgha or Patroni cluster.
//!
//! | module | job | I/O |
//! |---|---|---|
//! | [`args`] | verbs and options | |
//! | [`settings`] | configuration | files |
//! | [`listing`], [`history`], [`table`], [`output`] | what is shown | none |
//! | [`cluster`], [`schedule`], [`config_change`] | choice of members, times, new configurations | none |
//! | [`store`], [`rest`], [`console`] | etcd, members, the user | all of it |
//! | [`commands`] | one file per verb | through the above |
//!
//! Invariants: every wait is bounded, except for a listing that shall repeat and the copy that `reinit --wait` waits
//! for; nothing that changes a cluster is sent twice; every command ends in an [`outcome::Outcome`] or an error.
//!
//! Absent on purpose: decisions about the cluster. What a member refuses is shown in the member's words.

pub mod app;
pub mod args;
pub mod cluster;
pub mod commands;
pub mod config_change;
pub mod console;
pub mod error;
pub mod history;
pub mod limits;
pub mod listing;
pub mod outcome;
pub mod output;
pub mod rest;
pub mod schedule;
pub mod settings;
pub mod store;
pub mod table;
