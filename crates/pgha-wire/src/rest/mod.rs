//! The REST API as text: which request means what, and what is answered. Each answer is a pure function of a published
//! [`status::NodeStatus`] or of a [`pgha_core::cluster::ClusterView`], so a hung PostgreSQL or etcd cannot hang it.

pub mod actions;
pub mod cluster;
pub mod failsafe;
pub mod health;
pub mod metrics;
pub mod patch;
pub mod query;
pub mod reply;
pub mod routes;
pub mod status;
pub mod switchover;
