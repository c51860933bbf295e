//! The flight recorder: every event that reached the node and the rule that followed, in a bounded pair of files.
//!
//! For the morning after: what the node knew and why it did what it did, also when the log was at INFO. Lines go to
//! `flight.log` until half of the size is used; then that file becomes `flight.old.log`. Writing is best effort.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use pgha_core::event::Event;
use pgha_core::rule::Rule;
use pgha_core::units::Now;

/// A line is cut here, in bytes; a whole cluster view is longer and is in etcd anyway.
const MAX_LINE: usize = 1500;

/// The recorder.
pub struct Recorder {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    half: u64,
}

impl Recorder {
    /// Records into `state_dir`, at most `bytes` in all; 0 records nothing.
    pub fn new(state_dir: &Path, bytes: u64) -> Recorder {
        let path = state_dir.join("flight.log");
        let file = (bytes > 0).then(|| open(&path)).flatten();
        let written = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Recorder {
            path,
            file,
            written,
            half: bytes / 2,
        }
    }

    /// Adds an event and the rule that was decided after it.
    pub fn note(&mut self, now: Now, event: &Event, rule: Option<Rule>) {
        if self.written > self.half {
            self.turn_over();
        }
        let Some(file) = &mut self.file else { return };
        let rule = rule.map_or(0, Rule::number);
        let mut line = format!(
            "{} {} {rule} {event:?}",
            now.mono.0,
            pgha_core::history_time::render(now.wall)
        );
        if line.len() > MAX_LINE {
            let cut = (0..=MAX_LINE).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
            line.truncate(cut);
        }
        line.push('\n');
        match file.write_all(line.as_bytes()) {
            Ok(()) => self.written += u64::try_from(line.len()).unwrap_or(0),
            Err(error) => {
                tracing::warn!(%error, "the flight recorder stops");
                self.file = None;
            }
        }
    }

    fn turn_over(&mut self) {
        let old = self.path.with_file_name("flight.old.log");
        if let Err(error) = std::fs::rename(&self.path, &old) {
            tracing::warn!(%error, "the flight recorder stops");
            self.file = None;
            return;
        }
        self.file = open(&self.path);
        self.written = 0;
    }
}

fn open(path: &Path) -> Option<File> {
    match File::options().create(true).append(true).open(path) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "there is no flight recorder");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recorder;
    use pgha_core::event::{Event, Wake};
    use pgha_core::units::Now;

    #[test]
    fn the_recorder_stays_within_its_size_and_keeps_the_newest_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut recorder = Recorder::new(dir.path(), 4096);
        for _ in 0..500 {
            recorder.note(Now::default(), &Event::Wake(Wake::Timer), None);
        }
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |m| m.len());
        let total = size("flight.log") + size("flight.old.log");
        assert!(total > 2048 && total < 4096 + 512, "{total}");
    }

    #[test]
    fn size_zero_records_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        Recorder::new(dir.path(), 0).note(Now::default(), &Event::Terminate, None);
        assert!(!dir.path().join("flight.log").exists());
    }
}
