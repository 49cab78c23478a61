//! `index.html`: the whole report in one file that works offline. Everything is in the page as it
//! is written; the script only filters, sorts, and compares pairs.

use std::fmt::Write as _;

use cellbench_record::{Entry, Run, Series, Severity, Verdict, rfc3339_utc};
use serde::Serialize;

use super::layout::{self, host_lines, place, source_word, verdict_word};
use super::{Format, Rendered, Report, glossary, outcome, overview, verdict};
use crate::chart::{CHARTS, Drawing, Drawings, colour_hex};
use crate::hosts::{self, OverHosts};
use crate::number;
use crate::overview::overviews;

pub(super) struct Html;

/// Most that each part may take, in bytes, so that the page stays under 3 MB whatever the run: rows beyond
/// it are left to the files that programs read, charts are linked.
const MOST_GLANCE_BYTES: usize = 250_000;
const MOST_MATRIX_BYTES: usize = 800_000;
const MOST_PAIR_BYTES: usize = 500_000;
const MOST_CHART_BYTES: usize = 1_000_000;
/// Sentences of the verdict.
const MOST_HEADLINES: usize = 60;
/// Sentences that are read in half a minute; the others unfold.
const FIRST_HEADLINES: usize = 8;
/// Values of rounds in the pair picker's data, over all rows.
const MOST_ROUNDS: usize = 15_000;

impl Format for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn render(
        &self,
        report: &Report<'_>,
        drawings: &Drawings<'_>,
    ) -> Result<Vec<Rendered>, String> {
        Ok(vec![Rendered::text("index.html", page(report, drawings)?)])
    }
}

fn page(report: &Report<'_>, drawings: &Drawings<'_>) -> Result<String, String> {
    let run = report.run;
    let mut html = String::with_capacity(1 << 20);
    let title = format!("cellbench: {}", run.run_id);
    html += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    html += "<link rel=\"icon\" href=\"data:,\">\n";
    put(&mut html, format_args!("<title>{}</title>\n", escape(&title)));
    put(&mut html, format_args!("<style>\n{}</style>\n", include_str!("html/page.css")));
    html += "</head>\n<body>\n<header>\n";
    put(&mut html, format_args!("<h1>{}</h1>\n<p class=\"soft\">", escape(&title)));
    let (hosts, more) = layout::described_hosts(run);
    for (label, part) in hosts {
        let label = label.map_or(String::new(), |label| format!("{label}: "));
        let [hardware, setup] = host_lines(&part.host);
        put(&mut html, format_args!("{}<br>\n", escape(&format!("{label}{hardware}; {setup}"))));
    }
    if let Some(more) = more {
        put(&mut html, format_args!("{more}<br>\n"));
    }
    put(&mut html, format_args!("{}</p>\n</header>\n<main>\n", rfc3339_utc(run.started_unix_s)));
    first(&mut html, report, drawings)?;
    verdicts(&mut html, report);
    let rows = matrix(&mut html, report);
    pairs(&mut html, report, rows)?;
    charts(&mut html, drawings)?;
    about_hosts(&mut html, run);
    method(&mut html, report);
    html += "</main>\n<div id=\"tip\" role=\"tooltip\" hidden></div>\n<script>\n";
    html += include_str!("html/page.js");
    html += "</script>\n</body>\n</html>\n";
    Ok(html)
}

/// Writes the outcome: cautions, the sentence, a line for each design, the forest plots.
fn first(html: &mut String, report: &Report<'_>, drawings: &Drawings<'_>) -> Result<(), String> {
    let found = outcome(report);
    *html +=
        "<section aria-labelledby=\"outcome-heading\">\n<h2 id=\"outcome-heading\">Outcome</h2>\n";
    for caution in &found.cautions {
        put(html, format_args!("<p class=\"caution\" role=\"alert\">{}</p>\n", escape(caution)));
    }
    if let Some(sentence) = &found.sentence {
        put(html, format_args!("<p class=\"answer\">{}</p>\n", escape(sentence)));
    }
    if let Some(Some(drawing)) = drawings.get()?.first().map(|forests| forests.first()) {
        figure(html, drawing);
    }
    if !found.designs.is_empty() {
        headline_list(html, &found.designs);
    }
    if let Some(why) = &found.why {
        put(html, format_args!("<p class=\"soft\">{}</p>\n", escape(why)));
    }
    *html += "</section>\n";
    Ok(())
}

fn figure(html: &mut String, drawing: &Drawing) {
    put(
        html,
        format_args!("<figure id=\"chart-{}\">\n{}\n</figure>\n", drawing.name, drawing.svg.trim()),
    );
}

fn verdicts(html: &mut String, report: &Report<'_>) {
    let summary = report.summary;
    *html += "<section aria-labelledby=\"verdict\">\n<h2 id=\"verdict\">Every design over all its workloads</h2>\n";
    let rows = hosts::over_hosts(summary);
    let mut headlines = hosts::headlines(&rows);
    headlines.extend(verdict::headlines(summary));
    if headlines.is_empty() {
        let text = format!("No row can be compared with {}.", summary.baseline);
        put(html, format_args!("<p>{}</p>\n", escape(&text)));
    } else {
        let shown = &headlines[..headlines.len().min(MOST_HEADLINES)];
        let (first, more) = shown.split_at(shown.len().min(FIRST_HEADLINES));
        headline_list(html, first);
        if !more.is_empty() {
            put(html, format_args!("<details>\n<summary>{} more</summary>\n", more.len()));
            headline_list(html, more);
            *html += "</details>\n";
        }
        if headlines.len() > shown.len() {
            let rest = headlines.len() - shown.len();
            put(
                html,
                format_args!("<p>{rest} more are in <a href=\"RESULTS.md\">RESULTS.md</a>.</p>\n"),
            );
        }
    }
    over_hosts(html, &rows);
    glances(html, report);
    *html += "</section>\n";
}

/// Writes each row over the hosts that measured it; those on which hosts disagree come first.
fn over_hosts(html: &mut String, rows: &[OverHosts]) {
    if rows.is_empty() {
        return;
    }
    *html += "<h3 id=\"over-hosts\">Over hosts</h3>\n";
    put(html, format_args!("<p class=\"soft\">{}</p>\n", escape(hosts::READING)));
    *html += "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"over-hosts\">\n\
        <table>\n<thead><tr><th scope=\"col\">row</th><th scope=\"col\">over hosts</th></tr></thead>\n<tbody>\n";
    let most = html.len() + MOST_GLANCE_BYTES;
    let mut shown = 0;
    for row in hosts::by_agreement(rows) {
        if html.len() >= most {
            break;
        }
        let (series, words) = (escape(&row.series.to_string()), escape(&row.words()));
        put(html, format_args!("<tr><th scope=\"row\">{series}</th><td>{words}</td></tr>\n"));
        shown += 1;
    }
    *html += "</tbody>\n</table>\n</div>\n";
    if rows.len() > shown {
        let rest = rows.len() - shown;
        put(
            html,
            format_args!("<p>{rest} more are in <a href=\"RESULTS.md\">RESULTS.md</a>.</p>\n"),
        );
    }
}

fn headline_list(html: &mut String, headlines: &[String]) {
    *html += "<ul class=\"verdicts\">\n";
    for headline in headlines {
        put(html, format_args!("<li>{}</li>\n", escape(headline)));
    }
    *html += "</ul>\n";
}

/// Writes cells by workloads, coloured, each with its sign for readers who see no colour.
fn glances(html: &mut String, report: &Report<'_>) {
    let summary = report.summary;
    let overviews = overviews(report);
    if overviews.is_empty() {
        return;
    }
    *html += "<h3 id=\"glance\">At a glance</h3>\n";
    put(
        html,
        format_args!(
            "<p class=\"soft\">{}</p>\n<div class=\"glances\">\n",
            escape(overview::LEGEND)
        ),
    );
    let most = html.len() + MOST_GLANCE_BYTES;
    for overview in overviews {
        if html.len() >= most {
            break;
        }
        let title = escape(&overview::title(&overview, summary));
        put(
            html,
            format_args!(
                "<div class=\"scroll glance\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n\
                 <table>\n<caption>{title}</caption>\n<thead><tr><th scope=\"col\">cell</th>"
            ),
        );
        for (workload, threads) in &overview.workloads {
            let threads = number::count(*threads, "thread");
            let heading = format!("{}<br><span class=\"soft\">{threads}</span>", escape(workload));
            put(html, format_args!("<th scope=\"col\" class=\"num\">{heading}</th>"));
        }
        *html += "</tr></thead>\n<tbody>\n";
        for (cell, entries) in &overview.cells {
            let colour = colour_hex(report.designs, cell);
            let cell = escape(cell);
            put(
                html,
                format_args!(
                    "<tr><th scope=\"row\"><span class=\"swatch\" style=\"background:{colour}\"></span>{cell}</th>"
                ),
            );
            for column in 0..overview.workloads.len() {
                let Some(entry) = entries.get(column).copied().flatten() else {
                    *html += "<td></td>";
                    continue;
                };
                let words = verdict::sentence(summary, entry).unwrap_or_default();
                put(
                    html,
                    format_args!(
                        "<td class=\"num {}\" title=\"{}\">{}</td>",
                        verdict_class(entry),
                        escape(&words),
                        escape(&overview::glance(entry))
                    ),
                );
            }
            *html += "</tr>\n";
        }
        *html += "</tbody>\n</table>\n</div>\n";
    }
    *html += "</div>\n";
}

fn verdict_class(entry: &Entry) -> &'static str {
    match entry.verdict {
        _ if !entry.violations.is_empty() => "error",
        Some(Verdict::Faster) => "faster",
        Some(Verdict::Slower) => "slower",
        _ => "",
    }
}

/// Columns of the matrix: heading, whether numeric, what it means.
const COLUMNS: [(&str, bool, &str); 14] = [
    ("source", false, "real cores, simulated machine, or running kernel"),
    ("kind", false, "timer, work item, task work, or lock"),
    ("workload", false, "what the threads do"),
    ("threads", true, "threads, one a CPU"),
    ("cell", false, "the design"),
    ("goodput/s", true, "successful operations per second, all threads"),
    ("failed", true, "share of attempts that returned an error"),
    ("ratio", true, "goodput divided by that of the baseline, within rounds"),
    ("95 % interval", false, "interval of the ratio, simultaneous over the table"),
    ("verdict", false, "what the interval says; survey: too few rounds"),
    ("p50", true, "median latency"),
    ("p99", true, "99th percentile of latency"),
    ("p99.9", true, "99.9th percentile of latency"),
    ("worst thread", true, "successes of the slowest thread by the mean"),
];

/// Writes the rows and says how many.
fn matrix(html: &mut String, report: &Report<'_>) -> usize {
    let summary = report.summary;
    *html +=
        "<section aria-labelledby=\"rows\">\n<h2 id=\"rows\">Every cell in every workload</h2>\n";
    *html += "<div class=\"controls scripted\" hidden>\n\
        <label>Filter <input id=\"filter-text\" type=\"search\" placeholder=\"words\"></label>\n";
    for column in [0, 1, 2, 3, 4, 9] {
        let name = COLUMNS[column].0;
        put(
            html,
            format_args!(
                "<label>{name} <select data-column=\"{column}\"><option value=\"\">all</option></select></label>\n"
            ),
        );
    }
    *html += "<button id=\"filter-clear\" type=\"button\">Clear</button>\n\
        <span id=\"shown\" role=\"status\" class=\"soft\"></span>\n</div>\n";
    *html += "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"rows\">\n\
        <table id=\"matrix\">\n<thead><tr>";
    for (name, numeric, meaning) in COLUMNS {
        let class = if numeric { " class=\"num\"" } else { "" };
        put(
            html,
            format_args!(
                "<th scope=\"col\"{class} title=\"{meaning}\"><button type=\"button\">{name}</button></th>"
            ),
        );
    }
    *html += "</tr></thead>\n<tbody>\n";
    let most = html.len() + MOST_MATRIX_BYTES;
    let mut shown = 0;
    for entry in &summary.entries {
        if html.len() >= most {
            break;
        }
        row(html, report, entry);
        shown += 1;
    }
    *html += "</tbody>\n</table>\n</div>\n";
    if summary.entries.len() > shown {
        put(
            html,
            format_args!(
                "<p>{} more rows are in <a href=\"../summary.json\">summary.json</a>.</p>\n",
                summary.entries.len() - shown
            ),
        );
    }
    *html += "</section>\n";
    shown
}

fn row(html: &mut String, report: &Report<'_>, entry: &Entry) {
    let summary = report.summary;
    let series = &entry.series;
    let verdict = verdict_word(summary, entry);
    let class = verdict_class(entry);
    *html += "<tr>";
    for text in [&source(series), &series.kind.to_string(), &workload(series)] {
        put(html, format_args!("<td>{}</td>", escape(text)));
    }
    put(html, format_args!("<td class=\"num\" data-v=\"{0}\">{0}</td>", series.threads));
    put(
        html,
        format_args!(
            "<td><span class=\"swatch\" style=\"background:{}\"></span>{}</td>",
            colour_hex(report.designs, &series.cell),
            escape(&series.cell)
        ),
    );
    value(html, entry.goodput_ops_s, number::si);
    value(html, entry.failure_share, number::percent);
    value(html, entry.ratio, number::ratio);
    put(
        html,
        format_args!(
            "<td>{}</td><td class=\"{class}\" title=\"{}\">{verdict}</td>",
            number::interval(entry.ratio_low, entry.ratio_high),
            escape(&entry.violations.join("; "))
        ),
    );
    for latency in [entry.p50_ns, entry.p99_ns, entry.p999_ns] {
        value(html, latency, number::time_ns);
    }
    value(html, entry.worst_thread_share, number::percent);
    *html += "</tr>\n";
}

fn value(html: &mut String, value: Option<f64>, text: fn(Option<f64>) -> String) {
    match value {
        Some(number) => put(
            html,
            format_args!("<td class=\"num\" data-v=\"{number:e}\">{}</td>", escape(&text(value))),
        ),
        None => *html += "<td class=\"num\">-</td>",
    }
}

fn source(series: &Series) -> String {
    place(series).unwrap_or_else(|| source_word(&series.source))
}

fn workload(series: &Series) -> String {
    let mut text = series.workload.clone();
    if series.placement != "compact" && !series.placement.is_empty() {
        text += &format!(", {}", series.placement);
    }
    if let Some(rate) = series.offered_ops_s {
        text += &format!(", {}/s", number::si(Some(rate as f64)));
    }
    text
}

/// A row in the pair picker's data.
#[derive(Serialize)]
struct Picked {
    name: String,
    host: Option<String>,
    source: String,
    goodput: Option<f64>,
    failed: Option<f64>,
    /// Number and goodput of each round that counts.
    rounds: Vec<(u32, f64)>,
}

/// Writes the picker, over the rows that the matrix shows.
fn pairs(html: &mut String, report: &Report<'_>, rows: usize) -> Result<(), String> {
    let rounds_each = MOST_ROUNDS.checked_div(rows).unwrap_or(0);
    let mut data = String::from("[");
    for entry in report.summary.entries.iter().take(rows) {
        let series = &entry.series;
        let of_row = report.table.goodput_by_round(series);
        let picked = Picked {
            name: format!(
                "{} {} {} {} [{}]",
                series.cell,
                series.kind,
                workload(series),
                number::count(series.threads, "thread"),
                source(series)
            ),
            host: series.host.clone(),
            source: source(series),
            goodput: entry.goodput_ops_s.map(rounded),
            failed: entry.failure_share.map(rounded),
            rounds: of_row.take(rounds_each).map(|(n, goodput)| (n, rounded(goodput))).collect(),
        };
        let json = serde_json::to_string(&picked).map_err(|error| error.to_string())?;
        if data.len() + json.len() > MOST_PAIR_BYTES {
            break;
        }
        if data.len() > 1 {
            data.push(',');
        }
        // So that no name ends the script element.
        data += &json.replace('<', "\\u003c");
    }
    data.push(']');
    *html += "<section id=\"pairs\" aria-labelledby=\"pair\" class=\"scripted\" hidden>\n\
        <h2 id=\"pair\">Any row against any other</h2>\n<div class=\"controls\">\n\
        <label>this <select id=\"pair-a\"></select></label>\n\
        <label>against <select id=\"pair-b\"></select></label>\n</div>\n\
        <p id=\"outcome\" role=\"status\"></p>\n</section>\n";
    put(html, format_args!("<script id=\"data\" type=\"application/json\">{data}</script>\n"));
    Ok(())
}

/// Writes four significant digits: enough to compare, and short.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn charts(html: &mut String, drawings: &Drawings<'_>) -> Result<(), String> {
    *html += "<section aria-labelledby=\"charts\">\n<h2 id=\"charts\">Charts</h2>\n\
        <p class=\"soft\">Point at a mark for its value, or go to a chart with the tab key and from mark to mark with \
        the arrow keys.</p>\n";
    let mut bytes = 0;
    let mut charts: Vec<_> = CHARTS.iter().zip(drawings.get()?).enumerate().collect();
    // Of many hosts the other charts, one for each, fill the page: what compares hosts goes before.
    charts.sort_by_key(|(_, (chart, _))| !chart.compares_hosts());
    for (index, (chart, drawings)) in charts {
        // The first forest plot is at the head of the page.
        let drawings = if index == 0 { drawings.get(1..).unwrap_or_default() } else { drawings };
        if drawings.is_empty() {
            continue;
        }
        put(
            html,
            format_args!(
                "<h3>{}</h3>\n<p class=\"soft\">{}</p>\n<div class=\"charts\">\n",
                chart.name(),
                escape(chart.about())
            ),
        );
        for drawing in drawings {
            if bytes + drawing.svg.len() > MOST_CHART_BYTES {
                put(
                    html,
                    format_args!(
                        "<p><a href=\"charts/{}.svg\">{}</a></p>\n",
                        drawing.name,
                        escape(&drawing.title)
                    ),
                );
                continue;
            }
            bytes += drawing.svg.len();
            figure(html, drawing);
        }
        *html += "</div>\n";
    }
    *html += "</section>\n";
    Ok(())
}

fn about_hosts(html: &mut String, run: &Run) {
    *html += "<section aria-labelledby=\"host\">\n<h2 id=\"host\">Host and findings</h2>\n";
    let (hosts, more) = layout::described_hosts(run);
    for (label, part) in hosts {
        if let Some(label) = label {
            put(html, format_args!("<h3>{}</h3>\n", escape(label)));
        }
        *html += "<ul>\n";
        for finding in &part.findings {
            let severity = match finding.severity {
                Severity::Info => "",
                _ => "Warning: ",
            };
            let mut text = format!("{severity}{}.", finding.text.trim_end_matches('.'));
            if !finding.effect.is_empty() {
                put(&mut text, format_args!(" {}.", finding.effect.trim_end_matches('.')));
            }
            put(html, format_args!("<li>{}", escape(&text)));
            if !finding.fix.is_empty() {
                put(html, format_args!(" <code>{}</code>", escape(&finding.fix)));
            }
            *html += "</li>\n";
        }
        let calibration = &part.calibration;
        for (name, value) in [
            ("empty operation in the measuring loop", calibration.empty_op_ns),
            ("a timestamp", calibration.timestamp_ns),
            ("an uncontended atomic", calibration.uncontended_atomic_ns),
            ("a line transfer between two CPUs", calibration.line_transfer_ns),
        ] {
            if value.is_some() {
                let value = number::time_ns(value);
                put(html, format_args!("<li>Limit of the ruler: {name} takes {value}.</li>\n"));
            }
        }
        for note in &part.notes {
            put(html, format_args!("<li>{}</li>\n", escape(note)));
        }
        *html += "</ul>\n";
    }
    if let Some(more) = more {
        put(html, format_args!("<p>{more}</p>\n"));
    }
    *html += "</section>\n";
}

fn method(html: &mut String, report: &Report<'_>) {
    let (run, summary) = (report.run, report.summary);
    *html += "<section aria-labelledby=\"method\">\n<h2 id=\"method\">Method and data</h2>\n";
    let text = format!(
        "All cells run in every round, in shuffled order; the ratio is taken within each round. That \
         the order is drawn at random is what the test rests on: 95 % intervals hold together over \
         {}, looks on the way included, and the verdict is what the interval says. Same means \
         within {}. {} rounds were disturbed and left out.",
        number::count(summary.comparisons, "comparison"),
        number::percent_chosen(summary.threshold_share),
        summary.rounds_disturbed
    );
    put(
        html,
        format_args!(
            "<p>{}</p>\n<p>Repeat it: <code>{}</code></p>\n",
            escape(&text),
            escape(&run.command_line)
        ),
    );
    if report.damage.total > 0 {
        let damage = number::count(report.damage.total, "part");
        put(
            html,
            format_args!("<p>{damage} of the records could not be read and was left out.</p>\n"),
        );
    }
    *html += "<ul>\n";
    for (file, what) in [
        ("../summary.json", "this table, for programs"),
        ("../rounds.jsonl", "every round"),
        ("../run.json", "host, settings, calibration"),
        ("../latency/", "latency histograms for HdrHistogram's tools"),
        ("mail.txt", "text for a patch thread"),
        ("github.md", "text for a pull request or a job summary"),
        ("benchstat.txt", "for benchstat"),
        ("RESULTS.md", "this report as text"),
    ] {
        put(html, format_args!("<li><a href=\"{file}\">{file}</a>: {what}</li>\n"));
    }
    *html += "</ul>\n</section>\n";
    *html += "<section aria-labelledby=\"words\">\n<h2 id=\"words\">Words</h2>\n<dl>\n";
    for (word, meaning) in glossary::words() {
        put(html, format_args!("<dt>{}</dt><dd>{}</dd>\n", escape(word), escape(meaning)));
    }
    *html += "</dl>\n</section>\n";
}

fn put(html: &mut String, arguments: std::fmt::Arguments<'_>) {
    html.write_fmt(arguments).expect("writing to a string");
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            // A number and its per cent stay on one line.
            ' ' if letters.peek() == Some(&'%') => escaped += "&nbsp;",
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{escape, rounded};

    #[test]
    fn foreign_text_stays_text() {
        assert_eq!(escape("<b>\"a\" & b\u{1b}"), "&lt;b&gt;&quot;a&quot; &amp; b ");
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!([123_456.0, 0.012_345_6, 0.0].map(rounded), [123_500.0, 0.012_35, 0.0]);
    }
}
