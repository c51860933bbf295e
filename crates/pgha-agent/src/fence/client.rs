//! The daemon's side of the fence.
//!
//! A request is one `send` on a non-blocking socket: a new deadline reaches the fence without waiting for a task to be
//! scheduled, and a cancelled call never leaves half a frame behind. The kernel's buffer holds several of the
//! largest frames, so a socket that takes no more means a fence that does not read, which counts as lost.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};
use pgha_core::units::Mono;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use super::wire::{
    Event, Guard, Incoming, MAX_FRAME, NoGuard, PgSignal, RefusalKind, Reply, Request, StartSpec, Status, VERSION,
    split_frame,
};
use crate::error::AgentError;
use crate::state_dir::StateDir;

/// Exit code of a fence that found another one in its place.
pub const EXIT_LOCKED: u8 = 3;

/// How long the fence may take to answer. It only ever waits for the kernel, except while a program is being loaded.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a start may take: the fence's own patience for loading the program, and some.
const START_WAIT: Duration = Duration::from_secs(12);
/// How long a fence may take to come up, an old one on its way out included.
const SPAWN_WAIT: Duration = Duration::from_secs(10);
/// Pause between attempts to connect to a fence that is coming up.
const CONNECT_RETRY: Duration = Duration::from_millis(10);
/// Events that may wait for the driver. There are two or three per postmaster.
const MAX_EVENTS: usize = 64;

/// A connection to the fence. Clones share it.
#[derive(Clone, Debug)]
pub struct FenceClient {
    shared: Arc<Shared>,
}

/// What [`FenceClient::connect_or_spawn`] gives.
#[derive(Debug)]
pub struct Attached {
    /// The connection.
    pub client: FenceClient,
    /// What the fence says unasked, ending with [`FenceEvent::Lost`]. Dropping it closes the connection.
    pub events: mpsc::Receiver<FenceEvent>,
    /// Where the fence stood at the greeting: a postmaster in it has run on while no daemon was there.
    pub status: Status,
    /// True when the fence was there before.
    pub reattached: bool,
}

/// What the driver hears from the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceEvent {
    /// Something that happened to the postmaster.
    Happened(Event),
    /// The connection has ended, for this reason. If the fence died, its postmaster is being stopped by the kernel;
    /// connect again to see.
    Lost(String),
}

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    pending: Mutex<Pending>,
    next_id: AtomicU32,
    seq: AtomicU64,
    version: u16,
    pid: i32,
}

/// Requests without an answer; `Closed` once there will be none.
#[derive(Debug)]
enum Pending {
    Open(HashMap<u32, oneshot::Sender<Reply>>),
    Closed,
}

impl FenceClient {
    /// Connects to the fence of this state directory, starting one when there is none.
    ///
    /// `program` is the path of `pgha-fence`; when absent it is `$PGHA_FENCE`, or the file of that name beside the running
    /// program. The caller holds the agent's lock on the directory: the newest connection wins.
    ///
    /// # Errors
    /// [`AgentError::FenceMissing`] when there is no program to start; [`AgentError::FenceLost`] when it does not come
    /// up in time or leaves at once (its message is in the log).
    pub async fn connect_or_spawn(state_dir: &StateDir, program: Option<&Path>) -> Result<Attached, AgentError> {
        match tokio::time::timeout(SPAWN_WAIT, attach_or_spawn(state_dir, program)).await {
            Ok(result) => result,
            Err(_) => Err(lost("start it", format!("it did not answer within {SPAWN_WAIT:?}"))),
        }
    }

    /// Connects to a fence that is already there.
    ///
    /// # Errors
    /// [`AgentError::Os`] when nobody listens; [`AgentError::FenceLost`] when it does not greet back.
    pub async fn connect(socket: &Path) -> Result<Attached, AgentError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| AgentError::os(format!("connect to the fence at {}", socket.display()), e))?;
        greet(stream).await
    }

    /// The fence's pid.
    pub fn fence_pid(&self) -> i32 {
        self.shared.pid
    }

    /// The protocol version that the fence speaks; ours is [`VERSION`].
    pub fn fence_version(&self) -> u16 {
        self.shared.version
    }

    /// Starts a postmaster and returns its pid and start time in clock ticks.
    ///
    /// # Errors
    /// [`AgentError::FenceRefused`] when one is running, when no guard is set, when the deadline has passed, or when the
    /// program cannot be run.
    pub async fn start(&self, spec: StartSpec) -> Result<(i32, u64), AgentError> {
        let reply = self.ask("start PostgreSQL", &Request::Start(spec), START_WAIT).await?;
        started("start PostgreSQL", reply)
    }

    /// Hands over a postmaster that somebody else started.
    ///
    /// # Errors
    /// As [`FenceClient::start`], and when the process is not there.
    pub async fn adopt(&self, pid: i32, start_ticks: u64, epoch: u64) -> Result<(i32, u64), AgentError> {
        let what = "adopt PostgreSQL";
        let reply = self
            .ask(
                what,
                &Request::Adopt {
                    pid,
                    start_ticks,
                    epoch,
                },
                ANSWER_WAIT,
            )
            .await?;
        started(what, reply)
    }

    /// PostgreSQL may run until `at`. Returns once that is in force.
    ///
    /// # Errors
    /// [`AgentError::FenceLost`]: it is unknown whether it is in force; the older guard may be.
    pub async fn set_deadline(&self, at: Mono) -> Result<(), AgentError> {
        self.set_guard("set the deadline", Guard::Deadline(at)).await
    }

    /// PostgreSQL may run without a deadline, for this reason. Returns once that is in force.
    ///
    /// # Errors
    /// As [`FenceClient::set_deadline`].
    pub async fn lift_deadline(&self, reason: NoGuard) -> Result<(), AgentError> {
        self.set_guard("lift the deadline", Guard::Unguarded(reason)).await
    }

    async fn set_guard(&self, what: &'static str, guard: Guard) -> Result<(), AgentError> {
        // Number and send in one go: two callers must not overtake each other between them.
        let waiting = {
            let mut pending = self.pending();
            let seq = self.shared.seq.fetch_add(1, Ordering::Relaxed) + 1;
            self.send(&mut pending, what, &Request::Guard { seq, guard })?
        };
        match self.await_reply(what, waiting, ANSWER_WAIT).await? {
            Reply::Ack { .. } => Ok(()),
            other => Err(unexpected(what, other)),
        }
    }

    /// Asks where the fence stands.
    ///
    /// # Errors
    /// [`AgentError::FenceLost`].
    pub async fn status(&self) -> Result<Status, AgentError> {
        match self.ask("ask for its status", &Request::Status, ANSWER_WAIT).await? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected("ask for its status", other)),
        }
    }

    /// Sends a signal to the postmaster.
    ///
    /// # Errors
    /// [`AgentError::FenceRefused`] when there is none.
    pub async fn signal(&self, signal: PgSignal) -> Result<(), AgentError> {
        self.order("signal PostgreSQL", &Request::Signal(signal)).await
    }

    /// Kills the postmaster and all its processes; their end comes as an event.
    ///
    /// # Errors
    /// [`AgentError::FenceRefused`] when there is none.
    pub async fn kill_all(&self) -> Result<(), AgentError> {
        self.order("kill PostgreSQL", &Request::KillAll).await
    }

    /// Ends the fence.
    ///
    /// # Errors
    /// [`AgentError::FenceRefused`] while there is a postmaster.
    pub async fn quit(&self) -> Result<(), AgentError> {
        self.order("leave", &Request::Quit).await
    }

    async fn order(&self, what: &'static str, request: &Request) -> Result<(), AgentError> {
        match self.ask(what, request, ANSWER_WAIT).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(what, other)),
        }
    }

    async fn ask(&self, what: &'static str, request: &Request, wait: Duration) -> Result<Reply, AgentError> {
        let waiting = self.send(&mut self.pending(), what, request)?;
        self.await_reply(what, waiting, wait).await
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        // Nothing that holds the lock can leave the table half changed.
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(
        &self,
        pending: &mut Pending,
        what: &'static str,
        request: &Request,
    ) -> Result<(u32, oneshot::Receiver<Reply>), AgentError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = request.encode(id)?;
        let Pending::Open(table) = pending else {
            return Err(lost(what, "the connection has ended".to_owned()));
        };
        let sent = send(
            self.shared.stream.as_raw_fd(),
            &frame,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        );
        let problem = match sent {
            Ok(n) if n == frame.len() => {
                let (answer, waiting) = oneshot::channel();
                table.insert(id, answer);
                return Ok((id, waiting));
            }
            Ok(_) | Err(nix::Error::EAGAIN) => "it does not read".to_owned(),
            Err(e) => e.desc().to_owned(),
        };
        // Half a frame may be out, so the connection is of no use any more. The reader sees its end and says so.
        let _closed = nix::sys::socket::shutdown(self.shared.stream.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        *pending = Pending::Closed;
        Err(lost(what, problem))
    }

    async fn await_reply(
        &self,
        what: &'static str,
        (id, waiting): (u32, oneshot::Receiver<Reply>),
        wait: Duration,
    ) -> Result<Reply, AgentError> {
        match tokio::time::timeout(wait, waiting).await {
            Ok(Ok(Reply::Refused(refusal))) => Err(AgentError::FenceRefused { what, refusal }),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(lost(what, "the connection has ended".to_owned())),
            Err(_) => {
                if let Pending::Open(table) = &mut *self.pending() {
                    table.remove(&id);
                }
                Err(lost(what, format!("no answer within {wait:?}")))
            }
        }
    }
}

impl AgentError {
    /// Why the fence refused, when that is what happened.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            AgentError::FenceRefused { refusal, .. } => Some(refusal.kind),
            _ => None,
        }
    }
}

fn lost(what: &'static str, reason: String) -> AgentError {
    AgentError::FenceLost { what, reason }
}

fn unexpected(what: &'static str, reply: Reply) -> AgentError {
    lost(what, format!("it gave the wrong answer {reply:?}"))
}

fn started(what: &'static str, reply: Reply) -> Result<(i32, u64), AgentError> {
    match reply {
        Reply::Started { pid, start_ticks } => Ok((pid, start_ticks)),
        other => Err(unexpected(what, other)),
    }
}

async fn attach_or_spawn(state_dir: &StateDir, program: Option<&Path>) -> Result<Attached, AgentError> {
    let socket = state_dir.socket();
    let mut child: Option<Child> = None;
    let mut reattached = true;
    loop {
        match FenceClient::connect(&socket).await {
            Ok(attached) => return Ok(Attached { reattached, ..attached }),
            // Nobody there, or one that is just leaving.
            Err(AgentError::FenceLost { .. }) => {}
            Err(AgentError::Os { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) => {}
            Err(other) => return Err(other),
        }
        match child.as_mut().map(Child::try_wait) {
            None => {
                child = Some(spawn(state_dir, &locate(program)?)?);
                reattached = false;
            }
            Some(Ok(Some(status))) if status.code() == Some(i32::from(EXIT_LOCKED)) => {
                // Another fence is coming up or going: connect to that one, or take its place.
                child = None;
                reattached = true;
            }
            Some(Ok(Some(status))) => return Err(lost("start it", format!("it ended at once, {status}"))),
            Some(Ok(None)) => {}
            Some(Err(e)) => return Err(AgentError::os("wait for the fence", e)),
        }
        tokio::time::sleep(CONNECT_RETRY).await;
    }
}

fn locate(program: Option<&Path>) -> Result<PathBuf, AgentError> {
    let mut looked = Vec::new();
    let beside = || std::env::current_exe().ok()?.parent().map(|dir| dir.join("pgha-fence"));
    let candidate = program
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("PGHA_FENCE").map(PathBuf::from));
    for path in candidate.map_or_else(|| beside().into_iter().collect(), |path| vec![path]) {
        if path.is_file() {
            // It is started in another directory.
            return std::path::absolute(&path).map_err(|e| AgentError::os(format!("resolve {}", path.display()), e));
        }
        looked.push(path.display().to_string());
    }
    Err(AgentError::FenceMissing {
        looked: looked.join(", "),
    })
}

/// Starts a fence that outlives this process. It inherits standard error and nothing else: no environment, in which
/// there may be passwords, and no files.
fn spawn(state_dir: &StateDir, program: &Path) -> Result<Child, AgentError> {
    Command::new(program)
        .arg(state_dir.path())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| AgentError::os(format!("start {}", program.display()), e))
}

async fn greet(stream: UnixStream) -> Result<Attached, AgentError> {
    let what = "greet it";
    let pid = nix::unistd::Pid::this().as_raw();
    let hello = Request::Hello { version: VERSION, pid }.encode(0)?;
    let sent = send(
        stream.as_raw_fd(),
        &hello,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
    );
    if sent != Ok(hello.len()) {
        return Err(lost(what, "it closed the connection".to_owned()));
    }
    let mut input = Input::new();
    let greeting = tokio::time::timeout(ANSWER_WAIT, input.next(&stream))
        .await
        .map_err(|_| lost(what, format!("no answer within {ANSWER_WAIT:?}")))?
        .map_err(|reason| lost(what, reason))?;
    let (version, pid, status) = match greeting {
        Incoming::Reply(0, Reply::Welcome { version, pid, status }) => (version, pid, status),
        Incoming::Reply(_, Reply::Refused(refusal)) => return Err(AgentError::FenceRefused { what, refusal }),
        other => return Err(lost(what, format!("it gave the wrong answer {other:?}"))),
    };
    let shared = Arc::new(Shared {
        stream,
        pending: Mutex::new(Pending::Open(HashMap::new())),
        next_id: AtomicU32::new(1),
        seq: AtomicU64::new(status.seq),
        version,
        pid,
    });
    let (events_in, events) = mpsc::channel(MAX_EVENTS);
    let client = FenceClient { shared };
    // The reader ends with the connection, or when neither client nor event receiver is left.
    tokio::spawn(read_on(client.shared.clone(), input, events_in));
    Ok(Attached {
        client,
        events,
        status,
        reattached: true,
    })
}

async fn read_on(shared: Arc<Shared>, mut input: Input, events: mpsc::Sender<FenceEvent>) {
    let reason = loop {
        let incoming = tokio::select! {
            incoming = input.next(&shared.stream) => incoming,
            // Dropping the receiver is how the driver lets go of the fence.
            () = events.closed() => return close(&shared),
        };
        match incoming {
            Ok(Incoming::Reply(id, reply)) => {
                let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Pending::Open(table) = &mut *pending
                    && let Some(answer) = table.remove(&id)
                {
                    // A caller that gave up does not want it any more.
                    let _gave_up = answer.send(reply);
                }
            }
            Ok(Incoming::Event(event)) => {
                if events.try_send(FenceEvent::Happened(event)).is_err() {
                    break "the driver does not read its events".to_owned();
                }
            }
            Ok(Incoming::Unknown) => tracing::warn!("the fence said something that only a newer pgha understands"),
            Err(reason) => break reason,
        }
    };
    close(&shared);
    // When there is no room for it, the end of the stream says the same.
    let _full = events.try_send(FenceEvent::Lost(reason));
}

fn close(shared: &Shared) {
    *shared.pending.lock().unwrap_or_else(PoisonError::into_inner) = Pending::Closed;
    // A connection that has ended already cannot be shut down again.
    let _ended = nix::sys::socket::shutdown(shared.stream.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

/// Bytes of the stream that are not a whole message yet.
#[derive(Debug)]
struct Input {
    buffer: Vec<u8>,
}

impl Input {
    fn new() -> Input {
        Input { buffer: Vec::new() }
    }

    /// The next message. Cancel safe: what was read stays in the buffer. The error is the reason to give up.
    async fn next(&mut self, stream: &UnixStream) -> Result<Incoming, String> {
        loop {
            if let Some((frame, used)) = split_frame(&self.buffer).map_err(|e| e.to_string())? {
                let incoming = Incoming::decode(&frame).map_err(|e| e.to_string())?;
                self.buffer.drain(..used);
                return Ok(incoming);
            }
            stream.readable().await.map_err(|e| e.to_string())?;
            self.buffer.reserve(MAX_FRAME / 16);
            match stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err("it closed the connection".to_owned()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }
}
