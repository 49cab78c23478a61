//! The merged design's answer to how program and callback stay together, repaired as in `cmd-queue-xchg`:
//! both are exchanged until they are what was written. The counter-proposals on what keeps a block
//! have it, so that they differ from the merged design in one thing.

use super::Outcome;
use super::block::Header;
use super::direct::{Keeps, Pair};
use crate::machine::Cpu;
use crate::platform::{Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// The words are those of the header.
pub struct Exchanged;

impl<P: Platform> Keeps<P> for Exchanged {
    const UPDATES_IN_NMI: bool = true;

    fn new() -> Self {
        Self
    }

    #[inline(always)]
    fn update(
        &self,
        cpu: &Cpu<'_, P>,
        header: &Header<P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome {
        header.exchange::<true>(cpu, new)
    }

    #[inline(always)]
    fn is_set(&self, header: &Header<P>) -> bool {
        // Relaxed: only compared.
        !header.program.load(Ordering::Relaxed).is_null()
    }

    #[inline(always)]
    fn callback(&self, header: &Header<P>) -> *mut Callback<P> {
        // Acquire pairs with the exchange that published the callback.
        header.callback.load(Ordering::Acquire)
    }

    fn pair(&self, header: &Header<P>) -> Pair<P> {
        (header.program.load(Ordering::Acquire), header.callback.load(Ordering::Acquire))
    }

    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>) {
        // Acquire: the last update was made by another CPU, which uses the block no more.
        header.put_program(cpu, header.program.load(Ordering::Acquire));
    }
}
