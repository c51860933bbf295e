//! The protocol between daemon and fence: frames on a Unix stream socket. Pure.
//!
//! A frame is `length: u32 | kind: u8 | id: u32 | payload`, little endian, where `length` counts what follows it. A reply
//! carries the id of its request; events carry 0. Texts are `length: u32 | bytes`, lists `count: u32 | items`, an optional
//! value is `0` or `1 | value`.
//!
//! The two sides may be of different versions, since a fence lives on while its daemon is upgraded. So: a new version
//! only appends fields to payloads and readers ignore what follows the fields they know; an unknown request is answered with
//! [`RefusalKind::Unsupported`]; an unknown event is skipped. The versions in the greeting are for people and for
//! a daemon that must know whether a field it needs is understood.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use pgha_core::units::Mono;

/// The version this code speaks.
pub const VERSION: u16 = 1;
/// Longest frame in bytes, its length field included.
pub const MAX_FRAME: usize = 64 * 1024;
/// Bytes before the payload: length, kind and id.
const HEADER: usize = 9;

/// What arrived is not this protocol; the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// What the daemon asks of the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens a connection. Answer: [`Reply::Welcome`].
    Hello {
        /// The version the daemon speaks.
        version: u16,
        /// The daemon's pid, for the log.
        pid: i32,
    },
    /// Starts a postmaster. Answer: [`Reply::Started`].
    Start(StartSpec),
    /// Watches over a postmaster that somebody else started. Answer: [`Reply::Started`].
    Adopt {
        /// Its pid.
        pid: i32,
        /// Its start time as in `/proc/<pid>/stat`, so that a reused pid is not taken for it.
        start_ticks: u64,
        /// As in [`StartSpec::epoch`].
        epoch: u64,
    },
    /// PostgreSQL may run until this point and no longer, or without limit. Answer: [`Reply::Ack`].
    Guard {
        /// Greater than that of any guard before it.
        seq: u64,
        /// The new guard, which replaces the old one.
        guard: Guard,
    },
    /// Answer: [`Reply::Status`].
    Status,
    /// Sends a signal to the postmaster. Answer: [`Reply::Done`].
    Signal(PgSignal),
    /// Kills the postmaster and all its processes now. Answer: [`Reply::Done`], then [`Event::Exited`].
    KillAll,
    /// Ends the fence; refused while there is a postmaster. Answer: [`Reply::Done`].
    Quit,
}

/// How to start a postmaster.
#[derive(Clone, PartialEq, Eq)]
pub struct StartSpec {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// A number of the daemon's choice that comes back with everything about this postmaster.
    pub epoch: u64,
    /// A file to append its output to; the fence's own standard error when absent.
    pub log: Option<PathBuf>,
}

impl fmt::Debug for StartSpec {
    // The environment can hold secrets, so only its size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartSpec")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &self.env.len())
            .field("cwd", &self.cwd)
            .field("epoch", &self.epoch)
            .field("log", &self.log)
            .finish()
    }
}

/// Until when PostgreSQL may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Killed at this point on the boot clock.
    Deadline(Mono),
    /// Not killed by time.
    Unguarded(NoGuard),
}

/// Why there is no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGuard {
    /// The instance is a standby and accepts no writes.
    Standby,
    /// The cluster is paused.
    Pause,
    /// etcd is down and all members agreed that the primary goes on.
    Failsafe,
    /// A cluster that has no other member yet is being initialised.
    Bootstrap,
    /// A reason that a newer daemon knows.
    Other(u8),
}

/// The signals a postmaster understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PgSignal {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM: smart shutdown.
    Smart,
    /// SIGINT: fast shutdown.
    Fast,
    /// SIGQUIT: immediate shutdown.
    Immediate,
}

/// What the fence answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The connection is open.
    Welcome {
        /// The version the fence speaks.
        version: u16,
        /// The fence's pid.
        pid: i32,
        /// Where it stands.
        status: Status,
    },
    /// There is a postmaster now.
    Started {
        /// Its pid.
        pid: i32,
        /// Its start time in clock ticks since boot.
        start_ticks: u64,
    },
    /// The guard with this number is in force.
    Ack {
        /// Its number.
        seq: u64,
    },
    /// Where the fence stands.
    Status(Status),
    /// Done.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For code.
    pub kind: RefusalKind,
    /// For people.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The reasons to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The deadline has passed and no newer guard was set since.
    Fired,
    /// No guard was ever set, so it is not known whether PostgreSQL may run.
    NoGuard,
    /// There is a postmaster, or the processes of the last one are not all gone.
    Running,
    /// There is no postmaster.
    NotRunning,
    /// The guard's number is not greater than that of the one in force.
    StaleGuard,
    /// The program could not be started.
    CannotStart,
    /// The process to adopt is not there, or another one has its pid.
    NoSuchProcess,
    /// The first message was not a greeting, or a second one came.
    OutOfOrder,
    /// This version does not know the request.
    Unsupported,
}

/// Where the fence stands.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// The postmaster, until its last process is gone.
    pub postmaster: Option<Postmaster>,
    /// The guard in force; none before the first.
    pub guard: Option<Guard>,
    /// The number of the last guard, 0 before the first.
    pub seq: u64,
    /// The deadline has passed and no newer guard was set since: nothing can be started.
    pub latched: bool,
    /// The last time the deadline passed.
    pub fired: Option<Fired>,
    /// How the last postmaster ended.
    pub last_exit: Option<Exited>,
}

/// A postmaster under watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postmaster {
    /// Its pid.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// As in [`StartSpec::epoch`].
    pub epoch: u64,
    /// Started by somebody else: it does not die with the fence.
    pub adopted: bool,
    /// Its processes are being killed or cleared away.
    pub ending: bool,
}

/// What the fence says unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The postmaster has ended and no process of it is left.
    Exited(Exited),
    /// The deadline passed; the postmaster and its processes were sent SIGKILL.
    Fired(Fired),
}

/// The end of a postmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// Its pid.
    pub pid: i32,
    /// As in [`StartSpec::epoch`].
    pub epoch: u64,
    /// The status as `waitpid` gives it; unknown for an adopted one, which has another parent.
    pub status: Option<i32>,
    /// When all of it was gone.
    pub at: Mono,
    /// Processes that were left over and had to be killed.
    pub leftovers: u32,
}

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The deadline.
    pub deadline: Mono,
    /// When the last of them was sent SIGKILL.
    pub at: Mono,
    /// Processes that were killed; 0 when none was running.
    pub killed: u32,
}

/// What the daemon reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to the request with this id.
    Reply(u32, Reply),
    /// Something that happened.
    Event(Event),
    /// Something that a newer fence says.
    Unknown,
}

/// One frame out of a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which message.
    pub kind: u8,
    /// Of which request.
    pub id: u32,
    /// The rest.
    pub payload: &'a [u8],
}

/// Takes the first frame off `buf`, with the number of bytes it used. `None`: more bytes are needed.
///
/// # Errors
/// A length that no frame can have.
pub fn split_frame(buf: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some(len) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let total = usize::try_from(u32::from_le_bytes(*len))
        .unwrap_or(usize::MAX)
        .saturating_add(4);
    if !(HEADER..=MAX_FRAME).contains(&total) {
        return Err(Malformed("frame length out of bounds"));
    }
    let Some(frame) = buf.get(..total) else { return Ok(None) };
    let mut reader = Reader(&frame[4..]);
    let kind = reader.u8()?;
    let id = reader.u32()?;
    Ok(Some((
        Frame {
            kind,
            id,
            payload: reader.0,
        },
        total,
    )))
}

/// The bytes of a payload that were not read yet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self
            .0
            .split_at_checked(n)
            .ok_or(Malformed("a message ends too early"))?;
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?
            .try_into()
            .map_err(|_| Malformed("a message ends too early"))
    }
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_le_bytes(self.array()?))
    }
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub(super) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a truth value is neither 0 nor 1")),
        }
    }
    pub(super) fn mono(&mut self) -> Result<Mono, Malformed> {
        Ok(Mono(self.u64()?))
    }
    pub(super) fn text(&mut self) -> Result<OsString, Malformed> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        Ok(OsString::from_vec(self.take(len)?.to_vec()))
    }
    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }
    pub(super) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        // The count is not trusted with memory: the items themselves must be in the frame.
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}

/// A frame in the making.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8, id: u32) -> Writer {
        let mut w = Writer(vec![0; 4]);
        w.u8(kind);
        w.u32(id);
        w
    }
    /// The whole frame.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Malformed> {
        let len = self.0.len();
        if len > MAX_FRAME {
            return Err(Malformed("a message is longer than 64 KiB"));
        }
        let body = u32::try_from(len - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&body.to_le_bytes());
        Ok(self.0)
    }
    pub(super) fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    pub(super) fn u16(&mut self, v: u16) {
        self.0.extend(v.to_le_bytes());
    }
    pub(super) fn u32(&mut self, v: u32) {
        self.0.extend(v.to_le_bytes());
    }
    pub(super) fn i32(&mut self, v: i32) {
        self.0.extend(v.to_le_bytes());
    }
    pub(super) fn u64(&mut self, v: u64) {
        self.0.extend(v.to_le_bytes());
    }
    pub(super) fn bool(&mut self, v: bool) {
        self.0.push(u8::from(v));
    }
    pub(super) fn text(&mut self, v: &OsStr) {
        self.count(v.len());
        self.0.extend(v.as_bytes());
    }
    /// A length; one that does not fit makes the frame too long anyway, which `finish` reports.
    pub(super) fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).unwrap_or(u32::MAX));
    }
    pub(super) fn option<T>(&mut self, v: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(v.is_some());
        if let Some(v) = v {
            write(self, v);
        }
    }
}
