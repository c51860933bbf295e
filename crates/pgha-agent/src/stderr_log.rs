//! Log lines of the processes that have no tracing: the fence and the init of a container.
//!
//! Both must go on when nobody reads their standard error: a line that would block is dropped. Time stands in the
//! line in UTC, as these processes outlive the daemon whose log the line ends up in. Nothing here allocates more
//! than the line itself, and nothing panics (`eprintln!` would, on a broken pipe).

#![allow(unsafe_code)]

use std::fmt::{self, Write};
use std::os::fd::AsRawFd;

use crate::clock;

/// Longest line; a longer one is cut. Below `PIPE_BUF`, so that a line is never torn by another writer.
const MAX_LINE: usize = 1024;

/// A line on the stack.
struct Line {
    bytes: [u8; MAX_LINE],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = MAX_LINE - 1 - self.len;
        let take = s.len().min(room);
        self.bytes[self.len..self.len + take].copy_from_slice(&s.as_bytes()[..take]);
        self.len += take;
        if take < s.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Writes one line `<UTC time> <level>: <who>[<pid>]: <text>` to standard error, or nothing when that would block.
pub fn line(level: &str, who: &str, text: fmt::Arguments<'_>) {
    let micros = clock::now().wall.0;
    let secs = micros.div_euclid(1_000_000);
    let millis = micros.rem_euclid(1_000_000) / 1_000;
    // SAFETY: tm is plain data for which all zeroes is a valid value; gmtime_r writes only to it.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let secs: libc::time_t = secs;
        libc::gmtime_r(&raw const secs, &raw mut tm);
        tm
    };
    let mut out = Line {
        bytes: [0; MAX_LINE],
        len: 0,
    };
    // The only error is a line that was cut, and a cut line is better than none.
    let _cut = write!(
        out,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{millis:03}Z {level}: {who}[{}]: {text}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        std::process::id(),
    );
    out.bytes[out.len] = b'\n';
    write_or_drop(&out.bytes[..=out.len]);
}

fn write_or_drop(line: &[u8]) {
    let fd = std::io::stderr().as_raw_fd();
    let iov = libc::iovec {
        iov_base: line.as_ptr().cast_mut().cast(),
        iov_len: line.len(),
    };
    // SAFETY: the iovec points at `line`, which lives through the call and is only read.
    let written = unsafe { libc::pwritev2(fd, &raw const iov, 1, -1, libc::RWF_NOWAIT) };
    if written >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP) {
        return;
    }
    // Files and older kernels do not know RWF_NOWAIT. A pipe that poll calls writable takes a line this short whole.
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd; the write reads `line` only. Its result does not matter, the line is best effort.
    unsafe {
        if libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLOUT != 0 {
            let _written = libc::write(fd, line.as_ptr().cast(), line.len());
        }
    }
}
