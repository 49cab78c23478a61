//! Model of a timer or work item cell, one step after the other, and the decision whether a history of calls
//! is one that the cell could have: linearizability (Herlihy and Wing), decided by a search over the orders
//! that the times of the calls allow (Wing and Gong, "Testing and verifying concurrent objects"), which
//! remembers where it was (Lowe, "Testing for linearizability").
//!
//! The model is strict at [`Grain::Operation`]: each call takes effect at one point between its
//! invocation and its response, and refusals (EBUSY, or that the cell was freed meanwhile) have no
//! effect and need a call that was in the way. No design keeps that for all its operations.
//! [`Grain::Step`] is what the designs promise: the steps of a call are each atomic, in their
//! order, and those of other calls may come between them.

use std::collections::HashSet;

use cellbench_impls::Errno;
use cellbench_impls::cell::Promises;

use crate::history::{Call, Op, Reply, Run, timeline};

/// Unit that takes effect at one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// A whole call.
    Operation,
    /// A step of a call.
    Step,
}

/// A control block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Block {
    program: Option<u8>,
    callback: Option<u8>,
    armed: bool,
    freed: bool,
}

/// The cell and all blocks that it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Cell {
    current: Option<usize>,
    blocks: Vec<Block>,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Progress {
    /// Nothing yet.
    Invoked,
    /// It knows its block, and has done so many steps since.
    On { block: usize, steps: u8 },
    /// `cancel` has dequeued, and may do so again: whether it found the timer armed.
    Dequeued { block: usize, was_armed: bool },
    /// `fire`: so many callbacks ran, and it looks for what is due.
    Looking { runs: usize },
    /// `fire` has taken this block's timer, and has not read the callback yet.
    Firing { block: usize, runs: usize },
    /// All steps are done.
    Done,
}

/// The history that is looked at, and what is known of each call before the search.
struct Search<'a> {
    design: Promises,
    grain: Grain,
    calls: &'a [Call],
    /// Some other call was in progress at the same time.
    overlapped: Vec<bool>,
    /// So it was, and its steps may come between those of this one.
    interleaved: Vec<bool>,
    /// As `interleaved`, by a `fire`.
    fired_across: Vec<bool>,
    /// As `overlapped`, by a `fire`.
    meets_fire: Vec<bool>,
    /// As `overlapped`, by a `cancel_and_free`.
    freed_across: Vec<bool>,
    /// The time by which all that the call does is done.
    done_by: Vec<u64>,
    seen: HashSet<(Cell, Vec<Progress>)>,
}

/// Returns whether a cell of the design may have this history, from an uninitialised cell on.
pub(crate) fn explains(design: Promises, grain: Grain, calls: &[Call]) -> bool {
    let others = |call: &'_ Call| -> Vec<Call> {
        calls.iter().filter(|other| *other != call && other.overlaps(call)).cloned().collect()
    };
    let steps = grain == Grain::Step;
    let posts = |op| matches!(op, Op::Start | Op::CancelAsync | Op::Free);
    let done_by = |call: &Call| {
        let left = steps && design.posts && posts(call.op);
        let left_to = others(call).into_iter().filter(|_| left);
        left_to.map(|other| other.returned).fold(call.returned, u64::max)
    };
    let meets = |call: &Call| !others(call).is_empty();
    let meets_op = |call: &Call, op| others(call).iter().any(|other| other.op == op);
    let mut search = Search {
        design,
        grain,
        calls,
        overlapped: calls.iter().map(meets).collect(),
        interleaved: calls.iter().map(|call| steps && meets(call)).collect(),
        fired_across: calls.iter().map(|call| steps && meets_op(call, Op::Fire)).collect(),
        meets_fire: calls.iter().map(|call| meets_op(call, Op::Fire)).collect(),
        freed_across: calls.iter().map(|call| meets_op(call, Op::Free)).collect(),
        done_by: calls.iter().map(done_by).collect(),
        seen: HashSet::new(),
    };
    search.completes(&Cell::default(), &vec![Progress::Invoked; calls.len()])
}

impl Search<'_> {
    /// Returns whether all calls can be completed from here.
    fn completes(&mut self, cell: &Cell, progress: &[Progress]) -> bool {
        if progress.iter().all(|progress| *progress == Progress::Done) {
            return true;
        }
        if !self.seen.insert((cell.clone(), progress.to_vec())) {
            return false;
        }
        let open = |index: &usize| progress[*index] != Progress::Done;
        // No call begins after the end of one that is not completed.
        let all = (0..self.calls.len()).filter(open);
        let first_end = all.clone().map(|index| self.done_by[index]).min().unwrap_or(u64::MAX);
        let begins = all.filter(|index| self.calls[*index].invoked < first_end);
        for index in begins.collect::<Vec<_>>() {
            for (next_cell, next) in self.advances(index, cell, progress[index]) {
                let mut progress = progress.to_vec();
                progress[index] = next;
                if self.completes(&next_cell, &progress) {
                    return true;
                }
            }
        }
        false
    }

    /// Returns where one call can go next, alone: by a step, or to where it rests.
    fn advances(&self, index: usize, cell: &Cell, from: Progress) -> Vec<(Cell, Progress)> {
        let mut reached = self.steps(index, cell, from);
        if self.grain == Grain::Operation {
            let rests = |to: &Progress| matches!(to, Progress::Done | Progress::Looking { .. });
            let mut resting = Vec::new();
            let mut visited = HashSet::new();
            while let Some((cell, to)) = reached.pop() {
                if rests(&to) {
                    resting.push((cell, to));
                } else if visited.insert((cell.clone(), to)) {
                    reached.extend(self.steps(index, &cell, to));
                }
            }
            return resting;
        }
        reached
    }

    /// Returns the steps that a call can take next. None: the model does not have what the call returned.
    fn steps(&self, index: usize, cell: &Cell, from: Progress) -> Vec<(Cell, Progress)> {
        let call = &self.calls[index];
        let mut next = Next { cell, reached: Vec::new() };
        match from {
            Progress::Invoked => self.begin(index, call, &mut next),
            Progress::On { block, steps } => self.go_on(index, call, block, steps, &mut next),
            Progress::Dequeued { block, was_armed } => {
                if call.reply == Ok(was_armed) {
                    next.to(Progress::Done);
                }
                if self.fired_across[index] {
                    // It waited for the callback, which was started again meanwhile.
                    let was_armed = was_armed || cell.blocks[block].armed;
                    let to = Progress::Dequeued { block, was_armed };
                    next.change(block, |block| block.armed = false, to);
                }
            }
            Progress::Looking { runs } => {
                // What is armed when nothing is in the way runs.
                let due = |block: &Block| block.armed && !block.freed;
                let all = self.overlapped[index] || !cell.blocks.iter().any(due);
                if all && runs == call.runs.len() {
                    next.to(Progress::Done);
                }
                for block in (0..cell.blocks.len()).filter(|block| cell.blocks[*block].armed) {
                    let to = Progress::Firing { block, runs };
                    next.change(block, |block| block.armed = false, to);
                }
            }
            Progress::Firing { block, runs } => match cell.blocks[block].callback {
                None => next.to(Progress::Looking { runs }),
                Some(program) => {
                    if call.runs.get(runs).is_some_and(|run| run.program == program) {
                        next.to(Progress::Looking { runs: runs + 1 });
                    }
                }
            },
            Progress::Done => {}
        }
        next.reached
    }

    /// Takes the first step, which looks up the cell or changes it.
    fn begin(&self, index: usize, call: &Call, next: &mut Next<'_>) {
        let cell = next.cell;
        if call.reply == Err(Errno::EBUSY) {
            let initialised = call.op == Op::Init && cell.current.is_some();
            if self.overlapped[index] || initialised {
                next.to(Progress::Done);
            }
            return;
        }
        if (call.op, call.reply) == (Op::CancelAsync, Err(Errno::EPERM)) {
            // The callback runs.
            if self.meets_fire[index] && cell.current.is_some() {
                next.to(Progress::Done);
            }
            return;
        }
        let refused = matches!(call.reply, Err(Errno::EPERM | Errno::ENOENT));
        if refused && self.grain == Grain::Operation {
            // No cell says so to a call that is alone.
            if self.freed_across[index] {
                next.to(Progress::Done);
            }
            return;
        }
        match (call.op, cell.current) {
            (Op::Fire, _) => next.to(Progress::Looking { runs: 0 }),
            (Op::Init, None) if call.reply.is_ok() => {
                let mut cell = cell.clone();
                cell.current = Some(cell.blocks.len());
                cell.blocks.push(Block::default());
                next.reached.push((cell, Progress::Done));
            }
            (Op::Init, _) => {}
            (Op::Free, None) => next.to(Progress::Done),
            (Op::Free, Some(block)) => {
                let mut cell = cell.clone();
                cell.current = None;
                cell.blocks[block].freed = true;
                next.reached.push((cell, Progress::On { block, steps: 0 }));
            }
            (_, None) if call.reply == Err(Errno::EINVAL) => next.to(Progress::Done),
            (_, None) => {}
            (_, Some(block)) => next.to(Progress::On { block, steps: 0 }),
        }
    }

    /// Takes a step on the block that was found.
    fn go_on(&self, index: usize, call: &Call, on: usize, steps: u8, next: &mut Next<'_>) {
        let block = next.cell.blocks[on];
        let then = Progress::On { block: on, steps: steps + 1 };
        match (call.op, steps, call.reply) {
            (Op::Set(program), 0, _) => {
                next.change(on, |block| block.program = Some(program), then);
                self.refused_as_freed(call, on, next);
            }
            (Op::Set(program), 1, _) => {
                next.change(on, |block| block.callback = Some(program), then);
            }
            (Op::Set(_), _, reply) => {
                if reply.is_ok() {
                    next.to(Progress::Done);
                }
                self.refused_as_freed(call, on, next);
                if self.interleaved[index] {
                    // Another update came in between: once more.
                    next.to(Progress::On { block: on, steps: 0 });
                }
            }
            (Op::Start, 0, _) => {
                let lacks = block.program.is_none() && self.design.start_needs_program;
                if !lacks {
                    next.to(then);
                } else if call.reply == Err(Errno::EINVAL) {
                    next.to(Progress::Done);
                }
            }
            (Op::Start, _, reply) => {
                if reply.is_ok() {
                    next.change(on, |block| block.armed = true, Progress::Done);
                    if self.design.posts && self.interleaved[index] {
                        // Replaced before anybody executed it.
                        next.to(Progress::Done);
                    }
                }
                self.refused_as_freed(call, on, next);
            }
            (Op::Cancel | Op::Free, 0, _) => {
                next.change(on, |block| block.program = None, then);
                let keeps = self.design.cancel_may_not_clear && self.interleaved[index];
                // With commands the block keeps its program until it is freed itself.
                if (call.op == Op::Cancel && keeps) || (call.op == Op::Free && self.design.posts) {
                    next.to(Progress::On { block: on, steps: 2 });
                }
            }
            (Op::Cancel | Op::Free, 1, _) => {
                next.change(on, |block| block.callback = None, then);
                if self.interleaved[index] {
                    let again = Progress::On { block: on, steps: 0 };
                    next.change(on, |block| block.callback = None, again);
                }
            }
            (Op::Cancel, _, _) => {
                let to = Progress::Dequeued { block: on, was_armed: block.armed };
                next.change(on, |block| block.armed = false, to);
            }
            (Op::CancelAsync | Op::Free, _, reply) => {
                let reports = call.op == Op::CancelAsync && self.design.async_reports;
                if !reports || reply == Ok(block.armed) {
                    next.change(on, |block| block.armed = false, Progress::Done);
                }
                // The timer of a callback that runs is left alone; a command may be replaced; and a
                // block that somebody is inside is cancelled by whoever leaves it last.
                let left = self.fired_across[index]
                    || (self.interleaved[index] && (self.design.posts || call.op == Op::Free))
                    || (self.design.free_by_worker && call.op == Op::Free);
                if left && (!reports || reply == Ok(false)) {
                    next.to(Progress::Done);
                }
                self.refused_as_freed(call, on, next);
            }
            (op, ..) => unreachable!("{op} has no steps on a block"),
        }
    }

    /// Lets a call that finds its block freed under it say so, and take back what it wrote.
    fn refused_as_freed(&self, call: &Call, on: usize, next: &mut Next<'_>) {
        let says = matches!(call.reply, Err(Errno::EPERM | Errno::ENOENT | Errno::EINVAL));
        if says && next.cell.blocks[on].freed {
            if matches!(call.op, Op::Set(_)) {
                let clear = |block: &mut Block| (block.program, block.callback) = (None, None);
                next.change(on, clear, Progress::Done);
            } else {
                next.to(Progress::Done);
            }
        }
    }
}

/// Cells that can be reached from one cell by one step.
struct Next<'a> {
    cell: &'a Cell,
    reached: Vec<(Cell, Progress)>,
}

impl Next<'_> {
    /// Adds a step that leaves the cell as it is.
    fn to(&mut self, progress: Progress) {
        self.reached.push((self.cell.clone(), progress));
    }

    /// Adds a step that changes a block.
    fn change(&mut self, block: usize, how: impl FnOnce(&mut Block), progress: Progress) {
        let mut cell = self.cell.clone();
        how(&mut cell.blocks[block]);
        self.reached.push((cell, progress));
    }
}

/// Returns the tests of the checker: histories that no cell may have, and some that it may.
pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    use Grain::{Operation, Step};
    const EBUSY: Reply = Err(Errno::EBUSY);
    const EINVAL: Reply = Err(Errno::EINVAL);
    const OK: Reply = Ok(true);
    // CPU, operation, invocation, response, reply, callbacks that ran.
    type Line<'a> = (u32, Op, u64, u64, Reply, &'a [u8]);
    const READY: [Line<'_>; 2] = [(0, Op::Init, 0, 1, OK, &[]), (0, Op::Set(0), 2, 3, OK, &[])];
    let history = |lines: &[Line<'_>]| -> Vec<Call> {
        let call = |&(cpu, op, invoked, returned, reply, programs): &Line<'_>| {
            let run = |&program: &u8| Run { program, began: invoked, ended: returned };
            Call { cpu, op, invoked, returned, reply, runs: programs.iter().map(run).collect() }
        };
        READY.iter().chain(lines).map(call).collect()
    };
    let table: [(&str, &[Line<'_>], &[Grain]); 13] = [
        ("a second init succeeds", &[(1, Op::Init, 4, 5, OK, &[])], &[]),
        ("a second init finds the first", &[(1, Op::Init, 4, 5, EBUSY, &[])], &[Operation, Step]),
        ("EBUSY with nothing in the way", &[(1, Op::Set(1), 4, 5, EBUSY, &[])], &[]),
        (
            "EBUSY with an update in the way",
            &[(0, Op::Set(0), 4, 7, OK, &[]), (1, Op::Set(1), 5, 6, EBUSY, &[])],
            &[Operation, Step],
        ),
        ("a start finds no callback", &[(0, Op::Start, 4, 5, EINVAL, &[])], &[]),
        ("a cancel finds what was never started", &[(0, Op::Cancel, 4, 5, OK, &[])], &[]),
        (
            "a callback that was replaced runs",
            &[
                (1, Op::Set(1), 4, 5, OK, &[]),
                (0, Op::Start, 6, 7, OK, &[]),
                (0, Op::Fire, 8, 9, OK, &[0]),
            ],
            &[],
        ),
        ("a start never runs", &[(0, Op::Start, 4, 5, OK, &[]), (0, Op::Fire, 6, 7, OK, &[])], &[]),
        (
            "a start runs twice",
            &[
                (0, Op::Start, 4, 5, OK, &[]),
                (0, Op::Fire, 6, 7, OK, &[0]),
                (0, Op::Fire, 8, 9, OK, &[0]),
            ],
            &[],
        ),
        (
            "what was freed runs",
            &[
                (0, Op::Start, 4, 5, OK, &[]),
                (0, Op::Free, 6, 7, OK, &[]),
                (0, Op::Fire, 8, 9, OK, &[0]),
            ],
            &[],
        ),
        (
            "the cell is freed, and says that it was, to nobody's surprise",
            &[(0, Op::Free, 4, 7, OK, &[]), (1, Op::Start, 5, 6, Err(Errno::ENOENT), &[])],
            &[Operation, Step],
        ),
        (
            "the cell says that it was freed, and was not",
            &[(0, Op::Set(1), 4, 5, Err(Errno::EPERM), &[])],
            &[],
        ),
        (
            "a start between the steps of a cancel",
            &[
                (0, Op::Cancel, 4, 9, OK, &[]),
                (1, Op::Set(1), 5, 6, OK, &[]),
                (1, Op::Start, 7, 8, OK, &[]),
                (0, Op::Start, 10, 11, OK, &[]),
                (0, Op::Fire, 12, 13, OK, &[1]),
            ],
            &[Step],
        ),
    ];
    let design = Promises::BASE;
    let trial = |(name, lines, explained_at): (&str, &[Line<'_>], &'static [Grain])| {
        let calls = history(lines);
        libtest_mimic::Trial::test(format!("model/{name}"), move || {
            for grain in [Operation, Step] {
                let expected = explained_at.contains(&grain);
                let found = explains(design, grain, &calls);
                if found != expected {
                    return Err(format!("by {grain:?}: {found}\n{}", timeline(&calls)).into());
                }
            }
            Ok(())
        })
    };
    table.into_iter().map(trial).collect()
}
