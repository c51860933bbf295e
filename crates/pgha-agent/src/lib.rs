//! The parts of the daemon `pgha` that touch the operating system: clocks, the fence, the watchdog, callbacks, the
//! init of a container and the private state directory. The driver around them is `main.rs`.
//!
//! Nothing in here decides anything about the cluster; that is core's business.

pub mod callbacks;
pub mod clock;
pub mod config_files;
pub mod daemon;
pub mod driver;
pub mod error;
pub mod fence;
pub mod hook;
pub mod logging;
pub mod memory;
pub mod pid1;
pub mod state_dir;
pub mod stderr_log;
pub mod watchdog;

pub use error::AgentError;

/// What peers read in the member key: the Patroni release whose formats and behaviour this agent speaks.
pub const VERSION: &str = pgha_wire::texts::PATRONI_VERSION;
