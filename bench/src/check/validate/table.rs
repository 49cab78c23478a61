//! A validation as text: Markdown that a terminal shows as well.

use std::fmt::{self, Display, Formatter};

use super::{MEDIAN_BAR, Row, Validation, WORST_BAR};

impl Display for Validation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = &self.measured.microbenchmarks;
        let ping_pong = |matrix: &[Vec<Option<f64>>]| {
            matrix.first().and_then(|row| row.get(1)).copied().flatten().unwrap_or(0.0)
        };
        writeln!(
            f,
            "Model against host: CPUs {} of {}; {} of {} passes count.",
            found.cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(" and "),
            found.cpu_model,
            self.measured.kept,
            self.measured.passes
        )?;
        writeln!(
            f,
            "Calibrated by: atomic {:.2} ns, load {:.2}, store {:.2}, fence {:.2}, pause {:.1}, clock {:.0}, \
             mispredicted branch {:.1}, refused operation {:.1}; \
             {:.1} ns for each load in a chain of lines that the other CPU wrote; {:.1} lost by \
             additions to two lines when the other CPU reads one; ping-pong one way {:.1} by \
             compare-exchange, by loads and stores {:.1} on two lines and {:.1} on one; additions by \
             both to one word {}.",
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
            found.addition_ns.map_or("not measured".to_owned(), |ns| format!("{ns:.1} each")),
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "| 2 threads: ns for each success | {:>8} | {:>17} | {:>9} | {:>17} | {:>6} |",
            "measured", "quartiles", "predicted", "interval", "error"
        )?;
        writeln!(
            f,
            "|:{:-<30}|{:->9}:|{:->18}:|{:->10}:|{:->18}:|{:->7}:|",
            "", "", "", "", "", ""
        )?;
        for row in &self.rows {
            line(f, row)?;
        }
        writeln!(f)?;
        match (self.median_error, self.worst_error) {
            (Some(median), Some(worst)) => writeln!(
                f,
                "Median error {:.0} % (bar {:.0} %), worst {:.0} % (bar {:.0} %); of {} pairs of cells \
                 {} in the wrong order, {} not told apart.",
                median * 1e2,
                MEDIAN_BAR * 1e2,
                worst * 1e2,
                WORST_BAR * 1e2,
                self.ordered_pairs,
                self.inversions.len(),
                self.ties
            )?,
            _ => writeln!(f, "No row counts: there is nothing to say of the model.")?,
        }
        if !self.rows.iter().all(|row| row.counts) {
            writeln!(
                f,
                "Errors in brackets do not count: the passes or the seeds disagree, so that there is no one \
                 time, or the design has changed since, or the model was calibrated by the like."
            )?;
        }
        if !self.measured.left_out.is_empty() {
            let names = self.measured.left_out.join(", ");
            writeln!(f, "Left out, as it is not measured any more: {names}.")?;
        }
        for inversion in &self.inversions {
            writeln!(
                f,
                "- {} is faster than {} on the host, and slower in the model.",
                inversion.faster, inversion.predicted_faster
            )?;
        }
        if self.median_error.is_none() {
            return Ok(());
        }
        writeln!(f, "The model {} its bars here.", if self.holds() { "holds" } else { "misses" })
    }
}

fn line(f: &mut Formatter<'_>, row: &Row) -> fmt::Result {
    let measured = &row.measured;
    let name = format!("{} {}", measured.subject, measured.workload);
    let range = format!("{:.1} to {:.1}", measured.lower_ns, measured.upper_ns);
    let percent = format!("{:+.0}%", row.error * 1e2);
    let error = if row.counts { percent } else { format!("({percent})") };
    let predicted = match row.predicted.regimes {
        Some((lower, upper)) => format!("{lower:.1} or {upper:.1}"),
        None => format!("{:.1}", row.predicted_ns),
    };
    let interval = format!("{:.1} to {:.1}", row.predicted.low, row.predicted.high);
    writeln!(
        f,
        "| {:<29} | {:>8.1} | {range:>17} | {predicted:>9} | {interval:>17} | {error:>6} |",
        name.trim_end(),
        measured.median_ns,
    )
}
