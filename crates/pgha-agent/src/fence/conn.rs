//! One connection to the fence: bytes in, bytes out, never blocking.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::wire::{Event, MAX_FRAME, Malformed, Reply, Request, split_frame};

/// Answers that may wait for a daemon that does not read; beyond it the connection is dropped.
const MAX_BACKLOG: usize = 64 * 1024;

/// A connected peer whose user was checked.
#[derive(Debug)]
pub(super) struct Conn {
    stream: UnixStream,
    input: Vec<u8>,
    backlog: Vec<u8>,
    /// The peer's pid, for the log.
    pub(super) peer: i32,
}

/// What the peer sent.
pub(super) enum Received {
    /// A request with its id.
    Request(u32, Request),
    /// A request of a later version.
    Unsupported(u32),
    /// Nothing more for now.
    Nothing,
}

impl Conn {
    /// Takes a connection of this user or of root; of nobody else.
    pub(super) fn new(stream: UnixStream) -> io::Result<Conn> {
        let peer = getsockopt(&stream, PeerCredentials)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("uid {} may not talk to this fence", peer.uid()),
            ));
        }
        stream.set_nonblocking(true)?;
        Ok(Conn {
            stream,
            input: Vec::with_capacity(MAX_FRAME),
            backlog: Vec::new(),
            peer: peer.pid(),
        })
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.stream.as_fd().as_raw_fd()
    }

    /// Are there answers that could not be sent yet?
    pub(super) fn wants_write(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Reads once, as much as fits. An error means that the connection has ended.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        let old = self.input.len();
        self.input.resize(MAX_FRAME, 0);
        let got = self.stream.read(&mut self.input[old..]);
        self.input.truncate(old + got.as_ref().map_or(0, |n| *n));
        match got {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The next request of what was read.
    pub(super) fn next_request(&mut self) -> Result<Received, Malformed> {
        let Some((frame, used)) = split_frame(&self.input)? else {
            return Ok(Received::Nothing);
        };
        let id = frame.id;
        let request = Request::decode(&frame)?;
        self.input.drain(..used);
        Ok(request.map_or(Received::Unsupported(id), |request| Received::Request(id, request)))
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, id: u32, reply: &Reply) -> io::Result<()> {
        self.send(&reply.encode(id).map_err(io::Error::other)?)
    }

    /// Says that something happened.
    pub(super) fn event(&mut self, event: &Event) -> io::Result<()> {
        self.send(&event.encode().map_err(io::Error::other)?)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.backlog.len() + bytes.len() > MAX_BACKLOG {
            return Err(io::Error::other("it does not read its answers"));
        }
        self.backlog.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what waits, as far as the peer takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.backlog.is_empty() {
            match self.stream.write(&self.backlog) {
                Ok(n) => drop(self.backlog.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
