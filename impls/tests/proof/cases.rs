//! Which operations meet which, in which state of the cell: all pairs, and the chosen triples.

use std::fmt;
use std::sync::Arc;

use cellbench_impls::cell::{CellKind, Steps};
use cellbench_impls::{AsyncCell, CpuId};

use crate::arena::{Arena, Driven, Setup, ThreadBody};
use crate::history::{Call, Op};

/// The state of the cell when the operations begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Never initialised.
    Fresh,
    /// Initialised, without a program.
    Empty,
    /// Initialised, with a callback.
    Ready,
    /// Started and pending.
    Armed,
    /// Started, and another CPU runs what is due.
    Running,
    /// Started and freed.
    Freed,
}

impl State {
    /// Those in which every operation meets every other. Without a program an operation is refused, or
    /// does as with one: updates alone differ, see [`triples`].
    pub(crate) const ALL: [State; 5] =
        [State::Fresh, State::Ready, State::Armed, State::Running, State::Freed];

    /// Returns the operations that lead there from a fresh cell.
    pub(crate) fn preparation(self, steps: Steps) -> &'static [Op] {
        match (self, steps) {
            (State::Fresh, _) | (State::Ready, Steps::One) => &[],
            (State::Empty, Steps::One) => &[],
            (State::Empty, _) => &[Op::Init],
            (State::Ready, _) => &[Op::Init, Op::Set(0)],
            (State::Armed | State::Running, Steps::One) => &[Op::Schedule(0)],
            (State::Armed | State::Running, _) => &[Op::Init, Op::Set(0), Op::Start],
            (State::Freed, Steps::One) => &[Op::Schedule(0), Op::Free],
            (State::Freed, _) => &[Op::Init, Op::Set(0), Op::Start, Op::Free],
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Fresh => "fresh",
            State::Empty => "empty",
            State::Ready => "ready",
            State::Armed => "armed",
            State::Running => "running",
            State::Freed => "freed",
        })
    }
}

/// Operations that run at the same time on a cell in some state.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The state at the beginning.
    pub(crate) state: State,
    /// Operations of each thread, one after the other.
    pub(crate) threads: Vec<Vec<Op>>,
}

impl Case {
    /// Makes a case of one operation for each thread; the running state adds the thread that fires.
    pub(crate) fn of(state: State, ops: &[Op]) -> Self {
        let mut threads: Vec<Vec<Op>> = ops.iter().map(|op| vec![*op]).collect();
        if state == State::Running {
            threads.push(vec![Op::Fire]);
        }
        Self { state, threads }
    }
}

impl Case {
    /// Returns the setup of the case's machine: a CPU for each thread. Task works are for the task of a
    /// thread that fires, which runs them.
    pub(crate) fn setup(&self) -> Setup {
        let fires = self.threads.iter().position(|ops| ops.contains(&Op::Fire));
        Setup { task_cpu: fires.unwrap_or(0) as u32, ..Setup::new(self.threads.len() as u32) }
    }
}

impl Case {
    /// Runs it once on a cell of type `C`, with the threads in the given order, and checks what is
    /// left. Returns the history.
    pub(crate) fn run<P: Driven, C: AsyncCell<P>>(
        &self,
        setup: Setup,
        order: &[usize],
        run_threads: fn(Vec<ThreadBody>),
    ) -> Vec<Call> {
        self.start::<P, C>(setup, order, run_threads).check_rest()
    }

    /// Runs as [`run`](Self::run), without checking what is left.
    pub(crate) fn observe<P: Driven, C: AsyncCell<P>>(
        &self,
        setup: Setup,
        order: &[usize],
        run_threads: fn(Vec<ThreadBody>),
    ) -> Vec<Call> {
        self.start::<P, C>(setup, order, run_threads).observe_rest()
    }

    fn start<P: Driven, C: AsyncCell<P>>(
        &self,
        setup: Setup,
        order: &[usize],
        run_threads: fn(Vec<ThreadBody>),
    ) -> Arc<Arena<P, C>> {
        let arena = Arena::<P, C>::new(setup);
        arena.prepare(self.state.preparation(C::STEPS));
        let bodies = order.iter().map(|number| -> ThreadBody {
            let (arena, ops) = (Arc::clone(&arena), self.threads[*number].clone());
            let cpu = CpuId(*number as u32);
            Box::new(move || arena.perform_all(&arena.machine.cpu(cpu), &ops))
        });
        run_threads(bodies.collect());
        arena
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.state)?;
        for (number, thread) in self.threads.iter().enumerate() {
            let ops: Vec<String> = thread.iter().map(Op::to_string).collect();
            write!(f, "{}{}", if number > 0 { " & " } else { "" }, ops.join("; "))?;
        }
        Ok(())
    }
}

/// Returns the operations that a cell has.
pub(crate) fn ops<P: Driven, C: AsyncCell<P>>() -> Vec<Op> {
    let mut ops = if C::STEPS == Steps::One {
        vec![Op::Schedule(1)]
    } else {
        vec![Op::Init, Op::Set(1), Op::Start]
    };
    if C::CANCELS {
        ops.push(Op::Cancel);
    }
    if C::CANCELS_ASYNC {
        ops.push(Op::CancelAsync);
    }
    ops.extend([Op::Free, Op::Fire, Op::PutUser]);
    ops
}

/// Returns every pair of operations, an operation with itself included.
pub(crate) fn pairs<P: Driven, C: AsyncCell<P>>(state: State) -> Vec<Case> {
    let ops = ops::<P, C>();
    let mut cases = Vec::new();
    for (index, first) in ops.iter().enumerate() {
        for second in &ops[index..] {
            let fires = *first == Op::Fire || *second == Op::Fire;
            if state == State::Running && fires {
                // The third thread fires already.
                continue;
            }
            if *first == Op::PutUser && *second == Op::PutUser {
                // There is one last reference.
                continue;
            }
            // Two updates: one to another program, one to the same.
            let second = match (first, second) {
                (Op::Set(_), Op::Set(_)) => Op::Set(0),
                (Op::Schedule(_), Op::Schedule(_)) => Op::Schedule(0),
                (_, second) => *second,
            };
            cases.push(Case::of(state, &[*first, second]));
        }
    }
    cases
}

/// Returns the triples in which reviewers of the patches found races, and updates of a cell without a
/// program, which put none and so have no barrier there.
pub(crate) fn triples<P: Driven, C: AsyncCell<P>>() -> Vec<Case> {
    if C::STEPS == Steps::One {
        return vec![
            Case::of(State::Fresh, &[Op::Schedule(0), Op::Schedule(1), Op::Free]),
            Case::of(State::Fresh, &[Op::Schedule(0), Op::Fire, Op::Free]),
            Case::of(State::Armed, &[Op::Schedule(1), Op::Fire, Op::Free]),
            Case::of(State::Fresh, &[Op::Schedule(0), Op::Fire, Op::PutUser]),
        ];
    }
    let mut cases = vec![
        Case::of(State::Empty, &[Op::Set(1), Op::Set(0)]),
        Case::of(State::Fresh, &[Op::Init, Op::Init, Op::Free]),
        Case::of(State::Ready, &[Op::Set(1), Op::Set(0), Op::Free]),
        Case::of(State::Ready, &[Op::Start, Op::Free, Op::Fire]),
        Case::of(State::Armed, &[Op::Set(1), Op::Free, Op::Fire]),
        Case::of(State::Fresh, &[Op::Init, Op::Set(0), Op::PutUser]),
        // The cell is freed and initialised again under a start.
        Case {
            state: State::Ready,
            threads: vec![vec![Op::Start], vec![Op::Free, Op::Init, Op::Set(1)], vec![Op::Fire]],
        },
    ];
    if C::KIND == CellKind::Timer {
        // Neither gets the time of one and the flags of another.
        let threads = vec![vec![Op::StartAt], vec![Op::Start, Op::Start]];
        cases.push(Case { state: State::Ready, threads });
    }
    if C::CANCELS {
        cases.push(Case::of(State::Empty, &[Op::Set(1), Op::Cancel]));
        cases.push(Case::of(State::Armed, &[Op::Set(1), Op::Cancel, Op::Fire]));
        cases.push(Case::of(State::Armed, &[Op::Start, Op::Cancel, Op::Free]));
    }
    if C::CANCELS_ASYNC {
        cases.push(Case::of(State::Armed, &[Op::Start, Op::CancelAsync, Op::Fire]));
        cases.push(Case::of(State::Ready, &[Op::Start, Op::CancelAsync, Op::Fire]));
        // Commands that wait for one `irq_work`, while another CPU reads or executes.
        for ops in [[Op::Start, Op::Start], [Op::Start, Op::CancelAsync]] {
            let with_irqs_off = [&[Op::IrqsOff], &ops[..]].concat();
            let threads = vec![vec![Op::StartAt], with_irqs_off];
            cases.push(Case { state: State::Ready, threads });
        }
    }
    cases
}
