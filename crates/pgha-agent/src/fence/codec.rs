//! Messages of the fence to bytes and back. Pure; the layout rules stand in [`super::wire`].

use std::ffi::OsStr;

use super::wire::{
    Event, Exited, Fired, Frame, Guard, Incoming, Malformed, NoGuard, PgSignal, Postmaster, Reader, Refusal,
    RefusalKind, Reply, Request, StartSpec, Status, Writer,
};

mod kind {
    pub const HELLO: u8 = 1;
    pub const START: u8 = 2;
    pub const ADOPT: u8 = 3;
    pub const GUARD: u8 = 4;
    pub const STATUS: u8 = 5;
    pub const SIGNAL: u8 = 6;
    pub const KILL_ALL: u8 = 7;
    pub const QUIT: u8 = 8;
    pub const WELCOME: u8 = 64;
    pub const STARTED: u8 = 65;
    pub const ACK: u8 = 66;
    pub const STATUS_IS: u8 = 67;
    pub const DONE: u8 = 68;
    pub const REFUSED: u8 = 69;
    pub const EXITED: u8 = 128;
    pub const FIRED: u8 = 129;
}

impl Request {
    /// The frame of this request.
    ///
    /// # Errors
    /// The frame would be longer than [`super::wire::MAX_FRAME`]: an environment or argument list beyond reason.
    pub fn encode(&self, id: u32) -> Result<Vec<u8>, Malformed> {
        let mut w = Writer::new(self.kind(), id);
        match self {
            Request::Hello { version, pid } => {
                w.u16(*version);
                w.i32(*pid);
            }
            Request::Start(spec) => write_start(&mut w, spec),
            Request::Adopt {
                pid,
                start_ticks,
                epoch,
            } => {
                w.i32(*pid);
                w.u64(*start_ticks);
                w.u64(*epoch);
            }
            Request::Guard { seq, guard } => {
                w.u64(*seq);
                write_guard(&mut w, *guard);
            }
            Request::Signal(signal) => w.u8(match signal {
                PgSignal::Reload => 1,
                PgSignal::Smart => 2,
                PgSignal::Fast => 3,
                PgSignal::Immediate => 4,
            }),
            Request::Status | Request::KillAll | Request::Quit => {}
        }
        w.finish()
    }

    fn kind(&self) -> u8 {
        match self {
            Request::Hello { .. } => kind::HELLO,
            Request::Start(_) => kind::START,
            Request::Adopt { .. } => kind::ADOPT,
            Request::Guard { .. } => kind::GUARD,
            Request::Status => kind::STATUS,
            Request::Signal(_) => kind::SIGNAL,
            Request::KillAll => kind::KILL_ALL,
            Request::Quit => kind::QUIT,
        }
    }

    /// Reads a request. `None`: one that only a newer fence knows.
    ///
    /// # Errors
    /// Its payload is not what its kind says.
    pub fn decode(frame: &Frame<'_>) -> Result<Option<Request>, Malformed> {
        let r = &mut Reader(frame.payload);
        Ok(Some(match frame.kind {
            kind::HELLO => Request::Hello {
                version: r.u16()?,
                pid: r.i32()?,
            },
            kind::START => Request::Start(read_start(r)?),
            kind::ADOPT => Request::Adopt {
                pid: r.i32()?,
                start_ticks: r.u64()?,
                epoch: r.u64()?,
            },
            kind::GUARD => Request::Guard {
                seq: r.u64()?,
                guard: read_guard(r)?,
            },
            kind::STATUS => Request::Status,
            kind::SIGNAL => Request::Signal(match r.u8()? {
                1 => PgSignal::Reload,
                2 => PgSignal::Smart,
                3 => PgSignal::Fast,
                4 => PgSignal::Immediate,
                _ => return Ok(None),
            }),
            kind::KILL_ALL => Request::KillAll,
            kind::QUIT => Request::Quit,
            _ => return Ok(None),
        }))
    }
}

impl Reply {
    /// The frame of this reply.
    ///
    /// # Errors
    /// None in practice: a reply is short.
    pub fn encode(&self, id: u32) -> Result<Vec<u8>, Malformed> {
        let kind = match self {
            Reply::Welcome { .. } => kind::WELCOME,
            Reply::Started { .. } => kind::STARTED,
            Reply::Ack { .. } => kind::ACK,
            Reply::Status(_) => kind::STATUS_IS,
            Reply::Done => kind::DONE,
            Reply::Refused(_) => kind::REFUSED,
        };
        let mut w = Writer::new(kind, id);
        match self {
            Reply::Welcome { version, pid, status } => {
                w.u16(*version);
                w.i32(*pid);
                write_status(&mut w, status);
            }
            Reply::Started { pid, start_ticks } => {
                w.i32(*pid);
                w.u64(*start_ticks);
            }
            Reply::Ack { seq } => w.u64(*seq),
            Reply::Status(status) => write_status(&mut w, status),
            Reply::Done => {}
            Reply::Refused(refusal) => {
                w.u8(refusal_code(refusal.kind));
                w.text(OsStr::new(&refusal.text));
            }
        }
        w.finish()
    }
}

impl Event {
    /// The frame of this event.
    ///
    /// # Errors
    /// None in practice: an event is short.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        match self {
            Event::Exited(exited) => {
                let mut w = Writer::new(kind::EXITED, 0);
                write_exited(&mut w, *exited);
                w.finish()
            }
            Event::Fired(fired) => {
                let mut w = Writer::new(kind::FIRED, 0);
                write_fired(&mut w, *fired);
                w.finish()
            }
        }
    }
}

impl Incoming {
    /// Reads what the fence sent.
    ///
    /// # Errors
    /// The payload is not what its kind says.
    pub fn decode(frame: &Frame<'_>) -> Result<Incoming, Malformed> {
        let r = &mut Reader(frame.payload);
        let reply = match frame.kind {
            kind::WELCOME => Reply::Welcome {
                version: r.u16()?,
                pid: r.i32()?,
                status: read_status(r)?,
            },
            kind::STARTED => Reply::Started {
                pid: r.i32()?,
                start_ticks: r.u64()?,
            },
            kind::ACK => Reply::Ack { seq: r.u64()? },
            kind::STATUS_IS => Reply::Status(read_status(r)?),
            kind::DONE => Reply::Done,
            kind::REFUSED => Reply::Refused(Refusal {
                kind: refusal_kind(r.u8()?),
                text: r.text()?.to_string_lossy().into_owned(),
            }),
            kind::EXITED => return Ok(Incoming::Event(Event::Exited(read_exited(r)?))),
            kind::FIRED => return Ok(Incoming::Event(Event::Fired(read_fired(r)?))),
            _ => return Ok(Incoming::Unknown),
        };
        Ok(Incoming::Reply(frame.id, reply))
    }
}

fn write_start(w: &mut Writer, spec: &StartSpec) {
    w.text(spec.program.as_os_str());
    w.count(spec.args.len());
    for arg in &spec.args {
        w.text(arg);
    }
    w.count(spec.env.len());
    for (name, value) in &spec.env {
        w.text(name);
        w.text(value);
    }
    w.text(spec.cwd.as_os_str());
    w.u64(spec.epoch);
    w.option(spec.log.as_ref(), |w, log| w.text(log.as_os_str()));
}

fn read_start(r: &mut Reader<'_>) -> Result<StartSpec, Malformed> {
    Ok(StartSpec {
        program: r.text()?.into(),
        args: r.list(Reader::text)?,
        env: r.list(|r| Ok((r.text()?, r.text()?)))?,
        cwd: r.text()?.into(),
        epoch: r.u64()?,
        log: r.option(Reader::text)?.map(Into::into),
    })
}

/// Code of a guard that is a deadline; the codes from 1 on are reasons for none.
const DEADLINE: u8 = 0;

fn write_guard(w: &mut Writer, guard: Guard) {
    match guard {
        Guard::Deadline(at) => {
            w.u8(DEADLINE);
            w.u64(at.0);
        }
        Guard::Unguarded(reason) => w.u8(match reason {
            NoGuard::Standby => 1,
            NoGuard::Pause => 2,
            NoGuard::Failsafe => 3,
            NoGuard::Bootstrap => 4,
            NoGuard::Other(code) => code.max(1),
        }),
    }
}

fn read_guard(r: &mut Reader<'_>) -> Result<Guard, Malformed> {
    Ok(match r.u8()? {
        DEADLINE => Guard::Deadline(r.mono()?),
        1 => Guard::Unguarded(NoGuard::Standby),
        2 => Guard::Unguarded(NoGuard::Pause),
        3 => Guard::Unguarded(NoGuard::Failsafe),
        4 => Guard::Unguarded(NoGuard::Bootstrap),
        code => Guard::Unguarded(NoGuard::Other(code)),
    })
}

fn refusal_code(kind: RefusalKind) -> u8 {
    match kind {
        RefusalKind::Unsupported => 0,
        RefusalKind::Fired => 1,
        RefusalKind::NoGuard => 2,
        RefusalKind::Running => 3,
        RefusalKind::NotRunning => 4,
        RefusalKind::StaleGuard => 5,
        RefusalKind::CannotStart => 6,
        RefusalKind::NoSuchProcess => 7,
        RefusalKind::OutOfOrder => 8,
    }
}

fn refusal_kind(code: u8) -> RefusalKind {
    match code {
        1 => RefusalKind::Fired,
        2 => RefusalKind::NoGuard,
        3 => RefusalKind::Running,
        4 => RefusalKind::NotRunning,
        5 => RefusalKind::StaleGuard,
        6 => RefusalKind::CannotStart,
        7 => RefusalKind::NoSuchProcess,
        8 => RefusalKind::OutOfOrder,
        // A reason of a newer fence: all that is sure is that it did not do it. Its text says why.
        _ => RefusalKind::Unsupported,
    }
}

fn write_status(w: &mut Writer, status: &Status) {
    w.option(status.postmaster, |w, p| {
        w.i32(p.pid);
        w.u64(p.start_ticks);
        w.u64(p.epoch);
        w.bool(p.adopted);
        w.bool(p.ending);
    });
    w.option(status.guard, write_guard);
    w.u64(status.seq);
    w.bool(status.latched);
    w.option(status.fired, write_fired);
    w.option(status.last_exit, write_exited);
}

fn read_status(r: &mut Reader<'_>) -> Result<Status, Malformed> {
    Ok(Status {
        postmaster: r.option(|r| {
            Ok(Postmaster {
                pid: r.i32()?,
                start_ticks: r.u64()?,
                epoch: r.u64()?,
                adopted: r.bool()?,
                ending: r.bool()?,
            })
        })?,
        guard: r.option(read_guard)?,
        seq: r.u64()?,
        latched: r.bool()?,
        fired: r.option(read_fired)?,
        last_exit: r.option(read_exited)?,
    })
}

fn write_exited(w: &mut Writer, exited: Exited) {
    w.i32(exited.pid);
    w.u64(exited.epoch);
    w.option(exited.status, Writer::i32);
    w.u64(exited.at.0);
    w.u32(exited.leftovers);
}

fn read_exited(r: &mut Reader<'_>) -> Result<Exited, Malformed> {
    Ok(Exited {
        pid: r.i32()?,
        epoch: r.u64()?,
        status: r.option(Reader::i32)?,
        at: r.mono()?,
        leftovers: r.u32()?,
    })
}

fn write_fired(w: &mut Writer, fired: Fired) {
    w.u64(fired.deadline.0);
    w.u64(fired.at.0);
    w.u32(fired.killed);
}

fn read_fired(r: &mut Reader<'_>) -> Result<Fired, Malformed> {
    Ok(Fired {
        deadline: r.mono()?,
        at: r.mono()?,
        killed: r.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::wire::{MAX_FRAME, split_frame};
    use super::*;
    use pgha_core::units::Mono;

    fn requests() -> Vec<Request> {
        let guard = |seq, guard| Request::Guard { seq, guard };
        let spec = StartSpec {
            program: "/usr/bin/postgres".into(),
            args: vec!["-D".into(), "/data with space".into()],
            env: vec![("PGPASSWORD".into(), "hunter2".into())],
            cwd: "/data".into(),
            epoch: 7,
            log: Some("/log".into()),
        };
        let mut all = vec![
            Request::Hello {
                version: VERSION_OF_TEST,
                pid: 42,
            },
            Request::Start(spec.clone()),
            Request::Start(StartSpec {
                log: None,
                args: vec![],
                ..spec
            }),
            Request::Adopt {
                pid: 1,
                start_ticks: u64::MAX,
                epoch: 3,
            },
            guard(1, Guard::Deadline(Mono(5))),
            guard(9, Guard::Unguarded(NoGuard::Other(77))),
            Request::Status,
            Request::KillAll,
            Request::Quit,
        ];
        all.extend(
            [NoGuard::Standby, NoGuard::Pause, NoGuard::Failsafe, NoGuard::Bootstrap]
                .map(|reason| guard(2, Guard::Unguarded(reason))),
        );
        all.extend([PgSignal::Reload, PgSignal::Smart, PgSignal::Fast, PgSignal::Immediate].map(Request::Signal));
        all
    }

    const VERSION_OF_TEST: u16 = 3;

    #[test]
    fn each_request_survives_the_wire() {
        for request in requests() {
            let bytes = request.encode(5).expect("encodes");
            let (frame, used) = split_frame(&bytes).expect("is a frame").expect("is whole");
            assert_eq!((used, frame.id), (bytes.len(), 5));
            assert_eq!(Request::decode(&frame), Ok(Some(request)));
        }
    }

    #[test]
    fn each_reply_and_event_survives_the_wire() {
        let exited = Exited {
            pid: 4,
            epoch: 1,
            status: Some(-9),
            at: Mono(8),
            leftovers: 2,
        };
        let fired = Fired {
            deadline: Mono(1),
            at: Mono(2),
            killed: 3,
        };
        let full = Status {
            postmaster: Some(Postmaster {
                pid: 4,
                start_ticks: 5,
                epoch: 6,
                adopted: true,
                ending: false,
            }),
            guard: Some(Guard::Deadline(Mono(9))),
            seq: 11,
            latched: true,
            fired: Some(fired),
            last_exit: Some(Exited { status: None, ..exited }),
        };
        let refusals = (0..=8).map(|code| {
            Reply::Refused(Refusal {
                kind: refusal_kind(code),
                text: "no".into(),
            })
        });
        let replies = [
            Reply::Welcome {
                version: 1,
                pid: 2,
                status: full.clone(),
            },
            Reply::Started { pid: 3, start_ticks: 4 },
            Reply::Ack { seq: 5 },
            Reply::Status(Status::default()),
            Reply::Done,
        ];
        for reply in replies.into_iter().chain(refusals) {
            let bytes = reply.encode(6).expect("encodes");
            let (frame, _) = split_frame(&bytes).expect("is a frame").expect("is whole");
            assert_eq!(Incoming::decode(&frame), Ok(Incoming::Reply(6, reply)));
        }
        for event in [Event::Exited(exited), Event::Fired(fired)] {
            let bytes = event.encode().expect("encodes");
            let (frame, _) = split_frame(&bytes).expect("is a frame").expect("is whole");
            assert_eq!(Incoming::decode(&frame), Ok(Incoming::Event(event)));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_and_never_panics() {
        for request in requests() {
            let bytes = request.encode(1).expect("encodes");
            for end in 0..bytes.len() {
                assert_eq!(split_frame(&bytes[..end]), Ok(None), "a cut frame waits for the rest");
            }
            let (frame, _) = split_frame(&bytes).expect("is a frame").expect("is whole");
            for end in 0..frame.payload.len() {
                let cut = Frame {
                    payload: &frame.payload[..end],
                    ..frame
                };
                assert!(Request::decode(&cut).is_err(), "{request:?} cut at {end}");
            }
        }
    }

    #[test]
    fn fields_that_a_newer_version_appends_are_ignored() {
        let mut w = Writer::new(kind::ACK, 4);
        w.u64(9);
        w.text(OsStr::new("something new"));
        let bytes = w.finish().expect("encodes");
        let (frame, _) = split_frame(&bytes).expect("is a frame").expect("is whole");
        assert_eq!(Incoming::decode(&frame), Ok(Incoming::Reply(4, Reply::Ack { seq: 9 })));
    }

    #[test]
    fn unknown_kinds_are_told_apart_from_malformed_ones() {
        let frame = Frame {
            kind: 200,
            id: 1,
            payload: b"abc",
        };
        assert_eq!(Request::decode(&frame), Ok(None));
        assert_eq!(Incoming::decode(&frame), Ok(Incoming::Unknown));
    }

    #[test]
    fn lengths_beyond_the_bound_are_refused_both_ways() {
        assert!(split_frame(&u32::MAX.to_le_bytes()).is_err());
        assert!(split_frame(&0u32.to_le_bytes()).is_err());
        let big = Request::Start(StartSpec {
            program: "/p".into(),
            args: vec!["x".repeat(MAX_FRAME).into()],
            env: vec![],
            cwd: "/".into(),
            epoch: 0,
            log: None,
        });
        assert!(big.encode(1).is_err());
        let mut list_without_items = Reader(&[255, 255, 255, 255]);
        assert!(list_without_items.list(Reader::u8).is_err());
    }

    #[test]
    fn the_environment_of_a_postmaster_does_not_reach_a_log() {
        for request in requests() {
            assert!(!format!("{request:?}").contains("hunter2"));
        }
    }
}
