//! The fence over a real PostgreSQL, as an unprivileged user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use pgha_agent::fence::client::{Attached, FenceClient};
use pgha_agent::fence::wire::{NoGuard, PgSignal, StartSpec};
use tokio::time::sleep;

use crate::rig::{FENCE, assert_punctual, eventually, exited, fired, in_ms, start_ticks};

/// A database cluster of its own user, with a fence of that user.
struct Pg {
    dir: tempfile::TempDir,
    bin: PathBuf,
    user: Option<User>,
    fence: Option<Child>,
}

impl Pg {
    fn new() -> Pg {
        let bin = newest_postgres();
        // PostgreSQL refuses to run as root.
        let user = nix::unistd::geteuid().is_root().then(|| {
            User::from_name("postgres")
                .unwrap()
                .expect("a user named postgres to run PostgreSQL as")
        });
        let dir = tempfile::tempdir().unwrap();
        fs::copy(FENCE, dir.path().join("pgha-fence")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        fs::set_permissions(dir.path().join("state"), fs::Permissions::from_mode(0o700)).unwrap();
        if let Some(user) = &user {
            for path in [dir.path().to_owned(), dir.path().join("state")] {
                std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            }
        }
        let pg = Pg {
            dir,
            bin,
            user,
            fence: None,
        };
        let made = pg
            .command("initdb")
            .args(["-A", "trust", "-U", "postgres", "-N", "-D"])
            .arg(pg.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        pg
    }
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
    /// A program of PostgreSQL, or any other by its absolute path, as the right user.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.dir.path());
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }
    fn psql(&self, sql: &str) -> Command {
        let mut psql = self.command("psql");
        psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(self.dir.path())
            .args(["-c", sql]);
        psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        psql
    }
    fn answers(&self) -> bool {
        self.psql("select 1").output().unwrap().stdout == b"1\n"
    }
    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let set = |text: String| ["-c".into(), text.into()];
        let mut args = vec!["-D".into(), self.data().into()];
        args.extend(set("listen_addresses=".into()));
        args.extend(set(format!("unix_socket_directories={}", self.dir.path().display())));
        args
    }
    fn spec(&self) -> StartSpec {
        StartSpec {
            program: self.bin.join("postgres"),
            args: self.arguments(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: self.data(),
            epoch: 1,
            log: Some(self.dir.path().join("postgres.log")),
        }
    }
    async fn fence(&mut self) -> Attached {
        let mut command = self.command(self.dir.path().join("pgha-fence"));
        self.fence = Some(command.arg(self.dir.path().join("state")).spawn().unwrap());
        let socket = self.dir.path().join("state/fence.sock");
        for _ in 0..500 {
            if let Ok(attached) = FenceClient::connect(&socket).await {
                return attached;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the fence does not come up");
    }
    async fn start(&self, fence: &FenceClient) -> i32 {
        let (pid, _) = fence.start(self.spec()).await.unwrap();
        eventually("PostgreSQL answers", || self.answers()).await;
        pid
    }
    /// Processes whose working directory is the data directory: postmaster and backends.
    fn processes(&self) -> Vec<i32> {
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.data()))
            .collect()
    }
    /// A backend runs a client's `DO`; its title says so.
    fn is_busy(&self) -> bool {
        let title = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        self.processes()
            .into_iter()
            .any(|pid| title(pid).trim_end_matches(['\0', ' ']).ends_with(" DO"))
    }
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("postgres.log")).unwrap_or_default()
    }
}

impl Drop for Pg {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        if let Some(fence) = &mut self.fence {
            fence.kill().ok();
            fence.wait().ok();
        }
    }
}

fn newest_postgres() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed as on Debian");
    let major = installed
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("a version");
    PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))
}

#[tokio::test]
async fn postgresql_with_a_busy_client_is_gone_at_the_deadline_and_starts_again() {
    let mut pg = Pg::new();
    let mut fence = pg.fence().await;
    fence.client.set_deadline(in_ms(120_000)).await.unwrap();
    pg.start(&fence.client).await;
    let mut busy = pg.psql("do $$ begin loop end loop; end $$").spawn().unwrap();
    let mut writer = pg
        .psql("create table t(i int); insert into t select * from generate_series(1, 1000000000)")
        .spawn()
        .unwrap();
    eventually("the clients are at work", || pg.processes().len() >= 7).await;
    fence.client.set_deadline(in_ms(300)).await.unwrap();
    let fired = fired(&mut fence).await;
    assert_punctual(fired);
    exited(&mut fence).await;
    assert!(pg.processes().is_empty(), "{:?}", pg.processes());
    busy.wait().unwrap();
    writer.wait().unwrap();
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    pg.start(&fence.client).await;
}

#[tokio::test]
async fn a_stopped_backend_does_not_survive_the_deadline() {
    let mut pg = Pg::new();
    let mut fence = pg.fence().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    let postmaster = pg.start(&fence.client).await;
    let mut busy = pg.psql("do $$ begin loop end loop; end $$").spawn().unwrap();
    eventually("the client is at work", || pg.is_busy()).await;
    for pid in pg.processes().into_iter().filter(|pid| *pid != postmaster) {
        // One that was only there for the start may have ended since.
        assert!(matches!(
            kill(Pid::from_raw(pid), Signal::SIGSTOP),
            Ok(()) | Err(Errno::ESRCH)
        ));
    }
    fence.client.set_deadline(in_ms(100)).await.unwrap();
    assert_punctual(fired(&mut fence).await);
    exited(&mut fence).await;
    assert!(pg.processes().is_empty(), "{:?}", pg.processes());
    busy.wait().unwrap();
}

#[tokio::test]
async fn when_the_fence_is_killed_postgresql_shuts_down_immediately() {
    let mut pg = Pg::new();
    let fence = pg.fence().await;
    fence.client.set_deadline(in_ms(120_000)).await.unwrap();
    pg.start(&fence.client).await;
    let mut busy = pg.psql("do $$ begin loop end loop; end $$").spawn().unwrap();
    eventually("the client is at work", || pg.is_busy()).await;
    kill(Pid::from_raw(fence.client.fence_pid()), Signal::SIGKILL).unwrap();
    eventually("PostgreSQL is gone", || pg.processes().is_empty()).await;
    assert!(pg.log().contains("immediate shutdown"), "{}", pg.log());
    busy.wait().unwrap();
}

#[tokio::test]
async fn after_the_postmaster_was_killed_it_starts_at_once_although_a_backend_was_busy() {
    let mut pg = Pg::new();
    let mut fence = pg.fence().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    let pid = pg.start(&fence.client).await;
    // This backend looks for the death of the postmaster only when it waits, which it never does.
    let mut busy = pg.psql("do $$ begin loop end loop; end $$").spawn().unwrap();
    eventually("the client is at work", || pg.is_busy()).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let exited = exited(&mut fence).await;
    assert_eq!(exited.status, Some(libc::SIGKILL));
    assert!(pg.processes().is_empty(), "{:?}", pg.processes());
    pg.start(&fence.client).await;
    assert!(!pg.log().contains("pre-existing shared memory block"), "{}", pg.log());
    busy.wait().unwrap();
}

#[tokio::test]
async fn a_fast_shutdown_through_the_fence_ends_with_status_zero_and_no_leftovers() {
    let mut pg = Pg::new();
    let mut fence = pg.fence().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    pg.start(&fence.client).await;
    fence.client.signal(PgSignal::Fast).await.unwrap();
    let exited = exited(&mut fence).await;
    assert_eq!((exited.status, exited.leftovers), (Some(0), 0));
    assert!(pg.log().contains("database system is shut down"));
}

#[tokio::test]
async fn postgresql_started_by_hand_is_adopted_and_gone_at_the_deadline() {
    let mut pg = Pg::new();
    let started = pg
        .command("pg_ctl")
        .args(["-w", "-s", "-D"])
        .arg(pg.data())
        .arg("-l")
        .arg(pg.dir.path().join("postgres.log"))
        .arg("-o")
        .arg(format!(
            "-c listen_addresses= -c unix_socket_directories={}",
            pg.dir.path().display()
        ))
        .arg("start")
        .status()
        .unwrap();
    assert!(started.success(), "{}", pg.log());
    let pid_file = fs::read_to_string(pg.data().join("postmaster.pid")).unwrap();
    let pid: i32 = pid_file.lines().next().unwrap().parse().unwrap();
    let mut fence = pg.fence().await;
    fence.client.set_deadline(in_ms(120_000)).await.unwrap();
    fence.client.adopt(pid, start_ticks(pid), 3).await.unwrap();
    let mut busy = pg.psql("do $$ begin loop end loop; end $$").spawn().unwrap();
    eventually("the client is at work", || pg.is_busy()).await;
    fence.client.set_deadline(in_ms(200)).await.unwrap();
    assert_punctual(fired(&mut fence).await);
    assert_eq!(exited(&mut fence).await.status, None);
    assert!(pg.processes().is_empty(), "{:?}", pg.processes());
    busy.wait().unwrap();
}

#[tokio::test]
async fn an_unprivileged_fence_locks_its_memory_within_the_usual_limit() {
    let mut pg = Pg::new();
    let fence = pg.fence().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    pg.start(&fence.client).await;
    let status = fs::read_to_string(format!("/proc/{}/status", fence.client.fence_pid())).unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_ne!(field("VmLck:"), "0 kB");
    assert_ne!(field("Uid:").split_whitespace().next(), Some("0"));
    let postmaster = fence.client.status().await.unwrap().postmaster.unwrap().pid;
    let status = fs::read_to_string(format!("/proc/{postmaster}/status")).unwrap();
    assert!(
        status.contains("VmLck:\t       0 kB"),
        "PostgreSQL's memory is not locked: {status}"
    );
}
