//! `cas16-pair`: program and callback side by side in 16 bytes, exchanged by one compare-exchange
//! (`cmpxchg16b`, as the kernel's `try_cmpxchg128()` in SLUB), where the merged design exchanges one, writes
//! the other, and looks whether both are still there.
//!
//! An update is a loop that repeats only if another one came between the look and the exchange, with
//! neither guard nor second reference: the reference that the new pair needs is taken before, and
//! whoever exchanges a pair away puts its program.
//!
//! Where the target has no such instruction ([`Memory::DOUBLE_WORD_AT_ONCE`]) a lock with interrupts off stands in
//! for it, and updates in NMI are refused: the kernel's `system_has_cmpxchg128()` would
//! choose another design there.
//!
//! Invariants: both halves are of one update; each pair is exchanged away once.

use core::ptr;

use super::Outcome;
use super::block::{Header, pointers};
use super::direct::{Keeps, Pair, Variant};
use super::refs::Refs;
use crate::machine::{Cpu, planted};
use crate::platform::{DoubleWord, Memory, Ordering, Platform};
use crate::program::{Callback, Program};

/// Variant `cas16-pair`.
pub struct WidePair;

impl<P: Platform> Variant<P> for WidePair {
    const ID: &'static str = "cas16-pair";
    type Keeps = Wide<P>;
    type Lives = Refs<P>;
}

/// Program and callback, as addresses.
#[repr(transparent)]
pub struct Wide<P: Memory> {
    pair: P::Double,
}

/// The half that holds the program's address.
const PROGRAM: usize = 0;
/// The half that holds the callback's address.
const CALLBACK: usize = 1;

fn address<T>(of: *mut T) -> u64 {
    of.expose_provenance() as u64
}

fn pointer<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl<P: Platform> Wide<P> {
    fn load(&self, order: Ordering) -> [u64; 2] {
        [self.pair.load_half(PROGRAM, order), self.pair.load_half(CALLBACK, order)]
    }

    /// Exchanges both; returns those before. A full barrier.
    #[inline(always)]
    fn exchange(&self, cpu: &Cpu<'_, P>, next: impl Fn([u64; 2]) -> [u64; 2]) -> [u64; 2] {
        // Relaxed: the halves may be of two updates, which the exchange finds out.
        let first = self.load(Ordering::Relaxed);
        let mut seen = first;
        // A full barrier, as `try_cmpxchg128` is. Pairs with the acquire in `callback`.
        while let Err(found) = self.pair.cas(seen, next(seen), Ordering::SeqCst) {
            if planted!(cpu, WideFailureIgnored) {
                return [0; 2];
            }
            seen = found;
        }
        if planted!(cpu, WideFirstSeenPut) { first } else { seen }
    }
}

impl<P: Platform> Keeps<P> for Wide<P> {
    const UPDATES_IN_NMI: bool = P::DOUBLE_WORD_AT_ONCE;

    fn new() -> Self {
        Self { pair: P::Double::new("block.pair", [0; 2]) }
    }

    #[inline(always)]
    fn update(
        &self,
        cpu: &Cpu<'_, P>,
        header: &Header<P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome {
        if let Some((program, _)) = new {
            program.get()?;
        }
        let _irq_off = (!P::DOUBLE_WORD_AT_ONCE).then(|| cpu.irq_save());
        let (program, callback) = pointers(new);
        let [program, callback] = [address(program), address(callback)];
        let old = if planted!(cpu, WideInHalves) {
            let old = self.exchange(cpu, |seen| [program, seen[CALLBACK]]);
            self.exchange(cpu, |seen| [seen[PROGRAM], callback]);
            old
        } else {
            self.exchange(cpu, |_| [program, callback])
        };
        header.put_program(cpu, pointer(old[PROGRAM]));
        Ok(())
    }

    #[inline(always)]
    fn is_set(&self, _: &Header<P>) -> bool {
        // Relaxed: only compared.
        self.pair.load_half(PROGRAM, Ordering::Relaxed) != 0
    }

    #[inline(always)]
    fn callback(&self, _: &Header<P>) -> *mut Callback<P> {
        // Acquire pairs with the exchange in `update`.
        pointer(self.pair.load_half(CALLBACK, Ordering::Acquire))
    }

    fn pair(&self, _: &Header<P>) -> Pair<P> {
        let [program, callback] = self.load(Ordering::Acquire);
        (pointer(program), pointer(callback))
    }

    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>) {
        // Acquire: the last update was made by another CPU, which uses the block no more.
        header.put_program(cpu, pointer(self.pair.load_half(PROGRAM, Ordering::Acquire)));
    }
}
