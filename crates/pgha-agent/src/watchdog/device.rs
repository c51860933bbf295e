//! The device itself: Linux's watchdog interface, and the text form that test harnesses read from a FIFO.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::ioctl::{Getter, Updater, ioctl, opcode};

/// `watchdog.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Driver {
    /// `default`: `/dev/watchdog` by its ioctls.
    #[default]
    Linux,
    /// `testing`: the same device as text, `Ctimeout=<seconds>` and a newline, `1`, `V`.
    Testing,
}

/// Feeds the device.
const KEEPALIVE: &[u8] = b"1";
/// Tells the device that closing it is meant.
const MAGIC_CLOSE: &[u8] = b"V";

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const OPTION_SET_TIMEOUT: u32 = 0x0080;
const OPTION_MAGIC_CLOSE: u32 = 0x0100;

const GET_SUPPORT: rustix::ioctl::Opcode = opcode::read::<Info>(b'W', 0);
const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<libc::c_int>(b'W', 6);
const GET_TIMEOUT: rustix::ioctl::Opcode = opcode::read::<libc::c_int>(b'W', 7);

/// An open device, which means a running one.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    driver: Driver,
    identity: String,
    options: u32,
}

/// Would it open? The only side effect of opening is that it starts, so permission is asked for and nothing else.
pub(super) fn probe(path: &Path) -> Result<(), String> {
    nix::unistd::eaccess(path, nix::unistd::AccessFlags::W_OK).map_err(|e| {
        format!(
            "cannot write to {}: {}; check watchdog.device and its owner",
            path.display(),
            e.desc()
        )
    })
}

impl Device {
    /// Opens and thereby starts it. Errors are sentences for log and status.
    pub(super) fn open(driver: Driver, path: &Path) -> Result<Device, String> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|e| {
                format!(
                    "cannot open {}: {e}; check watchdog.device and its owner",
                    path.display()
                )
            })?;
        let info = match driver {
            Driver::Linux => get_support(&file).map_err(|e| {
                format!(
                    "{} is not a watchdog device ({e}); check watchdog.device",
                    path.display()
                )
            })?,
            Driver::Testing => Info {
                options: OPTION_SET_TIMEOUT | OPTION_MAGIC_CLOSE,
                firmware_version: 0,
                identity: *b"Watchdog test harness\0\0\0\0\0\0\0\0\0\0\0",
            },
        };
        let end = info
            .identity
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(info.identity.len());
        let identity = String::from_utf8_lossy(&info.identity[..end]).into_owned();
        Ok(Device {
            file,
            driver,
            identity,
            options: info.options,
        })
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Does it stop when it is closed properly?
    pub(super) fn can_disarm(&self) -> bool {
        self.options & OPTION_MAGIC_CLOSE != 0
    }

    /// Sets the timeout if the device lets it be set, and returns the one in force; both in seconds.
    pub(super) fn set_timeout(&mut self, secs: u64) -> Result<u64, String> {
        match self.driver {
            Driver::Testing => {
                self.write(format!("Ctimeout={secs}\n").as_bytes())?;
                Ok(secs)
            }
            Driver::Linux => {
                if self.options & OPTION_SET_TIMEOUT != 0 {
                    let secs = libc::c_int::try_from(secs).unwrap_or(libc::c_int::MAX);
                    ioctl_set_timeout(&self.file, secs).map_err(|e| format!("cannot set the timeout: {e}"))?;
                }
                let actual = get_timeout(&self.file).map_err(|e| format!("cannot read the timeout: {e}"))?;
                u64::try_from(actual).map_err(|_| format!("it gives the timeout {actual}"))
            }
        }
    }

    pub(super) fn keepalive(&mut self) -> Result<(), String> {
        self.write(KEEPALIVE)
    }

    /// Stops it, if it can be stopped.
    pub(super) fn close(mut self) -> Result<(), String> {
        self.write(MAGIC_CLOSE)?;
        if self.can_disarm() {
            Ok(())
        } else {
            Err("the device does not support it".to_owned())
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file
            .write_all(bytes)
            .map_err(|e: io::Error| format!("cannot write to it: {e}"))
    }
}

#[allow(unsafe_code)]
fn get_support(file: &File) -> rustix::io::Result<Info> {
    // SAFETY: the kernel fills a struct watchdog_info, which is what Info is.
    unsafe { ioctl(file, Getter::<GET_SUPPORT, Info>::new()) }
}

#[allow(unsafe_code)]
fn get_timeout(file: &File) -> rustix::io::Result<libc::c_int> {
    // SAFETY: the kernel fills one int.
    unsafe { ioctl(file, Getter::<GET_TIMEOUT, libc::c_int>::new()) }
}

#[allow(unsafe_code)]
fn ioctl_set_timeout(file: &File, mut secs: libc::c_int) -> rustix::io::Result<()> {
    // SAFETY: the kernel reads one int and writes back the timeout it chose.
    unsafe { ioctl(file, Updater::<SET_TIMEOUT, libc::c_int>::new(&mut secs)) }
}
