//! Draws an operation's access script: time from left to right, a lane for each cache line, a mark for
//! each access; locked instructions stand out, and what lies inside a lock is shaded.

use std::fmt::Write as _;
use std::path::Path;

use super::TraceError;
use super::figures::{Act, Touch};
use super::report::{OperationTrace, Trace};

const LABEL: usize = 190;
const STEP: usize = 16;
const LANE: usize = 22;
const TOP: usize = 64;
const MARGIN: usize = 16;
const LEAST_WIDTH: usize = 560;
/// Lanes of a diagram; the lines beyond are the kernel's own, behind the cell's.
const LANES: usize = 24;

/// Colours that differ in lightness too, so that a print in grey can be read.
const LOAD: &str = "#7a8794";
const STORE: &str = "#1f5fa8";
const LOCKED: &str = "#c23b22";
const SHADE: &str = "#f4e3b2";

/// Returns lines of the cell's own objects come first, then in order of first use.
fn lanes(script: &[Touch]) -> Vec<String> {
    let mut lanes: Vec<String> = Vec::new();
    for touch in script.iter().filter(|touch| !touch.line.is_empty()) {
        if !lanes.contains(&touch.line) {
            lanes.push(touch.line.clone());
        }
    }
    let rank = |line: &String| {
        let own = ["cell#", "block#", "prog#", "map#"];
        own.iter().position(|object| line.starts_with(object)).unwrap_or(own.len())
    };
    lanes.sort_by_key(rank);
    lanes
}

/// Stretches of the script during which a lock is held, as first and last step.
fn sections(script: &[Touch]) -> Vec<(usize, usize)> {
    let mut open: Vec<(usize, &Touch)> = Vec::new();
    let mut found = Vec::new();
    for (at, touch) in script.iter().enumerate() {
        match touch.act {
            Act::Lock => open.push((at, touch)),
            Act::Unlock => {
                let of = open.iter().rposition(|(_, lock)| lock.line == touch.line);
                found.extend(of.map(|of| (open.remove(of).0, at)));
            }
            _ => {}
        }
    }
    found
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Panel {
    text: String,
    width: usize,
    height: usize,
}

fn text(into: &mut String, x: usize, y: usize, size: usize, content: &str) {
    // Formatting into a string does not fail, here and below.
    let _ =
        writeln!(into, "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\">{}</text>", escape(content));
}

fn mark(into: &mut String, touch: &Touch, x: usize, y: usize) {
    let title = format!("<title>{}</title>", escape(&touch.to_string()));
    let _ = match touch.act {
        Act::Load => writeln!(
            into,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"none\" stroke=\"{LOAD}\" stroke-width=\"1.5\">\
             {title}</circle>"
        ),
        Act::Store => writeln!(
            into,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"{STORE}\">{title}</circle>"
        ),
        Act::Locked | Act::Lock | Act::Unlock => {
            let fill = if touch.act == Act::Unlock { "none" } else { LOCKED };
            let (x, y) = (x - 6, y - 6);
            writeln!(
                into,
                "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{fill}\" \
                 stroke=\"{LOCKED}\" stroke-width=\"2\">{title}</rect>"
            )
        }
        Act::Barrier => Ok(()),
    };
}

fn panel(release: &str, row: &str, of: &OperationTrace) -> Panel {
    let script: Vec<Touch> = of.script.iter().filter_map(|line| Touch::parse(line)).collect();
    let all = lanes(&script);
    let (shown, hidden) = all.split_at(all.len().min(LANES));
    let steps: Vec<&Touch> =
        script.iter().filter(|t| t.line.is_empty() || shown.contains(&t.line)).collect();
    let position = |at: usize| {
        script[..at].iter().filter(|t| t.line.is_empty() || shown.contains(&t.line)).count()
    };
    let x = |step: usize| LABEL + MARGIN + step * STEP;
    let y = |lane: usize| TOP + MARGIN + lane * LANE;
    let width = (x(steps.len()) + MARGIN).max(LEAST_WIDTH);
    let height = y(shown.len()) + MARGIN;
    let mut out = String::new();
    text(&mut out, MARGIN, 20, 15, &format!("{} ({row})", of.name));
    let f = &of.warm;
    text(
        &mut out,
        MARGIN,
        38,
        12,
        &format!(
            "Linux {release}: {} instructions, {} locked, {} lines read, {} written, {} under a lock",
            f.instructions,
            f.all_locked(),
            f.lines_read,
            f.lines_written,
            f.instructions_under_lock
        ),
    );
    if !hidden.is_empty() {
        text(&mut out, MARGIN, 54, 11, &format!("{} more lines are not shown", hidden.len()));
    }
    for (first, last) in sections(&script) {
        let (from, to) = (x(position(first)), x(position(last)));
        let _ = writeln!(
            out,
            "<rect x=\"{from}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"{SHADE}\" \
             fill-opacity=\"0.6\"/>",
            (to - from).max(4),
            height - TOP - MARGIN
        );
    }
    for (lane, line) in shown.iter().enumerate() {
        text(&mut out, MARGIN, y(lane) + 4, 12, &super::report::clip(line, 26));
        let _ = writeln!(
            out,
            "<line x1=\"{LABEL}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\" stroke=\"#dde2e7\"/>",
            y(lane),
            width - MARGIN
        );
    }
    for (step, touch) in steps.iter().enumerate() {
        match shown.iter().position(|line| *line == touch.line) {
            Some(lane) => mark(&mut out, touch, x(step), y(lane)),
            None => {
                let _ = writeln!(
                    out,
                    "<line x1=\"{0}\" y1=\"{TOP}\" x2=\"{0}\" y2=\"{1}\" stroke=\"{LOCKED}\" \
                     stroke-width=\"2\" stroke-dasharray=\"4 3\"><title>full barrier</title></line>",
                    x(step),
                    height - MARGIN
                );
            }
        }
    }
    Panel { text: out, width, height }
}

/// Draws an operation, or two side by side: before and after a patch.
#[must_use]
pub fn draw(row: &str, panels: &[(&str, &OperationTrace)]) -> String {
    let panels: Vec<Panel> = panels.iter().map(|(release, of)| panel(release, row, of)).collect();
    let width: usize = panels.iter().map(|panel| panel.width).sum();
    let height = panels.iter().map(|panel| panel.height).max().unwrap_or(0) + 30;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" fill=\"#1d2733\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut left = 0;
    for panel in &panels {
        let _ = writeln!(out, "<g transform=\"translate({left} 0)\">\n{}</g>", panel.text);
        left += panel.width;
    }
    let legend = [
        (Act::Load, "load"),
        (Act::Store, "store"),
        (Act::Locked, "locked"),
        (Act::Unlock, "lock released"),
    ];
    let mut at = MARGIN + 6;
    for (act, name) in legend {
        let touch = Touch { act, line: "line".to_owned(), field: name.to_owned() };
        mark(&mut out, &touch, at, height - 14);
        text(&mut out, at + 12, height - 10, 12, name);
        at += 40 + 8 * name.len();
    }
    let _ = writeln!(
        out,
        "<rect x=\"{at}\" y=\"{}\" width=\"24\" height=\"12\" fill=\"{SHADE}\"/>",
        height - 20
    );
    text(&mut out, at + 30, height - 10, 12, "a lock is held; dashed: full barrier");
    out.push_str("</svg>\n");
    out
}

/// Draws every operation of a trace into a directory, beside the same operation of another kernel
/// where that has it, and writes a page that shows them all, `index.html`. Returns how many were
/// drawn.
///
/// # Errors
/// [`TraceError::Io`] if a file cannot be written.
pub fn write_all(trace: &Trace, before: Option<&Trace>, dir: &Path) -> Result<usize, TraceError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| TraceError::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let mut count = 0;
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Operations</title>\n",
    );
    for (row, of) in trace.operations() {
        let mut panels: Vec<(&str, &OperationTrace)> = Vec::new();
        if let Some(before) = before
            && let Some(old) = before.operation_like(&row.name, &of.name)
        {
            panels.push((&before.release, old));
        }
        panels.push((&trace.release, of));
        let name = format!("{}.{}.svg", row.name, of.name.replace('#', "-"));
        let title = escape(&format!("{} ({})", of.name, row.name));
        let _ = writeln!(page, "<p><img src=\"{name}\" alt=\"{title}\"></p>");
        let file = dir.join(name);
        std::fs::write(&file, draw(&row.name, &panels)).map_err(io(&file))?;
        count += 1;
    }
    page.push_str("</html>\n");
    let file = dir.join("index.html");
    std::fs::write(&file, page).map_err(io(&file))?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> OperationTrace {
        let script = ["R cell#0 cb", "L cell#0 lock", "W block#1 node<a>", "F", "U cell#0 lock"];
        OperationTrace {
            name: "bpf_timer_start".to_owned(),
            script: script.map(str::to_owned).to_vec(),
            ..OperationTrace::default()
        }
    }

    #[test]
    fn a_diagram_shows_lanes_marks_and_sections() {
        let of = operation();
        let svg = draw("timer-start", &[("6.18", &of)]);
        assert!(svg.contains(">cell#0</text>") && svg.contains(">block#1</text>"));
        assert!(svg.contains("node&lt;a&gt;") && svg.contains("full barrier"));
        assert_eq!(svg.matches("fill-opacity").count(), 1);
        let two = draw("timer-start", &[("6.18", &of), ("7.0", &of)]);
        assert_eq!(two.matches("<g transform").count(), 2);
    }

    #[test]
    fn a_page_shows_every_diagram() {
        let row = super::super::report::RowTrace {
            name: "timer-start@nmi".to_owned(),
            operations: vec![operation()],
            ..Default::default()
        };
        let trace = Trace { rows: vec![row], ..Trace::default() };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write_all(&trace, None, dir.path()).unwrap(), 1);
        let page = std::fs::read_to_string(dir.path().join("index.html")).unwrap();
        assert!(page.contains("src=\"timer-start@nmi.bpf_timer_start.svg\""), "{page}");
        assert!(dir.path().join("timer-start@nmi.bpf_timer_start.svg").is_file());
    }

    #[test]
    fn nested_locks_are_two_sections() {
        let script: Vec<Touch> =
            ["L a#0 lock", "L b#0 lock", "U b#0 lock", "W a#0 x", "U a#0 lock"]
                .iter()
                .filter_map(|line| Touch::parse(line))
                .collect();
        assert_eq!(sections(&script), [(1, 2), (0, 4)]);
    }
}
