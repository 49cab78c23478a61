//! `summary.csv`: the table for spreadsheets and `awk`, a line per row (RFC 4180).

use cellbench_record::Entry;

use super::{Format, Rendered, Report};
use crate::chart::Drawings;

pub(super) struct Csv;

type Column = (&'static str, fn(&Entry) -> String);

/// Column names are those of `summary.json`.
const COLUMNS: &[Column] = &[
    ("host", |e| e.series.host.clone().unwrap_or_default()),
    ("source", |e| e.series.source.to_string()),
    ("machine", |e| e.series.machine.clone().unwrap_or_default()),
    ("kind", |e| e.series.kind.to_string()),
    ("workload", |e| e.series.workload.clone()),
    ("engine", |e| e.series.engine.clone()),
    ("placement", |e| e.series.placement.clone()),
    ("offered_ops_s", |e| optional(e.series.offered_ops_s)),
    ("threads", |e| e.series.threads.to_string()),
    ("cell", |e| e.series.cell.clone()),
    ("goodput_ops_s", |e| optional(e.goodput_ops_s)),
    ("goodput_low_ops_s", |e| optional(e.goodput_low_ops_s)),
    ("goodput_high_ops_s", |e| optional(e.goodput_high_ops_s)),
    ("attempts_ops_s", |e| optional(e.attempts_ops_s)),
    ("failure_share", |e| optional(e.failure_share)),
    ("outcomes", |e| {
        let outcomes: Vec<String> =
            e.outcomes.iter().map(|(name, count)| format!("{name}={count}")).collect();
        outcomes.join(" ")
    }),
    ("p50_ns", |e| optional(e.p50_ns)),
    ("p99_ns", |e| optional(e.p99_ns)),
    ("p999_ns", |e| optional(e.p999_ns)),
    ("max_ns", |e| optional(e.max_ns)),
    ("fairness_jain", |e| optional(e.fairness_jain)),
    ("worst_thread_share", |e| optional(e.worst_thread_share)),
    ("line_transfer_share", |e| optional(e.line_transfer_share)),
    ("rounds", |e| e.rounds.to_string()),
    ("rounds_disturbed", |e| e.rounds_disturbed.to_string()),
    ("baseline", |e| e.baseline.clone().unwrap_or_default()),
    ("pairs", |e| e.pairs.to_string()),
    ("ratio", |e| optional(e.ratio)),
    ("ratio_low", |e| optional(e.ratio_low)),
    ("ratio_high", |e| optional(e.ratio_high)),
    ("p_value", |e| optional(e.p_value)),
    ("p_adjusted", |e| optional(e.p_adjusted)),
    ("verdict", |e| optional(e.verdict)),
    ("rounds_needed", |e| optional(e.rounds_needed)),
    ("violations", |e| e.violations.join("; ")),
];

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn render(&self, report: &Report<'_>, _: &Drawings<'_>) -> Result<Vec<Rendered>, String> {
        let mut text = String::new();
        push_line(&mut text, COLUMNS.iter().map(|(name, _)| (*name).to_owned()));
        for entry in &report.summary.entries {
            push_line(&mut text, COLUMNS.iter().map(|(_, value)| value(entry)));
        }
        Ok(vec![Rendered::text("summary.csv", text)])
    }
}

/// Returns an unknown is an empty field.
fn optional(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn push_line(text: &mut String, fields: impl Iterator<Item = String>) {
    for (index, field) in fields.enumerate() {
        if index > 0 {
            text.push(',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&field);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::push_line;

    #[test]
    fn fields_that_would_break_a_line_are_quoted() {
        let mut text = String::new();
        push_line(&mut text, ["a", "b,c", "say \"no\"", ""].map(String::from).into_iter());
        assert_eq!(text, "a,\"b,c\",\"say \"\"no\"\"\",\r\n");
    }
}
