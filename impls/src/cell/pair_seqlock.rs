//! `seqlock-pair`: program and callback behind a sequence lock (the kernel's `seqlock_t`). Updates take a
//! queued spinlock with interrupts off, and make the sequence odd while they write; a start and the
//! handler read both without the lock, and read again if the sequence was odd or has moved.
//!
//! Readers write nothing, so that any number of expiries share the line. They wait for a writer: in NMI, on
//! top of one, for ever, hence updates and starts are refused there; and a CPU that stands still inside an
//! update keeps all readers waiting. This is the lock that the patches wanted to remove, taken by
//! updates alone.
//!
//! Invariants: one writer at a time; a reader uses what it read only if the sequence was even before
//! and the same after.

use super::Outcome;
use super::block::{Header, pointers};
use super::direct::{Keeps, Pair, Variant};
use super::refs::Refs;
use crate::lock::Lock;
use crate::lock::queued::Queued;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// Variant `seqlock-pair`.
pub struct SeqlockPair;

impl<P: Platform> Variant<P> for SeqlockPair {
    const ID: &'static str = "seqlock-pair";
    type Keeps = Sequenced<P>;
    type Lives = Refs<P>;
}

/// The sequence lock; what it guards are the words of the header.
#[repr(C)]
pub struct Sequenced<P: Platform> {
    /// Odd while somebody writes.
    sequence: P::U32,
    lock: Queued<P>,
}

impl<P: Platform> Sequenced<P> {
    /// Reads both words as some update left them.
    #[inline(always)]
    fn read(&self, header: &Header<P>) -> Pair<P> {
        loop {
            let before = P::wait_until(|| {
                // Acquire pairs with the release at the end of `write`.
                let sequence = self.sequence.load(Ordering::Acquire);
                (sequence.is_multiple_of(2)).then_some(sequence)
            });
            // Relaxed, both: ordered by the acquire above and the barrier below.
            let program = header.program.load(Ordering::Relaxed);
            let callback = header.callback.load(Ordering::Relaxed);
            // Pairs with the barrier in `write`: who read a word of a later update sees its sequence.
            P::fence_reads();
            // Relaxed: ordered by the barrier.
            if self.sequence.load(Ordering::Relaxed) == before {
                return (program, callback);
            }
        }
    }

    /// Writes both words, with the lock held.
    #[inline(always)]
    fn write(&self, cpu: &Cpu<'_, P>, header: &Header<P>, (program, callback): Pair<P>) {
        // Relaxed: written under the lock.
        let sequence = self.sequence.load(Ordering::Relaxed);
        if !planted!(cpu, SequenceStaysEven) {
            self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        }
        if !planted!(cpu, SequenceUnordered) {
            // Before the words: who reads one of them sees the odd sequence. Pairs with the read
            // barrier in `read`.
            P::fence_writes();
        }
        header.program.store(program, Ordering::Relaxed);
        header.callback.store(callback, Ordering::Relaxed);
        // Release pairs with the acquire in `read`: the words, and what they point to.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    fn update_locked(
        &self,
        cpu: &Cpu<'_, P>,
        header: &Header<P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome {
        let next = pointers(new);
        // Relaxed: written under the lock.
        let old = header.program.load(Ordering::Relaxed);
        if old == next.0 {
            if new.is_some() {
                self.write(cpu, header, next);
            }
            return Ok(());
        }
        if let Some((program, _)) = new {
            program.get()?;
        }
        self.write(cpu, header, next);
        header.put_program(cpu, old);
        Ok(())
    }
}

impl<P: Platform> Keeps<P> for Sequenced<P> {
    const UPDATES_IN_NMI: bool = false;
    const OCCUPIES: bool = true;

    fn new() -> Self {
        Self { sequence: P::U32::new("block.sequence", 0), lock: Queued::new() }
    }

    #[inline(always)]
    fn update(
        &self,
        cpu: &Cpu<'_, P>,
        header: &Header<P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome {
        // Off, for a handler on this CPU would wait for the writer beneath it.
        let _irq_off = cpu.irq_save();
        if planted!(cpu, WritersMeet) {
            return self.update_locked(cpu, header, new);
        }
        self.lock.with(cpu, || self.update_locked(cpu, header, new))?
    }

    #[inline(always)]
    fn is_set(&self, header: &Header<P>) -> bool {
        !self.read(header).0.is_null()
    }

    #[inline(always)]
    fn callback(&self, header: &Header<P>) -> *mut Callback<P> {
        let (program, callback) = self.read(header);
        if P::QUARANTINE || P::POISON {
            // Where it is checked and not timed: a handler may use the program as well.
            // SAFETY: programs and their callbacks outlive the machine's rest.
            let belongs = unsafe { callback.as_ref() }.is_none_or(|it| it.belongs_to(program));
            assert!(belongs, "read the callback and the program of two updates");
        }
        callback
    }

    fn pair(&self, header: &Header<P>) -> Pair<P> {
        self.read(header)
    }

    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>) {
        // Relaxed: a grace period came before.
        header.put_program(cpu, header.program.load(Ordering::Relaxed));
    }

    fn is_occupied(&self) -> bool {
        self.lock.is_held()
    }
}
