//! The task that task works run in: what a CPU executes in user space, as far as a cell can tell.
//!
//! A work is added without a lock and from any context that may follow a pointer; the task runs
//! its works when it returns to user space, newest first. Taking a work out again needs the
//! task's `pi_lock`, and running them waits for whoever holds it: so whoever cancels in NMI may
//! interrupt the very section that it needs. The kernel's lock is a spinlock, on which that CPU
//! then spins for ever. Here the lock knows its owner: the cancel returns EDEADLK, and the task
//! counts it ([`Task::deadlocks`]).
//!
//! A task that has exited takes no works, and its reference count refuses once nobody holds it.

use core::ptr;
use core::sync::atomic::AtomicU64;

use cellbench_mutations::mutated;

use crate::cell::Errno;
use crate::engine::Handler;
use crate::machine::Cpu;
use crate::platform::{IntWord, Memory, Ordering, Platform, Word};

/// A work for a task, part of a larger object (`struct callback_head`).
#[repr(C)]
pub struct TaskItem<P: Platform> {
    next: P::Ptr<TaskItem<P>>,
    handler: Handler<P>,
}

/// As large as `struct callback_head`.
const _: () = assert!(size_of::<TaskItem<crate::platform::Native>>() == 16);

impl<P: Platform> TaskItem<P> {
    /// Returns a work that is in no task's list; `handler` will be called with the item's own
    /// address, from
    /// which it finds what the item is part of.
    pub fn new(handler: Handler<P>) -> Self {
        Self { next: P::Ptr::new("task_item.next", ptr::null_mut()), handler }
    }
}

/// See the module.
pub struct Task<P: Platform> {
    /// The task's own while it lives, and one for each who wants it to stay.
    refs: P::U32,
    /// Works to run, newest first; [`exited`](Self::exited) once there will be none.
    works: P::Ptr<TaskItem<P>>,
    pi_lock: OwnedLock<P>,
    /// Cancels that a spinlock would not have survived.
    deadlocks: AtomicU64,
}

impl<P: Platform> Task<P> {
    /// Returns a task with no works and one reference, its own.
    pub(crate) fn new() -> Self {
        Self {
            refs: P::U32::new("task.refs", 1),
            works: P::Ptr::new("task.works", ptr::null_mut()),
            pi_lock: OwnedLock { owner: P::U32::new("task.pi_lock", 0) },
            deadlocks: AtomicU64::new(0),
        }
    }

    /// Takes a reference unless the count is 0: the task is gone. Returns whether it did.
    #[inline(always)]
    pub fn get(&self) -> bool {
        let mut refs = self.refs.load(Ordering::Relaxed);
        while refs != 0 {
            // Acquire pairs with the release of the puts.
            match self.refs.cas(refs, refs + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => refs = found,
            }
        }
        false
    }

    /// Returns a reference.
    ///
    /// # Panics
    /// If the count is 0.
    #[inline(always)]
    pub fn put(&self) {
        // AcqRel: what was done under the reference comes before whatever the last put leads to.
        let before = self.refs.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "a task reference was put twice");
    }

    /// References held now, the task's own among them.
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Relaxed)
    }

    /// Returns whether works wait for the task's return to user space.
    #[inline(always)]
    pub fn has_works(&self) -> bool {
        // Relaxed: `run` acquires.
        let top = self.works.load(Ordering::Relaxed);
        !top.is_null() && top != self.exited()
    }

    /// Returns how often a cancel wanted the `pi_lock` that its own CPU holds: with the kernel's
    /// spinlock
    /// each of these is a CPU that hangs. Exact at rest.
    pub fn deadlocks(&self) -> u64 {
        self.deadlocks.load(Ordering::Relaxed)
    }

    /// Returns what ends the list of a task that has exited: no item has this address.
    fn exited(&self) -> *mut TaskItem<P> {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Adds a work (`task_work_add`): without a lock, in any context. Returns `false` if the task
    /// has exited.
    ///
    /// # Safety
    /// The item is in no list, and valid until its handler has begun or it was cancelled.
    pub unsafe fn add(&self, item: *const TaskItem<P>) -> bool {
        let mut top = self.works.load(Ordering::Relaxed);
        let mut looks = true;
        loop {
            if top == self.exited() && looks {
                return false;
            }
            // SAFETY: valid by contract, and this caller's alone until it is in the list.
            unsafe { (*item).next.store(top, Ordering::Relaxed) };
            // Release pairs with the acquires in `run` and `cancel`: `next`, and what the item is
            // part of.
            match self.works.cas(top, item.cast_mut(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => top = found,
            }
            looks = !mutated!(ExitNotSeenAgain);
        }
    }

    /// Takes a work out of the list (`task_work_cancel`). Returns whether it was there: then its
    /// handler will not run.
    ///
    /// # Errors
    /// EDEADLK: this CPU holds the `pi_lock`, interrupted by the NMI that cancels; nothing was
    /// changed.
    pub fn cancel(&self, cpu: &Cpu<'_, P>, item: *const TaskItem<P>) -> Result<bool, Errno> {
        let _irq_off = cpu.irq_save();
        let taken = self.pi_lock.with(cpu, || self.take_out(item));
        if taken.is_err() {
            // Relaxed: a count.
            self.deadlocks.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Takes an item out of the list, with the lock held: items of the list stay valid, as `run` takes the
    /// lock between taking the list and running it.
    fn take_out(&self, item: *const TaskItem<P>) -> bool {
        let mut link = &self.works;
        loop {
            // Acquire pairs with the release in `add`; the additions since are a release sequence.
            let found = link.load(Ordering::Acquire);
            if found.is_null() || found == self.exited() {
                return false;
            }
            // SAFETY: in the list, see above.
            let next = unsafe { &(*found).next };
            if !ptr::eq(found, item) {
                link = next;
                continue;
            }
            let after = next.load(Ordering::Relaxed);
            // AcqRel: passes the release sequence on to the items behind. Only the top can have
            // changed: by an addition, or `run` took the list; look again.
            match link.cas(found, after, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(_) => link = &self.works,
            }
        }
    }

    /// Runs the works, and those added meanwhile, in task context on `cpu`. Returns whether there
    /// was any.
    #[inline(always)]
    pub(crate) fn run(&self, cpu: &Cpu<'_, P>) -> bool {
        self.has_works() && self.run_taken(cpu)
    }

    #[cold]
    fn run_taken(&self, cpu: &Cpu<'_, P>) -> bool {
        let mut any = false;
        while self.has_works() {
            // Acquire pairs with the release in `add`. The task does not exit meanwhile: that is
            // this CPU's doing.
            let mut item = self.works.swap(ptr::null_mut(), Ordering::Acquire);
            {
                // A cancel that saw the items in the list has the lock: wait until it is through.
                let _irq_off = cpu.irq_save();
                let waited =
                    if mutated!(CancelNotAwaited) { Ok(()) } else { self.pi_lock.with(cpu, || ()) };
                debug_assert!(waited.is_ok(), "task context interrupts no holder of its CPU");
            }
            while !item.is_null() {
                // SAFETY: valid until its handler begins. Read before: it may be added again.
                let (next, handler) =
                    unsafe { ((*item).next.load(Ordering::Relaxed), (*item).handler) };
                // SAFETY: the contract of `Handler`.
                unsafe { handler(item.cast(), cpu) };
                item = next;
                any = true;
            }
        }
        any
    }

    /// Ends the task: runs its works, takes no more, and returns its own reference.
    ///
    /// # Panics
    /// If it has exited before.
    pub(crate) fn exit(&self, cpu: &Cpu<'_, P>) {
        loop {
            self.run(cpu);
            // AcqRel: what is added later is refused; what was added before has run.
            match self.works.cas(
                ptr::null_mut(),
                self.exited(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(found) => assert!(found != self.exited(), "the task has exited before"),
            }
        }
        self.put();
    }
}

/// A test-and-set lock that holds its owner's number, so that whoever finds it taken by its own
/// CPU knows.
struct OwnedLock<P: Memory> {
    /// Number of the CPU that holds it, from 1; 0: free.
    owner: P::U32,
}

impl<P: Platform> OwnedLock<P> {
    /// Runs `section` with the lock held. Interrupts are off.
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        let me = cpu.id().0 + 1;
        P::wait_until(|| match self.owner.load(Ordering::Relaxed) {
            // Acquire pairs with the release below.
            0 => self.owner.cas(0, me, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| Ok(())),
            holder => (holder == me).then_some(Err(Errno::EDEADLK)),
        })?;
        let result = section();
        self.owner.store(0, Ordering::Release);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{Task, TaskItem};
    use crate::machine::{Cpu, MachineConfig};
    use crate::platform::Stepped;
    use crate::platform::stepped::interrupt_at;
    use crate::{CpuId, Errno, Machine};

    /// A work that notes that it ran.
    #[repr(C)]
    struct Note<'a> {
        item: TaskItem<Stepped>,
        journal: &'a RefCell<Vec<u32>>,
        name: u32,
    }

    unsafe fn note(item: *mut (), _: &Cpu<'_, Stepped>) {
        // SAFETY: the item is the first field of a note, and the notes outlive the lists.
        let note = unsafe { &*item.cast::<Note<'_>>() };
        note.journal.borrow_mut().push(note.name);
    }

    fn notes(journal: &RefCell<Vec<u32>>, count: u32) -> Vec<Note<'_>> {
        (0..count).map(|name| Note { item: TaskItem::new(note), journal, name }).collect()
    }

    /// Returns the address of a note's item, with the right to look at the whole note.
    fn item(note: &Note<'_>) -> *const TaskItem<Stepped> {
        core::ptr::from_ref(note).cast()
    }

    fn add(task: &Task<Stepped>, notes: &[Note<'_>]) {
        for note in notes {
            // SAFETY: in no list yet; the tests run or cancel all of them.
            assert!(unsafe { task.add(item(note)) });
        }
    }

    #[test]
    fn works_run_newest_first_but_for_the_cancelled() {
        let machine = Machine::<Stepped>::new(MachineConfig::new(1));
        let cpu = machine.cpu(CpuId(0));
        let journal = RefCell::new(Vec::new());
        let notes = notes(&journal, 5);
        let task = cpu.current();
        add(task, &notes);
        // The newest, one in the middle, the oldest; and one that is not there any more.
        for name in [4, 2, 0] {
            assert_eq!(task.cancel(&cpu, item(&notes[name])), Ok(true), "{name}");
        }
        assert_eq!(task.cancel(&cpu, item(&notes[2])), Ok(false));
        cpu.return_to_user();
        assert_eq!(*journal.borrow(), [3, 1]);
        assert_eq!(task.cancel(&cpu, item(&notes[1])), Ok(false), "it ran");
        assert!(machine.rest(CpuId(0)).is_clean());
    }

    #[test]
    fn a_task_that_exits_runs_its_works_and_takes_no_more() {
        let machine = Machine::<Stepped>::new(MachineConfig::new(1));
        let cpu = machine.cpu(CpuId(0));
        let journal = RefCell::new(Vec::new());
        let notes = notes(&journal, 2);
        let task = cpu.current();
        add(task, &notes[..1]);
        assert!(task.get());
        cpu.exit_task();
        assert_eq!(*journal.borrow(), [0]);
        // SAFETY: in no list.
        assert!(!unsafe { task.add(item(&notes[1])) });
        assert!(task.get(), "somebody still holds it");
        task.put();
        task.put();
        assert!(!task.get(), "gone");
        assert!(machine.rest(CpuId(0)).is_clean());
    }

    /// The task exits before each access of an addition from another CPU: what was added has run, or
    /// is refused; nothing stays on the list of a task that is gone.
    #[test]
    fn an_addition_that_meets_the_exit_runs_or_is_refused() {
        for place in 0.. {
            let machine = Machine::<Stepped>::new(MachineConfig::new(2));
            let cpu = machine.cpu(CpuId(1));
            let journal = RefCell::new(Vec::new());
            let notes = notes(&journal, 2);
            let task = machine.task(CpuId(1));
            add(task, &notes[1..]);
            let (added, fired) = interrupt_at(
                place,
                || cpu.exit_task(),
                // SAFETY: in no list; it has run or was refused when the test ends.
                || unsafe { task.add(item(&notes[0])) },
            );
            if !fired {
                cpu.exit_task();
            }
            let expected: &[u32] = if added { &[0, 1] } else { &[1] };
            assert_eq!(*journal.borrow(), expected, "step {place}");
            assert!(!task.has_works(), "step {place}");
            if !fired {
                return;
            }
        }
    }

    /// An NMI that cancels at every access of a cancel that it interrupts: where the lock is held
    /// it gets EDEADLK, everywhere else it takes its work out; the list stays whole.
    #[test]
    fn a_cancel_that_interrupts_a_cancel() {
        let mut deadlocks = 0;
        for place in 0.. {
            let machine = Machine::<Stepped>::new(MachineConfig::new(1));
            let cpu = machine.cpu(CpuId(0));
            let journal = RefCell::new(Vec::new());
            let notes = notes(&journal, 3);
            let task = cpu.current();
            add(task, &notes);
            let mut in_nmi = None;
            let (taken, fired) = interrupt_at(
                place,
                || in_nmi = Some(cpu.nmi(|nmi| task.cancel(nmi, item(&notes[1])))),
                || task.cancel(&cpu, item(&notes[0])),
            );
            assert_eq!(taken, Ok(true));
            cpu.return_to_user();
            match in_nmi {
                None => assert!(!fired),
                Some(Ok(true)) => assert_eq!(*journal.borrow(), [2]),
                Some(refused) => {
                    assert_eq!(refused, Err(Errno::EDEADLK));
                    assert_eq!(*journal.borrow(), [2, 1], "it was left alone");
                    deadlocks += 1;
                }
            }
            assert_eq!(task.deadlocks(), u64::from(matches!(in_nmi, Some(Err(_)))));
            if !fired {
                break;
            }
        }
        assert!(deadlocks > 0, "the lock was never held");
    }
}
