//! Follows a window's instructions through calls, interrupts and thread switches, and cuts out the
//! operations: what ran between a BPF program's call into the kernel and its return, and what such a
//! call left to run later.
//!
//! An operation ends when the word that its call put on the stack is taken off again, so that tail
//! calls inside make no difference. An interrupt that is none of the operation's business is left out
//! and counted; one that brings a row's own deferred work is shown as that work.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::decode::{Class, Classes, Flow};
use super::raw::{Step, Window};
use super::symbols::Symbols;

/// Functions that a row's call leaves to run later: in an interrupt, on a worker, on the way back
/// to user space, after a grace period.
const LATER: &[&str] = &[
    "bpf_async_irq_worker",
    "bpf_async_cb_rcu_free",
    "bpf_async_cb_rcu_tasks_trace_free",
    "bpf_task_work_irq",
    "bpf_task_work_callback",
    "bpf_timer_cb",
    "bpf_timer_delete_work",
    "bpf_wq_delete_work",
    "bpf_wq_work",
    "__bpf_async_cancel_and_free",
];

/// Functions of the loop around an operation; they are no operations.
const LOOP: &[&str] = &[
    "bpf_loop",
    "bpf_ktime_get_ns",
    "bpf_get_attach_cookie_pe",
    "bpf_get_attach_cookie_tracing",
    "bpf_get_current_task",
    "bpf_get_current_task_btf",
    "ktime_get_mono_fast_ns",
];

/// Functions that tell the user what went wrong: they format text, walk stacks and look names up. That is
/// no part of a protocol; such a call is left out of its operation and counted. So is the scheduler where
/// another task became due during the operation: it runs at the first place that lets it.
const REPORTS: &[&str] = &[
    "bpf_prog_report_rqspinlock_violation",
    "preempt_schedule_thunk",
    "preempt_schedule_notrace_thunk",
];

/// Kernel stacks are aligned to their size of 16 KiB.
const STACK_SHIFT: u32 = 14;

/// An instruction of an operation.
#[derive(Clone, Debug)]
pub struct Executed {
    /// Position in the window.
    pub at: usize,
    /// Class of the instruction.
    pub class: Rc<Class>,
}

/// Instructions that one call executed.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Function that was called.
    pub name: String,
    /// Whether it ran at once, inside the call, or later.
    pub later: bool,
    /// Interrupt or exception that it ran in; none in a system call or on a worker.
    pub interrupt: Option<String>,
    /// Round of the program that made the call: counts interrupts that entered it.
    pub round: u32,
    /// Its instructions, without those of interrupts in between.
    pub steps: Vec<Executed>,
}

/// Operations and interruptions of a window.
#[derive(Clone, Debug, Default)]
pub struct Path {
    /// Operations in the order in which they ended.
    pub operations: Vec<Operation>,
    /// Interrupts and exceptions that are no part of any operation, by entry, and reports to the
    /// user,
    /// by function.
    pub filtered: BTreeMap<String, u32>,
    /// Offset of the CPU's own variables from their symbols, as the code used it.
    pub per_cpu_offset: Option<u64>,
}

#[derive(Debug)]
struct Open {
    operation: Operation,
    /// Where its return address lies.
    return_at: Option<u64>,
}

/// One nesting level of a thread: its own, or an interrupt's on top.
#[derive(Debug, Default)]
struct Level {
    entry: Option<String>,
    /// Whether an operation or a program ran in it.
    used: bool,
    open: Vec<Open>,
    /// Where the return address of a report under way lies.
    report: Option<u64>,
    /// Where the return addresses of the calls under way lie.
    calls: Vec<u64>,
    round: u32,
}

#[derive(Debug)]
struct Thread {
    levels: Vec<Level>,
}

impl Default for Thread {
    fn default() -> Self {
        Self { levels: vec![Level::default()] }
    }
}

/// Returns the entry of an interrupt or exception that begins at `pc`.
fn entry(symbols: &Symbols, pc: u64) -> Option<&str> {
    let (name, offset) = symbols.name(pc)?;
    let is_entry = match name {
        // Stubs of 16 bytes, one for each vector, which go on to a common entry.
        "irq_entries_start" | "spurious_entries_start" => offset % 16 == 0,
        _ => offset == 0 && (name.starts_with("asm_exc_") || name.starts_with("asm_sysvec_")),
    };
    is_entry.then_some(name)
}

/// Cuts the operations out of a window.
#[must_use]
pub fn follow(window: &Window, symbols: &Symbols, classes: &mut Classes) -> Path {
    let mut walk = Walk {
        symbols,
        path: Path::default(),
        thread: Thread::default(),
        others: HashMap::new(),
        switching: None,
        rounds: 0,
    };
    let mut before: Option<(&Step, Rc<Class>)> = None;
    for (at, step) in window.steps.iter().enumerate() {
        let class = classes.of(step.pc, &step.code);
        walk.step(at, step, &class, before.as_ref());
        before = Some((step, class));
    }
    walk.path
}

struct Walk<'s> {
    symbols: &'s Symbols,
    path: Path,
    thread: Thread,
    /// Threads that do not run, by stack.
    others: HashMap<u64, Thread>,
    /// During a switch: the stack of the thread that leaves, once known.
    switching: Option<Option<u64>>,
    rounds: u32,
}

impl Walk<'_> {
    fn level(&mut self) -> &mut Level {
        if self.thread.levels.is_empty() {
            self.thread.levels.push(Level::default());
        }
        let last = self.thread.levels.len() - 1;
        &mut self.thread.levels[last]
    }

    fn step(
        &mut self,
        at: usize,
        step: &Step,
        class: &Rc<Class>,
        before: Option<&(&Step, Rc<Class>)>,
    ) {
        let symbols = self.symbols;
        let start = symbols.starts(step.pc);
        if let Some(name) = entry(symbols, step.pc) {
            self.rounds += 1;
            let round = self.rounds;
            let level = Level { entry: Some(name.to_owned()), round, ..Level::default() };
            self.thread.levels.push(level);
        }
        if start == Some("__switch_to_asm") {
            self.switching = Some(None);
        }
        self.switch(step, class);
        if let Some((previous, kind)) = before {
            self.begin(start, step, (previous, kind));
        }
        if let Some(offset) =
            class.per_cpu.zip(step.accesses.first()).map(|(s, a)| a.at.wrapping_sub(s))
        {
            self.path.per_cpu_offset.get_or_insert(offset);
        }
        if let Some(name) = start.filter(|name| REPORTS.contains(name)) {
            let level = self.level();
            if level.report.is_none() {
                level.report = level.calls.last().copied();
                *self.path.filtered.entry(name.to_owned()).or_default() += 1;
            }
        }
        let level = self.level();
        if !symbols.is_outside(step.pc)
            && level.report.is_none()
            && let Some(open) = level.open.last_mut()
        {
            open.operation.steps.push(Executed { at, class: class.clone() });
        }
        match class.flow {
            Flow::Call => {
                let store = step.accesses.iter().rfind(|access| access.store);
                level.calls.extend(store.map(|access| access.at));
            }
            Flow::Return => {
                if let Some(from) = step.accesses.iter().find(|access| !access.store) {
                    self.returned(from.at);
                }
            }
            Flow::InterruptReturn => self.interrupt_ends(),
            Flow::Next | Flow::Jump => {}
        }
    }

    /// Begins an operation where a program calls the kernel, or where deferred work begins.
    fn begin(&mut self, start: Option<&str>, step: &Step, before: (&Step, &Class)) {
        let from_program = self.symbols.is_outside(before.0.pc);
        let to_program = self.symbols.is_outside(step.pc);
        let level = self.level();
        level.used |= to_program;
        let Some(name) = start.filter(|_| !to_program) else { return };
        let called = matches!(before.1.flow, Flow::Call | Flow::Jump);
        let at_once = from_program && before.1.flow == Flow::Call;
        let later =
            called && LATER.contains(&name) && level.open.iter().all(|o| o.operation.name != name);
        // What a call does itself, such as draining its own list, is part of the call.
        let inside = level.open.iter().any(|open| !LOOP.contains(&open.operation.name.as_str()));
        if !at_once && (!later || inside) {
            return;
        }
        level.used = true;
        let operation = Operation {
            name: name.to_owned(),
            later: !at_once,
            interrupt: level.entry.clone(),
            round: level.round,
            steps: Vec::new(),
        };
        let return_at = level.calls.last().copied();
        level.open.push(Open { operation, return_at });
    }

    /// Ends calls whose return address lay at `at` or below.
    fn returned(&mut self, at: u64) {
        let level = self.level();
        while level.calls.last().is_some_and(|call| *call <= at) {
            level.calls.pop();
        }
        level.report = level.report.filter(|report| *report > at);
        let mut ended = Vec::new();
        while level.open.last().is_some_and(|o| o.return_at.is_some_and(|r| r <= at)) {
            ended.extend(level.open.pop());
        }
        let ended = ended.into_iter().map(|open| open.operation);
        self.path.operations.extend(ended.filter(|o| !LOOP.contains(&o.name.as_str())));
    }

    fn interrupt_ends(&mut self) {
        if self.thread.levels.len() < 2 {
            return;
        }
        if let Some(Level { entry: Some(entry), used: false, .. }) = self.thread.levels.pop() {
            *self.path.filtered.entry(entry).or_default() += 1;
        }
    }

    /// Sees to it that each thread's calls are its own.
    fn switch(&mut self, step: &Step, class: &Class) {
        let Some(old) = &mut self.switching else { return };
        let on_stack = class.stack.then(|| step.accesses.first()).flatten();
        match (on_stack, class.pops) {
            (Some(access), true) => {
                let new = access.at >> STACK_SHIFT;
                let old = old.unwrap_or(new);
                let next = self.others.remove(&new).unwrap_or_default();
                let left = std::mem::replace(&mut self.thread, next);
                self.others.insert(old, left);
                self.switching = None;
            }
            (Some(access), false) => {
                old.get_or_insert(access.at >> STACK_SHIFT);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::raw::Access;

    const PROGRAM: u64 = 0xffff_ffff_a000_0000;
    const START: u64 = 0xffff_ffff_8100_0000;
    const HELPER: u64 = 0xffff_ffff_8100_0100;
    const TIMER: u64 = 0xffff_ffff_8100_0200;
    const WORK: u64 = 0xffff_ffff_8100_0300;
    const REPORT: u64 = 0xffff_ffff_8100_0400;
    const STACK: u64 = 0xffff_c900_0000_3f00;

    fn symbols() -> Symbols {
        let all = [
            (START, "bpf_timer_start"),
            (HELPER, "hrtimer_start_range_ns"),
            (TIMER, "asm_sysvec_apic_timer_interrupt"),
            (WORK, "bpf_task_work_irq"),
            (REPORT, "bpf_prog_report_rqspinlock_violation"),
            (0xffff_ffff_9000_0000, "_end"),
        ];
        Symbols::new(all.map(|(at, name)| (at, name.to_owned())).to_vec())
    }

    fn step(pc: u64, code: &[u8], accesses: &[(u64, bool)]) -> Step {
        let accesses = accesses.iter().map(|&(at, store)| Access { at, size: 8, store }).collect();
        Step { pc, code: code.to_owned(), accesses }
    }

    fn call(pc: u64, depth: u64) -> Step {
        step(pc, &[0xe8, 0, 0, 0, 0], &[(STACK - 8 * depth, true)])
    }

    fn ret(pc: u64, depth: u64) -> Step {
        step(pc, &[0xc3], &[(STACK - 8 * depth, false)])
    }

    fn nop(pc: u64) -> Step {
        step(pc, &[0x90], &[])
    }

    fn path(steps: Vec<Step>) -> Path {
        follow(&Window { number: 0, steps }, &symbols(), &mut Classes::default())
    }

    #[test]
    fn an_operation_lasts_from_the_programs_call_to_its_return() {
        let found = path(vec![
            call(PROGRAM, 1),
            nop(START),
            call(START + 1, 2),
            nop(HELPER),
            ret(HELPER + 1, 2),
            ret(START + 6, 1),
            nop(PROGRAM + 5),
        ]);
        assert_eq!(found.operations.len(), 1);
        let operation = &found.operations[0];
        assert_eq!((operation.name.as_str(), operation.steps.len()), ("bpf_timer_start", 5));
        assert!(!operation.later && operation.interrupt.is_none());
    }

    #[test]
    fn a_report_to_the_user_is_left_out_and_counted() {
        let found = path(vec![
            call(PROGRAM, 1),
            nop(START),
            call(START + 1, 2),
            nop(REPORT),
            call(REPORT + 1, 3),
            nop(HELPER),
            ret(HELPER + 1, 3),
            ret(REPORT + 6, 2),
            ret(START + 6, 1),
            nop(PROGRAM + 5),
        ]);
        let at: Vec<usize> = found.operations[0].steps.iter().map(|step| step.at).collect();
        assert_eq!(at, [1, 2, 8]);
        assert_eq!(found.filtered["bpf_prog_report_rqspinlock_violation"], 1);
    }

    #[test]
    fn a_tail_call_belongs_to_its_caller() {
        let jump = step(START + 1, &[0xe9, 0, 0, 0, 0], &[]);
        let found = path(vec![
            call(PROGRAM, 1),
            nop(START),
            jump,
            nop(HELPER),
            ret(HELPER + 1, 1),
            nop(PROGRAM + 5),
        ]);
        assert_eq!(found.operations[0].steps.len(), 4);
    }

    #[test]
    fn an_interrupt_is_left_out_and_counted() {
        let found = path(vec![
            call(PROGRAM, 1),
            nop(START),
            nop(TIMER),
            call(TIMER + 1, 5),
            nop(HELPER),
            ret(HELPER + 1, 5),
            step(TIMER + 6, &[0x48, 0xcf], &[]),
            nop(START + 1),
            ret(START + 2, 1),
        ]);
        assert_eq!(found.operations[0].steps.len(), 3);
        assert_eq!(found.filtered["asm_sysvec_apic_timer_interrupt"], 1);
    }

    #[test]
    fn deferred_work_in_an_interrupt_is_shown_as_such() {
        let found = path(vec![
            nop(HELPER + 4),
            nop(TIMER),
            call(TIMER + 1, 5),
            nop(WORK),
            ret(WORK + 1, 5),
            step(TIMER + 6, &[0x48, 0xcf], &[]),
        ]);
        let work = &found.operations[0];
        assert!(work.later && work.steps.len() == 2);
        assert_eq!(work.interrupt.as_deref(), Some("asm_sysvec_apic_timer_interrupt"));
        assert!(found.filtered.is_empty());
    }
}
