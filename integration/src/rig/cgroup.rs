//! Control groups: they freeze a node as a whole and take the processor away from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::boottime;
use crate::node::Node;

/// Where the second version of control groups is mounted, alone or beside the first.
const V2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The processor controller of the first version.
const V1_CPU: &str = "/sys/fs/cgroup/cpu";
/// The period over which a share of the processor is given out.
const PERIOD_US: u64 = 100_000;

/// A group that holds the processes of one node. Dropping it lets them go.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    root: PathBuf,
}

impl Group {
    fn new(root: PathBuf, node: &Node) -> Result<Self> {
        let name = format!("pgha-{}-{}", std::process::id(), boottime::now().as_nanos());
        let dir = root.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make the control group {}", dir.display()))?;
        let group = Self { dir, root };
        // What is forked while the list is read is in it the next time, and its children are in the group with it.
        for _ in 0..3 {
            for process in node.processes() {
                // A process that has ended meanwhile needs no group.
                fs::write(group.dir.join("cgroup.procs"), process.pid.to_string()).ok();
            }
        }
        Ok(group)
    }

    /// Freezes the node: nothing on it runs, its clocks and its network go on.
    pub fn frozen(node: &Node) -> Result<Self> {
        let group = Self::new(v2()?, node)?;
        group.set("cgroup.freeze", "1")?;
        Ok(group)
    }

    /// Leaves the node this share of one processor.
    pub fn throttled(node: &Node, percent: u64) -> Result<Self> {
        let quota = PERIOD_US * percent / 100;
        let v1 = PathBuf::from(V1_CPU);
        if v1.join("cpu.cfs_quota_us").exists() || v1.join("cgroup.procs").exists() {
            let group = Self::new(v1, node)?;
            group.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            group.set("cpu.cfs_quota_us", &quota.to_string())?;
            return Ok(group);
        }
        let group = Self::new(v2()?, node)?;
        group.set("cpu.max", &format!("{quota} {PERIOD_US}"))?;
        Ok(group)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only the file of what this group does exists. A group that cannot be removed is empty and does no harm.
        self.set("cgroup.freeze", "0").ok();
        for pid in fs::read_to_string(self.dir.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            fs::write(self.root.join("cgroup.procs"), pid).ok();
        }
        fs::remove_dir(&self.dir).ok();
    }
}

fn v2() -> Result<PathBuf> {
    match V2
        .iter()
        .find(|dir| Path::new(dir).join("cgroup.subtree_control").exists())
    {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => bail!("control groups of the second version are not mounted"),
    }
}

/// What the kernel lacks for freezing.
pub fn no_freezer() -> Option<String> {
    v2().err().map(|error| error.to_string())
}
