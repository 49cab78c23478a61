//! Kernels that the site boots on a node, measured in turns.
//!
//! How a kernel is booted is the site's business: its command is given the kernel's name and the
//! command line to run in there. Each boot leaves a run of its own; those of a kernel follow one another
//! as further rounds. The order of the kernels is reversed from turn to turn, so that a host that
//! drifts moves all alike. The task leaves one run, with the kernels in the place of hosts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cellbench_plots::merge;

use crate::FleetError;
use crate::command::{run_into, whole};
use crate::stage::{Source, stage};

/// Kernels to boot, and what to measure in each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booted<'a> {
    /// Command of the site.
    pub(crate) boot: &'a Path,
    /// Names of the kernels.
    pub(crate) kernels: &'a [String],
    /// Times that each is booted.
    pub(crate) turns: u32,
    /// Arguments of `cellbench`, but for where it writes.
    pub(crate) args: &'a [String],
}

impl Booted<'_> {
    /// Measures all kernels below `attempt`, whose `latest` is then the run of all; returns whether an
    /// invariant broke.
    ///
    /// # Errors
    /// [`FleetError`] naming the kernel that could not be measured: the attempt is incomplete.
    pub(crate) fn measure(&self, cellbench: &Path, attempt: &Path) -> Result<bool, FleetError> {
        let mut violations = false;
        let mut sources: Vec<Vec<Source>> = vec![Vec::new(); self.kernels.len()];
        for turn in 0..self.turns {
            let mut order: Vec<usize> = (0..self.kernels.len()).collect();
            if turn % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let kernel = &self.kernels[index];
                let dir = attempt.join("boots").join(format!("{kernel}-{turn}"));
                fs::create_dir_all(&dir)
                    .map_err(|e| FleetError::io(&dir, "create the directory", e))?;
                let mut command = Command::new(self.boot);
                command.arg(kernel).arg(cellbench).args(self.args).arg("--out").arg(&dir);
                let at = |error: FleetError| match error {
                    FleetError::Refused(what) => {
                        FleetError::Refused(format!("kernel {kernel}, turn {}: {what}", turn + 1))
                    }
                    other => other,
                };
                violations |= run_into(&mut command, self.args, &dir).map_err(at)?;
                let (dir, name) = (whole(&dir).map_err(at)?, format!("{kernel}, turn {turn}"));
                sources[index].push(Source { dir, name, group: u64::from(turn) });
            }
        }
        let mut runs: Vec<PathBuf> = Vec::new();
        for (kernel, sources) in self.kernels.iter().zip(&sources) {
            runs.push(stage(kernel, sources, &attempt.join("kernels").join(kernel))?.0);
        }
        merge(&runs, attempt)?;
        Ok(violations)
    }
}
