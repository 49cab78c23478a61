//! Packed runs: handed on, merged, and shown in the gallery, or rejected with the reason.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_plots::pack::{Private, is_packed};
use cellbench_plots::report::Gallery;
use cellbench_plots::{Loaded, merge, pack};
use cellbench_record::{Finding, Run, RunReader, Severity};

fn private() -> Private {
    Private::default().with("alice", "USER").with("vega7", "HOST")
}

/// Returns a run with private words wherever a writer may put them.
fn run() -> Run {
    let mut run = fixture::run();
    run.command_line = "/home/alice/cellbench run --out /data/alice --seed 42".into();
    run.host.name = Some("vega7".into());
    run.notes.push("interrupted by alice on vega7".into());
    run
}

/// Writes the packed file of a run.
fn packed(out: &Path, name: &str, run: Run) -> PathBuf {
    let dir = fixture::written(&out.join("runs"), run, &fixture::rounds());
    let path = out.join(name);
    pack(&dir, None, &private()).expect("packed").write(&path).expect("written");
    path
}

#[test]
fn what_is_in_a_packed_run_is_said_and_nothing_of_a_person_is() {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(&out.path().join("runs"), run(), &fixture::rounds());
    let found = pack(&dir, Some("my host"), &private()).unwrap();
    for said in ["my host", "Fictional", "command   .../cellbench run --seed 42", "rounds.jsonl, "]
    {
        assert!(found.contents.contains(said), "{said}: {}", found.contents);
    }
    assert!(found.contents.contains("interrupted by USER on HOST"), "{}", found.contents);
    let path = out.path().join("a.cellbench");
    found.write(&path).unwrap();
    assert!(is_packed(&path) && !is_packed(&dir));
    let whole = out.path().join("whole");
    fs::create_dir(&whole).unwrap();
    pack::unpack(&path, &whole).unwrap();
    for file in ["run.json", "rounds.jsonl"] {
        let text = fs::read_to_string(whole.join(file)).unwrap();
        assert!(!text.contains("alice") && !text.contains("vega7"), "{file}");
    }
    // The same run makes the same bytes.
    let again = out.path().join("b.cellbench");
    pack(&dir, Some("my host"), &private()).unwrap().write(&again).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
}

#[test]
fn a_packed_run_is_merged_like_its_directory() {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(&out.path().join("runs"), fixture::run(), &fixture::rounds());
    let file = packed(out.path(), "a.cellbench", fixture::run());
    let merged = merge(&[file, dir], &out.path().join("merged")).unwrap();
    assert_eq!(merged.damage.total, 0, "{:?}", merged.damage.first);
    let summary = Loaded::read(&merged.dir, |_| ()).unwrap().summary;
    let of = |label: &String| {
        let rows = summary.entries.iter().filter(|entry| entry.series.host.as_ref() == Some(label));
        rows.map(|entry| (entry.series.cell.clone(), entry.ratio)).collect::<Vec<_>>()
    };
    assert_eq!(of(&merged.labels[0]), of(&merged.labels[1]));
    // Nothing of the unpacking is left.
    let left: Vec<_> = fs::read_dir(out.path().join("merged")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // A merged run can be packed and merged again; matrices go along.
    let file = out.path().join("merged.cellbench");
    pack(&merged.dir, None, &private()).unwrap().write(&file).unwrap();
    let twice = merge(&[file], &out.path().join("twice")).unwrap();
    assert_eq!(twice.labels.len(), 1);
    let hosts = fs::read_to_string(twice.dir.join("hosts.jsonl")).unwrap();
    assert_eq!(hosts.lines().filter(|line| line.contains("\"cas\"")).count(), 2, "{hosts}");
    let run = RunReader::open(&twice.dir).unwrap().run().clone();
    assert!(run.merged_from.iter().all(|part| part.calibration.core_to_core.is_empty()));
}

#[test]
fn a_damaged_file_is_one_line_with_its_name() {
    let out = tempfile::tempdir().unwrap();
    let whole = fs::read(packed(out.path(), "a.cellbench", fixture::run())).unwrap();
    let path = out.path().join("b.cellbench");
    let mut other = whole.clone();
    let place = other.len() / 2;
    other[place] ^= 1;
    for bytes in [&whole[..whole.len() - 100], &whole[..20], &other] {
        fs::write(&path, bytes).unwrap();
        let line =
            merge(std::slice::from_ref(&path), &out.path().join("merged")).unwrap_err().to_string();
        let is_named = line.contains("b.cellbench: not a whole packed run");
        assert!(is_named && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn the_gallery_shows_what_is_whole_and_rejects_the_rest_with_the_reason() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("hosts");
    fs::create_dir(&dir).unwrap();
    let good = packed(out.path(), "good.cellbench", fixture::run());
    let mut whole = fs::read(&good).unwrap();
    fs::rename(&good, dir.join("good.cellbench")).unwrap();
    let other = |change: &dyn Fn(&mut Run)| {
        let mut run = fixture::run();
        run.seed += 1;
        change(&mut run);
        run
    };
    let unfit = |run: &mut Run| {
        for (id, text) in [("load", "others run"), ("emulation", "the processor is emulated")] {
            run.findings.push(Finding {
                id: id.into(),
                severity: Severity::Unfit,
                text: text.into(),
                effect: String::new(),
                fix: String::new(),
            });
        }
    };
    /// A run that is changed, and the word that its refusal has.
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Run), &'a str);
    let cases: [Case<'_>; 6] = [
        ("unfit.cellbench", &unfit, "unfit to measure on: others run; the processor is emulated."),
        ("dirty.cellbench", &|run| run.git_revision = Some("abc-dirty".into()), "were changed"),
        ("unknown.cellbench", &|run| run.git_revision = None, "of unknown sources"),
        ("killed.cellbench", &|run| run.finished_unix_s = None, "did not finish"),
        ("nameless.cellbench", &|run| run.host.cpu_model = None, "which CPU"),
        ("Upper.cellbench", &|_| (), "name it by its hardware"),
    ];
    for (name, change, _) in &cases {
        fs::rename(packed(out.path(), name, other(change)), dir.join(name)).unwrap();
    }
    fs::write(dir.join("twice.cellbench"), &whole).unwrap();
    whole.truncate(500);
    fs::write(dir.join("cut.cellbench"), &whole).unwrap();
    fs::write(dir.join("notes.txt"), "hello").unwrap();
    fs::write(dir.join("README.md"), "how to").unwrap();
    let (gallery, rejected) = Gallery::read(&dir).unwrap();
    let names: Vec<&str> = gallery.hosts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["good"]);
    let why = |name: &str| {
        let found = rejected.iter().find(|rejected| rejected.path.ends_with(name));
        found.map(|rejected| rejected.why.as_str()).unwrap_or_default()
    };
    for (name, _, expected) in &cases {
        assert!(why(name).contains(expected), "{name}: {}", why(name));
    }
    assert_eq!(why("twice.cellbench"), "the same run as good; a host counts once");
    assert!(why("cut.cellbench").contains("not a whole packed run"), "{rejected:?}");
    assert!(why("notes.txt").contains("not a packed run"), "{rejected:?}");
    assert_eq!(rejected.len(), cases.len() + 3);

    let page = gallery.page("command").unwrap();
    let figures = gallery.figures().unwrap();
    assert_eq!(figures.len(), 1);
    for said in [
        "## good",
        "Fictional",
        "2026-11-21",
        "0.1.0 (0123abc)",
        "![good: Core to core: cas](results/figures/hosts/good-core-to-core-cas.svg)",
        "- cmpxchg-state",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
}

/// Whoever adds a file to `results/hosts` without making the page again, or one that is rejected, ends
/// here.
#[test]
fn hosts_md_is_what_the_contributed_runs_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (gallery, rejected) = Gallery::read(&root.join("results/hosts")).unwrap();
    assert!(rejected.is_empty(), "{}", rejected[0]);
    let page = fs::read_to_string(root.join("HOSTS.md")).unwrap();
    let command = page.split('`').nth(3).expect("the command in backquotes");
    assert!(gallery.page(command).unwrap() == page, "HOSTS.md is old; make it again: {command}");
    for (path, svg) in gallery.figures().unwrap() {
        let kept = fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(kept == svg, "{} is old; make it again: {command}", path.display());
    }
}
