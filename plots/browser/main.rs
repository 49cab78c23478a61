//! `index.html` in a real browser: what the script does is driven by keys and pointer, and the page
//! is looked at in light and dark, at the width of a phone, and without script.
//!
//! Needs Chromium, so it is behind a feature: `plots/browser/run` installs and runs. The pictures
//! lie in `target/tmp/page/` afterwards.

#[path = "../tests/fixture/mod.rs"]
mod fixture;
mod page;

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_plots::report::verdict;
use cellbench_plots::{Loaded, write_all};
use page::{Page, address};

/// A report of the made-up run.
struct Shown {
    _dir: tempfile::TempDir,
    loaded: Loaded,
    file: PathBuf,
}

fn report() -> Shown {
    let dir = tempfile::tempdir().unwrap();
    let run = fixture::written(dir.path(), fixture::run(), &fixture::rounds());
    let written = write_all(&run).unwrap();
    assert!(written.failed.is_empty(), "{:?}", written.failed);
    let file = fs::canonicalize(run.join("report/index.html")).unwrap();
    Shown { _dir: dir, loaded: written.loaded, file }
}

/// Returns the texts of a column of the rows that are shown.
fn column(page: &Page, number: usize) -> Vec<String> {
    page.value(&format!(
        "[...document.querySelectorAll('#matrix tbody tr:not([hidden])')]\
         .map(row => row.cells[{number}].textContent.trim())"
    ))
}

const THREADS: usize = 3;
const CELL: usize = 4;
const GOODPUT: usize = 5;

/// The watcher must be able to see what the tests say is not there.
#[test]
fn a_page_that_fetches_and_complains_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.html");
    let text = "<!doctype html><title>bad</title><img src='other.png'>\
                <script>console.error('seen'); throw new Error('thrown')</script>";
    fs::write(&bad, text).unwrap();
    let page = Page::new();
    page.open(&bad);
    let seen = page.seen();
    assert!(seen.requests.iter().any(|url| url.ends_with("/other.png")), "{seen:?}");
    for complaint in ["seen", "thrown"] {
        assert!(seen.complaints.iter().any(|text| text.contains(complaint)), "{seen:?}");
    }
}

#[test]
fn nothing_leaves_the_file_and_nothing_complains() {
    let shown = report();
    let page = Page::new();
    page.open(&shown.file);
    // All that fetches late or fails late has its chance: the whole page is scrolled through.
    page.value::<f64>("(scrollTo(0, document.body.scrollHeight), scrollY)");
    page.value::<bool>("document.fonts.status === 'loaded'");
    let seen = page.seen();
    assert_eq!(seen.complaints, Vec::<String>::new());
    let outside: Vec<&String> =
        seen.requests.iter().filter(|url| !url.starts_with("data:")).collect();
    assert_eq!(outside, [&address(&shown.file)]);
}

#[test]
fn rows_are_filtered_and_sorted() {
    let shown = report();
    let page = Page::new();
    page.open(&shown.file);
    let rows = shown.loaded.summary.entries.len();
    let said = || page.value::<String>("document.getElementById('shown').textContent");
    assert_eq!(column(&page, CELL).len(), rows);
    assert_eq!(said(), format!("{rows} of {rows} rows"));

    // Words narrow, in any order; the count is said aloud (role=status).
    page.click("#filter-text");
    page.type_text("churn rqspin");
    assert_eq!(column(&page, CELL), ["rqspin", "rqspin"]);
    assert_eq!(said(), format!("2 of {rows} rows"));

    // A chosen value narrows further, by keyboard alone.
    page.press("Tab");
    let mut passed = Vec::new();
    while page.value::<Option<String>>("document.activeElement.dataset.column ?? null")
        != Some(THREADS.to_string())
    {
        passed.push(page.value::<String>("document.activeElement.tagName"));
        assert!(passed.len() < 12, "no way by Tab to the choice of threads: {passed:?}");
        page.press("Tab");
    }
    page.press("ArrowDown");
    assert_eq!(column(&page, THREADS), ["1"]);

    page.click("#filter-clear");
    assert_eq!(column(&page, CELL).len(), rows);

    // Sorting: by value, not by text; again for the other way; what has no value stays last.
    let goodput: Vec<String> = {
        let mut sorted: Vec<_> = shown.loaded.summary.entries.iter().collect();
        sorted.sort_by(|a, b| a.goodput_ops_s.partial_cmp(&b.goodput_ops_s).unwrap());
        let with = sorted.iter().filter(|entry| entry.goodput_ops_s.is_some());
        with.map(|entry| entry.series.cell.clone()).collect()
    };
    let head = format!("#matrix th:nth-child({}) button", GOODPUT + 1);
    page.click(&head);
    assert_eq!(column(&page, CELL)[..goodput.len()], goodput);
    let order = format!("document.querySelector('{head}').parentElement.ariaSort");
    assert_eq!(page.value::<String>(&order), "ascending");
    // The same by keyboard: the button has the focus.
    page.press("Enter");
    assert_eq!(page.value::<String>(&order), "descending");
    let mut falling = goodput;
    falling.reverse();
    assert_eq!(column(&page, CELL)[..falling.len()], falling);
}

#[test]
fn any_two_rows_are_compared() {
    let shown = report();
    let page = Page::new();
    page.open(&shown.file);
    let entries = &shown.loaded.summary.entries;
    let place = |cell: &str| {
        let wanted = |entry: &&cellbench_record::Entry| {
            let series = &entry.series;
            series.cell == cell && series.workload == "update" && series.threads == 2
        };
        entries.iter().position(|entry| wanted(&entry)).unwrap()
    };
    let (fast, base) = (place("cmpxchg-state"), place("spin-queued"));
    let outcome = || page.value::<String>("document.getElementById('outcome').textContent");

    // From the first row down to the one wanted, as a reader without a mouse would.
    let choose = |id: &str, row: usize| {
        page.value::<bool>(&format!("(document.getElementById('{id}').focus(), true)"));
        page.press("Home");
        for _ in 0..row {
            page.press("ArrowDown");
        }
        let chosen = format!("Number(document.getElementById('{id}').value)");
        assert_eq!(page.value::<usize>(&chosen), row);
    };
    choose("pair-a", fast);
    choose("pair-b", base);
    let said = outcome();
    // The picker has the ratio of the summary: both are Hodges-Lehmann estimates over the rounds.
    let ratio = entries[fast].ratio.unwrap();
    let number = said.split("has ").nth(1).and_then(|rest| rest.split('x').next()).unwrap();
    assert!((number.parse::<f64>().unwrap() / ratio - 1.0).abs() < 0.01, "{ratio}: {said}");
    assert!(said.contains("95 % interval") && said.contains("failed in"), "{said}");

    choose("pair-a", base);
    assert_eq!(outcome(), "The same row twice.");
}

#[test]
fn marks_show_their_values_to_pointer_and_keyboard() {
    let shown = report();
    let page = Page::new();
    page.open(&shown.file);
    let tip = || {
        page.value::<Option<String>>(
            "(tip => tip.hidden ? null : tip.textContent)\
            (document.getElementById('tip'))",
        )
    };
    let label = |selector: &str| {
        page.value::<String>(&format!("document.querySelector('{selector}').ariaLabel"))
    };
    let figure = "figure:nth-of-type(1)";
    let first = format!("{figure} .hover");
    assert_eq!(tip(), None);
    page.point_at(&first);
    // Other marks may lie on it; then all are named.
    let pointed = tip().unwrap();
    assert!(pointed.lines().any(|line| line == label(&first)), "{pointed}");
    // The first chart is the forest plot: a ratio with its interval.
    let text = label(&first);
    assert!(text.contains("x, 95 % interval "), "a mark's text has no value: {text}");
    let is_inside = "(box => box.left >= 0 && box.top >= 0 && box.right <= innerWidth)\
        (document.getElementById('tip').getBoundingClientRect())";
    assert!(page.value::<bool>(is_inside));
    page.point_at("h1");
    assert_eq!(tip(), None);

    // One stop for each chart; arrows go on within it, Escape puts the value away.
    let stops = "[...document.querySelectorAll('figure')].every(figure =>\
        figure.querySelectorAll('.hover[tabindex=\"0\"]').length <= 1)";
    assert!(page.value::<bool>(stops));
    page.value::<bool>(&format!("(document.querySelector('{first}').focus(), true)"));
    assert_eq!(tip(), Some(label(&first)));
    page.press("ArrowRight");
    let second = page.value::<String>("document.activeElement.ariaLabel");
    assert_ne!(second, label(&first));
    assert_eq!(tip(), Some(second));
    page.press("Escape");
    assert_eq!(tip(), None);
    // A tab leaves the chart: for the next one, or for what else can be reached there.
    let chart = "(document.activeElement.closest('figure')?.id ?? null)";
    let before = page.value::<Option<String>>(chart);
    assert!(before.is_some());
    page.press("Tab");
    assert_ne!(page.value::<Option<String>>(chart), before);
}

#[test]
fn readable_without_script() {
    let shown = report();
    let page = Page::new();
    page.allow_scripts(false);
    page.open(&shown.file);
    let text = page.value::<String>("document.body.innerText");
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for headline in verdict::headlines(&shown.loaded.summary) {
        assert!(flat(&text).contains(&flat(&headline)), "{headline}\n{text}");
    }
    assert_eq!(column(&page, CELL).len(), shown.loaded.summary.entries.len());
    // What only a script can do is not offered.
    assert!(page.value::<bool>(
        "[...document.querySelectorAll('.scripted')].every(part => part.offsetHeight === 0)"
    ));
    // Marks still have their text, as a title.
    assert!(page.value::<bool>("document.querySelector('figure .hover title') !== null"));
    assert_eq!(page.seen().complaints, Vec::<String>::new());
}

/// Light, dark and phone, into `target/tmp/page/` for somebody to look at; what a program can say of
/// them is checked.
#[test]
fn looks() {
    let shown = report();
    let page = Page::new();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&dir).unwrap();
    let mut papers = Vec::new();
    for (name, scheme, width, height) in
        [("light", "light", 1280, 900), ("dark", "dark", 1280, 900), ("phone", "light", 390, 844)]
    {
        page.prefer(scheme);
        page.resize(width, height);
        page.open(&shown.file);
        // Only tables may be wider than the page, and scroll within their own frame.
        let wide = page.value::<u32>("document.documentElement.scrollWidth");
        assert!(wide <= width, "{name}: the page is {wide} pixels wide");
        let parts = page.value::<Vec<String>>(
            "[...document.querySelectorAll('section h2')].map(head => head.id)",
        );
        for part in std::iter::once("top").chain(parts.iter().map(String::as_str)) {
            let scrolled = match part {
                "top" => "(scrollTo(0, 0), true)".to_owned(),
                part => format!("(document.getElementById('{part}').scrollIntoView(), true)"),
            };
            page.value::<bool>(&scrolled);
            fs::write(dir.join(format!("{name}-{part}.png")), page.picture()).unwrap();
        }
        papers.push(page.value::<String>("getComputedStyle(document.body).backgroundColor"));
    }
    assert_eq!(papers[0], papers[2]);
    assert_ne!(papers[0], papers[1], "dark is light");
}
