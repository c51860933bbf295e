//! Reads `global/pg_control` itself: no fork, so the state of a cluster is known within microseconds.
//!
//! The layout is that of PostgreSQL 13 to 18 on 64-bit Linux. All fields used here stand at the same offsets in these
//! versions; only the place of the checksum differs (18 added a field just before it). An unknown
//! `pg_control_version` is an error, never a guess. Every read checks the CRC-32C.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgha_core::pg::{ControlData, ControlState};
use pgha_core::units::{Lsn, SystemId, Timeline};

use crate::error::Error;

/// Where the checksum stands, by `pg_control_version` (13 to 16: 1300, 17: 1700, 18: 1800).
const CRC_OFFSETS: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];
/// All fields and the checksum lie within this many bytes.
const USED_BYTES: usize = 296;
/// A read can meet a write half-way; it is tried again this often, this far apart.
const TORN_READ_TRIES: u32 = 10;
const TORN_READ_PAUSE: Duration = Duration::from_millis(2);

/// All of `pg_control` that this crate's callers use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlFile {
    /// The part that decisions use.
    pub data: ControlData,
    /// `pg_control_version`.
    pub control_version: u32,
    /// Catalog version number.
    pub catalog_version: u32,
    /// Timeline before the one of the latest checkpoint (equal when it did not change there).
    pub previous_timeline: Timeline,
    /// Start of the backup this cluster was restored from and whose end was not reached yet; zero when none.
    pub backup_start: Lsn,
    /// End of that backup when it is known beforehand (a backup taken from a standby); zero when not.
    pub backup_end: Lsn,
    /// The end-of-backup record is still to be reached.
    pub backup_end_required: bool,
    /// `max_connections` when the file was written: a standby needs at least the primary's value.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// Bytes in one WAL page.
    pub wal_block_size: u32,
    /// Bytes in one WAL segment.
    pub wal_segment_size: u32,
}

/// Path of the control file in `data_dir`.
pub(crate) fn control_path(data_dir: &Path) -> PathBuf {
    data_dir.join("global").join("pg_control")
}

/// Reads and checks the control file, `PG_VERSION` and the recovery signal files of `data_dir`.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read, [`Error::Control`] when its content cannot be believed.
pub fn read_control(data_dir: &Path) -> Result<ControlFile, Error> {
    let path = control_path(data_dir);
    let mut tries = 0;
    let mut file = loop {
        let bytes = read_start(&path)?;
        match parse_control(&bytes) {
            Ok(file) => break file,
            Err(_) if tries < TORN_READ_TRIES => {
                tries += 1;
                std::thread::sleep(TORN_READ_PAUSE);
            }
            Err(reason) => return Err(Error::Control { path, reason }),
        }
    };
    file.data.major_version = read_major_version(data_dir)?;
    file.data.recovery_signal = recovery_signal(data_dir);
    Ok(file)
}

/// The number in `PG_VERSION`.
pub(crate) fn read_major_version(data_dir: &Path) -> Result<u32, Error> {
    let path = data_dir.join("PG_VERSION");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    text.trim().parse().map_err(|_| Error::Malformed {
        place: path.display().to_string(),
        reason: format!(
            "expected a major version, found {:?}",
            text.chars().take(20).collect::<String>()
        ),
    })
}

fn recovery_signal(data_dir: &Path) -> bool {
    ["standby.signal", "recovery.signal", "recovery.conf"]
        .iter()
        .any(|n| data_dir.join(n).exists())
}

fn read_start(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(USED_BYTES);
    std::fs::File::open(path)
        .and_then(|f| f.take(USED_BYTES as u64).read_to_end(&mut bytes))
        .map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Parses the content of `pg_control`. `recovery_signal` and `major_version` are left false and zero: they are not in
/// the file.
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse_control(bytes: &[u8]) -> Result<ControlFile, String> {
    let f = Fields(bytes);
    let control_version = f.u32(8)?;
    let Some((_, crc_at)) = CRC_OFFSETS.iter().find(|(v, _)| *v == control_version) else {
        return Err(format!(
            "pg_control version {control_version} is not one of PostgreSQL 13 to 18 (or the file is damaged)"
        ));
    };
    let stored = f.u32(*crc_at)?;
    let computed = crc32c(bytes.get(..*crc_at).ok_or("the file is too short")?);
    if stored != computed {
        return Err(format!(
            "the checksum is {stored:08x} and should be {computed:08x}: the file is damaged"
        ));
    }
    let state = match f.u32(16)? {
        0 => ControlState::StartingUp,
        1 => ControlState::ShutDown,
        2 => ControlState::ShutDownInRecovery,
        3 => ControlState::ShuttingDown,
        4 => ControlState::InCrashRecovery,
        5 => ControlState::InArchiveRecovery,
        6 => ControlState::InProduction,
        other => return Err(format!("cluster state {other} is unknown")),
    };
    let min_recovery_timeline = f.u32(144)?;
    Ok(ControlFile {
        data: ControlData {
            system_id: SystemId(f.u64(0)?),
            state,
            checkpoint_timeline: Timeline(f.u32(48)?),
            checkpoint: Lsn(f.u64(32)?),
            redo: Lsn(f.u64(40)?),
            min_recovery: Lsn(f.u64(136)?),
            min_recovery_timeline: (min_recovery_timeline != 0).then_some(Timeline(min_recovery_timeline)),
            data_checksums: f.u32(252)? != 0,
            wal_log_hints: f.bool(176)?,
            recovery_signal: false,
            major_version: 0,
        },
        control_version,
        catalog_version: f.u32(12)?,
        previous_timeline: Timeline(f.u32(52)?),
        backup_start: Lsn(f.u64(152)?),
        backup_end: Lsn(f.u64(160)?),
        backup_end_required: f.bool(168)?,
        max_connections: f.i32(180)?,
        max_worker_processes: f.i32(184)?,
        max_wal_senders: f.i32(188)?,
        max_prepared_transactions: f.i32(192)?,
        max_locks_per_transaction: f.i32(196)?,
        wal_block_size: f.u32(224)?,
        wal_segment_size: f.u32(228)?,
    })
}

/// Fields in the machine's byte order at fixed offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], String> {
        self.0
            .get(at..at + N)
            .and_then(|s| s.try_into().ok())
            .ok_or_else(|| format!("the file is too short: {} bytes", self.0.len()))
    }
    fn u64(&self, at: usize) -> Result<u64, String> {
        self.array(at).map(u64::from_ne_bytes)
    }
    fn u32(&self, at: usize) -> Result<u32, String> {
        self.array(at).map(u32::from_ne_bytes)
    }
    fn i32(&self, at: usize) -> Result<i32, String> {
        self.array(at).map(i32::from_ne_bytes)
    }
    fn bool(&self, at: usize) -> Result<bool, String> {
        self.array::<1>(at).map(|[b]| b != 0)
    }
}

/// CRC-32C (Castagnoli), bit by bit: 288 bytes do not need a table.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(version: u32, crc_at: usize) -> Vec<u8> {
        let mut b = vec![0u8; USED_BYTES];
        b[0..8].copy_from_slice(&7_000_000_000_000_000_001u64.to_ne_bytes());
        b[8..12].copy_from_slice(&version.to_ne_bytes());
        b[16..20].copy_from_slice(&6u32.to_ne_bytes());
        b[32..40].copy_from_slice(&0x0300_0028u64.to_ne_bytes());
        b[48..52].copy_from_slice(&2u32.to_ne_bytes());
        b[252..256].copy_from_slice(&1u32.to_ne_bytes());
        let crc = crc32c(&b[..crc_at]);
        b[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
        b
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn each_known_version_is_read_and_an_unknown_one_refused() {
        for (version, crc_at) in CRC_OFFSETS {
            let file = parse_control(&sample(version, crc_at)).unwrap();
            assert_eq!(file.data.state, ControlState::InProduction);
            assert_eq!(file.data.checkpoint_timeline, Timeline(2));
            assert_eq!(file.data.min_recovery_timeline, None);
            assert!(file.data.data_checksums);
        }
        assert!(parse_control(&sample(1201, 288)).unwrap_err().contains("1201"));
    }

    #[test]
    fn a_flipped_bit_a_short_file_and_garbage_are_errors() {
        let good = sample(1300, 288);
        for bit in [3usize, 17 * 8, 250 * 8] {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_control(&bad).is_err(), "bit {bit}");
        }
        for len in [0, 8, 11, 100, 290] {
            assert!(parse_control(&good[..len]).is_err(), "length {len}");
        }
        assert!(parse_control(&[0xA5; 8192]).is_err());
    }
}
