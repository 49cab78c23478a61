//! The CPU bandwidth limit that a cgroup puts on this process.
//!
//! A limited process is stopped for the rest of each period once it has used its share: workers
//! vanish for tens of milliseconds, lock holders among them. Affinity does not show it. Formats:
//! `Documentation/admin-guide/cgroup-v2.rst` (`cpu.max`) and
//! `Documentation/scheduler/sched-bwc.rst` (`cpu.cfs_quota_us`, `cpu.cfs_period_us`).

use std::path::{Path, PathBuf};

use super::roots::Roots;

/// A limit: this much CPU time in each period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// CPU time allowed in a period, over all CPUs.
    pub quota_us: u64,
    /// Length of the period.
    pub period_us: u64,
    /// File the limit stands in.
    pub source: PathBuf,
}

impl CpuQuota {
    /// Returns the limit in CPUs: 2.5 for 250 ms in each 100 ms.
    #[must_use]
    pub fn cpus(&self) -> f64 {
        self.quota_us as f64 / self.period_us as f64
    }

    /// Returns the tightest limit on the way from this process's cgroup to the root; `None` if
    /// there is
    /// none or cgroups are not visible.
    #[must_use]
    pub fn read(roots: &Roots) -> Option<Self> {
        let cgroups = roots.proc("self/cgroup")?;
        let mounts = roots.proc("self/mountinfo")?;
        mounts
            .lines()
            .filter_map(|line| Hierarchy::parse(line, &cgroups))
            .flat_map(|hierarchy| hierarchy.limits(roots))
            .min_by(|a, b| a.cpus().total_cmp(&b.cpus()))
    }
}

/// A mounted cgroup hierarchy that can limit CPU time, and the place of this process in it.
struct Hierarchy {
    unified: bool,
    mount_point: String,
    path: String,
}

impl Hierarchy {
    /// Reads a line of `mountinfo` (see proc_pid_mountinfo(5)) and the contents of `cgroup`.
    fn parse(mount: &str, cgroups: &str) -> Option<Self> {
        let (fields, after) = mount.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let unified = match kind {
            "cgroup2" => true,
            "cgroup" if options.split(',').any(|option| option == "cpu") => false,
            _ => return None,
        };
        let path = cgroups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = if unified {
                id == "0" && controllers.is_empty()
            } else {
                controllers.split(',').any(|controller| controller == "cpu")
            };
            ours.then_some(path)
        })?;
        // In a container the mount shows only the part of the hierarchy below `root`.
        let path = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        Some(Self { unified, mount_point: mount_point.to_owned(), path: path.to_owned() })
    }

    /// Returns every limit from this process's group up to the top of the mount.
    fn limits(&self, roots: &Roots) -> Vec<CpuQuota> {
        let Some(below_sys) = self.mount_point.strip_prefix("/sys/") else {
            return Vec::new();
        };
        Path::new(self.path.trim_start_matches('/'))
            .ancestors()
            .filter_map(|group| {
                let dir = Path::new(below_sys).join(group);
                let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
                let (name, quota_us, period_us) = if self.unified {
                    let text = roots.sys(&file("cpu.max"))?;
                    let (quota, period) = text.split_once(' ')?;
                    ("cpu.max", quota.parse().ok()?, period.parse().ok()?)
                } else {
                    let name = "cpu.cfs_quota_us";
                    // -1 stands for no limit and does not parse as unsigned.
                    (
                        name,
                        roots.sys_value(&file(name))?,
                        roots.sys_value(&file("cpu.cfs_period_us"))?,
                    )
                };
                let source = Path::new("/sys").join(&dir).join(name);
                (period_us > 0).then_some(CpuQuota { quota_us, period_us, source })
            })
            .collect()
    }
}
