//! A validation as text: Markdown that a terminal shows as well.

use std::fmt::{self, Display, Formatter};

use super::{MEDIAN_BAR, Row, Validation, WORST_BAR};

impl Display for Validation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = &self.measured.microbenchmarks;
        let ping_pong = |matrix: &[Vec<Option<f64>>]| matrix[0][1].unwrap_or(0.0);
        writeln!(
            f,
            "Model against host: CPUs {} and {} of {}; {} of {} passes count.",
            found.cpus[0], found.cpus[1], found.cpu_model, self.measured.kept, self.measured.passes
        )?;
        writeln!(
            f,
            "Calibrated by: atomic {:.2} ns, load {:.2}, store {:.2}, fence {:.2}, pause {:.1}, clock {:.0}, \
             mispredicted branch {:.1}, refused operation {:.1}; \
             {:.1} ns for each load in a chain of lines that the other CPU wrote; {:.1} lost by \
             additions to two lines when the other CPU reads one; ping-pong one way {:.1} by \
             compare-exchange, by loads and stores {:.1} on two lines and {:.1} on one.",
            found.alone.atomic_ns,
            found.alone.load_ns,
            found.alone.store_ns,
            found.alone.fence_ns,
            found.alone.pause_ns,
            found.alone.clock_ns,
            found.alone.mispredict_ns,
            found.alone.operation_ns,
            found.chain_ns,
            found.disturbed_ns,
            ping_pong(&found.compare_exchange_ns),
            ping_pong(&found.read_write_ns),
            found.one_line_ns,
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "| 2 threads: ns for each success | {:>8} | {:>17} | {:>9} | {:>6} |",
            "measured", "quartiles", "predicted", "error"
        )?;
        writeln!(f, "|:{:-<30}|{:->9}:|{:->18}:|{:->10}:|{:->7}:|", "", "", "", "", "")?;
        for row in &self.rows {
            line(f, row)?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "Median error {:.0} % (bar {:.0} %), worst {:.0} % (bar {:.0} %); of {} pairs of cells \
             {} in the wrong order, {} not told apart.",
            self.median_error * 1e2,
            MEDIAN_BAR * 1e2,
            self.worst_error * 1e2,
            WORST_BAR * 1e2,
            self.ordered_pairs,
            self.inversions.len(),
            self.ties
        )?;
        if !self.rows.iter().all(|row| row.measured.is_one_regime()) {
            writeln!(
                f,
                "Errors in brackets do not count: the passes disagree, there is no one time."
            )?;
        }
        for inversion in &self.inversions {
            writeln!(
                f,
                "- {}: {} is faster than {} on the host, and slower in the model.",
                inversion.workload, inversion.faster, inversion.predicted_faster
            )?;
        }
        writeln!(f, "The model {} its bars here.", if self.holds() { "holds" } else { "misses" })
    }
}

fn line(f: &mut Formatter<'_>, row: &Row) -> fmt::Result {
    let measured = &row.measured;
    let name = format!("{} {}", measured.subject, measured.workload);
    let range = format!("{:.1} to {:.1}", measured.lower_ns, measured.upper_ns);
    let percent = format!("{:+.0}%", row.error * 1e2);
    let error = if measured.is_one_regime() { percent } else { format!("({percent})") };
    writeln!(
        f,
        "| {:<29} | {:>8.1} | {range:>17} | {:>9.1} | {error:>6} |",
        name.trim_end(),
        measured.median_ns,
        row.predicted_ns
    )
}
