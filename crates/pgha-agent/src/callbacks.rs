//! The callbacks: commands that tell the outside what happened to PostgreSQL here.
//!
//! A callback runs beside everything else and its result changes nothing. One runs at a time: when the next one comes,
//! the one still running is killed with its process group, since what it tells is out of date. `on_reload` has a
//! slot of its own, so that a reload does not cut off the news of a role change.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::AgentError;
use crate::hook::{HookCommand, Running};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// PostgreSQL was started.
    OnStart,
    /// PostgreSQL was stopped.
    OnStop,
    /// PostgreSQL was restarted in the same role.
    OnRestart,
    /// Its configuration was reloaded.
    OnReload,
    /// It was promoted or demoted.
    OnRoleChange,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 5] = [
        Action::OnStart,
        Action::OnStop,
        Action::OnRestart,
        Action::OnReload,
        Action::OnRoleChange,
    ];

    /// The key in the configuration, and the first argument of the callback.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::OnStart => "on_start",
            Action::OnStop => "on_stop",
            Action::OnRestart => "on_restart",
            Action::OnReload => "on_reload",
            Action::OnRoleChange => "on_role_change",
        }
    }
}

/// The commands of `postgresql.callbacks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callbacks(BTreeMap<Action, HookCommand>);

impl Callbacks {
    /// Splits the commands.
    ///
    /// # Errors
    /// [`AgentError::Command`] that names the setting of the first one that cannot be split.
    pub fn parse<'a>(commands: impl IntoIterator<Item = (Action, &'a str)>) -> Result<Callbacks, AgentError> {
        commands
            .into_iter()
            .map(|(action, text)| {
                let setting = format!("postgresql.callbacks.{}", action.as_str());
                HookCommand::parse(&setting, text).map(|command| (action, command))
            })
            .collect::<Result<_, _>>()
            .map(Callbacks)
    }
}

/// Runs callbacks.
#[derive(Debug)]
pub struct CallbackRunner {
    scope: String,
    callbacks: Callbacks,
    state: Slot,
    reload: Slot,
}

impl CallbackRunner {
    /// A runner in the current tokio runtime. Dropping it kills what runs.
    pub fn new(scope: impl Into<String>, callbacks: Callbacks) -> CallbackRunner {
        CallbackRunner {
            scope: scope.into(),
            callbacks,
            state: Slot::new(),
            reload: Slot::new(),
        }
    }

    /// Takes new commands; what runs goes on.
    pub fn reconfigure(&mut self, callbacks: Callbacks) {
        self.callbacks = callbacks;
    }

    /// Calls what is configured for `action`; `role` is Patroni's word for it, see the reference of callbacks.
    pub fn call(&mut self, action: Action, role: &str) {
        let Some(command) = self.callbacks.0.get(&action) else {
            return;
        };
        let command = command.clone().with_args([action.as_str(), role, &self.scope]);
        match action {
            Action::OnReload => self.reload.call(command),
            Action::OnStart | Action::OnStop | Action::OnRestart | Action::OnRoleChange => self.state.call(command),
        }
    }

    /// Waits until nothing runs any more, but no longer than `limit`. False: something still runs.
    pub async fn drain(&mut self, limit: Duration) -> bool {
        let both = async { tokio::join!(self.state.idle(), self.reload.idle()) };
        tokio::time::timeout(limit, both).await.is_ok()
    }
}

/// One callback at a time; the latest call wins.
#[derive(Debug)]
struct Slot {
    calls: u64,
    jobs: watch::Sender<Job>,
    /// The number of the last call that is over.
    done: watch::Receiver<u64>,
}

#[derive(Clone, Debug, Default)]
struct Job {
    number: u64,
    command: Option<HookCommand>,
}

impl Slot {
    fn new() -> Slot {
        let (jobs, inbox) = watch::channel(Job::default());
        let (over, done) = watch::channel(0);
        tokio::spawn(serve(inbox, over));
        Slot { calls: 0, jobs, done }
    }

    fn call(&mut self, command: HookCommand) {
        self.calls += 1;
        self.jobs.send_replace(Job {
            number: self.calls,
            command: Some(command),
        });
    }

    async fn idle(&mut self) {
        let last = self.calls;
        // The only error is that the task is gone, and then nothing runs.
        let _ended = self.done.wait_for(|over| *over >= last).await;
    }
}

async fn serve(mut inbox: watch::Receiver<Job>, over: watch::Sender<u64>) {
    while inbox.changed().await.is_ok() {
        let job = inbox.borrow_and_update().clone();
        if let Some(command) = job.command {
            run_until_next(&command, &mut inbox).await;
        }
        over.send_replace(job.number);
    }
}

async fn run_until_next(command: &HookCommand, inbox: &mut watch::Receiver<Job>) {
    let name = command.setting();
    let mut running = match Running::start(command) {
        Ok(running) => running,
        Err(e) => return tracing::warn!("{e}"),
    };
    tokio::select! {
        ended = running.wait() => match ended {
            Ok(status) if status.success() => tracing::debug!("{name} succeeded"),
            Ok(status) => tracing::warn!("{name} failed, {status}"),
            Err(e) => tracing::warn!("cannot wait for {name}: {e}"),
        },
        // An error means that the runner is gone; what runs ends with it.
        next = inbox.changed() => {
            if next.is_ok() {
                tracing::warn!("{name} was still running when the next callback came and is killed");
                inbox.mark_changed();
            }
            running.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn script(dir: &Path, text: &str) -> String {
        let path = dir.join("callback.sh");
        fs::write(&path, text).expect("writes");
        format!("sh '{}'", path.display())
    }

    /// Makes a file and ignores the arguments that every callback gets, which `touch` alone would take for names.
    fn touch(file: &Path) -> String {
        format!("sh -c \"touch '{}'\"", file.display())
    }

    fn runner(commands: &[(Action, &str)]) -> CallbackRunner {
        CallbackRunner::new(
            "my cluster",
            Callbacks::parse(commands.iter().copied()).expect("parses"),
        )
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unreachable!("it never came true that {what}");
    }

    #[tokio::test]
    async fn a_callback_gets_action_role_and_scope_after_its_own_arguments() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let out = dir.path().join("out");
        let command = script(
            dir.path(),
            &format!("printf '<%s>' \"$@\" > '{}'\necho to the log", out.display()),
        );
        let mut runner = runner(&[(Action::OnRoleChange, &format!("{command} 'of mine'"))]);
        runner.call(Action::OnStart, "replica");
        runner.call(Action::OnRoleChange, "primary");
        assert!(runner.drain(Duration::from_secs(10)).await);
        let text = fs::read_to_string(out).expect("it ran");
        assert_eq!(text, "<of mine><on_role_change><primary><my cluster>");
    }

    #[tokio::test]
    async fn the_next_callback_kills_the_running_one_with_its_children() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let d = dir.path().display();
        let text = format!(
            "echo $$ > '{d}/'$2.leader; sleep 1000 & echo $! > '{d}/'$2.child; touch '{d}/'$2; [ $2 = b ] || wait"
        );
        let command = script(dir.path(), &text);
        let mut runner = runner(&[(Action::OnStart, &command), (Action::OnStop, &command)]);
        runner.call(Action::OnStart, "a");
        until("the first runs", || dir.path().join("a").exists()).await;
        assert!(!runner.drain(Duration::from_millis(50)).await);
        let gone = |name: &str| {
            let pid = fs::read_to_string(dir.path().join(name))
                .expect("it ran")
                .trim()
                .to_owned();
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        };
        assert!(!gone("a.leader") && !gone("a.child"));
        runner.call(Action::OnStop, "b");
        assert!(runner.drain(Duration::from_secs(10)).await);
        assert!(dir.path().join("b").exists(), "the second ran");
        until("the first is gone", || gone("a.leader") && gone("a.child")).await;
        let child = fs::read_to_string(dir.path().join("b.child"))
            .expect("it ran")
            .trim()
            .to_owned();
        assert!(
            !gone("b.child"),
            "what a callback leaves behind when it ends by itself is left alone"
        );
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.parse().expect("a pid")),
            nix::sys::signal::SIGKILL,
        )
        .expect("kills");
    }

    #[tokio::test]
    async fn a_reload_does_not_cut_off_another_callback() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let d = dir.path().display();
        let slow = script(
            dir.path(),
            &format!("touch '{d}/slow'; while [ ! -e '{d}/go' ]; do sleep 0.02; done; touch '{d}/end'"),
        );
        let reload = touch(&dir.path().join("reloaded"));
        let mut runner = runner(&[(Action::OnStart, &slow), (Action::OnReload, &reload)]);
        runner.call(Action::OnStart, "primary");
        until("the slow one runs", || dir.path().join("slow").exists()).await;
        runner.call(Action::OnReload, "primary");
        until("the reload ran", || dir.path().join("reloaded").exists()).await;
        fs::write(dir.path().join("go"), "").expect("writes");
        assert!(runner.drain(Duration::from_secs(10)).await);
        assert!(dir.path().join("end").exists());
    }

    #[tokio::test]
    async fn a_callback_that_cannot_start_or_fails_does_not_stop_the_next() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let touch = touch(&dir.path().join("ran"));
        let mut runner = runner(&[
            (Action::OnStart, "/nonexistent/program"),
            (Action::OnStop, "false"),
            (Action::OnRestart, &touch),
        ]);
        for action in [Action::OnStart, Action::OnStop, Action::OnRestart] {
            runner.call(action, "replica");
            assert!(runner.drain(Duration::from_secs(10)).await);
        }
        assert!(dir.path().join("ran").exists());
    }

    #[test]
    fn a_broken_callback_is_refused_by_its_setting() {
        let error = Callbacks::parse([(Action::OnStop, "x 'y")])
            .expect_err("refused")
            .to_string();
        assert!(error.starts_with("postgresql.callbacks.on_stop: "), "{error}");
    }
}
