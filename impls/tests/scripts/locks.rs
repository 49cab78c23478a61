//! The scripts of the kernel's locks. Other CPUs are threads: one that waits for the lock goes on when
//! it gets the lock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use cellbench_impls::lock::{RawLock, paravirt, queued, resilient, tas};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::platform::Recorded;
use cellbench_impls::platform::recorded::{Event, record};
use cellbench_impls::{Cpu, CpuId, Errno, Lock, Machine};
use libtest_mimic::{Failed, Trial};

use crate::compare::difference;
use crate::script::{Script, Trace, read};
use crate::sequence::Words;

/// A lock, and another one for what needs two.
struct Bench<L> {
    lock: L,
    other: L,
    machine: Machine<Recorded>,
}

fn call<L: RawLock<Recorded>>(bench: &Bench<L>, cpu: &Cpu<'_, Recorded>, call: &str) -> String {
    let done = |result: Result<(), Errno>| {
        result.map_or_else(|errno| errno.to_string(), |()| "ok".to_owned())
    };
    match call {
        "acquire" => done(bench.lock.acquire(cpu)),
        "acquire other" => done(bench.other.acquire(cpu)),
        "release" => {
            bench.lock.release(cpu);
            "ok".to_owned()
        }
        "release other" => {
            bench.other.release(cpu);
            "ok".to_owned()
        }
        _ => panic!("{call}: no such call"),
    }
}

/// Message from another CPU.
#[derive(PartialEq)]
enum Said {
    /// It looks at the same word again and again.
    Waits,
    /// The call has returned.
    Returned(String),
}

/// Looks at one word, one after the other, after which a CPU is taken to wait.
const LOOKS: u32 = 8;

/// Another CPU.
struct Other {
    calls: Sender<String>,
    says: Receiver<Said>,
}

impl Other {
    fn run<L: RawLock<Recorded> + Sync>(
        bench: &Bench<L>,
        number: u32,
        calls: &Receiver<String>,
        say: &Sender<Said>,
    ) {
        let cpu = bench.machine.cpu(CpuId(number));
        for name in calls {
            let last: Cell<Option<Event>> = Cell::new(None);
            let looks = Cell::new(0);
            let before = |event: &Event| {
                let again = last.replace(Some(*event)) == Some(*event);
                looks.set(if again { looks.get() + 1 } else { 0 });
                if looks.get() == LOOKS {
                    let _ = say.send(Said::Waits);
                }
            };
            let (result, _) = record(before, || call(bench, &cpu, &name));
            let _ = say.send(Said::Returned(result));
        }
    }

    /// Has it call; comes back when the call has returned, or waits.
    fn call(&self, name: &str) {
        self.calls.send(name.to_owned()).expect("it listens");
        let said = self.says.recv().expect("it says what comes of it");
        assert!(matches!(said, Said::Waits) || said == Said::Returned("ok".to_owned()), "{name}");
    }

    /// Waits until the call that waited has returned.
    fn holds(&self) {
        while let Ok(Said::Waits) = self.says.recv() {}
    }
}

fn follow<L: Lock<Recorded> + RawLock<Recorded>>(path: &Trace) -> Result<(), Failed> {
    let machine = Machine::new(MachineConfig::new(4));
    let bench = Bench { lock: L::new(), other: L::new(), machine };
    thread::scope(|scope| {
        let others: BTreeMap<String, Other> = (1..4)
            .map(|number| {
                let (calls, to_call) = channel();
                let (say, says) = channel();
                let bench = &bench;
                scope.spawn(move || Other::run(bench, number, &to_call, &say));
                (format!("cpu{number}"), Other { calls, says })
            })
            .collect();
        let perform = |text: &str| {
            for step in text.split(';').map(str::trim) {
                let (who, what) = step.split_once(' ').expect("a CPU and what it does");
                let other = others.get(who).unwrap_or_else(|| panic!("{step}: no such CPU"));
                if what == "holds" { other.holds() } else { other.call(what) }
            }
        };
        let cpu = bench.machine.cpu(CpuId(0));
        for step in &path.after {
            if step.starts_with("cpu") {
                perform(step);
            } else {
                call(&bench, &cpu, step);
            }
        }
        let words = RefCell::new(Words::new(false));
        let due = RefCell::new(path.others());
        let before = |event: &Event| {
            let number = words.borrow().lines.len();
            if words.borrow().line(event).is_some() {
                let now = due.borrow_mut().remove(&number);
                now.into_iter().flatten().for_each(|text| perform(&text));
            }
            words.borrow_mut().take(event);
        };
        let in_context = |name: &String| match path.context.as_str() {
            "task" => call(&bench, &cpu, name),
            "nmi" => cpu.nmi(|nmi| call(&bench, nmi, name)),
            context => panic!("{context}: no such context"),
        };
        let (returned, _) = record(before, || {
            path.call.iter().map(in_context).last().expect("something is called")
        });
        // Whoever still waits must end: the machine is dropped behind them.
        drop(cpu);
        let expected: Vec<String> = path.expected().map(str::to_owned).collect();
        let difference = difference(&expected, &words.into_inner().lines);
        let left = due.into_inner();
        if !left.is_empty() {
            return Err(format!("the script has others do more: {left:?}\n{difference}").into());
        }
        if !difference.is_empty() {
            let title = &path.title;
            return Err(
                format!("path `{title}`; `-`: the script, `+`: the code\n{difference}").into()
            );
        }
        if returned != path.returns {
            return Err(format!("path `{}` returned {returned}", path.title).into());
        }
        Ok(())
    })
}

fn trials_of<L: Lock<Recorded> + RawLock<Recorded>>() -> Vec<Trial> {
    let label = format!("lock/{}", L::ID);
    let Some(Script { name, paths }) = read(&label) else {
        let missing = format!("no impls/scripts/{label}.txt");
        return vec![Trial::test(label, move || Err(missing.into()))];
    };
    paths
        .into_iter()
        .map(|path| {
            let name = name.clone();
            Trial::test(format!("{label}: {}", path.title), move || {
                follow::<L>(&path).map_err(|failed| {
                    let said = failed.message().unwrap_or_default();
                    format!("impls/scripts/{name}: {said}").into()
                })
            })
        })
        .collect()
}

/// Returns a test for each path of each of the kernel's locks.
pub(crate) fn trials() -> Vec<Trial> {
    [
        trials_of::<tas::Tas<Recorded>>(),
        trials_of::<queued::Queued<Recorded>>(),
        trials_of::<queued::Queued<Recorded, queued::ByteForm>>(),
        trials_of::<paravirt::Paravirt<Recorded>>(),
        trials_of::<resilient::Resilient<Recorded>>(),
        trials_of::<resilient::Of<Recorded, resilient::V615>>(),
        trials_of::<resilient::Of<Recorded, resilient::V619>>(),
        trials_of::<resilient::ResilientTas<Recorded>>(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
