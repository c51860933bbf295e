//! What the tests of the fence share: a fake postmaster, a directory that cleans up after itself, patience.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_agent::clock;
use pgha_agent::fence::client::{Attached, FenceClient, FenceEvent};
use pgha_agent::fence::wire::{Event, Exited, Fired, StartSpec};
use pgha_agent::state_dir::StateDir;
use tokio::time::{sleep, timeout};

pub const FENCE: &str = env!("CARGO_BIN_EXE_pgha-fence");
/// How long after the deadline all processes must have been sent SIGKILL.
pub const PUNCTUAL: Duration = Duration::from_millis(200);
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A postmaster as nasty as it gets: children that ignore everything, with children of their own.
const FAKE_POSTMASTER: &str = r#"
trap '' TERM INT
for i in 1 2 3; do
    sh -c "trap '' TERM INT QUIT HUP; while :; do sleep 1000; done" &
done
echo "$@" > "$DIR/args"
env | sort > "$DIR/env"
ls /proc/self/fd > "$DIR/fds"
trap 'kill -9 $(jobs -p); exit 7' QUIT
touch "$DIR/ready"
while :; do wait; done
"#;

/// A scratch directory with a fence in it that goes away with the test.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub state: StateDir,
}

impl Rig {
    pub fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(None, &dir.path().join("data")).unwrap();
        fs::write(dir.path().join("postmaster.sh"), FAKE_POSTMASTER).unwrap();
        Rig { dir, state }
    }
    pub async fn attach(&self) -> Attached {
        FenceClient::connect_or_spawn(&self.state, Some(Path::new(FENCE)))
            .await
            .unwrap()
    }
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn spec(&self) -> StartSpec {
        StartSpec {
            program: "/bin/sh".into(),
            args: vec![self.file("postmaster.sh").into(), "-D".into(), "a b".into()],
            env: vec![
                ("DIR".into(), self.dir.path().into()),
                ("PATH".into(), "/usr/bin:/bin".into()),
                // By this mark the processes of one test are told from those of another.
                ("PGHA_TEST_MARK".into(), self.dir.path().into()),
            ],
            cwd: self.dir.path().into(),
            epoch: 77,
            log: Some(self.file("log")),
        }
    }
    /// The live processes that the postmaster of this test and its children are.
    pub fn processes(&self) -> Vec<i32> {
        marked(&format!("PGHA_TEST_MARK={}", self.dir.path().display()))
    }
    pub async fn start(&self, client: &FenceClient) -> i32 {
        let (pid, ticks) = client.start(self.spec()).await.unwrap();
        assert!(ticks > 0);
        eventually("the fake postmaster is ready", || self.file("ready").exists()).await;
        // The shell of the postmaster, three more and what they run.
        eventually("its children run", || self.processes().len() >= 7).await;
        pid
    }
    pub async fn all_gone(&self) {
        eventually("no process is left", || self.processes().is_empty()).await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let lock = fs::read_to_string(self.state.path().join("fence.lock")).unwrap_or_default();
        for pid in self.processes().into_iter().chain(lock.trim().parse().ok()) {
            if pid == lock.trim().parse().unwrap_or(0) && !cmdline(pid).contains("pgha-fence") {
                continue;
            }
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

pub fn cmdline(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

pub fn marked(mark: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|b| *b == 0).any(|var| var == mark.as_bytes())
        })
        .collect()
}

pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = clock::boot().plus(PATIENCE);
    while !condition() {
        assert!(clock::boot() < end, "it never came true that {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub async fn fired(attached: &mut Attached) -> Fired {
    match timeout(PATIENCE, attached.events.recv()).await.expect("an event comes") {
        Some(FenceEvent::Happened(Event::Fired(fired))) => fired,
        other => panic!("expected Fired, got {other:?}"),
    }
}

pub async fn exited(attached: &mut Attached) -> Exited {
    match timeout(PATIENCE, attached.events.recv()).await.expect("an event comes") {
        Some(FenceEvent::Happened(Event::Exited(exited))) => exited,
        other => panic!("expected Exited, got {other:?}"),
    }
}

pub fn assert_punctual(fired: Fired) {
    let late = fired.at.since(fired.deadline);
    eprintln!(
        "killed {} processes, done {} us after the deadline",
        fired.killed,
        late.as_micros()
    );
    assert!(fired.at >= fired.deadline, "never before the deadline");
    assert!(late < PUNCTUAL, "late by {late:?}");
}

pub fn in_ms(ms: u64) -> pgha_core::units::Mono {
    clock::boot().plus(Duration::from_millis(ms))
}

pub fn foreign_postmaster(rig: &Rig) -> Child {
    // Its parent is this test and not the fence, as after a manual start.
    Command::new("/bin/sh")
        .arg(rig.file("postmaster.sh"))
        .env_clear()
        .envs(rig.spec().env)
        .current_dir(rig.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

pub fn start_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap()
}
