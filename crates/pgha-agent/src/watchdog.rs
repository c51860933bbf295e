//! The watchdog: a device that resets the machine when nobody feeds it. The second layer behind the fence.
//!
//! Its timeout is the ttl less a margin, it is armed before this node becomes primary and fed after each proof of
//! leadership, so it fires before another node can take over. It is closed only after the last backend has gone, which the
//! driver knows; closing says so to the device.
//!
//! Nothing here blocks: the device is opened non-blocking, and a write that does not fit is a failure. Which roles need a
//! watchdog and when is decided in core; this module keeps the device and the facts about it.

use std::path::PathBuf;
use std::time::Duration;

mod device;

use device::Device;
pub use device::Driver;

/// `watchdog.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Not used.
    Off,
    /// Used when it works.
    #[default]
    Automatic,
    /// This node does not lead without one.
    Required,
}

/// The `watchdog` section of the configuration with the two settings its timeout follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// `watchdog.mode`.
    pub mode: Mode,
    /// `watchdog.driver`.
    pub driver: Driver,
    /// `watchdog.device`.
    pub device: PathBuf,
    /// `watchdog.safety_margin`; `None` for -1, which means half of the ttl.
    pub safety_margin: Option<Duration>,
    /// `ttl`.
    pub ttl: Duration,
    /// `loop_wait`: how often it is fed at the least.
    pub loop_wait: Duration,
}

impl Default for WatchdogConfig {
    fn default() -> WatchdogConfig {
        WatchdogConfig {
            mode: Mode::Automatic,
            driver: Driver::Linux,
            device: PathBuf::from("/dev/watchdog"),
            safety_margin: Some(Duration::from_secs(5)),
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
        }
    }
}

impl WatchdogConfig {
    /// The timeout in whole seconds, as devices take it; 0 when the margin leaves nothing.
    pub fn timeout_secs(&self) -> u64 {
        match self.safety_margin {
            Some(margin) => self.ttl.as_secs().saturating_sub(margin.as_secs()),
            None => self.ttl.as_secs() / 2,
        }
    }
}

/// What is known of the watchdog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogStatus {
    /// As configured.
    pub mode: Mode,
    /// It is armed: unless it is fed or closed the machine is reset.
    pub active: bool,
    /// The timeout of the armed device.
    pub timeout: Option<Duration>,
    /// Why it does not protect, as of the last attempt.
    pub failed: Option<String>,
}

impl WatchdogStatus {
    /// This node must not lead: `required`, and it does not protect.
    pub fn forbids_leading(&self) -> bool {
        self.mode == Mode::Required && (!self.active || self.failed.is_some())
    }
}

/// The watchdog of this node.
#[derive(Debug)]
pub struct Watchdog {
    config: WatchdogConfig,
    armed: Option<Armed>,
    failed: Option<String>,
}

#[derive(Debug)]
struct Armed {
    device: Device,
    timeout_secs: u64,
    /// Why it comes too late to protect from a second primary, although it runs.
    weak: Option<String>,
    /// The settings changed since the timeout was set.
    stale: bool,
}

impl Watchdog {
    /// A watchdog that is not armed.
    pub fn new(config: WatchdogConfig) -> Watchdog {
        Watchdog {
            config,
            armed: None,
            failed: None,
        }
    }

    /// Takes new settings. A changed timeout is set with the next keepalive, a changed device with the next arming; `off`
    /// disarms at once.
    pub fn reconfigure(&mut self, config: WatchdogConfig) {
        if let Some(armed) = &mut self.armed {
            armed.stale |= armed.timeout_secs != config.timeout_secs();
        }
        self.config = config;
        if self.config.mode == Mode::Off {
            self.disarm();
            self.failed = None;
        }
    }

    /// What is known of it.
    pub fn status(&self) -> WatchdogStatus {
        WatchdogStatus {
            mode: self.config.mode,
            active: self.armed.is_some(),
            timeout: self.armed.as_ref().map(|a| Duration::from_secs(a.timeout_secs)),
            failed: self
                .failed
                .clone()
                .or_else(|| self.armed.as_ref().and_then(|a| a.weak.clone())),
        }
    }

    /// Could it be armed? Opens nothing that is not open yet, since opening a device starts it.
    ///
    /// For the health answer of a standby: a node that is bound to fail at promotion should not stand in the race.
    pub fn probe(&mut self) -> WatchdogStatus {
        if self.config.mode != Mode::Off && self.armed.is_none() {
            self.failed = self
                .check_settings()
                .and_then(|()| device::probe(&self.config.device))
                .err();
        }
        self.status()
    }

    /// Arms it, or feeds it when it is armed already. The answer says whether this node may lead.
    pub fn arm(&mut self) -> WatchdogStatus {
        if self.config.mode != Mode::Off && self.armed.is_none() {
            match self.try_arm() {
                Ok(armed) => {
                    let slack = armed.timeout_secs.saturating_sub(self.config.loop_wait.as_secs());
                    let (identity, timeout) = (armed.device.identity().to_owned(), armed.timeout_secs);
                    tracing::info!("{identity} activated with {timeout} second timeout, timing slack {slack} seconds");
                    if !armed.device.can_disarm() {
                        tracing::warn!(
                            "{identity} cannot be switched off: the machine is reset when this node stops leading"
                        );
                    }
                    self.armed = Some(armed);
                    self.failed = None;
                }
                Err(reason) => {
                    match self.config.mode {
                        Mode::Required => tracing::error!("the required watchdog cannot be activated: {reason}"),
                        Mode::Automatic | Mode::Off => tracing::warn!("the watchdog cannot be activated: {reason}"),
                    }
                    self.failed = Some(reason);
                }
            }
        }
        self.keepalive()
    }

    /// Feeds it, if it is armed.
    pub fn keepalive(&mut self) -> WatchdogStatus {
        if let Some(armed) = &mut self.armed {
            match feed(armed, &self.config) {
                Ok(()) => self.failed = None,
                Err(reason) => {
                    tracing::error!("the watchdog cannot be fed: {reason}");
                    self.failed = Some(reason);
                }
            }
        }
        self.status()
    }

    /// Switches it off. Only when no backend is left that could write.
    pub fn disarm(&mut self) {
        let Some(armed) = self.armed.take() else { return };
        let identity = armed.device.identity().to_owned();
        match armed.device.close() {
            Ok(()) => tracing::info!("{identity} switched off"),
            Err(e) => tracing::error!("{identity} could not be switched off, the machine may be reset: {e}"),
        }
    }

    fn check_settings(&self) -> Result<(), String> {
        let (timeout, loop_wait) = (self.config.timeout_secs(), self.config.loop_wait.as_secs());
        if timeout == 0 || timeout < loop_wait {
            return Err(format!(
                "ttl {} less the safety margin leaves {timeout} seconds, less than loop_wait {loop_wait}; raise ttl or lower \
                 loop_wait or watchdog.safety_margin",
                self.config.ttl.as_secs()
            ));
        }
        Ok(())
    }

    fn try_arm(&self) -> Result<Armed, String> {
        self.check_settings()?;
        let mut device = Device::open(self.config.driver, &self.config.device)?;
        match set_timeout(&mut device, &self.config) {
            Ok((timeout_secs, weak)) => Ok(Armed {
                device,
                timeout_secs,
                weak,
                stale: false,
            }),
            Err(reason) => {
                // It runs since it was opened.
                match device.close() {
                    Ok(()) => Err(reason),
                    Err(e) => Err(format!("{reason}; it could not be switched off again either ({e})")),
                }
            }
        }
    }
}

fn feed(armed: &mut Armed, config: &WatchdogConfig) -> Result<(), String> {
    let set = if armed.stale {
        set_timeout(&mut armed.device, config).map(|(timeout_secs, weak)| {
            armed.timeout_secs = timeout_secs;
            armed.weak = weak;
            armed.stale = false;
        })
    } else {
        Ok(())
    };
    // Fed in any case: a timeout that cannot be changed is no reason to let the machine be reset.
    let fed = armed.device.keepalive();
    set.and(fed)
}

/// Sets the timeout. Returns what the device made of it, and why that is too long, if it is.
///
/// Too short is an error: the device would fire in normal work. Too long is one only where a watchdog is required;
/// elsewhere a late reset is better than none.
fn set_timeout(device: &mut Device, config: &WatchdogConfig) -> Result<(u64, Option<String>), String> {
    let wanted = config.timeout_secs();
    let actual = device.set_timeout(wanted)?;
    let loop_wait = config.loop_wait.as_secs();
    if actual < loop_wait {
        return Err(format!(
            "its timeout of {actual} seconds is shorter than loop_wait {loop_wait}"
        ));
    }
    if actual <= wanted {
        return Ok((actual, None));
    }
    let weak =
        format!("its timeout of {actual} seconds is longer than {wanted}, too long to fire before the lease ends");
    if config.mode == Mode::Required {
        return Err(weak);
    }
    tracing::warn!("the watchdog does not protect from a second primary: {weak}");
    Ok((actual, Some(weak)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    struct Fifo {
        dir: tempfile::TempDir,
        reader: File,
    }

    impl Fifo {
        fn new() -> Fifo {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let path = dir.path().join("watchdog");
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
            let reader = File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .expect("opens");
            Fifo { dir, reader }
        }
        fn path(&self) -> PathBuf {
            self.dir.path().join("watchdog")
        }
        fn config(&self) -> WatchdogConfig {
            WatchdogConfig {
                driver: Driver::Testing,
                device: self.path(),
                ..WatchdogConfig::default()
            }
        }
        fn written(&mut self) -> String {
            let mut text = vec![0; 65_536];
            let len = self.reader.read(&mut text).unwrap_or(0);
            text.truncate(len);
            String::from_utf8(text).expect("is text")
        }
    }

    #[test]
    fn it_is_armed_with_ttl_less_the_margin_fed_and_switched_off() {
        let mut fifo = Fifo::new();
        let mut watchdog = Watchdog::new(fifo.config());
        let status = watchdog.arm();
        assert_eq!(
            (status.active, status.timeout, status.failed),
            (true, Some(Duration::from_secs(25)), None)
        );
        assert_eq!(fifo.written(), "Ctimeout=25\n1");
        watchdog.keepalive();
        watchdog.arm();
        assert_eq!(fifo.written(), "11", "arming an armed one feeds it");
        watchdog.disarm();
        watchdog.disarm();
        assert_eq!(fifo.written(), "V");
        assert!(!watchdog.keepalive().active);
        assert_eq!(fifo.written(), "");
    }

    #[test]
    fn a_margin_of_minus_one_means_half_of_the_ttl() {
        let config = WatchdogConfig {
            safety_margin: None,
            ttl: Duration::from_secs(31),
            ..WatchdogConfig::default()
        };
        assert_eq!(config.timeout_secs(), 15);
    }

    #[test]
    fn a_changed_ttl_is_set_with_the_next_keepalive() {
        let mut fifo = Fifo::new();
        let mut watchdog = Watchdog::new(fifo.config());
        watchdog.arm();
        fifo.written();
        watchdog.reconfigure(WatchdogConfig {
            ttl: Duration::from_secs(60),
            ..fifo.config()
        });
        assert_eq!(fifo.written(), "");
        assert_eq!(watchdog.keepalive().timeout, Some(Duration::from_secs(55)));
        assert_eq!(fifo.written(), "Ctimeout=55\n1");
        watchdog.keepalive();
        assert_eq!(fifo.written(), "1");
    }

    #[test]
    fn off_opens_nothing_and_switching_to_off_disarms() {
        let mut fifo = Fifo::new();
        let mut watchdog = Watchdog::new(WatchdogConfig {
            mode: Mode::Off,
            ..fifo.config()
        });
        assert!(!watchdog.arm().active);
        assert_eq!(fifo.written(), "");
        watchdog.reconfigure(fifo.config());
        assert!(watchdog.arm().active);
        watchdog.reconfigure(WatchdogConfig {
            mode: Mode::Off,
            ..fifo.config()
        });
        assert_eq!(fifo.written(), "Ctimeout=25\n1V");
    }

    #[test]
    fn only_required_forbids_leading_without_a_device() {
        for (mode, forbids) in [(Mode::Off, false), (Mode::Automatic, false), (Mode::Required, true)] {
            let device = PathBuf::from("/nonexistent/watchdog");
            let mut watchdog = Watchdog::new(WatchdogConfig {
                mode,
                device,
                ..WatchdogConfig::default()
            });
            assert_eq!(watchdog.arm().forbids_leading(), forbids, "{mode:?}");
            assert_eq!(watchdog.probe().failed.is_some(), mode != Mode::Off);
        }
    }

    #[test]
    fn a_timeout_below_loop_wait_is_refused_with_the_remedy() {
        let fifo = Fifo::new();
        for ttl in [3, 14] {
            let ttl = Duration::from_secs(ttl);
            let mut watchdog = Watchdog::new(WatchdogConfig {
                ttl,
                mode: Mode::Required,
                ..fifo.config()
            });
            let status = watchdog.arm();
            assert!(status.forbids_leading());
            assert!(status.failed.expect("a reason").contains("raise ttl"));
        }
    }

    #[test]
    fn what_is_no_watchdog_is_refused_by_the_real_driver() {
        let fifo = Fifo::new();
        let mut watchdog = Watchdog::new(WatchdogConfig {
            driver: Driver::Linux,
            ..fifo.config()
        });
        let reason = watchdog.arm().failed.expect("a reason");
        assert!(reason.contains("not a watchdog device"), "{reason}");
    }

    #[test]
    fn a_full_device_never_blocks_and_shows_as_a_failure() {
        let fifo = Fifo::new();
        let mut watchdog = Watchdog::new(WatchdogConfig {
            mode: Mode::Required,
            ..fifo.config()
        });
        assert!(!watchdog.arm().forbids_leading());
        let failed = (0..100_000).any(|_| watchdog.keepalive().failed.is_some());
        assert!(failed && watchdog.status().forbids_leading());
    }

    #[test]
    fn a_probe_does_not_start_the_device() {
        let mut fifo = Fifo::new();
        assert_eq!(Watchdog::new(fifo.config()).probe().failed, None);
        assert_eq!(fifo.written(), "");
        let missing = Path::new("/nonexistent/watchdog").to_owned();
        let probe = Watchdog::new(WatchdogConfig {
            device: missing,
            ..fifo.config()
        })
        .probe();
        assert!(
            probe
                .failed
                .is_some_and(|reason| reason.contains("/nonexistent/watchdog"))
        );
    }
}
