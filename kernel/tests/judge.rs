//! Holds the designs to the kernels that have them: locked instructions and lines written by each
//! operation, of the model on the platform that counts, and of the kernel in its trace.
//!
//! The traces are those kept in `results/trace`, and those in the directory that `CELLBENCH_TRACES`
//! names. Where model and kernel differ, `results/trace/differences.toml` says by what and why; what it
//! says of the kernel is looked up in the trace, and an entry without a difference is an error, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cellbench_impls::cell::{AsyncCell, CellKind, InitFlags, Start, Steps};
use cellbench_impls::lock::Lock;
use cellbench_impls::machine::{Cpu, CpuId, Machine, MachineConfig};
use cellbench_impls::map::Map;
use cellbench_impls::platform::Traced;
use cellbench_impls::platform::traced::{Touched, trace};
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::registry::{CellVisitor, LockVisitor, visit_cell, visit_lock};
use cellbench_kernel::trace::figures::{Act, Touch};
use cellbench_kernel::trace::report::{OperationTrace, RowTrace, Trace};
use crossbeam_utils::CachePadded;
use serde::Deserialize;

/// Far enough away to be in the future, in nanoseconds.
const FAR: Start = Start { ns: 3_600_000_000_000, flags: 0 };

/// An operation of a kernel's row that a model's operation stands for.
struct Pair {
    kind: &'static str,
    row: &'static str,
    /// Functions whose figures the model counts as one.
    functions: &'static [&'static str],
    /// Whether the row's first call is meant, which finds another state than the later ones.
    first: bool,
    /// Whether lines are compared: not where the model counts those of its heap and of what its CPU
    /// and task keep, which the kernel's figures leave out or have in other places.
    lines: bool,
    model: &'static str,
}

const fn pair(
    kind: &'static str,
    row: &'static str,
    functions: &'static [&'static str],
    model: &'static str,
) -> Pair {
    Pair { kind, row, functions, first: false, lines: true, model }
}

/// Makes a pair as [`pair`], without the lines.
const fn locked(
    kind: &'static str,
    row: &'static str,
    functions: &'static [&'static str],
    model: &'static str,
) -> Pair {
    Pair { lines: false, ..pair(kind, row, functions, model) }
}

const PAIRS: &[Pair] = &[
    pair("timer", "timer-init-free", &["bpf_timer_init"], "init"),
    pair("timer", "timer-start-cancel", &["bpf_timer_set_callback"], "set_empty"),
    pair("timer", "timer-set_callback", &["bpf_timer_set_callback"], "set_same"),
    pair("timer", "timer-start-cancel", &["bpf_timer_start"], "start"),
    pair("timer", "timer-start", &["bpf_timer_start"], "restart"),
    pair("timer", "timer-start-cancel", &["bpf_timer_cancel"], "cancel_armed"),
    pair("timer", "timer-cancel", &["bpf_timer_cancel"], "cancel_idle"),
    pair("timer", "timer-start-cancel_async", &["bpf_timer_cancel_async"], "cancel_async_armed"),
    pair("timer", "timer-cancel_async", &["bpf_timer_cancel_async"], "cancel_async_idle"),
    pair("timer", "timer-set_callback@nmi", &["bpf_timer_set_callback"], "set_nmi"),
    locked("timer", "timer-start@nmi", &["bpf_timer_start", "bpf_async_irq_worker"], "restart_nmi"),
    pair("wq", "wq-init-free", &["bpf_wq_init"], "init"),
    Pair {
        kind: "wq",
        row: "wq-lifecycle",
        functions: &["bpf_wq_set_callback"],
        first: true,
        lines: true,
        model: "set_empty",
    },
    pair("wq", "wq-set_callback", &["bpf_wq_set_callback"], "set_same"),
    pair("wq", "wq-start", &["bpf_wq_start"], "start"),
    locked(
        "task_work",
        "task_work-schedule",
        &["bpf_task_work_schedule_signal", "bpf_task_work_irq"],
        "schedule",
    ),
    locked("task_work", "task_work-schedule", &["bpf_task_work_callback"], "callback"),
    pair("lock", "bpf_spin_lock", &["bpf_spin_lock", "bpf_spin_unlock"], "pair"),
    pair("lock", "bpf_res_spin_lock", &["bpf_res_spin_lock", "bpf_res_spin_unlock"], "pair"),
    pair(
        "lock",
        "bpf_res_spin_lock_irqsave",
        &["bpf_res_spin_lock_irqsave", "bpf_res_spin_unlock_irqrestore"],
        "pair",
    ),
];

/// Returns the design that models what a row calls its cell.
fn design(cell: &str) -> Option<&'static str> {
    match cell {
        "locked" | "bpf_spin_lock" => Some("spin-queued"),
        "cmd-queue" => Some("cmd-queue"),
        "task-work" => Some("task-work"),
        "bpf_res_spin_lock" | "bpf_res_spin_lock_irqsave" => Some("rqspin"),
        _ => None,
    }
}

/// Cost of an operation to those who share its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    locked: u32,
    written: u32,
}

/// Leads a cell through the calls of the rows.
struct Life;

impl CellVisitor<Traced> for Life {
    type Output = BTreeMap<&'static str, Cost>;

    fn visit<C: AsyncCell<Traced>>(self) -> Self::Output {
        let machine = Machine::new(MachineConfig::new(1));
        // On lines of their own: what is counted must not hang on where a stack begins.
        let map = CachePadded::new(Map::new());
        let program = CachePadded::new(Program::new([(count_only as _, 0); 2]));
        // SAFETY: used with this machine alone, and no callback runs after this function.
        let cell = CachePadded::new(unsafe { C::new() });
        let cpu = machine.cpu(CpuId(0));
        C::reserve(&cpu, 4);
        // The first life shows what needs room only once, as the heap's first slot.
        live(&*cell, &cpu, &map, &program);
        live(&*cell, &cpu, &map, &program)
    }
}

fn live<C: AsyncCell<Traced>>(
    cell: &C,
    cpu: &Cpu<'_, Traced>,
    map: &Map<Traced>,
    program: &Program<Traced>,
) -> BTreeMap<&'static str, Cost> {
    let mut costs = BTreeMap::new();
    let mut count = |name, body: &dyn Fn() -> bool| {
        let (ok, Touched { written, locked, .. }) = trace(body);
        if ok {
            costs.insert(name, Cost { locked: locked as u32, written: written as u32 });
        }
    };
    if C::STEPS == Steps::One {
        let schedule = || cell.schedule(cpu, map, program, program.callback(0), FAR).is_ok();
        // The first call makes the block.
        schedule();
        cpu.return_to_user();
        count("schedule", &schedule);
        count("callback", &|| {
            cpu.return_to_user();
            true
        });
    } else {
        let set =
            |cpu: &Cpu<'_, Traced>| cell.set_callback(cpu, program, program.callback(0)).is_ok();
        count("init", &|| cell.init(cpu, map, InitFlags::NONE).is_ok());
        count("set_empty", &|| set(cpu));
        count("set_same", &|| set(cpu));
        count("set_nmi", &|| cpu.nmi(set));
        if C::CANCELS {
            // A timer that was never armed has no base yet; those of the rows have one.
            let _ = cell.start(cpu, FAR);
            let _ = cell.cancel(cpu);
            set(cpu);
        }
        count("start", &|| cell.start(cpu, FAR).is_ok());
        count("restart", &|| cell.start(cpu, FAR).is_ok());
        count("restart_nmi", &|| cpu.nmi(|nmi| cell.start(nmi, FAR)).is_ok());
        count("cancel_armed", &|| cell.cancel(cpu).is_ok());
        count("cancel_idle", &|| cell.cancel(cpu).is_ok());
        set(cpu);
        let _ = cell.start(cpu, FAR);
        count("cancel_async_armed", &|| cell.cancel_async(cpu).is_ok());
        count("cancel_async_idle", &|| cell.cancel_async(cpu).is_ok());
    }
    cell.cancel_and_free(cpu);
    cpu.machine().settle(cpu);
    costs
}

/// Takes and releases a lock.
struct LockPair;

impl LockVisitor<Traced> for LockPair {
    type Output = Cost;

    fn visit<L: Lock<Traced>>(self) -> Cost {
        let machine = Machine::new(MachineConfig::new(1));
        let cpu = machine.cpu(CpuId(0));
        let lock = CachePadded::new(L::new());
        let (taken, Touched { written, locked, .. }) = trace(|| lock.with(&cpu, || ()));
        assert!(taken.is_ok());
        Cost { locked: locked as u32, written: written as u32 }
    }
}

fn model(pair: &Pair, cell: &str) -> Option<Cost> {
    let id = design(cell)?;
    let kind = match pair.kind {
        "timer" => CellKind::Timer,
        "wq" => CellKind::Wq,
        "task_work" => CellKind::TaskWork,
        _ => return visit_lock::<Traced, _>(id, LockPair),
    };
    visit_cell::<Traced, _>(id, kind, Life)?.get(pair.model).copied()
}

/// An operation of a kernel: its cost, and what it consists of.
struct Found {
    cost: Cost,
    /// Locked accesses by field.
    locked: BTreeMap<String, u32>,
    /// Written lines by object.
    written: BTreeMap<String, u32>,
}

fn kernel(pair: &Pair, trace: &Trace) -> Option<Found> {
    let of = |name: &&str| trace.operation_like(pair.row, name);
    let operations: Vec<&OperationTrace> = pair.functions.iter().map(of).collect::<Option<_>>()?;
    let mut found =
        Found { cost: Cost::default(), locked: BTreeMap::new(), written: BTreeMap::new() };
    let mut lines: BTreeSet<String> = BTreeSet::new();
    for of in &operations {
        let figures = if pair.first { of.first.as_ref().unwrap_or(&of.warm) } else { &of.warm };
        found.cost.locked += figures.all_locked();
        for (field, [_, _, locked]) in &figures.fields {
            if *locked > 0 {
                *found.locked.entry(field.clone()).or_default() += locked;
            }
        }
        if operations.len() == 1 {
            found.written = figures.lines_written_by_object.clone();
        }
        let touches = of.script.iter().filter_map(|line| Touch::parse(line));
        let own = ["per-CPU#", "task#", "stack#"];
        lines.extend(
            touches
                .filter(|touch| !matches!(touch.act, Act::Load | Act::Barrier))
                .map(|touch| touch.line)
                .filter(|line| !own.iter().any(|object| line.starts_with(object))),
        );
    }
    if operations.len() > 1 {
        // A line that two functions write is one line.
        for line in &lines {
            let object = line.split('#').next().unwrap_or(line);
            *found.written.entry(object.to_owned()).or_default() += 1;
        }
    }
    found.cost.written = found.written.values().sum();
    Some(found)
}

/// A difference and its reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Cell, as the trace has it.
    cell: String,
    /// Kind of cell.
    kind: String,
    /// Operation of the model.
    model: String,
    /// `locked` or `written`.
    figure: String,
    /// Releases that begin so; all if it is left out.
    #[serde(default)]
    releases: Vec<String>,
    /// Fields or objects that the kernel has and the model has not; `*` at the end stands for any ending.
    #[serde(default)]
    only_kernel: BTreeMap<String, u32>,
    /// Parts that the model has and the kernel has not, described in words.
    #[serde(default)]
    only_model: BTreeMap<String, u32>,
    /// Reason for the difference.
    because: String,
}

#[derive(Debug, Deserialize)]
struct Differences {
    difference: Vec<Difference>,
}

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/trace")
}

fn traces() -> Vec<Trace> {
    let mut files: Vec<PathBuf> = Vec::new();
    let given = std::env::var_os("CELLBENCH_TRACES").map(PathBuf::from);
    for dir in [Some(results()), given].into_iter().flatten() {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        files.extend(entries.map(|entry| entry.expect("readable").path()));
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files.iter().map(|file| Trace::read(file).expect("kept whole")).collect()
}

fn differences() -> Vec<Difference> {
    let file = results().join("differences.toml");
    let text = std::fs::read_to_string(&file).expect("kept");
    toml::from_str::<Differences>(&text).unwrap_or_else(|e| panic!("{e}")).difference
}

/// Returns the trace's count of the names that a pattern matches.
fn count(of: &BTreeMap<String, u32>, pattern: &str) -> u32 {
    match pattern.strip_suffix('*') {
        Some(start) => of.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, n)| n).sum(),
        None => of.get(pattern).copied().unwrap_or(0),
    }
}

/// Compares one figure of one operation; `used` are the entries that explain something.
fn compare(
    (row, pair): (&RowTrace, &Pair),
    release: &str,
    (figure, kernel, model): (&str, u32, u32),
    parts: &BTreeMap<String, u32>,
    (all, used): (&[Difference], &mut BTreeSet<usize>),
) -> Result<(), String> {
    let what = format!("Linux {release} {}: {} ({figure})", row.name, pair.model);
    let parts_text =
        || parts.iter().map(|(n, c)| format!("{n} {c}")).collect::<Vec<_>>().join(", ");
    let of = |(_, of): &(usize, &Difference)| {
        of.cell == row.cell
            && of.kind == pair.kind
            && of.model == pair.model
            && of.figure == figure
            && (of.releases.is_empty() || of.releases.iter().any(|r| release.starts_with(r)))
    };
    let Some((number, entry)) = all.iter().enumerate().find(of) else {
        return match kernel == model {
            true => Ok(()),
            false => Err(format!("{what}: kernel {kernel} ({}), model {model}", parts_text())),
        };
    };
    used.insert(number);
    if entry.because.is_empty() || entry.only_kernel.is_empty() && entry.only_model.is_empty() {
        return Err(format!("{what}: an entry that explains nothing"));
    }
    for (part, number) in &entry.only_kernel {
        let there = count(parts, part);
        if there < *number {
            return Err(format!("{what}: {part} is {there}, not {number}, of {}", parts_text()));
        }
    }
    let only_kernel: u32 = entry.only_kernel.values().sum();
    let only_model: u32 = entry.only_model.values().sum();
    match kernel + only_model == model + only_kernel {
        true => Ok(()),
        false => Err(format!(
            "{what}: kernel {kernel} ({}), model {model}: not explained by {entry:?}",
            parts_text()
        )),
    }
}

#[test]
fn models_and_kernels_cost_the_same_or_it_is_said_why() {
    let (all, mut used) = (differences(), BTreeSet::new());
    let mut wrong = String::new();
    let mut compared: BTreeMap<String, u32> = BTreeMap::new();
    for trace in traces() {
        for pair in PAIRS {
            let Some(row) = trace.rows.iter().find(|row| row.name == pair.row) else { continue };
            let (Some(found), Some(model)) = (kernel(pair, &trace), model(pair, &row.cell)) else {
                continue;
            };
            *compared.entry(format!("{} {}", pair.kind, row.cell)).or_default() += 1;
            let figures = [
                (("locked", found.cost.locked, model.locked), &found.locked),
                (("written", found.cost.written, model.written), &found.written),
            ];
            for (figure, parts) in figures.into_iter().take(1 + usize::from(pair.lines)) {
                let told = (all.as_slice(), &mut used);
                if let Err(what) = compare((row, pair), &trace.release, figure, parts, told) {
                    let _ = writeln!(wrong, "{what}");
                }
            }
        }
    }
    for (number, entry) in all.iter().enumerate().filter(|(number, _)| !used.contains(number)) {
        let _ = writeln!(wrong, "entry {number} is of no operation: {entry:?}");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    for cell in ["timer locked", "timer cmd-queue", "wq locked", "wq cmd-queue"] {
        assert!(compared.get(cell).is_some_and(|count| *count >= 4), "{cell}: {compared:?}");
    }
    for cell in ["task_work task-work", "lock bpf_spin_lock", "lock bpf_res_spin_lock"] {
        assert!(compared.contains_key(cell), "{cell}: {compared:?}");
    }
}

#[test]
fn a_difference_that_nobody_explains_is_found() {
    let row = RowTrace { cell: "locked".to_owned(), ..RowTrace::default() };
    let parts = BTreeMap::from([("cell.lock.val".to_owned(), 1), ("heap.3+0".to_owned(), 1)]);
    let judge = |entries: &[Difference]| {
        let mut used = BTreeSet::new();
        let figure = ("locked", 2, 1);
        compare((&row, &PAIRS[1]), "6.18", figure, &parts, (entries, &mut used))
    };
    let entry = |only_kernel: &str, number| Difference {
        cell: "locked".to_owned(),
        kind: "timer".to_owned(),
        model: PAIRS[1].model.to_owned(),
        figure: "locked".to_owned(),
        releases: vec!["6.18".to_owned()],
        only_kernel: BTreeMap::from([(only_kernel.to_owned(), number)]),
        only_model: BTreeMap::new(),
        because: "the model leaves it out".to_owned(),
    };
    assert!(judge(&[]).is_err());
    assert!(judge(&[entry("heap.*", 1)]).is_ok());
    assert!(judge(&[entry("cell.*", 2)]).is_err());
    assert!(judge(&[entry("map.*", 0)]).is_err());
}
