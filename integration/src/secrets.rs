//! Passwords for one cluster, drawn anew each time.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// Bytes of randomness in a password.
const BYTES: usize = 12;

/// The passwords of the three users an agent works with. Never printed by `Debug`.
#[derive(Clone)]
pub struct Secrets {
    /// Of the superuser `postgres`.
    pub superuser: String,
    /// Of `replicator`.
    pub replication: String,
    /// Of `rewinder`.
    pub rewind: String,
    /// Of the REST API's user `admin`, when the cluster has one.
    pub rest: String,
}

impl Secrets {
    /// New passwords from the kernel.
    pub fn draw() -> Result<Self> {
        Ok(Self {
            superuser: password()?,
            replication: password()?,
            rewind: password()?,
            rest: password()?,
        })
    }
}

fn password() -> Result<String> {
    let mut bytes = [0_u8; BYTES];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
