//! Every registered design against the tables of operations and errors: each row of what an
//! operation returns in which state and context, and every interruption of one operation by
//! another, step by step. The errors that a design was seen to return are exactly those that it
//! may return: one that never occurs would be a row that nobody drove.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ptr;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use cellbench_impls::cell::{InitFlags, Start};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::Stepped;
use cellbench_impls::platform::stepped::interrupt_at;
use cellbench_impls::program::{Callback, Program, count_only};
use cellbench_impls::registry::{CELLS, CellVisitor, Entry, visit_cell};
use cellbench_impls::{AsyncCell, Context, Cpu, CpuId, Errno, Machine, Outcome};

type P = Stepped;

/// In the future for as long as a test runs, in nanoseconds.
const FAR: Start = Start { ns: 3_600_000_000_000, flags: 0 };
/// Later than everything.
const END_NS: u64 = u64::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    Init,
    SetCallback,
    Start,
    Cancel,
    CancelAsync,
    Free,
    Schedule,
}

use Op::{Cancel, CancelAsync, Free, Init, Schedule, SetCallback, Start as StartOp};

/// The operations of timers and work items.
const OPS: [Op; 6] = [Init, SetCallback, StartOp, Cancel, CancelAsync, Free];

/// What was seen to be returned.
#[derive(Default)]
struct Seen(Mutex<BTreeSet<(Op, Errno)>>);

impl Seen {
    fn note(&self, op: Op, result: Result<bool, Errno>) -> Result<bool, Errno> {
        if let Err(errno) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((op, errno));
        }
        result
    }

    fn take(self) -> BTreeSet<(Op, Errno)> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cell with its map and programs on a machine of two CPUs.
struct Scene<'s, C> {
    cell: C,
    map: Map<P>,
    programs: [Box<Program<P>>; 2],
    seen: &'s Seen,
    machine: Machine<P>,
}

impl<'s, C: AsyncCell<P>> Scene<'s, C> {
    fn new(seen: &'s Seen) -> Self {
        Self {
            // SAFETY: used with this machine only, and settled in `rest` before it is gone.
            cell: unsafe { C::new() },
            map: Map::new(),
            programs: [(); 2].map(|()| Program::new([(count_only as _, 0); 2])),
            seen,
            machine: Machine::new(MachineConfig::new(2)),
        }
    }

    fn cpu(&self, number: u32) -> Cpu<'_, P> {
        self.machine.cpu(CpuId(number))
    }

    /// Does an operation and notes what it returned.
    fn perform(&self, cpu: &Cpu<'_, P>, op: Op) -> Result<bool, Errno> {
        let [first, second] = &self.programs;
        let done = |outcome: Outcome| outcome.map(|()| true);
        let result = match op {
            Init => done(self.cell.init(cpu, &self.map, InitFlags::NONE)),
            SetCallback => done(self.cell.set_callback(cpu, second, second.callback(0))),
            StartOp => done(self.cell.start(cpu, FAR)),
            Cancel => self.cell.cancel(cpu),
            CancelAsync => self.cell.cancel_async(cpu),
            Free => {
                self.cell.cancel_and_free(cpu);
                Ok(true)
            }
            Schedule => {
                done(self.cell.schedule(cpu, &self.map, first, first.callback(0), Start::default()))
            }
        };
        self.seen.note(op, result)
    }

    /// Initialised, with the first program's first callback.
    fn make_ready(&self, cpu: &Cpu<'_, P>) {
        let first = &self.programs[0];
        assert_eq!(self.perform(cpu, Init), Ok(true));
        assert_eq!(self.cell.set_callback(cpu, first, first.callback(0)), Ok(()));
    }

    /// Runs all timers and works as if their time had come; returns how many ran.
    fn fire(&self, cpu: &Cpu<'_, P>) -> usize {
        let engine = self.machine.engine();
        (0..self.machine.cpus())
            .map(|base| engine.run_timers(cpu, base, END_NS) + engine.run_works(cpu, base))
            .sum()
    }

    /// How often callbacks ran.
    fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.callback(0).runs()).sum()
    }

    /// At rest all belongs together; freed, nothing is left.
    fn rest(&self, cpu: &Cpu<'_, P>) {
        self.machine.settle(cpu);
        let found = self.cell.inspect();
        // SAFETY: the callbacks are those of this scene's programs.
        if let Some(callback) = unsafe { found.callback.as_ref() } {
            assert!(callback.belongs_to(found.program), "the callback is another program's");
        }
        for program in &self.programs {
            let held = u64::from(ptr::eq(found.program, &raw const **program));
            assert_eq!(program.refs(), 1 + held, "program references at rest");
        }
        self.cell.cancel_and_free(cpu);
        self.machine.settle(cpu);
        assert!(!self.cell.inspect().initialised);
        for program in &self.programs {
            assert_eq!(program.refs(), 1, "program references after freeing");
        }
        assert_eq!(self.machine.heap().stats().live(), 0, "a block or a command leaked");
        for number in 0..self.machine.cpus() {
            let rest = self.machine.rest(CpuId(number));
            assert!(rest.is_clean(), "CPU {number}: {rest:?}");
        }
    }
}

/// What a design promises about contexts.
struct Promise {
    init_in_nmi: bool,
    update_in_nmi: bool,
    start_in_nmi: bool,
    /// Operations go on while another one stands still in the middle.
    lockless: bool,
    /// `set_callback` looks at the map's user count.
    update_needs_user: bool,
    /// `start` of a timer without a program is refused.
    start_needs_program: bool,
}

fn promise(id: &str) -> Promise {
    let base = Promise {
        init_in_nmi: false,
        update_in_nmi: false,
        start_in_nmi: false,
        lockless: true,
        update_needs_user: false,
        start_needs_program: true,
    };
    match id {
        "spin-tas" | "spin-queued" => Promise { lockless: false, update_needs_user: true, ..base },
        "rqspin" => Promise {
            lockless: false,
            update_needs_user: true,
            init_in_nmi: true,
            update_in_nmi: true,
            ..base
        },
        "cmpxchg-state" => Promise { start_needs_program: false, ..base },
        "cmpxchg-state-nmi" => Promise { update_in_nmi: true, start_needs_program: false, ..base },
        "mpmc-cell" | "seq-latch" | "cmd-queue" => {
            Promise { init_in_nmi: true, update_in_nmi: true, start_in_nmi: true, ..base }
        }
        _ => panic!("{id}: say here what the design promises"),
    }
}

/// Every error that a design may return, by operation.
fn errors(id: &str, kind: &str) -> BTreeSet<(Op, Errno)> {
    use Errno::{EBADF, EBUSY, EDEADLK, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EPERM, ETIMEDOUT};
    let rows: &[(Op, &[Errno])] = match (kind, id) {
        ("task_work", "spin-tas" | "spin-queued") => {
            &[(Schedule, &[EPERM, EBADF, ENOMEM, EBUSY, EOPNOTSUPP])]
        }
        ("task_work", _) => &[(Schedule, &[EPERM, EBADF, ENOMEM, EBUSY])],
        (_, "spin-tas" | "spin-queued") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[EPERM, ENOENT, EINVAL, EOPNOTSUPP]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "rqspin") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EDEADLK]),
            (SetCallback, &[EPERM, ENOENT, EINVAL, EDEADLK, ETIMEDOUT]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "cmpxchg-state") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[EPERM, ENOENT, EBUSY, EINVAL, EOPNOTSUPP]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "cmpxchg-state-nmi") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP]),
            (SetCallback, &[EPERM, ENOENT, EBUSY, EINVAL]),
            (StartOp, &[EINVAL, EOPNOTSUPP]),
            (Cancel, &[EINVAL, EDEADLK]),
        ],
        (_, "mpmc-cell" | "seq-latch") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[EBUSY, EINVAL]),
            (Cancel, &[EBUSY, EINVAL, EDEADLK]),
            (CancelAsync, &[EBUSY, EINVAL]),
        ],
        (_, "cmd-queue") => &[
            (Init, &[EPERM, ENOMEM, EBUSY, EINVAL]),
            (SetCallback, &[ENOENT, EINVAL]),
            (StartOp, &[ENOENT, ENOMEM, EINVAL]),
            (Cancel, &[EINVAL, EDEADLK]),
            (CancelAsync, &[ENOENT, ENOMEM, EINVAL]),
        ],
        _ => panic!("{id} {kind}: say here what the design may return"),
    };
    let listed = rows.iter().flat_map(|(op, errnos)| errnos.iter().map(|errno| (*op, *errno)));
    // Cancelling where there is none; in NMI waiting is never possible.
    let refused: &[Op] = match (kind, id) {
        ("task_work", _) => &[Init, SetCallback, StartOp, Cancel, CancelAsync],
        ("timer", "mpmc-cell" | "seq-latch" | "cmd-queue") => &[Cancel],
        _ => &[Cancel, CancelAsync],
    };
    listed
        .filter(|(op, _)| kind == "timer" || !matches!(op, Cancel | CancelAsync))
        .chain(refused.iter().map(|op| (*op, EOPNOTSUPP)))
        .collect()
}

/// Runs every row and compares.
struct Conform(Entry);

impl CellVisitor<P> for Conform {
    /// Errors that were seen and may not be, and those that may be and were not seen.
    type Output = [Vec<(Op, Errno)>; 2];

    fn visit<C: AsyncCell<P>>(self) -> Self::Output {
        let seen = Seen::default();
        if C::KIND == "task_work" {
            schedule_rows::<C>(&seen);
        } else {
            state_rows::<C>(&seen);
            life_rows::<C>(&seen);
            context_rows::<C>(&seen);
            memory_rows::<C>(&seen);
            interruptions::<C>(&seen);
            if C::ID == "rqspin" {
                times_out::<C>(&seen);
            }
            if C::CANCELS {
                self_cancel::<C>(&seen);
                mutual_cancel::<C>(&seen);
            }
        }
        let (seen, allowed) = (seen.take(), errors(self.0.id, self.0.kind));
        [&seen - &allowed, &allowed - &seen].map(Vec::from_iter)
    }
}

#[test]
fn every_design_returns_what_its_tables_say_and_all_of_it() {
    let mut all_conform = true;
    for entry in CELLS {
        println!("{} {}", entry.id, entry.kind);
        let result = visit_cell::<P, _>(entry.id, entry.kind, Conform(*entry));
        let [forbidden, unseen] = result.expect("registered");
        if !forbidden.is_empty() || !unseen.is_empty() {
            println!("  returned and may not: {forbidden:?}");
            println!("  never returned: {unseen:?}");
            all_conform = false;
        }
    }
    assert!(all_conform, "see above");
}

/// What depends on the state of cell, map and program.
fn state_rows<C: AsyncCell<P>>(seen: &Seen) {
    let promise = promise(C::ID);
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let no_cancel = Err(if C::CANCELS { Errno::EINVAL } else { Errno::EOPNOTSUPP });
    let no_async = Err(if C::CANCELS_ASYNC { Errno::EINVAL } else { Errno::EOPNOTSUPP });

    // Not initialised.
    assert_eq!(scene.perform(&cpu, SetCallback), Err(Errno::EINVAL));
    assert_eq!(scene.perform(&cpu, StartOp), Err(Errno::EINVAL));
    assert_eq!(scene.perform(&cpu, Cancel), no_cancel);
    assert_eq!(scene.perform(&cpu, CancelAsync), no_async);
    scene.cell.cancel_and_free(&cpu);

    // Bad flags change nothing.
    let bad = InitFlags(99);
    let outcome = scene.cell.init(&cpu, &scene.map, bad).map(|()| true);
    assert_eq!(seen.note(Init, outcome), Err(Errno::EINVAL));
    assert!(!scene.cell.inspect().initialised);

    // Initialised twice; without a program.
    assert_eq!(scene.perform(&cpu, Init), Ok(true));
    assert_eq!(scene.perform(&cpu, Init), Err(Errno::EBUSY));
    let refused = promise.start_needs_program || C::KIND == "wq";
    let expected = if refused { Err(Errno::EINVAL) } else { Ok(true) };
    assert_eq!(scene.perform(&cpu, StartOp), expected);
    assert_eq!(scene.fire(&cpu), usize::from(!refused));
    assert_eq!(scene.runs(), 0, "without a callback nothing runs");

    // A program on its way out is not taken, and what was set stays.
    assert_eq!(scene.perform(&cpu, SetCallback), Ok(true));
    let program_set = || scene.cell.inspect().program;
    let before = program_set();
    let dying = Program::<P>::new([(count_only as _, 0)]);
    dying.put();
    let outcome = scene.cell.set_callback(&cpu, &dying, dying.callback(0)).map(|()| true);
    assert_eq!(seen.note(SetCallback, outcome), Err(Errno::ENOENT));
    assert!(ptr::eq(program_set(), before) && !before.is_null());
    assert_eq!(dying.refs(), 0);

    // Unknown flags.
    let bad = Start { flags: 1 << 7, ..FAR };
    assert_eq!(scene.cell.start(&cpu, bad), Err(Errno::EINVAL));
    assert_eq!(scene.fire(&cpu), 0);

    // The map was abandoned: by now, and before `init`.
    scene.map.put_user::<C>(&cpu, []);
    let expected = if promise.update_needs_user { Err(Errno::EPERM) } else { Ok(true) };
    assert_eq!(scene.perform(&cpu, SetCallback), expected);
    scene.cell.cancel_and_free(&cpu);
    assert_eq!(scene.perform(&cpu, Init), Err(Errno::EPERM));
    assert!(!scene.cell.inspect().initialised);
    scene.rest(&cpu);
}

/// What becomes of a start.
fn life_rows<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    scene.make_ready(&cpu);

    // It fires once, however often it was started.
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert_eq!((scene.fire(&cpu), scene.fire(&cpu), scene.runs()), (1, 0, 1));

    // Freed, it does not fire, and the cell can be initialised again.
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    scene.cell.cancel_and_free(&cpu);
    scene.machine.settle(&cpu);
    assert_eq!((scene.fire(&cpu), scene.runs()), (0, 1));
    scene.make_ready(&cpu);

    if C::CANCELS {
        // Cancelled, it does not fire, and the callback is gone.
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert_eq!(scene.perform(&cpu, Cancel), Ok(true), "it was pending");
        assert_eq!(scene.perform(&cpu, Cancel), Ok(false), "it was not");
        assert_eq!((scene.fire(&cpu), scene.runs()), (0, 1));
        assert!(scene.cell.inspect().callback.is_null());
        assert!(scene.cell.inspect().program.is_null());
        assert_eq!(scene.perform(&cpu, SetCallback), Ok(true));
        // Absolute time and pinning.
        let exact = Start { ns: 77, flags: Start::ABSOLUTE | Start::CPU_PIN };
        assert_eq!(scene.cell.start(&cpu, exact), Ok(()));
        assert_eq!(scene.machine.engine().next_expiry_ns(0), 77);
        assert_eq!((scene.fire(&cpu), scene.runs()), (1, 2));
    }
    if C::CANCELS_ASYNC {
        // Without waiting: the callback stays.
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert!(scene.perform(&cpu, CancelAsync).is_ok());
        assert_eq!((scene.fire(&cpu), scene.runs()), (0, 2));
        assert!(!scene.cell.inspect().callback.is_null());
    }
    scene.rest(&cpu);
}

/// What depends on the context alone: nobody is interrupted in the middle of anything.
fn context_rows<C: AsyncCell<P>>(seen: &Seen) {
    let promise = promise(C::ID);
    let refused = |allowed: bool| if allowed { Ok(true) } else { Err(Errno::EOPNOTSUPP) };
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    C::reserve(&cpu, 8);
    let in_nmi = |op| cpu.nmi(|nmi| scene.perform(nmi, op));

    assert_eq!(in_nmi(Init), refused(promise.init_in_nmi));
    scene.cell.cancel_and_free(&cpu);
    scene.machine.settle(&cpu);
    scene.make_ready(&cpu);
    assert_eq!(in_nmi(SetCallback), refused(promise.update_in_nmi));
    assert_eq!(in_nmi(StartOp), refused(promise.start_in_nmi));
    assert_eq!(scene.fire(&cpu), usize::from(promise.start_in_nmi), "what was started fires");
    assert_eq!(in_nmi(Cancel), Err(Errno::EOPNOTSUPP), "waiting is not possible in NMI");
    if C::CANCELS_ASYNC {
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert!(in_nmi(CancelAsync).is_ok());
        assert_eq!(scene.fire(&cpu), 0, "what was cancelled does not fire");
    } else {
        assert_eq!(in_nmi(CancelAsync), Err(Errno::EOPNOTSUPP));
    }
    if promise.start_in_nmi {
        commands_wait_for_interrupts(&scene, &cpu);
        // Freed in NMI.
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert_eq!(in_nmi(Free), Ok(true));
        assert_eq!(scene.fire(&cpu), 0);
    }
    scene.rest(&cpu);
}

/// With interrupts off, commands wait for the end of the section; `cmd-queue` executes them in
/// order, the others the newest alone: the outcome is the same.
fn commands_wait_for_interrupts<C: AsyncCell<P>>(scene: &Scene<'_, C>, cpu: &Cpu<'_, P>) {
    if C::KIND != "timer" {
        return;
    }
    let engine = scene.machine.engine();
    let at = |ns| Start { ns, flags: Start::ABSOLUTE };
    {
        let _irq_off = cpu.irq_save();
        assert_eq!(scene.cell.start(cpu, at(5)), Ok(()));
        assert!(scene.perform(cpu, CancelAsync).is_ok());
        assert_eq!(scene.cell.start(cpu, at(7)), Ok(()));
        assert_eq!(engine.next_expiry_ns(0), u64::MAX, "armed with interrupts off");
    }
    assert_eq!(engine.next_expiry_ns(0), 7);
    {
        let _irq_off = cpu.irq_save();
        assert_eq!(scene.cell.start(cpu, at(9)), Ok(()));
        assert!(scene.perform(cpu, CancelAsync).is_ok());
    }
    assert_eq!(engine.next_expiry_ns(0), u64::MAX);
}

/// Memory that the context may not take.
fn memory_rows<C: AsyncCell<P>>(seen: &Seen) {
    let promise = promise(C::ID);
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let hardirq = cpu.interrupted(Context::Hardirq);
    assert_eq!(scene.perform(&hardirq, Init), Err(Errno::ENOMEM));
    assert!(!scene.cell.inspect().initialised);
    scene.make_ready(&cpu);
    if C::ID == "cmd-queue" {
        let memoryless = Err(Errno::ENOMEM);
        assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, StartOp)), memoryless);
        if C::CANCELS {
            assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, CancelAsync)), memoryless);
            assert_eq!(scene.perform(&cpu, StartOp), Ok(true), "directly, without a command");
        }
        // Without a command the last put alone cancels.
        assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, Free)), Ok(true));
        scene.machine.settle(&cpu);
        assert_eq!(scene.fire(&cpu), 0);
        scene.make_ready(&cpu);
    }
    C::reserve(&cpu, 1);
    if promise.start_in_nmi {
        assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, StartOp)), Ok(true));
    }
    scene.rest(&cpu);
}

/// Where an interruption comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Nmi,
    Hardirq,
    /// Another CPU gets so far while this one stands still.
    OtherCpu,
}

/// Every operation interrupted by every other one before each of its steps.
fn interruptions<C: AsyncCell<P>>(seen: &Seen) {
    let promise = promise(C::ID);
    let scene = Scene::<C>::new(seen);
    let (cpu, other) = (scene.cpu(0), scene.cpu(1));
    for cpu in [&cpu, &other] {
        C::reserve(cpu, 64);
    }
    for outer in OPS {
        for inner in OPS {
            for from in [From::Nmi, From::Hardirq, From::OtherCpu] {
                // Freeing has no way to refuse: a design that cannot do it in NMI must not be
                // asked to. A lock that is held by what stands still is not waited for here.
                let hangs = match from {
                    From::Nmi => inner == Free && !promise.start_in_nmi,
                    From::Hardirq => false,
                    From::OtherCpu => !promise.lockless,
                };
                if !hangs {
                    interrupt(&scene, [&cpu, &other], outer, inner, from);
                }
            }
        }
    }
}

fn interrupt<C: AsyncCell<P>>(
    scene: &Scene<'_, C>,
    [cpu, other]: [&Cpu<'_, P>; 2],
    outer: Op,
    inner: Op,
    from: From,
) {
    for step in 0.. {
        if outer != Init {
            scene.make_ready(cpu);
        }
        let interrupted = Cell::new(false);
        let handler = || {
            if from == From::Nmi {
                interrupted.set(true);
                let _ = cpu.nmi(|nmi| scene.perform(nmi, inner));
            } else if cpu.irq_depth() == 0 {
                // Interrupts are on, and the engine's own locks, which others wait for, free.
                interrupted.set(true);
                let _ = match from {
                    From::Hardirq => scene.perform(&cpu.interrupted(Context::Hardirq), inner),
                    _ => scene.perform(other, inner),
                };
            }
        };
        let (result, fired) = interrupt_at(step, handler, || scene.perform(cpu, outer));
        if !interrupted.get() {
            let name = format!("{outer:?} with nobody in its way: {result:?}");
            let allowed = matches!(result, Ok(_) | Err(Errno::EOPNOTSUPP));
            assert!(allowed, "{name}");
        }
        cpu.run_irq_works();
        scene.rest(cpu);
        if !fired {
            assert!(step > 0 || !matches!(outer, Init | SetCallback | StartOp));
            return;
        }
    }
}

/// A resilient lock is not waited for for ever: its holder stands still.
fn times_out<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let (cpu, other) = (scene.cpu(0), scene.cpu(1));
    scene.make_ready(&cpu);
    let mut timed_out = false;
    for step in 0.. {
        let handler = || {
            if scene.cell.is_occupied(&cpu) {
                timed_out = true;
                assert_eq!(scene.perform(&other, SetCallback), Err(Errno::ETIMEDOUT));
            }
        };
        let (result, fired) = interrupt_at(step, handler, || scene.perform(&cpu, SetCallback));
        assert_eq!(result, Ok(true), "step {step}");
        if timed_out || !fired {
            break;
        }
    }
    assert!(timed_out, "no step had the lock held");
    scene.rest(&cpu);
}

/// What a callback needs to know; its address is the callback's data.
struct Inside<'a, C> {
    scene: &'a Scene<'a, C>,
    /// The cell to cancel from the callback.
    target: &'a C,
    barrier: Option<&'a Barrier>,
    result: Mutex<Option<Result<bool, Errno>>>,
}

impl<C: AsyncCell<P>> Inside<'_, C> {
    fn program(&self) -> Box<Program<P>> {
        let data = ptr::from_ref(self).expose_provenance();
        Program::new([(cancel_inside::<C> as _, data)])
    }

    fn result(&self) -> Result<bool, Errno> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).expect("the callback ran")
    }
}

/// The callback: cancels the target.
fn cancel_inside<C: AsyncCell<P>>(cpu: &Cpu<'_, P>, callback: &Callback<P>, _: *const ()) {
    // SAFETY: the test exposed this address, and outlives the callback.
    let inside = unsafe { &*ptr::with_exposed_provenance::<Inside<'_, C>>(callback.data) };
    if let Some(barrier) = inside.barrier {
        barrier.wait();
    }
    let result = inside.scene.seen.note(Cancel, inside.target.cancel(cpu));
    *inside.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
}

/// A callback that cancels its own timer would wait for itself.
fn self_cancel<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let inside =
        Inside { scene: &scene, target: &scene.cell, barrier: None, result: Mutex::new(None) };
    let program = inside.program();
    assert_eq!(scene.perform(&cpu, Init), Ok(true));
    assert_eq!(scene.cell.set_callback(&cpu, &program, program.callback(0)), Ok(()));
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert_eq!(scene.fire(&cpu), 1);
    assert_eq!(inside.result(), Err(Errno::EDEADLK));
    assert!(!scene.cell.inspect().callback.is_null(), "a refused cancel changes nothing");
    scene.rest(&cpu);
    assert_eq!(program.refs(), 1);
}

/// Two callbacks that cancel each other: each finds the other running, and at least one is told
/// that it must not wait.
fn mutual_cancel<C: AsyncCell<P>>(seen: &Seen) {
    const ROUNDS: usize = 50;
    let scene = Scene::<C>::new(seen);
    // SAFETY: as the scene's own cell; freed below.
    let second = unsafe { C::new() };
    for _ in 0..ROUNDS {
        let barrier = Barrier::new(2);
        let inside = |target| Inside {
            scene: &scene,
            target,
            barrier: Some(&barrier),
            result: Mutex::new(None),
        };
        let insides = [inside(&second), inside(&scene.cell)];
        let programs = insides.each_ref().map(Inside::program);
        for (number, cell) in [&scene.cell, &second].into_iter().enumerate() {
            // Each on the base of a CPU of its own.
            let cpu = scene.cpu(number as u32);
            let program = &programs[number];
            assert_eq!(cell.init(&cpu, &scene.map, InitFlags::NONE), Ok(()));
            assert_eq!(cell.set_callback(&cpu, program, program.callback(0)), Ok(()));
            assert_eq!(cell.start(&cpu, FAR), Ok(()));
        }
        thread::scope(|scope| {
            for number in 0..2 {
                let scene = &scene;
                scope.spawn(move || {
                    let engine = scene.machine.engine();
                    assert_eq!(engine.run_timers(&scene.cpu(number), number, END_NS), 1);
                });
            }
        });
        let results = insides.each_ref().map(Inside::result);
        assert!(results.contains(&Err(Errno::EDEADLK)), "{results:?}");
        for result in results {
            assert!(matches!(result, Ok(false) | Err(Errno::EDEADLK)), "{result:?}");
        }
        let cpu = scene.cpu(0);
        second.cancel_and_free(&cpu);
        scene.rest(&cpu);
        assert_eq!(programs.map(|program| program.refs()), [1, 1]);
    }
}

/// Task work: one operation, and what it returns.
fn schedule_rows<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    for op in [Init, SetCallback, StartOp, Cancel, CancelAsync] {
        assert_eq!(scene.perform(&cpu, op), Err(Errno::EOPNOTSUPP), "{op:?}");
    }
    let hardirq = cpu.interrupted(Context::Hardirq);
    assert_eq!(scene.perform(&hardirq, Schedule), Err(Errno::ENOMEM));

    // Runs once; until then the cell is busy.
    assert_eq!(scene.perform(&cpu, Schedule), Ok(true));
    assert_eq!(scene.perform(&cpu, Schedule), Err(Errno::EBUSY));
    cpu.return_to_user();
    cpu.return_to_user();
    assert_eq!(scene.runs(), 1);

    // In NMI.
    let expected = if C::NMI_SAFE { Ok(true) } else { Err(Errno::EOPNOTSUPP) };
    assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, Schedule)), expected);
    cpu.return_to_user();
    assert_eq!(scene.runs(), 1 + u64::from(C::NMI_SAFE));

    // A program on its way out.
    let dying = Program::<P>::new([(count_only as _, 0)]);
    dying.put();
    let callback = dying.callback(0);
    let outcome = scene.cell.schedule(&cpu, &scene.map, &dying, callback, Start::default());
    assert_eq!(seen.note(Schedule, outcome.map(|()| true)), Err(Errno::EBADF));
    assert_eq!(dying.refs(), 0);

    // Freed before it ran, it does not run.
    let runs = scene.runs();
    assert_eq!(scene.perform(&cpu, Schedule), Ok(true));
    scene.cell.cancel_and_free(&cpu);
    cpu.return_to_user();
    assert_eq!(scene.runs(), runs);
    scene.machine.settle(&cpu);

    // The map was abandoned; the task is gone.
    let map = Map::new();
    map.put_user::<C>(&cpu, []);
    let first = &scene.programs[0];
    let outcome = scene.cell.schedule(&cpu, &map, first, first.callback(0), Start::default());
    assert_eq!(seen.note(Schedule, outcome.map(|()| true)), Err(Errno::EBADF));
    {
        let other = scene.cpu(1);
        other.exit_task();
        assert_eq!(scene.perform(&other, Schedule), Err(Errno::EPERM));
    }
    scene.rest(&cpu);
}
