//! The REST API of the agent, and the HTTP client that asks the other members.
//!
//! The agent publishes its status on a [`StatusBoard`] and implements [`Backend`]; [`Api::router`] makes the routes,
//! [`ApiServer`] serves them from a thread of its own, [`PeerClient`] asks others. What is said, in which words and
//! with which status code, is pgha-wire's business; this crate moves bytes and bounds waits ([`limits`]).
//!
//! Invariant: whatever tells only about this node (health checks, `/patroni`, `/metrics`, ...) is answered from the
//! board alone, so neither a hung PostgreSQL nor a hung etcd delays it.

mod access;
mod actions;
mod backend;
mod board;
mod client;
mod connections;
mod error;
mod info;
pub mod limits;
mod router;
mod server;
mod switchover;

pub use access::{AccessSettings, BasicAuth};
pub use backend::{Backend, Clock, Later};
pub use board::{Published, StatusBoard};
pub use client::{Expect, PeerClient};
pub use error::ApiError;
pub use router::{Api, ApiSettings};
pub use server::ApiServer;
