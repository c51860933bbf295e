//! Tests of `pgha-ctl`: what it shows, as `patronictl` 4.1.5 shows it, and what it does against a real etcd and
//! members that are played by the test.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure how long the program takes; nothing sleeps meanwhile"
)]

mod args;
mod commands;
mod handover;
mod rendering;
mod world;
