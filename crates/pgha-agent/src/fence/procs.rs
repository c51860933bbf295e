//! The process table as `/proc` shows it, read without allocating.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, RawDir};

/// Bytes of directory entries read at once.
const DIR_BUFFER: usize = 16 * 1024;
/// Bytes read of `/proc/<pid>/stat`; the fields used here lie well within.
const STAT_BUFFER: usize = 512;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proc {
    pub(super) pid: i32,
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub(super) state: u8,
    pub(super) ppid: i32,
    /// Clock ticks since boot.
    pub(super) start_ticks: u64,
}

impl Proc {
    /// It has ended, and only its entry is left.
    pub(super) fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// What a process is by its files: postmaster and backends share the program and the working directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kin {
    exe: (u64, u64),
    cwd: (u64, u64),
}

/// `/proc`, kept open, so that looking at it needs no memory and no path lookup through the root.
pub(super) struct Procs {
    table: Table,
    buffer: Box<[MaybeUninit<u8>]>,
}

/// Single processes by pid.
pub(super) struct Table {
    dir: OwnedFd,
}

impl Procs {
    pub(super) fn open() -> io::Result<Procs> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open("/proc", flags, Mode::empty())?;
        Ok(Procs {
            table: Table { dir },
            buffer: vec![MaybeUninit::uninit(); DIR_BUFFER].into_boxed_slice(),
        })
    }

    /// Calls `f` for every process there is. A process that ends meanwhile is skipped.
    pub(super) fn each(&mut self, mut f: impl FnMut(&Table, Proc)) -> io::Result<()> {
        rustix::fs::seek(&self.table.dir, rustix::fs::SeekFrom::Start(0))?;
        let mut entries = RawDir::new(&self.table.dir, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = parse_number(entry.file_name().to_bytes()) else {
                continue;
            };
            if let Some(found) = i32::try_from(pid).ok().and_then(|pid| self.table.one(pid)) {
                f(&self.table, found);
            }
        }
        Ok(())
    }

    /// Single processes by pid.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

impl Table {
    /// One process; `None` when it is not there.
    pub(super) fn one(&self, pid: i32) -> Option<Proc> {
        let mut path = ProcPath::new(pid, "stat")?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, path.as_cstr()?, flags, Mode::empty()).ok()?;
        let mut buffer = [0u8; STAT_BUFFER];
        let len = rustix::io::read(&file, &mut buffer[..]).ok()?;
        parse_stat(buffer.get(..len)?)
    }

    /// The program and working directory of a process; `None` when they cannot be seen.
    pub(super) fn kin(&self, pid: i32) -> Option<Kin> {
        let id = |name: &str| {
            let mut path = ProcPath::new(pid, name)?;
            let meta = rustix::fs::statat(&self.dir, path.as_cstr()?, rustix::fs::AtFlags::empty()).ok()?;
            Some((meta.st_dev, meta.st_ino))
        };
        Some(Kin {
            exe: id("exe")?,
            cwd: id("cwd")?,
        })
    }
}

/// Reads `pid (name) state ppid ... starttime ...`. The name may hold spaces and parentheses, so the last `)` counts.
fn parse_stat(text: &[u8]) -> Option<Proc> {
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let pid = i32::try_from(parse_number(text.get(..open)?.trim_ascii())?).ok()?;
    let mut fields = text.get(close + 1..)?.split(|b| *b == b' ').filter(|f| !f.is_empty());
    let state = *fields.next()?.first()?;
    let ppid = i32::try_from(parse_number(fields.next()?)?).ok()?;
    // starttime is the 22nd field, state the 3rd and ppid the 4th.
    let start_ticks = parse_number(fields.nth(17)?)?;
    Some(Proc {
        pid,
        state,
        ppid,
        start_ticks,
    })
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `<pid>/<name>` on the stack.
struct ProcPath {
    bytes: [u8; 64],
}

impl ProcPath {
    fn new(pid: i32, name: &str) -> Option<ProcPath> {
        use std::io::Write;
        let mut path = ProcPath { bytes: [0; 64] };
        write!(&mut path.bytes[..63], "{pid}/{name}").ok()?;
        Some(path)
    }
    fn as_cstr(&mut self) -> Option<&std::ffi::CStr> {
        std::ffi::CStr::from_bytes_until_nul(&self.bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = b"4711 (a) S 1 (b) Z 17 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998877 1000 20 \n";
        let found = parse_stat(line).expect("parses");
        assert_eq!(
            found,
            Proc {
                pid: 4711,
                state: b'Z',
                ppid: 17,
                start_ticks: 998_877
            }
        );
        assert!(found.is_dead());
    }

    #[test]
    fn broken_lines_are_skipped() {
        for line in [
            &b""[..],
            b"1",
            b"1 (",
            b"1 (x)",
            b"1 (x) S",
            b"x (x) S 1",
            b"1 )x( S 1 2",
        ] {
            assert_eq!(parse_stat(line), None);
        }
    }

    #[test]
    fn this_process_and_its_parent_are_in_the_table() {
        let me = i32::try_from(std::process::id()).expect("fits");
        let mut procs = Procs::open().expect("/proc is there");
        for _ in 0..2 {
            let mut seen = None;
            procs
                .each(|_, p| {
                    if p.pid == me {
                        seen = Some(p);
                    }
                })
                .expect("reads");
            let seen = seen.expect("is listed");
            assert_eq!(
                u32::try_from(seen.ppid).expect("fits"),
                std::os::unix::process::parent_id()
            );
            assert_eq!(procs.table().one(me).map(|p| p.start_ticks), Some(seen.start_ticks));
        }
        assert_eq!(procs.table().one(i32::MAX), None);
    }

    #[test]
    fn kin_is_the_program_and_the_working_directory() {
        let me = i32::try_from(std::process::id()).expect("fits");
        let procs = Procs::open().expect("/proc is there");
        assert!(procs.table().kin(me).is_some());
        assert_eq!(procs.table().kin(me), procs.table().kin(me));
        assert_eq!(procs.table().kin(i32::MAX), None);
    }
}
