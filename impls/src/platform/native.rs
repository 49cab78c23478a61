//! Real cores: `std` atomics, nothing added.

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(feature = "portable")))]
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use super::double::{self, AtomicDouble};
use super::{Exclusive, IntWord, Label, Memory, SplitWord, Word};

/// The memory of real cores.
pub struct Cores;

/// The memory of real cores, with freed blocks poisoned and checked.
pub struct Audited;

macro_rules! word {
    ($atomic:ty, $t:ty $(, $generic:ident)?) => {
        impl$(<$generic>)? Word<$t> for $atomic {
            #[inline(always)]
            fn new(_: Label, value: $t) -> Self {
                Self::new(value)
            }
            #[inline(always)]
            fn load(&self, order: Ordering) -> $t {
                self.load(order)
            }
            #[inline(always)]
            fn store(&self, value: $t, order: Ordering) {
                self.store(value, order);
            }
            #[inline(always)]
            fn swap(&self, value: $t, order: Ordering) -> $t {
                self.swap(value, order)
            }
            #[inline(always)]
            fn cas(
                &self,
                current: $t,
                new: $t,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$t, $t> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! int_word {
    ($atomic:ty, $t:ty) => {
        word!($atomic, $t);
        impl IntWord<$t> for $atomic {
            #[inline(always)]
            fn fetch_add(&self, value: $t, order: Ordering) -> $t {
                self.fetch_add(value, order)
            }
            #[inline(always)]
            fn fetch_sub(&self, value: $t, order: Ordering) -> $t {
                self.fetch_sub(value, order)
            }
            #[inline(always)]
            fn fetch_or(&self, value: $t, order: Ordering) -> $t {
                self.fetch_or(value, order)
            }
            #[inline(always)]
            fn fetch_and(&self, value: $t, order: Ordering) -> $t {
                self.fetch_and(value, order)
            }
        }
    };
}

int_word!(AtomicU32, u32);
int_word!(AtomicU64, u64);
word!(AtomicPtr<T>, *mut T, T);

impl SplitWord for AtomicU32 {
    #[inline(always)]
    fn clear_low_byte_release(&self) {
        // SAFETY: the assembly behaves as `fetch_and(!0xff, Release)` would: stores are not
        // reordered with earlier accesses on x86 and `stlrb` is a release; the other three bytes
        // are not touched, so concurrent changes to them are kept, as by the atomic `and`.
        // Without `nomem` the compiler treats it as an access to all memory.
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        unsafe {
            asm!("mov byte ptr [{}], 0", in(reg) self.as_ptr(), options(nostack, preserves_flags));
        }
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", not(feature = "portable")))]
        unsafe {
            asm!("stlrb wzr, [{}]", in(reg) self.as_ptr(), options(nostack, preserves_flags));
        }
        #[cfg(any(
            feature = "portable",
            not(any(target_arch = "x86_64", target_arch = "aarch64"))
        ))]
        {
            self.fetch_and(!0xff, Ordering::Release);
        }
    }

    #[inline(always)]
    fn store_low_half(&self, value: u16) {
        // SAFETY: a 16-bit aligned store is one access that changes the low half alone, which is
        // what a compare-exchange loop keeping the high half would do.
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        unsafe {
            asm!("mov word ptr [{}], {:x}", in(reg) self.as_ptr(), in(reg) value,
                 options(nostack, preserves_flags));
        }
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", target_endian = "little", not(feature = "portable")))]
        unsafe {
            asm!("strh {:w}, [{}]", in(reg) value, in(reg) self.as_ptr(),
                 options(nostack, preserves_flags));
        }
        #[cfg(any(
            feature = "portable",
            not(any(
                target_arch = "x86_64",
                all(target_arch = "aarch64", target_endian = "little")
            ))
        ))]
        {
            let _ = self.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Some(word & 0xffff_0000 | u32::from(value))
            });
        }
    }

    #[inline(always)]
    fn swap_high_half(&self, value: u16) -> u16 {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            let mut old = value;
            // SAFETY: `xchg` with memory is locked: one atomic access to the high half, which is
            // what a compare-exchange loop keeping the low half would do. The address is inside
            // the word (little endian).
            unsafe {
                asm!("xchg word ptr [{} + 2], {:x}", in(reg) self.as_ptr(), inout(reg) old,
                     options(nostack, preserves_flags));
            }
            old
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            let mut word = self.load(Ordering::Relaxed);
            loop {
                let new = word & 0xffff | u32::from(value) << 16;
                // AcqRel: publishes this CPU's queue node to the next one that swaps, and sees
                // the node of the one before.
                match self.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return (word >> 16) as u16,
                    Err(found) => word = found,
                }
            }
        }
    }

    #[inline(always)]
    fn cas_high_half(&self, current: u16, new: u16) -> bool {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            let swapped: u8;
            // SAFETY: one atomic access to the high half, inside the word (little endian), which is what
            // a compare-exchange loop keeping the low half would do.
            unsafe {
                asm!("lock cmpxchg word ptr [{word} + 2], {new:x}", "sete {swapped}",
                     word = in(reg) self.as_ptr(), new = in(reg) new, swapped = out(reg_byte) swapped,
                     inout("ax") current => _, options(nostack));
            }
            swapped != 0
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            let replace = |word: u32| {
                let new = word & 0xffff | u32::from(new) << 16;
                (word >> 16 == u32::from(current)).then_some(new)
            };
            self.fetch_update(Ordering::Relaxed, Ordering::Relaxed, replace).is_ok()
        }
    }

    #[inline(always)]
    fn set_low_byte_acquire(&self) -> bool {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            let mut old = 1_u8;
            // SAFETY: `xchg` with memory is locked: one atomic access to the low byte, which for
            // the values 0 and 1 is what `fetch_or(1)` does.
            unsafe {
                asm!("xchg byte ptr [{}], {}", in(reg) self.as_ptr(), inout(reg_byte) old,
                     options(nostack, preserves_flags));
            }
            old == 0
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            self.fetch_or(1, Ordering::Acquire) & 1 == 0
        }
    }

    #[inline(always)]
    fn any_above_low_byte(&self) -> bool {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            let (second, high): (u8, u16);
            // SAFETY: two aligned loads inside the word. They leave the low byte alone: a load
            // that covers it would wait for the byte store of the last release to reach the
            // cache, as it cannot be forwarded to a wider load (4 ns on Zen 4).
            unsafe {
                asm!("mov {second}, byte ptr [{word} + 1]", "mov {high:x}, word ptr [{word} + 2]",
                     word = in(reg) self.as_ptr(), second = out(reg_byte) second,
                     high = out(reg) high, options(nostack, preserves_flags, readonly));
            }
            u32::from(second) | u32::from(high) != 0
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            self.load(Ordering::Relaxed) & !0xff != 0
        }
    }

    #[inline(always)]
    fn set_bit_8_acquire(&self) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            let was_set: u8;
            // SAFETY: one atomic access to the word: a locked bit-test-and-set with a constant bit
            // number stays inside it.
            unsafe {
                asm!("lock bts dword ptr [{}], 8", "setc {}", in(reg) self.as_ptr(),
                     out(reg_byte) was_set, options(nostack));
            }
            // Relaxed: ordered by the locked instruction before.
            let others = self.load(Ordering::Relaxed) & !(1 << 8);
            others | u32::from(was_set) << 8
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            self.fetch_or(1 << 8, Ordering::Acquire)
        }
    }

    #[inline(always)]
    fn store_low_byte_one(&self) {
        // SAFETY: a byte store inside the word changes that byte alone, as the atomic `or` would.
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        unsafe {
            asm!("mov byte ptr [{}], 1", in(reg) self.as_ptr(), options(nostack, preserves_flags));
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            self.fetch_or(1, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn clear_second_byte(&self) {
        // SAFETY: a byte store inside the word changes that byte alone, as the atomic `and` would.
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        unsafe {
            asm!("mov byte ptr [{} + 1], 0", in(reg) self.as_ptr(),
                 options(nostack, preserves_flags));
        }
        #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
        {
            self.fetch_and(!0xff00, Ordering::Relaxed);
        }
    }
}

/// Waits until every instruction before has completed, and keeps those behind from beginning: as
/// the kernel's `pushf`, `cli` and `popf` do, which are executed one after the other.
#[inline(always)]
fn in_series() {
    // SAFETY: `lfence` and `isb` change no memory and no register. Without `nomem` the compiler
    // moves no access across either.
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    unsafe {
        asm!("lfence", options(nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(all(target_arch = "aarch64", not(feature = "portable")))]
    unsafe {
        asm!("isb", options(nostack, preserves_flags));
    }
}

/// From so many turns on, the end of the chain is one place for the whole program: see [`multiply_long`].
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(feature = "portable")))]
const LONG_CHAIN: u32 = 16;

/// Computes for `turns` turns, each a multiplication that waits for the one before: three cycles or
/// four on every core of today. A chain of long instructions takes the same time when the other
/// thread of the core is busy, where a loop of many short ones slows down by half. No memory is
/// touched.
#[inline(always)]
fn multiply(turns: u32) {
    if turns == 0 {
        return;
    }
    // SAFETY: the loop works on its registers, and ends after `turns` turns, which are not 0; the function
    // called changes none but those named. Without `nostack` the call may push its return address.
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    unsafe {
        asm!("cmp eax, {long}", "jae 3f", "2:", "imul rdx, rdx", "dec eax", "jnz 2b", "jmp 4f",
             "3:", "call {function}", "4:",
             long = const LONG_CHAIN, function = sym multiply_long,
             inout("rdx") 3_u64 => _, inout("eax") turns => _, out("ecx") _, options(nomem));
    }
    // SAFETY: as above; the call changes the link register.
    #[cfg(all(target_arch = "aarch64", not(feature = "portable")))]
    unsafe {
        asm!("cmp w0, {long}", "b.hs 3f", "2:", "mul x1, x1, x1", "subs w0, w0, #1", "b.ne 2b", "b 4f",
             "3:", "bl {function}", "4:",
             long = const LONG_CHAIN, function = sym multiply_long,
             inout("x1") 3_u64 => _, inout("w0") turns => _, out("w2") _, out("lr") _, options(nomem));
    }
    #[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), feature = "portable"))]
    {
        let mut product = core::hint::black_box(3_u64);
        for _ in 0..turns {
            product = product.wrapping_mul(product);
        }
        core::hint::black_box(product);
    }
}

/// Multiplies as [`multiply`] does, 64 times a turn of the loop and the rest in powers of two, so that whether
/// its branches are predicted does not hang on where they lie. A loop of single turns ended in a
/// misprediction or did not, as the linker placed it: up to 15 ns of a section of 50 ns, for some designs in some
/// builds.
///
/// Called by [`multiply`] alone: the number of turns comes in `eax`, the product in `rdx`, and `ecx` is
/// changed.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[unsafe(naked)]
extern "C" fn multiply_long() {
    core::arch::naked_asm!(
        "mov ecx, eax",
        "shr ecx, 6",
        "jz 3f",
        "2:",
        ".rept 64",
        "imul rdx, rdx",
        ".endr",
        "dec ecx",
        "jnz 2b",
        "3:",
        "test al, 32",
        "jz 4f",
        ".rept 32",
        "imul rdx, rdx",
        ".endr",
        "4:",
        "test al, 16",
        "jz 5f",
        ".rept 16",
        "imul rdx, rdx",
        ".endr",
        "5:",
        "test al, 8",
        "jz 6f",
        ".rept 8",
        "imul rdx, rdx",
        ".endr",
        "6:",
        "test al, 4",
        "jz 7f",
        ".rept 4",
        "imul rdx, rdx",
        ".endr",
        "7:",
        "test al, 2",
        "jz 8f",
        "imul rdx, rdx",
        "imul rdx, rdx",
        "8:",
        "test al, 1",
        "jz 9f",
        "imul rdx, rdx",
        "9:",
        "ret",
    );
}

/// Multiplies as on x86-64; the number of turns comes in `w0`, the product in `x1`, and `w2` is changed.
#[cfg(all(target_arch = "aarch64", not(feature = "portable")))]
#[unsafe(naked)]
extern "C" fn multiply_long() {
    core::arch::naked_asm!(
        "lsr w2, w0, #6",
        "cbz w2, 3f",
        "2:",
        ".rept 64",
        "mul x1, x1, x1",
        ".endr",
        "subs w2, w2, #1",
        "b.ne 2b",
        "3:",
        "tbz w0, #5, 4f",
        ".rept 32",
        "mul x1, x1, x1",
        ".endr",
        "4:",
        "tbz w0, #4, 5f",
        ".rept 16",
        "mul x1, x1, x1",
        ".endr",
        "5:",
        "tbz w0, #3, 6f",
        ".rept 8",
        "mul x1, x1, x1",
        ".endr",
        "6:",
        "tbz w0, #2, 7f",
        ".rept 4",
        "mul x1, x1, x1",
        ".endr",
        "7:",
        "tbz w0, #1, 8f",
        "mul x1, x1, x1",
        "mul x1, x1, x1",
        "8:",
        "tbz w0, #0, 9f",
        "mul x1, x1, x1",
        "9:",
        "ret",
    );
}

/// Orders stores, `smp_wmb()`: nothing on x86, where stores stay in order; `dmb ishst` on arm64, where a release
/// fence of C11 would wait for loads as well.
#[inline(always)]
pub(super) fn fence_writes() {
    // SAFETY: a barrier changes no memory and no register. Without `nomem` the compiler moves no access
    // across.
    #[cfg(all(target_arch = "aarch64", not(feature = "portable")))]
    unsafe {
        asm!("dmb ishst", options(nostack, preserves_flags));
    }
    #[cfg(any(feature = "portable", not(target_arch = "aarch64")))]
    fence(Ordering::Release);
}

/// Orders loads, `smp_rmb()`: nothing on x86, `dmb ishld` on arm64.
#[inline(always)]
pub(super) fn fence_reads() {
    fence(Ordering::Acquire);
}

/// A test-and-set lock around a value; see [`Exclusive`].
pub struct SpinExclusive<T> {
    taken: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only between an acquire of `taken` and its release, by one thread.
unsafe impl<T: Send> Sync for SpinExclusive<T> {}

impl<T: Send> Exclusive<T> for SpinExclusive<T> {
    fn new(_: Label, value: T) -> Self {
        Self { taken: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    #[inline]
    fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        // Acquire pairs with the release below: what the last holder wrote is seen.
        while self.taken.swap(1, Ordering::Acquire) != 0 {
            while self.taken.load(Ordering::Relaxed) != 0 {
                core::hint::spin_loop();
            }
        }
        // SAFETY: this thread made `taken` non-zero and nobody else enters until it is zero.
        let result = body(unsafe { &mut *self.value.get() });
        self.taken.store(0, Ordering::Release);
        result
    }
}

/// Makes the futex system call, on a word of this process, without a timeout. Its result does not matter:
/// callers look at the word again.
fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let no_timeout = core::ptr::null::<libc::timespec>();
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid during the call, which only compares it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_timeout) };
}

macro_rules! cores {
    ($memory:ty, $name:literal, $poison:literal) => {
        impl Memory for $memory {
            const NAME: &'static str = $name;
            const POISON: bool = $poison;
            const TIMED: bool = !$poison;
            type U32 = AtomicU32;
            type U64 = AtomicU64;
            type Ptr<T: 'static> = AtomicPtr<T>;
            type Double = AtomicDouble;
            const DOUBLE_WORD_AT_ONCE: bool = double::AT_ONCE;
            type Exclusive<T: Send> = SpinExclusive<T>;

            #[inline(always)]
            fn fence() {
                fence(Ordering::SeqCst);
            }

            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            fn fence_after_rmw() {
                core::sync::atomic::compiler_fence(Ordering::SeqCst);
            }

            #[inline(always)]
            fn fence_writes() {
                fence_writes();
            }

            #[inline(always)]
            fn fence_reads() {
                fence_reads();
            }

            #[inline(always)]
            fn relax() {
                core::hint::spin_loop();
            }

            #[inline(always)]
            fn wait_until<R>(mut condition: impl FnMut() -> Option<R>) -> R {
                loop {
                    if let Some(result) = condition() {
                        return result;
                    }
                    core::hint::spin_loop();
                }
            }

            #[inline(always)]
            fn wait_until_or_every<R>(
                between: u32,
                mut condition: impl FnMut() -> Option<R>,
                mut seldom: impl FnMut() -> Option<R>,
            ) -> R {
                let mut spins = 0u32;
                loop {
                    if let Some(result) = condition() {
                        return result;
                    }
                    if spins == 0 {
                        if let Some(result) = seldom() {
                            return result;
                        }
                        spins = between;
                    }
                    spins -= 1;
                    core::hint::spin_loop();
                }
            }

            #[inline(always)]
            fn spend(turns: u32) {
                multiply(turns);
            }

            #[inline(always)]
            fn charge(turns: u32) {
                if turns == 0 {
                    return;
                }
                in_series();
                Self::spend(turns);
                in_series();
            }

            const HOST_SLEEPS: bool = true;

            #[cold]
            fn sleep_while(word: &AtomicU32, value: u32) {
                futex(word, libc::FUTEX_WAIT, value);
            }

            #[cold]
            fn wake_one(word: &AtomicU32) {
                futex(word, libc::FUTEX_WAKE, 1);
            }

            fn now_ns() -> u64 {
                let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                // SAFETY: `time` is valid for writing; the clock exists on every Linux.
                // Async-signal-safe, which the signal-driven NMI studies need.
                let status = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
                debug_assert_eq!(status, 0);
                time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
            }
        }
    };
}

cores!(Cores, "native", false);
cores!(Audited, "native-audit", true);

#[cfg(test)]
mod tests {
    /// The last square of 3 that is not 1 modulo 2^64 is the 62nd: up to there a chain of another length shows.
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(feature = "portable")))]
    #[test]
    fn a_long_chain_has_as_many_multiplications_as_it_was_asked_for() {
        for turns in 1..62_u32 {
            let product: u64;
            // SAFETY: as in `multiply`.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                core::arch::asm!("call {function}", function = sym super::multiply_long,
                    inout("rdx") 3_u64 => product, inout("eax") turns => _, out("ecx") _, options(nomem));
            }
            // SAFETY: as in `multiply`.
            #[cfg(target_arch = "aarch64")]
            unsafe {
                core::arch::asm!("bl {function}", function = sym super::multiply_long,
                    inout("x1") 3_u64 => product, inout("w0") turns => _, out("w2") _, out("lr") _, options(nomem));
            }
            let expected = (0..turns).fold(3_u64, |product, _| product.wrapping_mul(product));
            assert_eq!(product, expected, "{turns} turns");
        }
        // Beyond, that it ends, and comes back.
        super::multiply(64);
        super::multiply(1_000_003);
    }
}
