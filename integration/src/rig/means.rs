//! What a machine can do: which faults can be injected here, and why others cannot.

use std::path::Path;
use std::thread;

use nix::unistd::Uid;
use pgha_sim::faults::FaultKind;

use super::cgroup;
use crate::netns;
use crate::programs;

/// Why no scenario can run here at all.
pub fn lacking() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("network namespaces take root".to_owned());
    }
    for program in ["ip", "nft", "mount"] {
        if programs::find(program).is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    let tried = thread::spawn(netns::enter_private).join();
    match tried {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("the try to make a namespace panicked".to_owned()),
    }
}

/// Why this kind of fault cannot be injected here.
pub fn lacking_for(kind: &FaultKind) -> Option<String> {
    match kind.form {
        "jump wall clock of NODE by TIME" | "drift clock of NODE by NUMBER ppm" => {
            Some("the kernel has one wall clock for all nodes".to_owned())
        }
        "kill agent NODE after NUMBER effects" | "starve agent NODE by TIME per effect" => {
            Some("effects of a real agent cannot be counted from outside".to_owned())
        }
        "freeze node NODE" => cgroup::no_freezer(),
        "throttle node NODE to NUMBER percent" if !Path::new("/sys/fs/cgroup").exists() => {
            Some("there are no control groups".to_owned())
        }
        "delay fsync of NODE by TIME" if programs::find("strace").is_err() => {
            Some("strace is not installed".to_owned())
        }
        _ => None,
    }
}
