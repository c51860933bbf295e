//! The fence process itself: one thread, one `poll`, and the deadline looked at after every wake.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use pgha_core::units::Mono;

use super::conn::{Conn, Received};
use super::guard::GuardBook;
use super::instance::{Instance, Waited, Watched, wait_any};
use super::kill;
use super::platform::{close_inherited_files, listen, lock_memory, poll, take_signals};
use super::procs::Procs;
use super::spawn;
use super::wire::{Event, Exited, Fired, PgSignal, Refusal, RefusalKind, Reply, Request, StartSpec, Status, VERSION};
use crate::clock;
use crate::error::AgentError;
use crate::state_dir::{Lock, StateDir};
use crate::stderr_log;

/// How long a fence without postmaster and without daemon stays.
const IDLE_EXIT: Duration = Duration::from_secs(10);
/// How often the remains of a postmaster are looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(5);
/// Pause after a `poll` that failed, so that a machine without memory does not spin.
const POLL_RETRY: Duration = Duration::from_millis(10);

macro_rules! log {
    ($level:literal, $($text:tt)*) => { stderr_log::line($level, "pgha-fence", format_args!($($text)*)) };
}

/// Runs the fence of one state directory until nobody needs it.
///
/// # Errors
/// [`AgentError::Locked`] when another fence holds the directory; [`AgentError::StateDir`] when it is not safe;
/// [`AgentError::Os`] when something that it cannot do without is not to be had.
pub fn run(state_dir: &Path) -> Result<(), AgentError> {
    close_inherited_files();
    let state_dir = StateDir::existing(state_dir)?;
    let lock = state_dir.lock_fence()?;
    let mut fence = Fence::new(&state_dir, lock)?;
    fence.serve();
    fence.remove_socket();
    Ok(())
}

struct Fence {
    guard: GuardBook,
    instance: Option<Instance>,
    last_exit: Option<Exited>,
    daemon: Option<Conn>,
    /// A connection that has not said hello yet; with its greeting it becomes the daemon's.
    guest: Option<Conn>,
    idle_since: Option<Mono>,
    quit: bool,
    procs: Procs,
    timer: OwnedFd,
    signals: SignalFd,
    listener: UnixListener,
    socket: PathBuf,
    // Held for as long as the process lives: the only fence here, in a directory that no clean-up may take away.
    _lock: Lock,
    _dir: std::fs::File,
}

/// What `poll` reported, in the order of its table.
struct Woken {
    signals: bool,
    listener: bool,
    daemon: bool,
    guest: bool,
}

impl Fence {
    fn new(state_dir: &StateDir, lock: Lock) -> Result<Fence, AgentError> {
        let os = |what: &str| {
            let what = what.to_owned();
            move |e: nix::Error| AgentError::os(what, e)
        };
        // A session of its own: what ends the daemon's terminal or process group does not end the fence.
        match nix::unistd::setsid() {
            Ok(_) | Err(nix::Error::EPERM) => {}
            Err(e) => return Err(AgentError::os("leave the daemon's session", e)),
        }
        nix::sys::prctl::set_child_subreaper(true).map_err(os("become the parent of orphans"))?;
        let signals = take_signals().map_err(os("take over the signals"))?;
        let io = |what: &'static str| move |e: io::Error| AgentError::os(what, e);
        let mut procs = Procs::open().map_err(io("open /proc"))?;
        let timer = clock::boot_timer().map_err(io("create a timer on the boot clock"))?;
        let dir = state_dir.hold()?;
        let socket = state_dir.socket();
        let listener = listen(&socket)?;
        lock_memory();
        kill::rehearse(&mut procs);
        log!("INFO", "ready at {}", socket.display());
        Ok(Fence {
            guard: GuardBook::default(),
            instance: None,
            last_exit: None,
            daemon: None,
            guest: None,
            idle_since: None,
            quit: false,
            procs,
            timer,
            signals,
            listener,
            socket,
            _lock: lock,
            _dir: dir,
        })
    }

    fn serve(&mut self) {
        while !self.quit {
            let woken = self.wait();
            // A newer deadline that is already in the socket counts: it was proven, and killing by the older one would be
            // wrong. Reading is bounded, so it cannot be used to hold back the kill.
            if woken.daemon {
                self.hear_daemon();
            }
            self.enforce();
            if woken.signals {
                self.take_signal();
            }
            self.reap();
            self.sweep();
            if woken.guest {
                self.hear_guest();
            }
            if woken.listener {
                self.accept();
            }
            self.note_idle();
        }
    }

    /// Kills when the deadline has passed.
    fn enforce(&mut self) {
        let Some(deadline) = self.guard.due(clock::boot()) else {
            return;
        };
        self.guard.latched = true;
        let killed = self.kill_all();
        let at = clock::boot();
        let fired = Fired { deadline, at, killed };
        self.guard.fired = Some(fired);
        let late = at.since(deadline).as_millis();
        log!(
            "WARNING",
            "the deadline has passed, killed {killed} processes, done {late} ms after it"
        );
        self.tell(&Event::Fired(fired));
        self.set_timer();
    }

    fn kill_all(&mut self) -> u32 {
        self.instance
            .as_mut()
            .map_or(0, |instance| instance.kill(&mut self.procs))
    }

    fn wait(&self) -> Woken {
        let off = || libc::pollfd {
            fd: -1,
            events: 0,
            revents: 0,
        };
        let on = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
        let conn = |conn: &Option<Conn>| {
            conn.as_ref().map_or_else(off, |c| {
                on(
                    c.raw_fd(),
                    libc::POLLIN | if c.wants_write() { libc::POLLOUT } else { 0 },
                )
            })
        };
        let ending = self.instance.as_ref().is_some_and(Instance::is_ending);
        let pidfd = self
            .instance
            .as_ref()
            .filter(|i| !i.is_ending())
            .and_then(|i| i.postmaster().pidfd());
        let mut table = [
            on(self.signals.as_fd().as_raw_fd(), libc::POLLIN),
            on(self.timer.as_raw_fd(), libc::POLLIN),
            on(self.listener.as_raw_fd(), libc::POLLIN),
            conn(&self.daemon),
            conn(&self.guest),
            pidfd.map_or_else(off, |fd| on(fd.as_raw_fd(), libc::POLLIN)),
        ];
        let timeout = if ending {
            Some(SWEEP_EVERY)
        } else {
            self.idle_since
                .map(|since| IDLE_EXIT.saturating_sub(clock::boot().since(since)))
        };
        if let Err(e) = poll(&mut table, timeout) {
            log!("ERROR", "cannot wait for events: {e}");
            std::thread::sleep(POLL_RETRY);
        }
        // The timer and the pidfd only wake: deadline and postmaster are looked at after every wake.
        let [signals, _timer, listener, daemon, guest, _pidfd] = table.map(|p| p.revents != 0);
        Woken {
            signals,
            listener,
            daemon,
            guest,
        }
    }

    fn accept(&mut self) {
        match self.listener.accept().and_then(|(stream, _)| Conn::new(stream)) {
            Ok(conn) => self.guest = Some(conn),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => log!("WARNING", "a connection was refused: {e}"),
        }
    }

    /// The newest connection that says hello speaks for the daemon; a frozen older daemon must not keep it out.
    fn hear_guest(&mut self) {
        let Some(mut conn) = self.guest.take() else { return };
        let greeting = match conn.fill().map_err(|e| e.to_string()) {
            Ok(()) => conn.next_request().map_err(|e| e.to_string()),
            Err(e) => Err(e),
        };
        match greeting {
            Ok(Received::Nothing) => self.guest = Some(conn),
            Ok(Received::Request(id, Request::Hello { version, pid })) => {
                if let Some(old) = self.daemon.take() {
                    log!(
                        "WARNING",
                        "daemon {pid} takes over from daemon {}, whose connection is closed",
                        old.peer
                    );
                } else {
                    log!("INFO", "daemon {pid} attached, protocol {version}");
                }
                let me = nix::unistd::Pid::this().as_raw();
                let welcome = Reply::Welcome {
                    version: VERSION,
                    pid: me,
                    status: self.status(),
                };
                self.daemon = Some(conn);
                self.answer(id, &welcome);
                self.serve_requests();
            }
            Ok(Received::Request(id, _) | Received::Unsupported(id)) => {
                let refusal = refuse(RefusalKind::OutOfOrder, "the first message must be a greeting");
                // The connection is closed anyway; whether it still reads does not matter.
                let _unread = conn.reply(id, &Reply::Refused(refusal));
            }
            Err(e) => log!(
                "WARNING",
                "process {} was disconnected before its greeting: {e}",
                conn.peer
            ),
        }
    }

    fn hear_daemon(&mut self) {
        let Some(conn) = self.daemon.as_mut() else { return };
        match conn.flush().and_then(|()| conn.fill()) {
            Ok(()) => self.serve_requests(),
            Err(e) => {
                // What it sent before it went is still its word.
                self.serve_requests();
                self.lose_daemon(&e.to_string());
            }
        }
    }

    fn serve_requests(&mut self) {
        while let Some(conn) = self.daemon.as_mut() {
            match conn.next_request() {
                Ok(Received::Nothing) => return,
                Ok(Received::Request(id, request)) => {
                    let reply = self.handle(request).unwrap_or_else(Reply::Refused);
                    self.answer(id, &reply);
                }
                Ok(Received::Unsupported(id)) => {
                    let text = format!("this fence speaks version {VERSION} and does not know the request");
                    self.answer(id, &Reply::Refused(refuse(RefusalKind::Unsupported, &text)));
                }
                Err(e) => return self.lose_daemon(&e.to_string()),
            }
        }
    }

    fn answer(&mut self, id: u32, reply: &Reply) {
        if let Some(Err(e)) = self.daemon.as_mut().map(|conn| conn.reply(id, reply)) {
            self.lose_daemon(&e.to_string());
        }
    }

    fn tell(&mut self, event: &Event) {
        if let Some(Err(e)) = self.daemon.as_mut().map(|conn| conn.event(event)) {
            self.lose_daemon(&e.to_string());
        }
    }

    fn lose_daemon(&mut self, why: &str) {
        if let Some(conn) = self.daemon.take() {
            log!("WARNING", "lost daemon {} ({why}); the guard stays in force", conn.peer);
        }
    }

    fn handle(&mut self, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Hello { .. } => Err(refuse(RefusalKind::OutOfOrder, "the greeting was said already")),
            Request::Guard { seq, guard } => {
                let now = clock::boot();
                self.guard
                    .set(seq, guard, now)
                    .map_err(|kind| refuse(kind, &format!("guard {seq} is not newer than {}", self.guard.seq)))?;
                self.set_timer();
                Ok(Reply::Ack { seq })
            }
            Request::Start(spec) => self.start(&spec),
            Request::Adopt {
                pid,
                start_ticks,
                epoch,
            } => self.adopt(pid, start_ticks, epoch),
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Signal(signal) => {
                self.running()?.postmaster().signal(match signal {
                    PgSignal::Reload => Signal::SIGHUP,
                    PgSignal::Smart => Signal::SIGTERM,
                    PgSignal::Fast => Signal::SIGINT,
                    PgSignal::Immediate => Signal::SIGQUIT,
                });
                Ok(Reply::Done)
            }
            Request::KillAll => {
                self.running()?;
                let killed = self.kill_all();
                log!("WARNING", "killed {killed} processes at the daemon's request");
                Ok(Reply::Done)
            }
            Request::Quit => {
                self.nothing_running()?;
                self.quit = true;
                Ok(Reply::Done)
            }
        }
    }

    fn start(&mut self, spec: &StartSpec) -> Result<Reply, Refusal> {
        self.may_run()?;
        let cannot = |text: &str| refuse(RefusalKind::CannotStart, text);
        let pid = spawn::spawn(spec).map_err(|text| cannot(&text))?;
        // A child that has ended already still has its entry until it is reaped.
        let start_ticks = self.procs.table().one(pid).map_or(0, |p| p.start_ticks);
        self.instance = Some(Instance::new(Watched::child(pid, start_ticks, spec.epoch)));
        log!("INFO", "started postmaster {pid}");
        Ok(Reply::Started { pid, start_ticks })
    }

    fn adopt(&mut self, pid: i32, start_ticks: u64, epoch: u64) -> Result<Reply, Refusal> {
        self.may_run()?;
        let missing = |text: &str| refuse(RefusalKind::NoSuchProcess, text);
        let watched = Watched::adopt(self.procs.table(), pid, start_ticks, epoch)
            .map_err(|e| missing(&format!("cannot watch process {pid}: {e}")))?
            .ok_or_else(|| missing(&format!("process {pid} is not there or is another one by now")))?;
        self.instance = Some(Instance::new(watched));
        log!("INFO", "adopted postmaster {pid}, which somebody else started");
        Ok(Reply::Started { pid, start_ticks })
    }

    fn may_run(&self) -> Result<(), Refusal> {
        self.nothing_running()?;
        self.guard.may_run(clock::boot()).map_err(|kind| {
            let text = if kind == RefusalKind::NoGuard {
                "no guard was set, so it is not known how long PostgreSQL may run"
            } else {
                "the deadline has passed and no newer guard was set"
            };
            refuse(kind, text)
        })
    }

    fn nothing_running(&self) -> Result<(), Refusal> {
        match &self.instance {
            None => Ok(()),
            Some(i) if i.is_ending() => Err(refuse(
                RefusalKind::Running,
                "processes of the last postmaster are still being cleared away",
            )),
            Some(i) => Err(refuse(
                RefusalKind::Running,
                &format!("postmaster {} is running", i.postmaster().pid),
            )),
        }
    }

    fn running(&self) -> Result<&Instance, Refusal> {
        self.instance
            .as_ref()
            .ok_or_else(|| refuse(RefusalKind::NotRunning, "there is no postmaster"))
    }

    fn status(&self) -> Status {
        Status {
            postmaster: self.instance.as_ref().map(Instance::describe),
            guard: self.guard.guard,
            seq: self.guard.seq,
            latched: self.guard.latched,
            fired: self.guard.fired,
            last_exit: self.last_exit,
        }
    }

    fn take_signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = i32::try_from(info.ssi_signo)
                .map_err(drop)
                .and_then(|n| Signal::try_from(n).map_err(drop))
            else {
                continue;
            };
            match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT if self.instance.is_none() => self.quit = true,
                Signal::SIGCHLD | Signal::SIGHUP | Signal::SIGUSR1 | Signal::SIGUSR2 => {}
                other => log!(
                    "WARNING",
                    "ignored {other}: PostgreSQL runs, and the daemon decides when it stops"
                ),
            }
        }
    }

    fn reap(&mut self) {
        while let Waited::Reaped { pid, status } = wait_any() {
            if let Some(instance) = self.instance.as_mut()
                && !instance.postmaster().is_adopted()
                && instance.postmaster().pid == pid
            {
                instance.reaped(status);
            }
        }
    }

    fn sweep(&mut self) {
        let Some(instance) = self.instance.as_mut() else { return };
        instance.check_adopted(self.procs.table());
        let Some(exited) = instance.sweep(&mut self.procs) else {
            return;
        };
        self.instance = None;
        self.last_exit = Some(exited);
        let (pid, leftovers) = (exited.pid, exited.leftovers);
        match exited.status {
            Some(status) => log!(
                "INFO",
                "postmaster {pid} ended, wait status {status}, {leftovers} processes left over"
            ),
            None => log!(
                "INFO",
                "adopted postmaster {pid} ended, {leftovers} processes left over"
            ),
        }
        self.tell(&Event::Exited(exited));
    }

    fn note_idle(&mut self) {
        if self.instance.is_some() || self.daemon.is_some() {
            self.idle_since = None;
            return;
        }
        let now = clock::boot();
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) >= IDLE_EXIT {
            log!("INFO", "no postmaster and no daemon for {IDLE_EXIT:?}, leaving");
            self.quit = true;
        }
    }

    fn set_timer(&self) {
        // The timer only wakes; should it ever fail, every other wake still looks at the deadline.
        if let Err(e) = clock::set_boot_timer(&self.timer, self.guard.next_due()) {
            log!("ERROR", "cannot set the timer: {e}");
        }
    }

    fn remove_socket(&self) {
        // The lock is still held, so this can only be our own.
        if let Err(e) = std::fs::remove_file(&self.socket) {
            log!("WARNING", "cannot remove {}: {e}", self.socket.display());
        }
    }
}

fn refuse(kind: RefusalKind, text: &str) -> Refusal {
    Refusal {
        kind,
        text: text.to_owned(),
    }
}
