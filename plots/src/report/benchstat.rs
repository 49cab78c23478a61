//! `benchstat.txt`: every round as a line of the Go benchmark format, for `benchstat` and its kin
//! (<https://go.dev/design/14313-benchmark-format>).
//!
//! `benchstat -col /cell -row /workload,/kind,.name benchstat.txt` compares the cells; two runs
//! compare as `benchstat before.txt after.txt`.

use super::layout::{ascii, hosts};
use super::{Format, Rendered, Report};
use crate::chart::Drawings;
use crate::table::Row;

pub(super) struct Benchstat;

impl Format for Benchstat {
    fn name(&self) -> &'static str {
        "benchstat"
    }

    fn render(&self, report: &Report<'_>, _: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        let mut text =
            String::from("Unit goodput-ops/s better=higher\nUnit failures/op better=lower\n");
        // By host, because configuration lines hold for all lines that follow.
        for (label, run) in hosts(report.run) {
            text += "\n";
            let mut config = |key: &str, value: &str| {
                let value = ascii(value);
                if !value.trim().is_empty() {
                    text += &format!("{key}: {}\n", value.trim());
                }
            };
            let arch = match run.host.architecture.as_str() {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            };
            config("goos", "linux");
            config("goarch", arch);
            config("pkg", "cellbench");
            config("cpu", run.host.cpu_model.as_deref().unwrap_or_default());
            // A key that differs between two files keeps benchstat from comparing them: what is
            // different in every run is a comment.
            for (what, value) in [
                ("host", label.unwrap_or_default()),
                ("kernel", run.host.kernel.as_deref().unwrap_or_default()),
                ("virtualisation", run.host.virtualisation.as_deref().unwrap_or_default()),
                ("run", &run.run_id),
                ("commit", run.git_revision.as_deref().unwrap_or_default()),
                ("command", &run.command_line),
            ] {
                let value = ascii(value);
                if !value.trim().is_empty() {
                    text += &format!("# {what}: {}\n", value.trim());
                }
            }
            let mut rows: Vec<&Row> = report
                .table
                .rows
                .iter()
                .filter(|row| row.series.host.as_deref() == label && row.violations.is_empty())
                .collect();
            rows.sort_by(|a, b| a.series.cmp(&b.series));
            for row in rows {
                push_row(&mut text, row);
            }
        }
        Ok(vec![Rendered::text("benchstat.txt", text)])
    }
}

fn push_row(text: &mut String, row: &Row) {
    let series = &row.series;
    // After "Benchmark" an upper-case letter; no spaces; "-N" at the end is the number of threads.
    let mut name = String::from("BenchmarkCell");
    let mut part = |key: &str, value: &str| {
        let value: String =
            ascii(value).chars().map(|c| if c == ' ' || c == '/' { '_' } else { c }).collect();
        if !value.is_empty() {
            name += &format!("/{key}={value}");
        }
    };
    part("host", series.host.as_deref().unwrap_or_default());
    part("source", &series.source.to_string());
    part("machine", series.machine.as_deref().unwrap_or_default());
    part("kind", &series.kind.to_string());
    part("workload", &series.workload);
    part("engine", &series.engine);
    part("placement", &series.placement);
    part("offered", &series.offered_ops_s.map(|rate| rate.to_string()).unwrap_or_default());
    part("cell", &series.cell);
    // In the name as well: benchstat takes the number at the end for GOMAXPROCS and may leave it out.
    part("threads", &series.threads.to_string());
    // A round without success has no time per operation, and the format no word for infinity.
    for round in row.counted().filter(|round| round.ok > 0) {
        let ok = round.ok as f64;
        let failed = (round.attempts - round.ok) as f64 / round.attempts as f64;
        *text += &format!(
            "{name}-{} {} {:.4} ns/op {:.1} goodput-ops/s {failed:.6} failures/op\n",
            series.threads,
            round.ok,
            round.duration_s * 1e9 / ok,
            ok / round.duration_s,
        );
    }
}
