//! Log lines in Patroni's form, `2026-01-31 23:59:59,123 INFO: text`, or as JSON, to standard error or `log.dir`.
//!
//! Writing never waits: lines go through a bounded queue to a thread of their own, and what does not fit is counted and
//! reported. A stuck log pipe must not stop the heartbeat.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use pgha_wire::config::{Level as LogLevel, Log};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::error::AgentError;

/// Name of the file in `log.dir`, Patroni's own.
const LOG_FILE: &str = "patroni.log";

/// Starts logging. Call once.
///
/// # Errors
/// [`AgentError::Os`] when the log file cannot be opened or the thread not started.
pub fn start(log: &Log) -> Result<(), AgentError> {
    let level = match log.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warning => "warn",
        LogLevel::Error | LogLevel::Critical => "error",
    };
    // Libraries tell the life of their connections at info; that is detail here.
    let filter = EnvFilter::new(format!(
        "warn,pgha={level},pgha_agent={level},pgha_api={level},pgha_dcs={level},pgha_postgres={level}"
    ));
    let sink = Sink::open(log)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink)
        .with_ansi(false);
    let set = if log.json {
        builder.json().flatten_event(true).with_timer(Clock).try_init()
    } else {
        builder.event_format(PatroniFormat).try_init()
    };
    set.map_err(|e| AgentError::os("start logging", std::io::Error::other(e)))
}

/// `asctime LEVEL: message key=value`.
struct PatroniFormat;

impl<S, N> FormatEvent<S, N> for PatroniFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        Clock.format_time(&mut writer)?;
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "ERROR",
            tracing::Level::WARN => "WARNING",
            tracing::Level::INFO => "INFO",
            tracing::Level::DEBUG | tracing::Level::TRACE => "DEBUG",
        };
        write!(writer, " {level}: ")?;
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Wall time as Python's logging writes it, in UTC.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let text = pgha_core::history_time::render(crate::clock::now().wall);
        let (date, rest) = text.split_once('T').ok_or(fmt::Error)?;
        let (time, fraction) = rest.split_once('.').ok_or(fmt::Error)?;
        write!(w, "{date} {time},{}", fraction.get(..3).unwrap_or("000"))
    }
}

/// The queue to the writing thread.
#[derive(Clone)]
struct Sink {
    lines: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl Sink {
    fn open(log: &Log) -> Result<Sink, AgentError> {
        let out: Box<dyn Write + Send> = match &log.dir {
            None => Box::new(std::io::stderr()),
            Some(dir) => Box::new(Rotating::open(dir.join(LOG_FILE), log.file_size, log.file_num)?),
        };
        let (lines, queue) = sync_channel(usize::try_from(log.max_queue_size.max(1)).unwrap_or(1000));
        let lost = Arc::new(AtomicU64::new(0));
        let sink = Sink {
            lines,
            lost: Arc::clone(&lost),
        };
        let thread = std::thread::Builder::new().name("pgha-log".to_owned());
        thread
            .stack_size(128 * 1024)
            .spawn(move || write_lines(&queue, &Mutex::new(out), &lost))
            .map_err(|e| AgentError::os("start the logging thread", e))?;
        Ok(sink)
    }
}

fn write_lines(queue: &Receiver<Vec<u8>>, out: &Mutex<Box<dyn Write + Send>>, lost: &AtomicU64) {
    while let Ok(line) = queue.recv() {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _unwritable = writeln!(
                out,
                "WARNING: {missing} log lines were lost: the log is not read fast enough"
            );
        }
        // There is nowhere to complain when the log itself cannot be written.
        let _unwritable = out.write_all(&line).and_then(|()| out.flush());
    }
}

/// One event's line; handed over when it is complete.
struct Line<'a> {
    sink: &'a Sink,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        match self.sink.lines.try_send(std::mem::take(&mut self.text)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.sink.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line {
            sink: self,
            text: Vec::new(),
        }
    }
}

/// A file that is renamed to `.1` when it is full, `.1` to `.2` and so on.
struct Rotating {
    path: PathBuf,
    file: std::fs::File,
    written: u64,
    limit: u64,
    keep: u32,
}

impl Rotating {
    fn open(path: PathBuf, limit: u64, keep: u32) -> Result<Rotating, AgentError> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| AgentError::os(format!("open the log file {}", path.display()), e))?;
        let written = file.metadata().map_or(0, |m| m.len());
        Ok(Rotating {
            path,
            file,
            written,
            limit,
            keep,
        })
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let name = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.keep).rev() {
            if name(n).exists() {
                std::fs::rename(name(n), name(n + 1))?;
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, name(1))?;
        }
        self.file = std::fs::File::options().create(true).append(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.written >= self.limit {
            self.rotate()?;
        }
        let n = self.file.write(bytes)?;
        self.written += u64::try_from(n).unwrap_or(0);
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
