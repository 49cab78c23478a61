//! The handle of a CPU: its number, its context, and what an operation does there: interrupts off and on,
//! handlers on top, the task's way out.

use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::Ordering;

use super::{Charges, Context, CpuId, Machine, PerCpu, Running};
use crate::engine::Engine;
use crate::platform::{Platform, Word};
use crate::rcu::Reclaim;
use crate::task::Task;

/// A CPU in a context: where an operation runs. Given to every operation, as the kernel's
/// `this_cpu_ptr()` and `in_nmi()` would be asked.
pub struct Cpu<'m, P: Platform> {
    pub(super) machine: &'m Machine<P>,
    pub(crate) this: &'m PerCpu<P>,
    pub(super) id: CpuId,
    pub(super) context: Context,
    pub(super) outermost: bool,
    pub(super) not_send: PhantomData<*mut ()>,
}

impl<'m, P: Platform> Cpu<'m, P> {
    /// Returns the machine this CPU belongs to.
    #[inline(always)]
    pub fn machine(&self) -> &'m Machine<P> {
        self.machine
    }

    /// Returns the number of this CPU.
    #[inline(always)]
    pub fn id(&self) -> CpuId {
        self.id
    }

    /// Returns the NUMA node that this CPU is on.
    #[inline(always)]
    pub fn numa_node(&self) -> u16 {
        self.this.numa_node
    }

    /// Returns the context.
    #[inline(always)]
    pub fn context(&self) -> Context {
        self.context
    }

    /// Returns whether this is NMI context.
    #[inline(always)]
    pub fn in_nmi(&self) -> bool {
        self.context == Context::Nmi
    }

    /// Returns whether this is hardirq or NMI context, or an interrupt-off section.
    #[inline(always)]
    pub fn irqs_disabled(&self) -> bool {
        self.context >= Context::Hardirq || self.irq_depth() > 0
    }

    /// Returns the depth of interrupt-off sections that are open on this CPU, whoever opened them.
    #[inline(always)]
    pub fn irq_depth(&self) -> u32 {
        self.this.irq_off.get()
    }

    /// Returns the same CPU interrupted: a handle for code that runs on top of what it does now.
    pub fn interrupted(&self, context: Context) -> Cpu<'m, P> {
        Cpu {
            machine: self.machine,
            this: self.this,
            id: self.id,
            context,
            outermost: false,
            not_send: PhantomData,
        }
    }

    /// Opens an interrupt-off section (`local_irq_save`); it ends when the guard is dropped.
    /// Sections nest. The end of the outermost runs pending `irq_work`, as the interrupt would.
    #[inline(always)]
    pub fn irq_save(&self) -> IrqOff<'_, 'm, P> {
        let section = self.irq_off();
        self.charge(|charges| charges.irq_save);
        section
    }

    /// Masks as [`irq_save`](Self::irq_save) does, uncharged: inside what has a charge of its own.
    #[inline(always)]
    pub(crate) fn irq_off(&self) -> IrqOff<'_, 'm, P> {
        let depth = &self.this.irq_off;
        depth.set(depth.get() + 1);
        IrqOff { cpu: self }
    }

    /// Takes the time of one of the machine's charges.
    #[inline(always)]
    pub(crate) fn charge(&self, of: impl FnOnce(&Charges) -> u32) {
        let turns = of(&self.machine.config.charges);
        if turns > 0 {
            P::charge(turns);
        }
    }

    /// Opens an RCU read-side section.
    #[inline(always)]
    pub fn rcu_read(&self) -> <P::Reclaim as Reclaim<P>>::Guard<'_> {
        self.machine.rcu.read(self)
    }

    /// Says that this CPU holds no reference under RCU: a context switch, an idle moment, the
    /// return to user space. Also runs what waited for it. Task context only.
    #[inline(always)]
    pub fn quiescent(&self) {
        debug_assert!(self.context == Context::Task, "quiescent state in {:?}", self.context);
        self.machine.rcu.quiescent(self);
        self.machine.engine.tick(self);
    }

    /// Returns the timer callback that this CPU runs now.
    #[inline(always)]
    pub(crate) fn running(&self) -> Option<Running<P>> {
        // Relaxed, both: written by this CPU alone.
        let block = self.this.running.load(Ordering::Relaxed);
        let cancelling = self.this.running_cancelling.load(Ordering::Relaxed);
        (!block.is_null()).then_some(Running { block, cancelling })
    }

    /// Notes which timer callback this CPU runs; returns the one before.
    #[inline(always)]
    pub(crate) fn set_running(&self, running: Running<P>) -> Running<P> {
        let before = self.running();
        self.this.running_cancelling.store(running.cancelling.cast_mut(), Ordering::Relaxed);
        self.this.running.store(running.block, Ordering::Relaxed);
        before.unwrap_or(Running { block: ptr::null_mut(), cancelling: ptr::null() })
    }

    /// Returns the control block whose commands this CPU executes now, or null.
    #[inline(always)]
    pub(crate) fn executing(&self) -> *mut () {
        // Relaxed: written by this CPU alone.
        self.this.executing.load(Ordering::Relaxed)
    }

    /// Notes whose commands this CPU executes.
    #[inline(always)]
    pub(crate) fn set_executing(&self, block: *mut ()) {
        self.this.executing.store(block, Ordering::Relaxed);
    }

    /// Runs the `irq_work` that is pending on this CPU, in hardirq context with interrupts off.
    /// Called where the interrupt would arrive: when interrupts come on again, and when an NMI
    /// returns to code that has them on.
    #[inline(always)]
    pub fn run_irq_works(&self) {
        while self.this.irq_works.any() {
            self.run_irq_works_now();
        }
    }

    #[cold]
    fn run_irq_works_now(&self) {
        let depth = &self.this.irq_off;
        depth.set(depth.get() + 1);
        self.charge(|charges| charges.irq_work);
        self.this.irq_works.run(&self.interrupted(Context::Hardirq));
        // An NMI that queued work since left it to us: the caller looks again.
        depth.set(depth.get() - 1);
    }

    /// Runs `handler` as an NMI that interrupts what this CPU does now, then the `irq_work`
    /// interrupt that it may have asked for, unless interrupts are off.
    pub fn nmi<R>(&self, handler: impl FnOnce(&Cpu<'m, P>) -> R) -> R {
        let result = handler(&self.interrupted(Context::Nmi));
        if self.irq_depth() == 0 {
            self.run_irq_works();
        }
        result
    }

    /// Returns the task that runs on this CPU (`current`).
    #[inline(always)]
    pub fn current(&self) -> &'m Task<P> {
        &self.this.task
    }

    /// Runs the works of the task, which returns to user space. Task context.
    #[inline(always)]
    pub fn return_to_user(&self) {
        debug_assert!(self.context == Context::Task, "return to user space in {:?}", self.context);
        self.this.task.run(self);
    }

    /// Ends the task: its works run, and it takes no more. The CPU has no task from then on: for
    /// the tests of what a cell does then. Task context.
    ///
    /// # Panics
    /// If it has exited before.
    pub fn exit_task(&self) {
        debug_assert!(self.context == Context::Task, "exit in {:?}", self.context);
        self.this.task.exit(self);
    }

    /// Returns whether a bug is switched on, in this machine or in the process.
    #[cfg(feature = "planted")]
    pub(crate) fn planted(&self, bug: crate::planted::Bug) -> bool {
        self.machine.bug == Some(bug) || cellbench_mutations::is_on(bug)
    }
}

impl<P: Platform> Drop for Cpu<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.outermost {
            self.machine.rcu.offline(self);
            // Release pairs with the acquire in `Machine::cpu`.
            self.this.claimed.store(false, Ordering::Release);
        }
    }
}

/// An open interrupt-off section, see [`Cpu::irq_save`].
pub struct IrqOff<'a, 'm, P: Platform> {
    cpu: &'a Cpu<'m, P>,
}

impl<P: Platform> Drop for IrqOff<'_, '_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        let depth = &self.cpu.this.irq_off;
        let left = depth.get() - 1;
        depth.set(left);
        if left == 0 && self.cpu.context < Context::Hardirq {
            self.cpu.run_irq_works();
        }
    }
}
