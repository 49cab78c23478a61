//! Two words of real cores that are compared and exchanged as one.
//!
//! x86-64 has `cmpxchg16b`, in all but its first processors. Elsewhere, and where assembly is not wanted
//! (`portable`), a flag beside the words keeps others out while they are exchanged; that is said by
//! [`AT_ONCE`]. Loads of a half need neither: each is one word.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{DoubleWord, Label};

/// Whether one instruction exchanges both.
pub(super) const AT_ONCE: bool = cfg!(all(target_arch = "x86_64", not(feature = "portable")));

/// Two words; see the module.
#[repr(C, align(16))]
pub struct AtomicDouble {
    halves: [AtomicU64; 2],
    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    taken: core::sync::atomic::AtomicU32,
}

impl DoubleWord for AtomicDouble {
    fn new(_: Label, halves: [u64; 2]) -> Self {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        assert!(std::is_x86_feature_detected!("cmpxchg16b"), "this processor has no cmpxchg16b");
        Self {
            halves: halves.map(AtomicU64::new),
            #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
            taken: core::sync::atomic::AtomicU32::new(0),
        }
    }

    #[inline(always)]
    fn load_half(&self, half: usize, order: Ordering) -> u64 {
        self.halves[half].load(order)
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    #[inline(always)]
    fn cas(&self, current: [u64; 2], new: [u64; 2], _: Ordering) -> Result<(), [u64; 2]> {
        let [mut found, mut found_second] = current;
        let swapped: u8;
        // SAFETY: the address is aligned to 16 bytes, and `new` looked that there is such an
        // instruction. It is a full barrier, and changes both words as one or none. rbx, which the
        // compiler keeps for itself, is exchanged before and given back after; the address is in rdi,
        // and so not there. Without `nomem` it is an access to all memory.
        unsafe {
            asm!("xchg rbx, {first}", "lock cmpxchg16b xmmword ptr [rdi]", "sete {swapped}",
                 "mov rbx, {first}", first = inout(reg) new[0] => _, swapped = out(reg_byte) swapped,
                 in("rdi") self.halves.as_ptr(), in("rcx") new[1], inout("rax") found,
                 inout("rdx") found_second, options(nostack));
        }
        if swapped != 0 { Ok(()) } else { Err([found, found_second]) }
    }

    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    fn cas(&self, current: [u64; 2], new: [u64; 2], _: Ordering) -> Result<(), [u64; 2]> {
        // Acquire pairs with the release below: what the last one wrote.
        while self.taken.swap(1, Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
        let found = [0, 1].map(|half| self.halves[half].load(Ordering::Relaxed));
        let result = if found == current { Ok(()) } else { Err(found) };
        if result.is_ok() {
            for (half, value) in self.halves.iter().zip(new) {
                // Release pairs with the acquire of a half's reader.
                half.store(value, Ordering::Release);
            }
        }
        self.taken.store(0, Ordering::Release);
        // The full barrier that the instruction is.
        core::sync::atomic::fence(Ordering::SeqCst);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{AtomicDouble, DoubleWord, Ordering};

    #[test]
    fn both_are_exchanged_or_none() {
        let words = AtomicDouble::new("words", [1, 2]);
        assert_eq!(words.cas([1, 3], [7, 7], Ordering::SeqCst), Err([1, 2]));
        assert_eq!(words.cas([0, 2], [7, 7], Ordering::SeqCst), Err([1, 2]));
        assert_eq!(words.cas([1, 2], [u64::MAX, 5], Ordering::SeqCst), Ok(()));
        let half = |number| words.load_half(number, Ordering::Relaxed);
        assert_eq!([half(0), half(1)], [u64::MAX, 5]);
    }

    #[test]
    fn no_exchange_is_lost() {
        const EACH: u64 = 20_000;
        let words = AtomicDouble::new("words", [0, u64::MAX]);
        let count = || {
            for _ in 0..EACH {
                let mut seen = [0, 1].map(|half| words.load_half(half, Ordering::Relaxed));
                while let Err(found) = words.cas(seen, [seen[0] + 1, seen[1] - 1], Ordering::SeqCst)
                {
                    assert_eq!(found[0] + found[1], u64::MAX, "of two exchanges");
                    seen = found;
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(count);
            scope.spawn(count);
        });
        assert_eq!(words.load_half(0, Ordering::Relaxed), 2 * EACH);
    }
}
