//! Real clusters on this machine, for tests, the demo and the benchmarks.
//!
//! A [`cluster::Cluster`] is etcd, a number of nodes (an agent and its PostgreSQL each) and, if asked for, HAProxy, in one
//! scratch directory and on one block of loopback addresses. The agent is pgha, or Patroni on the same YAML, so that
//! both can be measured in one run.
//!
//! Invariants:
//! - Whatever ends the harness (return, panic, ctrl-C, `SIGKILL`), no process and no scratch directory stays behind:
//!   [`scratch::Scratch`] has a reaper in a process of its own.
//! - What a test believes about a node it asks PostgreSQL or the kernel, not the agent under test.
//!
//! Absent on purpose: any code of the agent. The harness sees the cluster as a client and as an operator do.

pub mod agent;
pub mod boottime;
pub mod cluster;
pub mod config;
pub mod etcd;
pub mod haproxy;
pub mod http;
pub mod net;
pub mod netns;
pub mod node;
pub mod probe;
pub mod process;
pub mod programs;
pub mod rejoin;
pub mod rig;
pub mod scratch;
pub mod secrets;
pub mod shared_memory;
pub mod sql;
pub mod sync_key;
pub mod user;
pub mod wait;
pub mod workload;
