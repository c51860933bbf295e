//! The thinking of pgha: facts in, decisions out.
//!
//! This crate is pure. It is `no_std`, so there is no clock, socket, file or randomly seeded map here: time is an
//! argument, the world is a [`view::View`], and what shall be done is returned as [`effect::Effect`]s. The same code
//! runs in the daemon, in the simulator and under the model checks.
//!
//! Where to look: facts in [`cluster`], [`pg`], [`peer`] and [`view`]; the rules in [`decide`]; the step machine in
//! [`node`]; the last line of defence in [`check`].
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod check;
pub mod cluster;
pub mod commit;
pub mod conninfo;
pub mod decide;
pub mod effect;
pub mod event;
pub mod failsafe;
mod history;
pub mod history_time;
pub mod horizon;
pub mod job;
pub mod known;
pub mod node;
pub mod peer;
pub mod pg;
pub mod plan;
pub mod planted;
pub mod race;
pub mod request;
pub mod rewind;
pub mod roster;
pub mod rule;
pub mod settings;
pub mod slots;
pub mod sync;
pub mod tags;
pub mod units;
pub mod view;
