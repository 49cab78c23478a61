//! The scripts of cells: every operation of every registered design has one.

use std::cell::RefCell;

use cellbench_impls::cell::{CellKind, InitFlags, Start};
use cellbench_impls::machine::{Context, MachineConfig};
use cellbench_impls::map::Map;
use cellbench_impls::platform::Recorded;
use cellbench_impls::platform::recorded::record;
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::registry::{CELLS, CellEntry, CellVisitor, visit_cell};
use cellbench_impls::{AsyncCell, Cpu, CpuId, Errno, Machine};
use libtest_mimic::{Failed, Trial};

use crate::compare::difference;
use crate::script::{Trace, aliases, read};
use crate::sequence::Words;

/// A cell with what its operations are given.
struct Scene<C> {
    cell: C,
    map: Map<Recorded>,
    programs: [Box<Program<Recorded>>; 2],
    machine: Machine<Recorded>,
}

/// Far enough away to be in the future, in nanoseconds.
const FAR: Start = Start { ns: 3_600_000_000_000, flags: 0 };

impl<C: AsyncCell<Recorded>> Scene<C> {
    fn new() -> Self {
        let scene = Self {
            // SAFETY: used with this machine alone, which is dropped last; no callback of a timer or work
            // ever runs, and every path ends with `finish`.
            cell: unsafe { C::new() },
            map: Map::new(),
            programs: [(); 2].map(|()| Program::new([(count_only as _, 0); 2])),
            machine: Machine::new(MachineConfig::new(2)),
        };
        // For what is called in NMI.
        C::reserve(&scene.machine.cpu(CpuId(0)), 8);
        scene
    }

    /// Calls what a script names; returns what came of it in the script's words.
    fn call(&self, cpu: &Cpu<'_, Recorded>, call: &str) -> String {
        let Self { cell, map, programs, .. } = self;
        let (name, argument) = call.split_once(' ').unwrap_or((call, ""));
        let program = || match argument {
            "p0" => (&*programs[0], 0),
            "p1" => (&*programs[1], 0),
            "p1.1" => (&*programs[1], 1),
            _ => panic!("{call}: no such program"),
        };
        let done = |result: Result<(), Errno>| {
            result.map_or_else(|errno| errno.to_string(), |()| "ok".to_owned())
        };
        let found = |result: Result<bool, Errno>| {
            result.map_or_else(|errno| errno.to_string(), |found| found.to_string())
        };
        match name {
            "init" => done(cell.init(cpu, map, InitFlags::NONE)),
            "set_callback" => {
                let (program, callback) = program();
                done(cell.set_callback(cpu, program, program.callback(callback)))
            }
            "start" => done(cell.start(cpu, FAR)),
            "cancel" => found(cell.cancel(cpu)),
            "cancel_async" => found(cell.cancel_async(cpu)),
            "cancel_and_free" => {
                cell.cancel_and_free(cpu);
                "ok".to_owned()
            }
            "schedule" => {
                let (program, callback) = program();
                done(cell.schedule(cpu, map, program, program.callback(callback), FAR))
            }
            "return_to_user" => {
                cpu.return_to_user();
                "ok".to_owned()
            }
            "put_user" => {
                map.put_user(cpu, [cell]);
                "ok".to_owned()
            }
            _ => panic!("{call}: no such call"),
        }
    }

    fn call_in(&self, cpu: &Cpu<'_, Recorded>, context: &str, call: &str) -> String {
        match context {
            "task" => self.call(cpu, call),
            "softirq" => self.call(&cpu.interrupted(Context::Softirq), call),
            "nmi" => cpu.nmi(|nmi| self.call(nmi, call)),
            // All calls in one section.
            "irqs off" => self.call(cpu, call),
            _ => panic!("{context}: no such context"),
        }
    }

    fn finish(&self) {
        let cpu = self.machine.cpu(CpuId(0));
        self.cell.cancel_and_free(&cpu);
        self.machine.settle(&cpu);
    }
}

/// Leads a cell onto a path, and compares.
struct Follow<'a>(&'a Trace);

impl CellVisitor<Recorded> for Follow<'_> {
    type Output = Result<(), Failed>;

    fn visit<C: AsyncCell<Recorded>>(self) -> Self::Output {
        let Self(path) = self;
        let scene = Scene::<C>::new();
        let [cpu, other] = [0, 1].map(|number| scene.machine.cpu(CpuId(number)));
        for call in &path.after {
            match call.strip_prefix("cpu1 ") {
                Some(call) => scene.call(&other, call),
                None => scene.call(&cpu, call),
            };
        }
        let words = RefCell::new(Words::new(true));
        let others = RefCell::new(path.others());
        let before = |event: &_| {
            let number = words.borrow().lines.len();
            if words.borrow().line(event).is_some() {
                // Taken out first: what it does is not recorded, so it does not get here.
                let due = others.borrow_mut().remove(&number);
                for call in due.into_iter().flatten() {
                    scene.call(&other, call.strip_prefix("cpu1 ").unwrap_or(&call));
                }
            }
            words.borrow_mut().take(event);
        };
        let (returned, _) = record(before, || {
            let _irq_off = (path.context == "irqs off").then(|| cpu.irq_save());
            let results = path.call.iter().map(|call| scene.call_in(&cpu, &path.context, call));
            results.last().expect("something is called")
        });
        drop([cpu, other]);
        scene.finish();
        let left = others.into_inner();
        if !left.is_empty() {
            return Err(format!("the script has others do more: {left:?}").into());
        }
        let expected: Vec<String> = path.expected().map(str::to_owned).collect();
        let difference = difference(&expected, &words.into_inner().lines);
        if !difference.is_empty() {
            let title = &path.title;
            let text = format!("path `{title}`; `-`: the script, `+`: the code\n{difference}");
            return Err(text.into());
        }
        if returned != path.returns {
            return Err(format!("path `{}` returned {returned}", path.title).into());
        }
        Ok(())
    }
}

/// Returns the operations of a design that must have a script.
fn operations(entry: &CellEntry) -> Vec<&'static str> {
    struct Has;
    impl CellVisitor<Recorded> for Has {
        type Output = (bool, bool);
        fn visit<C: AsyncCell<Recorded>>(self) -> (bool, bool) {
            (C::CANCELS, C::CANCELS_ASYNC)
        }
    }
    if entry.kind == CellKind::TaskWork {
        return vec!["schedule", "callback", "cancel_and_free"];
    }
    let (cancels, cancels_async) =
        visit_cell::<Recorded, _>(entry.id, entry.kind, Has).expect("registered");
    let mut operations = vec!["init", "set_callback", "start", "cancel_and_free"];
    operations.extend(cancels.then_some("cancel"));
    operations.extend(cancels_async.then_some("cancel_async"));
    operations
}

/// Returns a test for each path of each operation of each design.
pub(crate) fn trials() -> Vec<Trial> {
    let aliases = aliases();
    let mut trials = Vec::new();
    for entry in CELLS {
        for operation in operations(entry) {
            let design = format!("{}/{}", entry.kind, entry.id);
            let mut name = format!("{design}/{operation}");
            // Its own, or that of the design or operation that it is the same as.
            let mut script = read(&name);
            for _ in 0..4 {
                if script.is_some() {
                    break;
                }
                let (of, operation) = name.rsplit_once('/').expect("a design and an operation");
                let same = aliases.get(&name).cloned();
                let same = same.or_else(|| Some(format!("{}/{operation}", aliases.get(of)?)));
                let Some(same) = same else { break };
                name = same;
                script = read(&name);
            }
            let label = format!("{design}/{operation}");
            let Some(script) = script else {
                let missing = format!("no impls/scripts/{label}.txt, and no line in same.txt");
                trials.push(Trial::test(label, move || Err(missing.into())));
                continue;
            };
            for path in script.paths {
                let label = format!("{label}: {}", path.title);
                let (entry, name) = (*entry, script.name.clone());
                trials.push(Trial::test(label, move || {
                    visit_cell::<Recorded, _>(entry.id, entry.kind, Follow(&path))
                        .expect("registered")
                        .map_err(|failed| {
                            let said = failed.message().unwrap_or_default();
                            format!("impls/scripts/{name}: {said}").into()
                        })
                }));
            }
        }
    }
    trials
}
