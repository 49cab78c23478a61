//! Faults that designs have as published. The checks excuse a design where its promises say so, and
//! each excuse is tested: with nothing excused the fault must be found, in a process of its own. A
//! design that is repaired, or that is excused without a reason, fails here.

use cellbench_impls::cell::{CellKind, Promises};
use cellbench_impls::planted::Bug;
use cellbench_impls::platform::checked::Strength;
use cellbench_impls::registry::CELLS;
use libtest_mimic::Trial;

use crate::cases::State;
use crate::history::Op::{Cancel, CancelAsync, Fire, Set, Start};
use crate::planted::{Flaw, Hunt, catch, escape};

/// A fault, and where it is found.
struct Fault {
    name: &'static str,
    /// Whether a design with these promises is excused.
    excused: fn(&Promises) -> bool,
    /// Of timers alone.
    cancels: bool,
    hunt: fn((&'static str, CellKind)) -> Hunt,
}

/// Faults that are excused, by the findings of VERIFICATION.md.
const FAULTS: [Fault; 3] = [
    // Finding 7, against another update.
    Fault {
        name: "callback of another program",
        excused: |promises| promises.callback_may_differ,
        cancels: false,
        hunt: |cell| {
            let symptom = "the callback is another program's";
            Hunt::case(Flaw::Published, cell, State::Empty, &[&[Set(1)], &[Set(0)]], symptom)
        },
    },
    // Finding 7, against a cancel.
    Fault {
        name: "callback without a program",
        excused: |promises| promises.callback_may_differ,
        cancels: true,
        hunt: |cell| {
            let symptom = "at rest program and callback are set together";
            Hunt::case(Flaw::Published, cell, State::Empty, &[&[Set(1)], &[Cancel]], symptom)
        },
    },
    // Finding 11: the cancel's worker executes the start again, under the counter of the next command.
    Fault {
        name: "command executed twice",
        excused: |promises| promises.may_repeat,
        cancels: true,
        hunt: |cell| {
            let threads: [&[_]; 2] = [&[CancelAsync, Fire], &[Start, Fire, CancelAsync]];
            let symptom = "a callback ran more often than started";
            Hunt::bounded(Flaw::Published, cell, State::Ready, &threads, symptom)
        },
    },
];

/// Returns every fault in every design that is excused for it, by name.
pub(crate) fn hunts() -> impl Iterator<Item = (String, Hunt)> {
    CELLS.iter().flat_map(|cell| {
        let has = |fault: &&Fault| {
            (fault.excused)(&cell.promises) && (!fault.cancels || cell.kind == CellKind::Timer)
        };
        FAULTS.iter().filter(has).map(|fault| {
            let name = format!("{}/{}/{}", cell.kind, cell.id, fault.name);
            (name, (fault.hunt)((cell.id, cell.kind)))
        })
    })
}

/// Returns a test for each fault; and under the kernel's memory model for those that need reordering: a fault
/// that is a kernel's must still be found, one that is C11's alone must not.
pub(crate) fn trials() -> Vec<Trial> {
    let published = hunts().map(|(name, hunt)| {
        let test = format!("published/{name}");
        Trial::test(test, move || catch("published", &name, hunt, Strength::C11))
    });
    let kernel = hunts().filter(|(name, _)| name.contains("callback ")).map(|(name, hunt)| {
        let test = format!("lkmm/{name}");
        Trial::test(test, move || catch("lkmm", &name, hunt, Strength::Kernel))
    });
    // Its witness begins with a program set.
    let of_c11_alone = Bug::CallbackStored.name();
    let escapes = Trial::test(format!("lkmm/{of_c11_alone} escapes"), || escape(of_c11_alone));
    published.chain(kernel).chain([escapes]).collect()
}
