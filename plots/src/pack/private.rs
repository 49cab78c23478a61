//! Free text of a record that may say something about a person. All else is numbers, names of this project,
//! and what the hardware calls itself.

use cellbench_record::{Extra, Run};

/// Words that must not leave the host, with what stands for them.
#[derive(Clone, Debug, Default)]
pub struct Private {
    words: Vec<(String, &'static str)>,
}

impl Private {
    /// Adds a word, such as a user's name. One of less than three letters, and `root`, say nothing
    /// about anybody.
    #[must_use]
    pub fn with(mut self, word: &str, stands_for_it: &'static str) -> Self {
        if word.chars().count() >= 3 && word != "root" {
            self.words.push((word.to_owned(), stands_for_it));
        }
        self
    }

    /// Returns `text` without paths that are not the system's own, and without private words.
    #[must_use]
    pub fn remove(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for piece in text.split_inclusive(char::is_whitespace) {
            let word = piece.trim_end();
            clean += &self.without_words(&without_path(word));
            clean += &piece[word.len()..];
        }
        clean
    }

    fn without_words(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, stands_for_it) in &self.words {
            text = replace_word(&text, word, stands_for_it);
        }
        text
    }
}

/// Directories in which nothing is of a person.
const SYSTEM: [&str; 5] = ["/sys/", "/proc/", "/dev/", "/boot/", "/usr/"];

/// Returns the last part of a path, alone; of a word that is none, the word. A path may follow a
/// `=` or a quote.
fn without_path(word: &str) -> String {
    let begin = word.find(['/', '~']).unwrap_or(word.len());
    let begin = if word[..begin].ends_with('.') { begin - 1 } else { begin };
    let opens = word[..begin].ends_with(['=', '\'', '"', '`', '(', ':', ',']) || begin == 0;
    let (before, path) = word.split_at(begin);
    let is_system = SYSTEM.iter().any(|directory| path.starts_with(directory));
    if path.is_empty() || is_system {
        return word.to_owned();
    }
    // `op/s` and `1/4` are no paths; `runs/alice/out` is one, as is all that begins with a slash.
    if !opens && path.matches('/').count() < 2 {
        return word.to_owned();
    }
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = if last.starts_with('~') { "" } else { last };
    let before = if opens { before } else { "" };
    format!("{before}.../{last}")
}

/// Replaces `word` where it stands for itself, not within another.
fn replace_word(text: &str, word: &str, with: &str) -> String {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        let after = &found[word.len()..];
        let last = before.chars().next_back().or_else(|| clean.chars().next_back());
        let within = is_part(last) || is_part(after.chars().next());
        clean += before;
        clean += if within { word } else { with };
        rest = after;
    }
    clean + rest
}

/// Removes what is private from the free text of a run and of all that it was merged from, and
/// every
/// field that this version does not know.
pub fn without_private(run: &mut Run, private: &Private) {
    let clean = |text: &mut String| *text = private.remove(text);
    clean(&mut run.command_line);
    run.command_line = without_out(&run.command_line);
    run.notes.iter_mut().for_each(clean);
    run.host.name.iter_mut().for_each(clean);
    run.host.kernel.iter_mut().for_each(clean);
    run.simulated_machine.iter_mut().for_each(clean);
    for finding in &mut run.findings {
        [&mut finding.text, &mut finding.effect, &mut finding.fix].into_iter().for_each(clean);
    }
    for verified in &mut run.verification {
        let texts = [&mut verified.what, &mut verified.outcome, &mut verified.command_line];
        texts.into_iter().for_each(clean);
    }
    if let Some(test) = &mut run.self_test {
        clean(&mut test.command_line);
        test.extra = Extra::new();
    }
    run.extra = Extra::new();
    run.host.extra = Extra::new();
    run.calibration.extra = Extra::new();
    run.settings.extra = Extra::new();
    for part in &mut run.merged_from {
        part.host.name = None;
        without_private(part, private);
    }
}

/// Returns a command line without `--out` and where it points.
fn without_out(line: &str) -> String {
    let mut words = line.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "--out" => _ = words.next(),
            word if word.starts_with("--out=") => {}
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> Private {
        Private::default().with("alice", "USER").with("vega7", "HOST").with("root", "USER")
    }

    #[test]
    fn paths_and_names_go_and_words_with_a_slash_stay() {
        let cases = [
            ("/data/alice/bin/cellbench run", ".../cellbench run"),
            ("--machine=/data/alice/my.toml x", "--machine=.../my.toml x"),
            ("cd ~/src/alice; ls", "cd .../alice; ls"),
            ("../runs/alice/one and runs/alice/one", ".../one and .../one"),
            ("12 op/s, --shard 1/4, K/N", "12 op/s, --shard 1/4, K/N"),
            ("echo 1 | sudo tee /sys/devices/x", "echo 1 | sudo tee /sys/devices/x"),
            ("alice on vega7: malice, vega71", "USER on HOST: malice, vega71"),
            ("run it as root", "run it as root"),
            ("two\n  lines of alice", "two\n  lines of USER"),
        ];
        for (text, expected) in cases {
            let clean = private().remove(text);
            assert_eq!(clean.replace("USER", "alice"), expected.replace("USER", "alice"), "{text}");
        }
        assert_eq!(private().remove("alice's"), "USER's");
        assert!(!private().remove("cd ~/src/alice").contains("alice"));
    }

    #[test]
    fn a_run_keeps_no_word_of_a_person() {
        let mut run = Run::new("1", 1);
        run.command_line = "/data/alice/cellbench run --out runs --seed 1 --out=x".into();
        run.notes.push("started by alice".into());
        run.host.extra.insert("owner".into(), serde_json::json!("alice"));
        let mut part = run.clone();
        part.host.name = Some("vega7".into());
        run.merged_from.push(part);
        without_private(&mut run, &private());
        let text = serde_json::to_string(&run).unwrap();
        assert!(!text.contains("alice") && !text.contains("vega7"), "{text}");
        assert_eq!(run.command_line, ".../cellbench run --seed 1");
    }
}
