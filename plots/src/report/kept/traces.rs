//! Traces of kernels that are kept beside the runs, in `results/trace`: their pictures, and what changed
//! between two kernels, as text for a mail.

use std::fs;
use std::path::Path;

use crate::report::markdown::Page;

/// Directory of the traces beside those of the runs.
const DIRECTORY: &str = "trace";
/// How the name of a text ends.
const MAIL: &str = ".mail.txt";

/// Pictures and texts that are kept of traces.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Files of pictures, in order.
    pictures: Vec<String>,
    /// Texts by the name of what they compare.
    mails: Vec<(String, String)>,
}

impl Traces {
    /// Reads what lies beside the runs of `dir`; nothing if there are no traces.
    pub(super) fn read(dir: &Path) -> Self {
        let dir = dir.join(DIRECTORY);
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let mut traces = Self::default();
        for name in names {
            if let Some(compared) = name.strip_suffix(MAIL) {
                // A text that cannot be read is not shown.
                let text = fs::read_to_string(dir.join(&name)).ok();
                traces.mails.extend(text.map(|text| (compared.to_owned(), text)));
            } else if name.ends_with(".svg") {
                traces.pictures.push(name);
            }
        }
        traces
    }

    /// Writes their section.
    pub(super) fn section(&self, page: &mut Page) {
        if self.pictures.is_empty() && self.mails.is_empty() {
            return;
        }
        page.section("What the operations of kernels execute");
        page.line(
            "Read off the images of kernels under emulation, without a clock: `cellbench trace`; the data \
             is in [results/trace](results/trace/README.md). A lane is a cache line, time goes from left \
             to right; filled squares are locked instructions, a shaded stretch lies inside a lock. The \
             kernel before is on the left, the one after on the right.",
        );
        for name in &self.pictures {
            let title = name.trim_end_matches(".svg").replace('.', ": ");
            page.line(&format!("\n![{title}](results/{DIRECTORY}/{name})"));
        }
        for (compared, text) in &self.mails {
            page.line(&format!(
                "\n<details><summary>{compared}, operation by operation</summary>\n\n```text"
            ));
            page.line(text.trim_end());
            page.line("```\n\n</details>");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_and_texts_are_shown_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join(DIRECTORY);
        fs::create_dir(&trace).unwrap();
        for name in ["timer-start.bpf_timer_start.svg", "6.18-7.1.mail.txt", "7.1.json"] {
            fs::write(trace.join(name), "bpf_timer_start: 2 -> 3 locked\n").unwrap();
        }
        let mut page = Page::default();
        Traces::read(dir.path()).section(&mut page);
        let picture =
            "![timer-start: bpf_timer_start](results/trace/timer-start.bpf_timer_start.svg)";
        assert!(page.text.contains(picture), "{}", page.text);
        assert!(page.text.contains("<summary>6.18-7.1,") && !page.text.contains("json"));
    }

    #[test]
    fn without_traces_there_is_no_section() {
        let dir = tempfile::tempdir().unwrap();
        let mut page = Page::default();
        Traces::read(dir.path()).section(&mut page);
        assert_eq!(page.text, "");
    }
}
