//! Every text form of the made-up run, word for word, and what holds for any run.

mod fixture;

use std::fs;
use std::path::Path;

use cellbench_plots::chart::{CHARTS, Drawings};
use cellbench_plots::report::{FORMATS, comparison, terminal, verdict};
use cellbench_plots::stats::random::SplitMix64;
use cellbench_plots::{Loaded, compare, merge, write_all, write_formats};
use cellbench_record::{
    Entry, Interval, Kind, Latency, Round, Run, RunReader, RunWriter, Series, Source, Verdict,
};

fn loaded() -> (tempfile::TempDir, Loaded) {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(out.path(), fixture::run(), &fixture::rounds());
    let loaded = Loaded::read(&dir, |_| ()).unwrap();
    (out, loaded)
}

fn rendered(loaded: &Loaded, name: &str) -> String {
    let format = FORMATS.iter().find(|format| format.name() == name).unwrap();
    let files = format.render(&loaded.report(), &Drawings::of(loaded.report())).unwrap();
    assert_eq!(files.len(), 1);
    String::from_utf8(files[0].bytes.clone()).unwrap()
}

#[test]
fn results_md() {
    insta::assert_snapshot!(rendered(&loaded().1, "results"));
}

#[test]
fn mail() {
    let text = rendered(&loaded().1, "mail");
    insta::assert_snapshot!(text);
    for line in text.lines() {
        assert!(line.len() <= 72, "{} columns: {line}", line.len());
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    }
}

#[test]
fn mail_keeps_its_width_with_long_and_foreign_names() {
    let out = tempfile::tempdir().unwrap();
    let mut run = fixture::run();
    run.command_line = format!("cellbench run --out /{} --caf\u{e9}", "long/".repeat(40));
    run.host.kernel = Some("\u{1b}[31mLinux ".repeat(20));
    let mut rounds = fixture::rounds();
    for round in &mut rounds {
        if round.series.cell == "cmd-queue" {
            round.series.cell =
                "cmd-queue-with-a-name-that-nobody-should-give-a-cell-but-can".into();
        }
        round.series.workload = format!("{}-{}", round.series.workload, "w".repeat(80));
    }
    let dir = fixture::written(out.path(), run, &rounds);
    let loaded = Loaded::read(&dir, |_| ()).unwrap();
    let text = rendered(&loaded, "mail");
    for line in text.lines() {
        // A word of the command that is longer than a line cannot be broken and still be pasted.
        let words = line.trim_end_matches('\\').split_whitespace().count();
        assert!(line.len() <= 72 || words == 1, "{} columns: {line}", line.len());
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    }
    for line in terminal(&loaded.report(), false).lines() {
        assert!(line.is_ascii(), "{line}");
    }
}

#[test]
fn table_for_the_terminal() {
    let (_out, loaded) = loaded();
    let text = terminal(&loaded.report(), false);
    insta::assert_snapshot!(text);
    assert!(text.lines().all(|line| line.len() <= 80));
    assert!(!text.contains('\u{1b}'), "no colour where none is asked for");
    let coloured = terminal(&loaded.report(), true);
    assert!(coloured.contains("\u{1b}[32mfaster"));
    // Colour changes no column: without its codes the text is the same.
    let mut plain = coloured;
    for code in ["\u{1b}[1;31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, text);
}

#[test]
fn csv() {
    let text = rendered(&loaded().1, "csv");
    insta::assert_snapshot!(text);
    let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
    assert!(fields.iter().all(|count| *count == fields[0]), "{fields:?}");
}

#[test]
fn verdicts_in_words() {
    let (_out, loaded) = loaded();
    let summary = &loaded.summary;
    let sentences: Vec<String> =
        summary.entries.iter().filter_map(|entry| verdict::sentence(summary, entry)).collect();
    insta::assert_snapshot!(sentences.join("\n"));
    insta::assert_snapshot!("headlines", verdict::headlines(summary).join("\n"));
}

/// A workload that puts several threads on each CPU is not what the others are told at.
#[test]
fn few_rows_with_more_threads_are_not_the_headline() {
    let (_out, loaded) = loaded();
    let mut summary = loaded.summary.clone();
    let compared = summary.entries.iter().filter(|entry| entry.verdict.is_some());
    let row = compared.max_by_key(|entry| entry.series.threads).unwrap().clone();
    let under = |workload: &str, threads| {
        let series = Series { workload: workload.into(), threads, ..row.series.clone() };
        Entry { series, ..row.clone() }
    };
    summary.entries.push(under("another", row.series.threads));
    let before = verdict::headlines(&summary);
    summary.entries.push(under("oversubscribed", 4 * row.series.threads));
    assert_eq!(verdict::headlines(&summary), before);
}

#[test]
fn every_report_is_made_from_the_records_alone() {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(out.path(), fixture::run(), &fixture::rounds());
    let first = write_all(&dir).unwrap();
    assert!(first.failed.is_empty(), "{:?}", first.failed);
    let contents: Vec<Vec<u8>> = first.files.iter().map(|path| fs::read(path).unwrap()).collect();
    for name in ["summary.json", "RESULTS.md", "mail.txt", "benchstat.txt", "summary.csv"] {
        assert!(first.files.iter().any(|path| path.ends_with(name)), "{name} is missing");
    }
    fs::remove_dir_all(dir.join("report")).unwrap();
    fs::remove_file(dir.join("summary.json")).unwrap();
    let again = write_all(&dir).unwrap();
    assert_eq!(again.files, first.files);
    for (path, content) in again.files.iter().zip(&contents) {
        assert!(fs::read(path).unwrap() == *content, "{} differs", path.display());
    }
    let summary = RunReader::open(&dir).unwrap().summary().unwrap();
    assert_eq!(summary, first.loaded.summary);
}

#[test]
fn one_format_and_another_baseline_can_be_asked_for() {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(out.path(), fixture::run(), &fixture::rounds());
    let written = write_formats(
        &dir,
        |options| options.baseline = "rqspin".into(),
        |format| format.name() == "mail",
    )
    .unwrap();
    assert_eq!(written.files.len(), 2);
    let text = fs::read_to_string(dir.join("report/mail.txt")).unwrap();
    assert!(text.contains("Compared: spin-queued, cmpxchg-state,"), "{text}");
    assert!(text.lines().next().unwrap().starts_with("On this host, cmpxchg-state"), "{text}");
}

#[test]
fn damage_is_named_in_the_report_and_the_rest_used() {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(out.path(), fixture::run(), &fixture::rounds());
    let path = dir.join("rounds.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("not a round\n{}", &text[..text.len() - 20])).unwrap();
    let written = write_all(&dir).unwrap();
    assert_eq!(written.loaded.damage.total, 2);
    let results = fs::read_to_string(dir.join("report/RESULTS.md")).unwrap();
    assert!(results.contains("- `rounds.jsonl:1`: not a round"), "{results}");
    // The cut line was the wrong cell's; all other rows are as they were.
    assert!(!results.contains("seq-latch"));
    assert!(results.contains("cmpxchg-state"));
}

#[test]
fn a_run_without_rounds_is_reported_as_such() {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(out.path(), Run::new("0.1.0", 1), &[]);
    let written = write_all(&dir).unwrap();
    assert!(written.failed.is_empty());
    let results = fs::read_to_string(dir.join("report/RESULTS.md")).unwrap();
    assert!(results.contains("No row can be compared with `spin-queued`."), "{results}");
    let mail = fs::read_to_string(dir.join("report/mail.txt")).unwrap();
    for text in [results, mail, terminal(&written.loaded.report(), false)] {
        assert!(text.contains("This run measured nothing: no round was recorded."), "{text}");
    }
}

/// A run that was killed or interrupted says so, and how far it came, in all that is made of it.
#[test]
fn a_run_that_did_not_end_says_how_far_it_came() {
    let (_out, whole) = loaded();
    let rounds = whole.summary.entries.iter().map(|it| it.rounds + it.rounds_disturbed).max();
    let rounds = rounds.unwrap();
    let said = |change: &dyn Fn(&mut Run)| {
        let out = tempfile::tempdir().unwrap();
        let mut run = fixture::run();
        change(&mut run);
        let dir = fixture::written(out.path(), run, &fixture::rounds());
        let loaded = Loaded::read(&dir, |_| ()).unwrap();
        let mut texts =
            ["mail", "results", "html", "github"].map(|name| rendered(&loaded, name)).to_vec();
        texts.push(terminal(&loaded.report(), false));
        let flat = |text: String| {
            text.replace("&nbsp;", " ").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        texts.into_iter().map(flat).collect::<Vec<_>>()
    };
    /// A run that is changed, and what is said of it.
    type Case<'a> = (&'a dyn Fn(&mut Run), String);
    let cases: [Case<'_>; 3] = [
        (
            &|run| run.finished_unix_s = None,
            format!("The run did not finish: it holds {rounds} rounds."),
        ),
        (
            &|run| (run.finished_unix_s, run.settings.rounds) = (None, Some(99)),
            format!("The run did not finish: it holds {rounds} of 99 rounds."),
        ),
        (
            &|run| {
                run.settings.rounds = Some(99);
                run.notes.push("interrupted by the user".into());
            },
            format!("Interrupted by the user after {rounds} of 99 rounds."),
        ),
    ];
    for (change, expected) in cases {
        for text in said(change) {
            assert!(text.contains(&expected), "{expected}: {text}");
        }
    }
    // One that ended has no such line, whatever it was planned to hold.
    let ended = said(&|run| run.settings.rounds = Some(99));
    assert!(
        !ended.iter().any(|text| text.contains("did not finish") || text.contains("Interrupted"))
    );
}

/// Returns the run again on a host 10 % slower, with `cmd-queue` made 30 % faster besides.
fn patched() -> (Run, Vec<Round>) {
    let mut run = fixture::run();
    run.host.kernel = Some("Linux 6.13.0-fictional".into());
    run.git_revision = Some("4567def".into());
    let mut rounds = fixture::rounds();
    rounds.retain(|round| round.series.workload != "churn" || round.series.threads != 1);
    for round in &mut rounds {
        round.duration_s /= if round.series.cell == "cmd-queue" { 1.3 } else { 1.0 } * 0.9;
        round.disturbed.clear();
    }
    (run, rounds)
}

#[test]
fn two_runs_are_compared_row_by_row() {
    let (out, before) = loaded();
    let (run, rounds) = patched();
    let after = Loaded::read(&fixture::written(out.path(), run, &rounds), |_| ()).unwrap();
    let found = compare(&before, &after);
    insta::assert_snapshot!(comparison(&found));
    assert!(comparison(&found).lines().all(|line| line.len() <= 80 && line.is_ascii()));
    let row = |cell: &str| {
        found.rows.iter().find(|r| r.series.cell == cell && r.series.workload == "update").unwrap()
    };
    assert_eq!(row("cmd-queue").verdict, Some(Verdict::Faster));
    assert!((row("cmd-queue").relative.unwrap() - 1.3).abs() < 0.02);
    assert_eq!(row("spin-queued").relative, None);
    assert_eq!(found.differences[0].what, "kernel");
    assert!(found.only_b.is_empty());
    assert_eq!(found.only_a.len(), 4);
}

#[test]
fn a_run_compared_with_itself_has_no_difference() {
    let (_out, loaded) = loaded();
    let found = compare(&loaded, &loaded);
    assert!(found.differences.is_empty());
    assert_eq!(found.count(Verdict::Faster) + found.count(Verdict::Slower), 0);
    assert!(found.rows.iter().filter_map(|row| row.ratio).all(|ratio| ratio == 1.0));
    assert_eq!(found.rows.iter().filter(|row| row.broken).count(), 1, "the wrong cell");
}

#[test]
fn model_and_kernel_are_matched_when_nothing_else_is() {
    let (out, model) = loaded();
    let mut rounds = fixture::rounds();
    rounds.retain(|round| round.series.machine.is_none());
    for round in &mut rounds {
        round.series.source = cellbench_record::Source::Kernel;
        round.series.engine = "live".into();
    }
    let dir = fixture::written(out.path(), fixture::run(), &rounds);
    let found = compare(&model, &Loaded::read(&dir, |_| ()).unwrap());
    assert!(found.across_sources);
    assert_eq!(found.rows.len(), 17);
    assert!(comparison(&found).contains("matched across sources"));
}

#[test]
fn runs_of_two_hosts_become_one_with_the_host_in_every_row() {
    let out = tempfile::tempdir().unwrap();
    let first = fixture::written(out.path(), fixture::run(), &fixture::rounds());
    let (mut run, rounds) = patched();
    run.host.cpu_model = Some("Imaginary CPU 1".into());
    let second = fixture::written(out.path(), run, &rounds);
    let merged = merge(&[first.clone(), second, first], &out.path().join("merged")).unwrap();
    let fictional = "Fictional\u{ae} CPU 9000 @ 3.00GHz";
    let again = format!("{fictional} #2");
    assert_eq!(merged.labels, [fictional, "Imaginary CPU 1", again.as_str()]);
    assert_eq!(merged.damage.total, 0);

    let written = write_all(&merged.dir).unwrap();
    let summary = &written.loaded.summary;
    let of = |label: &str| {
        summary.entries.iter().filter(|e| e.series.host.as_deref() == Some(label)).count()
    };
    let (all, part) = (of(fictional), of("Imaginary CPU 1"));
    assert_eq!((all, part, of(&again)), (19, 15, 19));
    assert_eq!(summary.entries.len(), all + part + all);
    // Each host is compared with its own baseline, and stands with its own calibration.
    assert!(summary.entries.iter().all(|e| e.pairs <= 20));
    let results = fs::read_to_string(merged.dir.join("report/RESULTS.md")).unwrap();
    assert!(results.contains("### Imaginary CPU 1"), "{results}");
    assert!(results.contains("On Imaginary CPU 1, cmpxchg-state"), "{results}");

    // A merged run can be merged again.
    let twice = merge(&[merged.dir], &out.path().join("twice")).unwrap();
    let summary = Loaded::read(&twice.dir, |_| ()).unwrap().summary;
    assert_eq!(summary.entries.len(), all + part + all);
    assert!(merge(&[], Path::new("nowhere")).is_err());
}

/// Every kind of chart that the made-up run has data for, well-formed and described.
#[test]
fn charts() {
    let (_out, loaded) = loaded();
    let format = FORMATS.iter().find(|format| format.name() == "charts").unwrap();
    let files = format.render(&loaded.report(), &Drawings::of(loaded.report())).unwrap();
    let mut names: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    if let Some(dir) = std::env::var_os("CELLBENCH_CHARTS") {
        for file in &files {
            let path = Path::new(&dir).join(file.path.file_name().unwrap());
            fs::write(path, &file.bytes).unwrap();
        }
    }
    for file in &files {
        let svg = String::from_utf8(file.bytes.clone()).unwrap();
        assert!(svg.contains("<title>") && svg.contains("<desc>"), "{}", file.path.display());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", file.path.display());
    }
    names.sort();
    insta::assert_snapshot!(names.join("\n"));
}

/// Threads by doublings, rates of an open loop and logs of latency: what the made-up run lacks.
#[test]
fn charts_of_scaling_load_and_distribution() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), fixture::run()).unwrap();
    let mut random = SplitMix64::new(3);
    for number in 0..8 {
        for behaviour in &fixture::CELLS[..2] {
            let at = |threads| fixture::series(behaviour.cell, "update", threads, Source::Model);
            for threads in [1, 2, 4, 8] {
                // The law with sigma 0.05 and kappa 0.02 peaks at 6.9 threads.
                let n = f64::from(threads);
                let rate = 1e7 * n / (1.0 + 0.05 * (n - 1.0) + 0.02 * n * (n - 1.0));
                let round = fixture::round(&mut random, at(threads), number, rate, behaviour);
                writer.append(&round).unwrap();
            }
            for offered in [100_000, 1_000_000] {
                let series = Series { offered_ops_s: Some(offered), ..at(2) };
                let mut round = fixture::round(&mut random, series.clone(), number, 1e6, behaviour);
                let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
                histogram.record_n(100, 900).unwrap();
                histogram.record_n(5_000, 100).unwrap();
                let mut latency = Latency::of(&histogram);
                let interval = Interval {
                    op: "start".into(),
                    start_s: 0.0,
                    duration_s: 0.1,
                    disturbed: false,
                    histogram,
                };
                latency.hlog = Some(writer.append_latency(&series, &[interval]).unwrap());
                round.latency.clear();
                round.latency.insert("start".into(), latency);
                writer.append(&round).unwrap();
            }
        }
    }
    let loaded = Loaded::read(writer.dir(), |_| ()).unwrap();
    let chart = |name: &str| {
        let chart = CHARTS.iter().find(|chart| chart.name() == name).unwrap();
        chart.draw(&loaded.report()).unwrap()
    };

    let scaling = chart("scaling");
    assert_eq!(scaling.len(), 1, "rates are no thread counts");
    let fit = loaded.summary.scaling.iter().find(|fit| fit.series.cell == "spin-queued").unwrap();
    assert!((fit.peak_threads.unwrap() - 6.9).abs() < 0.5, "{fit:?}");
    // A marker and a place to point at for each cell and number of threads.
    assert_eq!(scaling[0].svg.matches("class=\"hover\"").count(), 8);

    let load = chart("load");
    assert_eq!(load.len(), 1, "all rates in one chart");
    for part in ["100k", "1.00M", "5.00 us", "spin-queued", "cmpxchg-state"] {
        assert!(load[0].description.contains(part), "{part}: {}", load[0].description);
    }

    let distribution = chart("distribution");
    assert_eq!(distribution.len(), 2, "one for each rate; the closed loop kept no log");
    // Nine in ten samples lie in the class of the median, one in ten in that of the 99th percentile.
    for share in ["90 %", "10 %"] {
        let text = &distribution[0].description;
        assert!(text.contains(share), "{share}: {text}");
    }

    // A log with a cut line is drawn without it, one that is gone is not, and both are named.
    let mut logs: Vec<_> = fs::read_dir(writer.dir().join("latency"))
        .unwrap()
        .map(|log| log.unwrap().path())
        .collect();
    logs.sort();
    let text = fs::read_to_string(&logs[0]).unwrap();
    fs::write(&logs[0], &text[..text.len() - 20]).unwrap();
    fs::remove_file(&logs[1]).unwrap();
    let damaged = Loaded::read(writer.dir(), |_| ()).unwrap();
    assert_eq!(damaged.damage.total, 2);
    let [cut, gone] = &damaged.damage.first[..] else { panic!("{:?}", damaged.damage) };
    assert!(cut.path == logs[0] && cut.line.is_some(), "{cut}");
    assert!(gone.path == logs[1] && gone.line.is_none(), "{gone}");
}

/// A sweep over sections and times between two, of two locks: a map for each number of lines.
#[test]
fn charts_of_a_sweep() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), fixture::run()).unwrap();
    let mut random = SplitMix64::new(5);
    let behaviour = &fixture::CELLS[0];
    for number in 0..8 {
        // The second lock wins where the section is long, by far.
        for (lock, short, long) in [("mcs", 9e6, 1e6), ("cna", 6e6, 3e6)] {
            for (section, rate) in [(0, short), (2000, long)] {
                for lines in [1, 8] {
                    let series = Series {
                        kind: Kind::Lock,
                        cell: lock.into(),
                        ..fixture::series(
                            lock,
                            &format!("sweep-{section}-500-{lines}"),
                            2,
                            Source::Model,
                        )
                    };
                    let round = fixture::round(&mut random, series, number, rate, behaviour);
                    writer.append(&round).unwrap();
                }
            }
        }
    }
    let loaded = Loaded::read(writer.dir(), |_| ()).unwrap();
    let chart = CHARTS.iter().find(|chart| chart.name() == "sweep").unwrap();
    let maps = chart.draw(&loaded.report()).unwrap();
    assert_eq!(maps.len(), 2, "one for each number of lines");
    for map in &maps {
        assert_eq!(map.svg.matches("class=\"hover\"").count(), 2, "{}", map.description);
        for part in [
            "section 0 ns, 500 ns between two: mcs, 1.",
            "section 2.00 us, 500 ns between two: cna, ",
        ] {
            assert!(map.description.contains(part), "{part}: {}", map.description);
        }
    }
}

/// On demand alone, one picture for each chart, whatever the names in the data.
#[cfg(feature = "png")]
#[test]
fn charts_as_png() {
    let out = tempfile::tempdir().unwrap();
    let mut rounds = fixture::rounds();
    for round in rounds.iter_mut().filter(|round| round.series.cell == "cmd-queue") {
        round.series.cell = "\u{1b}[31m<b>&\u{b5}\u{4e2d}".into();
    }
    let dir = fixture::written(out.path(), fixture::run(), &rounds);
    let ends = |written: &cellbench_plots::report::Written, end: &str| {
        written.files.iter().filter(|path| path.extension().is_some_and(|it| it == end)).count()
    };
    assert_eq!(ends(&write_all(&dir).unwrap(), "png"), 0);
    let written =
        write_formats(&dir, |_| (), |format| ["png", "charts"].contains(&format.name())).unwrap();
    assert!(written.failed.is_empty(), "{:?}", written.failed);
    assert!(ends(&written, "png") >= 10);
    assert_eq!(ends(&written, "png"), ends(&written, "svg"));
    for path in written.files.iter().filter(|path| path.extension().is_some_and(|it| it == "png")) {
        assert!(fs::read(path).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"), "{}", path.display());
    }
}

/// The page is one file: it names nothing that a browser would fetch by itself, and holds every
/// row, verdict and chart without its script.
#[test]
fn page() {
    let (_out, loaded) = loaded();
    let page = rendered(&loaded, "html");
    if let Some(dir) = std::env::var_os("CELLBENCH_CHARTS") {
        fs::write(Path::new(&dir).join("index.html"), &page).unwrap();
    }
    for fetched in
        ["<script src", "<link rel=\"stylesheet", "<img", "@import", "url(", "http:", "fetch("]
    {
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains(fetched), "the page has {fetched}");
    }
    let rows = page.matches("<tr><td>").count();
    assert_eq!(rows, loaded.summary.entries.len());
    for headline in verdict::headlines(&loaded.summary) {
        let plain = headline.replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
        let plain = plain.replace(" %", "&nbsp;%");
        assert!(page.contains(&plain), "{headline}");
    }
    assert!(page.matches("<figure").count() >= 10);
    assert!(page.len() < 3 << 20);
}

/// Whatever a run holds, the page can be sent by mail and opened on a phone.
#[test]
fn the_page_stays_below_3_mb() {
    let out = tempfile::tempdir().unwrap();
    let writer = RunWriter::create(out.path(), fixture::run()).unwrap();
    let mut random = SplitMix64::new(5);
    let mut lines = Vec::new();
    // More of everything than the page has room for: kinds, workloads, cells, rows and rounds.
    for kind in 0..12 {
        for workload in 0..30 {
            for cell in 0..14 {
                let name = if cell == 0 { "spin-queued".into() } else { format!("design-{cell}") };
                for number in 0..18 {
                    let mut series = Series::new(
                        &*name,
                        Kind::Timer,
                        format!("workload-{workload}"),
                        2,
                        "compact",
                        Source::Sim,
                    );
                    series.machine = Some(format!("machine-{kind}"));
                    let behaviour = &fixture::CELLS[usize::from(cell > 0)];
                    let round = fixture::round(&mut random, series, number, 1e7, behaviour);
                    serde_json::to_writer(&mut lines, &round).unwrap();
                    lines.push(b'\n');
                }
            }
        }
    }
    fs::write(writer.dir().join("rounds.jsonl"), lines).unwrap();
    let loaded = Loaded::read(writer.dir(), |_| ()).unwrap();
    assert_eq!(loaded.summary.entries.len(), 12 * 30 * 14);
    let page = rendered(&loaded, "html");
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    // Each part is there, and says what it left out.
    for part in
        ["more rows are in", "<figure", "id=\"glance\"", "more are in <a href=\"RESULTS.md\">"]
    {
        assert!(page.contains(part), "{part}");
    }
}
