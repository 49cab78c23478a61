//! The batch script of a job: short enough to be read before it is submitted.

use std::path::Path;

use crate::Job;

/// Returns the script of `job`, which the scheduler knows as `name`, for the fleet in `dir`.
///
/// A task is not started again by the scheduler: half a measurement is none, and `resume` starts what
/// is missing. CPUs are bound by cellbench alone, which knows the topology.
#[must_use]
pub fn script(dir: &Path, name: &str, job: &Job) -> String {
    let dir = dir.display();
    let cellbench = match &job.cellbench {
        Some(path) => path.display().to_string(),
        None => format!("{dir}/bin/cellbench"),
    };
    let last = job.count - 1;
    let mut text = format!(
        "#!/bin/bash\n\
         # Written by `cellbench fleet submit`. Each task of the array is one cellbench command,\n\
         # which {dir}/fleet.json lists by number.\n\
         #SBATCH --job-name={name}\n\
         #SBATCH --array=0-{last}\n\
         #SBATCH --nodes=1\n\
         #SBATCH --ntasks=1\n\
         #SBATCH --no-requeue\n\
         #SBATCH --chdir={dir}\n\
         #SBATCH --output={dir}/logs/%A_%a.txt\n"
    );
    for option in &job.options {
        text += &format!("#SBATCH {option}\n");
    }
    text += &format!(
        "export SLURM_CPU_BIND=none\n\
         exec {cellbench} fleet task {dir} $(({} + SLURM_ARRAY_TASK_ID))\n",
        job.first
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_asks_for_a_whole_node_once() {
        let job = Job {
            script: "genoa".into(),
            first: 4,
            count: 3,
            options: vec!["--exclusive".into(), "--constraint=a&b".into()],
            cellbench: None,
        };
        let text = script(Path::new("/shared/x"), "cellbench-1.0", &job);
        let expected = "\
#!/bin/bash
# Written by `cellbench fleet submit`. Each task of the array is one cellbench command,
# which /shared/x/fleet.json lists by number.
#SBATCH --job-name=cellbench-1.0
#SBATCH --array=0-2
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --no-requeue
#SBATCH --chdir=/shared/x
#SBATCH --output=/shared/x/logs/%A_%a.txt
#SBATCH --exclusive
#SBATCH --constraint=a&b
export SLURM_CPU_BIND=none
exec /shared/x/bin/cellbench fleet task /shared/x $((4 + SLURM_ARRAY_TASK_ID))
";
        assert_eq!(text, expected);
        let job = Job { cellbench: Some("/opt/cellbench".into()), ..job };
        let text = script(Path::new("/shared/x"), "cellbench-1.0", &job);
        assert!(text.contains("exec /opt/cellbench fleet task /shared/x "), "{text}");
    }
}
