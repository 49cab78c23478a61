//! Rows, groups and lines: what the text formats share.

use std::borrow::Cow;

use cellbench_record::{Entry, Host, Run, Series, Settings, Source, Summary};

use crate::number;

/// Entries measured under the same conditions, one per cell, oldest generation first.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Never empty.
    pub entries: &'a [Entry],
}

impl<'a> Group<'a> {
    /// Returns the conditions; its `cell` is that of the first entry.
    #[must_use]
    pub fn series(&self) -> &'a Series {
        &self.entries[0].series
    }

    /// Returns the conditions in words.
    #[must_use]
    pub fn title(&self) -> String {
        title(self.series())
    }
}

/// Writes `timer, update, 2 threads, compact`, with engine, rate, source and machine where they tell.
pub(super) fn title(series: &Series) -> String {
    let threads = number::count(series.threads, "thread");
    let mut title =
        format!("{}, {}, {threads}, {}", series.kind, series.workload, series.placement);
    if let Some(rate) = series.offered_ops_s {
        title += &format!(", offered {}/s", number::si(Some(rate as f64)));
    }
    if !series.engine.is_empty() {
        title += &format!(", engine {}", series.engine);
    }
    if let Some(place) = place(series) {
        title += &format!(" [{place}]");
    }
    title
}

/// Returns where a series comes from, if not from the model on the one host of the run.
pub(super) fn place(series: &Series) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(series.host.clone());
    if series.source != Source::Model {
        parts.push(source_word(&series.source));
    }
    parts.extend(series.machine.clone());
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Returns the word of a source for readers.
pub(super) fn source_word(source: &Source) -> String {
    match source {
        Source::Model => "real cores".into(),
        Source::Sim => "simulated".into(),
        Source::Kernel => "kernel".into(),
        Source::Other(name) => name.clone(),
    }
}

/// Returns the groups of a summary, in its order.
pub fn groups(summary: &Summary) -> impl Iterator<Item = Group<'_>> {
    summary
        .entries
        .chunk_by(|a, b| same_conditions(&a.series, &b.series))
        .map(|entries| Group { entries })
}

fn same_conditions(a: &Series, b: &Series) -> bool {
    let Series {
        host,
        source,
        machine,
        kind,
        workload,
        engine,
        placement,
        offered_ops_s,
        threads,
        cell: _,
    } = a;
    *host == b.host
        && *source == b.source
        && *machine == b.machine
        && *kind == b.kind
        && *workload == b.workload
        && *engine == b.engine
        && *placement == b.placement
        && *offered_ops_s == b.offered_ops_s
        && *threads == b.threads
}

/// Returns the word of a row's verdict: `baseline`, `error`, `no baseline`, or the verdict.
pub(super) fn verdict_word(summary: &Summary, entry: &Entry) -> String {
    if !entry.violations.is_empty() {
        return "ERROR".into();
    }
    match entry.verdict {
        Some(verdict) => verdict.to_string(),
        None if entry.survey => "survey".into(),
        None if entry.series.cell == summary.baseline => "baseline".into(),
        None => "-".into(),
    }
}

/// Describes a host in two lines: what it is, and how it is set up.
pub(crate) fn host_lines(host: &Host) -> [String; 2] {
    let topology = &host.topology;
    let mut hardware = vec![host.cpu_model.clone().unwrap_or_else(|| "unknown CPU".into())];
    if topology.cpus_online > 0 {
        let mut cpus = number::count(topology.cpus_online, "CPU");
        let counts: Vec<String> = [
            (topology.packages, "package"),
            (topology.llc_groups, "LLC"),
            (Some(topology.cores).filter(|&cores| cores > 0), "core"),
        ]
        .into_iter()
        .filter_map(|(known, what)| Some(number::count(known?, what)))
        .collect();
        if !counts.is_empty() {
            cpus += &format!(" ({})", counts.join(", "));
        }
        hardware.push(cpus);
    }
    hardware.extend(host.memory_bytes.map(number::bytes));
    let mut setup = vec![host.kernel.clone().unwrap_or_else(|| "unknown kernel".into())];
    let mut named = |name: &str, value: &Option<String>| {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            setup.push(format!("{name} {value}"));
        }
    };
    named("preemption", &host.preemption);
    named("microcode", &host.microcode);
    named("governor", &host.governor);
    // sysfs writes these as one word.
    let smt = host.smt.as_deref().map(|state| match state {
        "notsupported" => "not supported".to_owned(),
        "notimplemented" => "not implemented".to_owned(),
        "forceoff" => "forced off".to_owned(),
        other => other.to_owned(),
    });
    named("SMT", &smt);
    named("isolated CPUs", &host.isolation);
    match host.virtualisation.as_deref() {
        Some("none") => setup.push("bare metal".into()),
        Some(hypervisor) => setup.push(format!("virtualised ({hypervisor})")),
        None => {}
    }
    [hardware.join(", "), setup.join(", ")]
}

/// Returns label and run of every host in the report: one without label for a run of one host.
pub(super) fn hosts(run: &Run) -> Vec<(Option<&str>, &Run)> {
    if run.merged_from.is_empty() {
        vec![(None, run)]
    } else {
        run.merged_from.iter().map(|part| (part.host_label.as_deref(), part)).collect()
    }
}

/// Hosts that a report describes one by one: beyond that nobody reads.
const MOST_HOSTS: usize = 24;

/// Returns the hosts that a report describes one by one, and a sentence on the others, if there
/// are any.
pub(super) fn described_hosts(run: &Run) -> (Vec<(Option<&str>, &Run)>, Option<String>) {
    let mut all = hosts(run);
    let more = all.len().saturating_sub(MOST_HOSTS) as u64;
    all.truncate(MOST_HOSTS);
    let more = (more > 0).then(|| format!("{} in run.json.", number::count(more, "further host")));
    (all, more)
}

/// Keeps ASCII only: what is not becomes `?`, control characters and line ends a space.
pub(super) fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' => c,
            c if c.is_control() || c.is_whitespace() => ' ',
            '\u{b5}' | '\u{3bc}' => 'u',
            '\u{2013}' | '\u{2014}' => '-',
            _ => '?',
        })
        .collect()
}

/// Breaks `text` at spaces into lines of at most `width`, the first after `first`, the others after
/// `rest`. A word longer than a line is broken.
pub(super) fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = line.chars().count() + usize::from(!is_empty);
            if used + word.len() <= width {
                break;
            }
            if is_empty {
                let fits = width.saturating_sub(used).max(1).min(word.len());
                line.extend(word.drain(..fits));
            }
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            is_empty = true;
            if word.is_empty() {
                break;
            }
        }
        if !word.is_empty() {
            if !is_empty {
                line.push(' ');
            }
            line.extend(word);
            is_empty = false;
        }
    }
    if !is_empty {
        lines.push(line);
    }
    lines.join("\n")
}

/// Returns a shell command on several lines of at most `width`, each but the last ended by a
/// backslash. A
/// line ends between words of the shell only, never within quotes; a word that is longer than a
/// line
/// has a line of its own that is longer.
pub(super) fn wrap_command(command: &str, width: usize, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = indent.to_owned();
    let mut is_empty = true;
    for word in shell_words(command) {
        // The blank before it, and the blank and backslash behind.
        if !is_empty && line.chars().count() + 1 + word.chars().count() + 2 > width {
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines.push(line);
    lines.join(" \\\n")
}

/// Splits at blanks outside of quotes.
fn shell_words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    // Within `$'...'` a backslash quotes too.
    let mut escapes = true;
    let mut before = ' ';
    let mut is_escaped = false;
    for (at, letter) in command.char_indices() {
        if letter == ' ' && quote.is_none() && !is_escaped {
            words.extend(start.take().map(|start| &command[start..at]));
            continue;
        }
        start.get_or_insert(at);
        match (letter, quote) {
            _ if is_escaped => is_escaped = false,
            ('\\', _) if escapes => is_escaped = true,
            ('\'' | '"', None) => {
                quote = Some(letter);
                escapes = letter == '"' || before == '$';
            }
            (letter, Some(open)) if letter == open => {
                quote = None;
                escapes = true;
            }
            _ => {}
        }
        before = letter;
    }
    words.extend(start.map(|start| &command[start..]));
    words
}

/// Lays out columns: the widest cell of each sets its width. `right` marks numbers.
pub(super) struct Columns {
    pub(super) headers: Vec<(Cow<'static, str>, bool)>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Columns {
    pub(super) fn new(headers: &[(&'static str, bool)]) -> Self {
        let headers = headers.iter().map(|(name, right)| ((*name).into(), *right)).collect();
        Self { headers, rows: Vec::new() }
    }

    /// Writes a table in Markdown with aligned columns.
    pub(super) fn markdown(&self) -> String {
        let escape = |cell: &str| cell.replace('|', "\\|").replace(['\n', '\r'], " ");
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
        let widths: Vec<usize> = self
            .headers
            .iter()
            .enumerate()
            .map(|(i, (header, _))| {
                let cells =
                    rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
                cells.chain([header.chars().count(), 3]).max().unwrap_or(3)
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            text += "|";
            for cell in cells {
                text += &format!(" {cell} |");
            }
            text += "\n";
        };
        let pad = |cell: &str, i: usize| match self.headers[i].1 {
            true => format!("{cell:>width$}", width = widths[i]),
            false => format!("{cell:<width$}", width = widths[i]),
        };
        line(&mut self.headers.iter().enumerate().map(|(i, (header, _))| pad(header, i)));
        line(&mut self.headers.iter().enumerate().map(|(i, (_, right))| {
            let dashes = "-".repeat(widths[i] - 1);
            if *right { format!("{dashes}:") } else { format!("{dashes}-") }
        }));
        for row in &rows {
            line(&mut row.iter().enumerate().map(|(i, cell)| pad(cell, i)));
        }
        text
    }
}

/// Names the charges of a run for what user space cannot do; empty if nothing was charged.
pub(super) fn charged(settings: &Settings) -> String {
    let charges = settings.charges.unwrap_or_default();
    [
        (settings.irq_save_cost_ns, "masking interrupts"),
        (charges.arm_timer_ns, "arming a timer"),
        (charges.queue_work_ns, "queueing a work"),
        (charges.irq_work_ns, "the interrupt of irq_work"),
    ]
    .into_iter()
    .filter(|(ns, _)| *ns > 0.0)
    .map(|(ns, what)| format!("{what} {}", number::time_ns(Some(ns))))
    .collect::<Vec<_>>()
    .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_keep_the_width_and_every_word() {
        let text = "one two three fourfourfourfourfour five";
        let wrapped = wrap(text, 10, "- ", "  ");
        assert!(wrapped.lines().all(|line| line.len() <= 10), "{wrapped}");
        let joined: String = wrapped.split_whitespace().filter(|word| *word != "-").collect();
        assert_eq!(joined, text.replace(' ', ""));
        assert_eq!(wrap("", 10, "- ", "  "), "");
    }

    #[test]
    fn a_wrapped_command_can_be_pasted() {
        let wrapped = wrap_command("cellbench run --cells a,b --seed 1", 20, "  ");
        assert_eq!(wrapped, "  cellbench run \\\n    --cells a,b \\\n    --seed 1");
        assert!(wrapped.lines().all(|line| line.len() <= 20));
    }

    #[test]
    fn a_command_is_not_broken_within_quotes() {
        let command = "cellbench run --out '/tmp/a b  c/d e f' --note \"say \\\" x\" --seed 1";
        let wrapped = wrap_command(command, 24, "  ");
        assert!(wrapped.contains("'/tmp/a b  c/d e f'"), "{wrapped}");
        assert!(wrapped.contains("\"say \\\" x\""), "{wrapped}");
        let joined = wrapped.replace(" \\\n", " ");
        assert_eq!(shell_words(&joined), shell_words(command));
    }

    #[test]
    fn quotes_of_every_kind_end_where_a_shell_ends_them() {
        for word in
            [r"$'it\'s a\x0ab c'", r"'a\'", r"'it'\''s a'", r#""a \" b""#, r"a\ b", r"$'\\'", "''"]
        {
            let command = format!("cellbench run --out {word} --seed 1");
            assert_eq!(shell_words(&command)[3], word, "{command}");
            assert_eq!(shell_words(&command).len(), 6, "{command}");
        }
    }

    #[test]
    fn text_becomes_ascii() {
        assert_eq!(ascii("3 \u{b5}s \u{2013} caf\u{e9}\n"), "3 us - caf? ");
    }

    #[test]
    fn a_bar_or_line_end_does_not_break_the_table() {
        let mut columns = Columns::new(&[("a", false), ("b", true)]);
        columns.rows.push(vec!["x|y\nz".into(), "1".into()]);
        let text = columns.markdown();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.lines().last(), Some("| x\\|y z |   1 |"));
    }
}
