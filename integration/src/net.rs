//! Addresses for one cluster.
//!
//! Each cluster has a block of loopback addresses of its own, `127.77.B.0/24`, so every node can have the ordinary ports
//! (5432, 8008) and clusters run side by side. A block is claimed by an abstract socket's name, which the kernel frees
//! with the process. A port that something listens on for all addresses is replaced by another one.
//!
//! Or, for faults of the network, every address is a host of its own ([`Addresses::Lan`]).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::netns::{Lan, Site};

/// Blocks to choose from.
const BLOCKS: std::ops::RangeInclusive<u8> = 1..=250;
/// Replacements for a taken port: below the ephemeral range, so no outgoing connection takes one meanwhile.
const OTHER_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Where the addresses of a cluster come from.
#[derive(Debug)]
pub enum Addresses {
    /// Loopback addresses of this host.
    Block(AddressBlock),
    /// Hosts of their own.
    Lan(Lan),
}

impl Addresses {
    /// The place with this last byte of its address.
    pub fn site(&self, last: u8) -> Result<Site> {
        Ok(match self {
            Self::Block(block) => Site {
                ip: block.host(last),
                host: None,
            },
            Self::Lan(lan) => {
                let host = lan.host(last)?;
                Site {
                    ip: host.ip(),
                    host: Some(Arc::new(host)),
                }
            }
        })
    }

    /// Who may connect, as pg_hba.conf wants it.
    pub fn cidr(&self) -> String {
        match self {
            Self::Block(_) => "127.0.0.0/8".to_owned(),
            Self::Lan(lan) => lan.cidr(),
        }
    }
}

impl Site {
    /// These ports; on this host others where one of them is taken.
    pub fn ports<const N: usize>(&self, preferred: [u16; N]) -> Result<[SocketAddrV4; N]> {
        match self.host {
            None => free_ports(self.ip, preferred),
            Some(_) => Ok(preferred.map(|port| SocketAddrV4::new(self.ip, port))),
        }
    }
}

/// A claimed block of addresses.
#[derive(Debug)]
pub struct AddressBlock {
    third: u8,
    _claim: UnixListener,
}

impl AddressBlock {
    /// Claims the first free block.
    pub fn claim() -> Result<Self> {
        BLOCKS
            .into_iter()
            .find_map(|third| {
                let name = UnixAddr::from_abstract_name(format!("pgha-addresses-{third}")).ok()?;
                let claim = UnixListener::bind_addr(&name).ok()?;
                Some(Self { third, _claim: claim })
            })
            .context("every block of loopback addresses 127.77.x.0/24 is in use by another cluster")
    }

    /// An address of the block.
    pub fn host(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 77, self.third, last)
    }
}

/// For each of `preferred` that port on this address if nothing listens there, else another free one, and no port twice.
pub fn free_ports<const N: usize>(ip: Ipv4Addr, preferred: [u16; N]) -> Result<[SocketAddrV4; N]> {
    // A port that was chosen is held until all are, so that it is not chosen again.
    let mut held = Vec::with_capacity(N);
    let mut chosen = [SocketAddrV4::new(ip, 0); N];
    for (addr, preferred) in chosen.iter_mut().zip(preferred) {
        let (port, listener) = std::iter::once(preferred)
            .chain(OTHER_PORTS)
            .find_map(|port| Some((port, TcpListener::bind((ip, port)).ok()?)))
            .with_context(|| format!("no free port on {ip}"))?;
        held.push(listener);
        addr.set_port(port);
    }
    Ok(chosen)
}

/// Whether a server could listen there.
pub fn is_free(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_replaced_by_different_ones() -> Result<()> {
        let everywhere = [
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        ];
        let [a, b] = [everywhere[0].local_addr()?.port(), everywhere[1].local_addr()?.port()];
        let [first, second] = free_ports(Ipv4Addr::LOCALHOST, [a, b])?;
        assert!(OTHER_PORTS.contains(&first.port()) && OTHER_PORTS.contains(&second.port()));
        assert_ne!(first, second);
        Ok(())
    }
}
