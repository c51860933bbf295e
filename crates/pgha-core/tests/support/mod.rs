//! The scenario language: text in, a [`world::World`] and a driven [`pgha_core::node::Node`] behind it, text out.
//!
//! `line` splits a line, `world`, `etcd`, `postgres` and `memory` set facts, `jobs` and `render` give decisions and
//! effects their short stable words, `drive` answers a node's effects, `script` runs whole files.
//!
//! Absent on purpose: time that passes by itself, and any PostgreSQL that reacts to a job. A scenario says both.

pub mod checks;
pub mod drive;
pub mod etcd;
pub mod jobs;
pub mod line;
pub mod memory;
pub mod postgres;
pub mod render;
pub mod script;
pub mod world;
