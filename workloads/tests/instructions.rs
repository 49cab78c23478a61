//! The instructions of the queued spinlock on x86: those of the kernel. The access scripts say which
//! access follows which; this says which instruction each of them is, from the bytes of the functions.

#![cfg(all(target_arch = "x86_64", not(feature = "portable")))]

use std::slice;
use std::sync::atomic::AtomicU32;

use cellbench_impls::lock::queued::Queued;
use cellbench_impls::lock::{RawLock, tas};
use cellbench_impls::platform::{Native, SplitWord};
use cellbench_impls::{Cpu, Errno};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

/// Bytes to decode of a function, which ends with its first return.
const LONGEST: usize = 256;

/// Access of an instruction to memory: mnemonic, bytes, offset in the word, whether it is locked.
type Access = (Mnemonic, usize, u64, bool);

/// Returns the instructions of a function that read or write memory through a register other than the stack
/// pointer, up to its first call or return.
fn accesses(function: *const u8) -> Vec<Access> {
    // SAFETY: the code of a function, and of what lies behind it: these functions are not the last ones
    // of a test that is larger than a page.
    let code = unsafe { slice::from_raw_parts(function, LONGEST) };
    let mut decoder = Decoder::with_ip(64, code, function as u64, DecoderOptions::NONE);
    let mut accesses = Vec::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        assert!(!instruction.is_invalid(), "no instruction at {:#x}", instruction.ip());
        if matches!(instruction.mnemonic(), Mnemonic::Ret | Mnemonic::Call | Mnemonic::Jmp) {
            return accesses;
        }
        let memory =
            (0..instruction.op_count()).any(|op| instruction.op_kind(op) == OpKind::Memory);
        let stack =
            matches!(instruction.memory_base(), iced_x86::Register::RSP | iced_x86::Register::RBP);
        if memory && !stack && instruction.mnemonic() != Mnemonic::Lea {
            // An exchange with memory is locked without the prefix.
            let locked = instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg;
            let bytes = instruction.memory_size().size();
            let offset = instruction.memory_displacement64();
            accesses.push((instruction.mnemonic(), bytes, offset, locked));
        }
    }
    panic!("no return in {LONGEST} bytes");
}

macro_rules! functions {
    ($($name:ident($word:ident $(, $argument:ident: $type:ty)?) $(-> $result:ty)? $body:block)*) => {$(
        #[inline(never)]
        fn $name($word: &AtomicU32 $(, $argument: $type)?) $(-> $result)? $body
    )*};
}

functions! {
    set_pending(word) -> u32 { word.set_bit_8_acquire() }
    clear_pending(word) { word.clear_second_byte(); }
    clear_pending_set_locked(word) { word.store_low_half(1); }
    set_locked(word) { word.store_low_byte_one(); }
    unlock(word) { word.clear_low_byte_release(); }
    exchange_tail(word, tail: u16) -> u16 { word.swap_high_half(tail) }
    remove_tail(word, tail: u16) -> bool { word.cas_high_half(tail, 0) }
}

#[test]
fn parts_of_the_word_are_accessed_by_the_kernels_instructions() {
    use Mnemonic::{Bts, Cmpxchg, Mov, Xchg};
    let expected: [(&str, *const u8, &[Access]); 7] = [
        // queued_fetch_set_pending_acquire(): lock btsl, then a load of the word.
        ("set_pending", set_pending as *const u8, &[(Bts, 4, 0, true), (Mov, 4, 0, false)]),
        ("clear_pending", clear_pending as *const u8, &[(Mov, 1, 1, false)]),
        ("clear_pending_set_locked", clear_pending_set_locked as *const u8, &[(Mov, 2, 0, false)]),
        ("set_locked", set_locked as *const u8, &[(Mov, 1, 0, false)]),
        ("unlock", unlock as *const u8, &[(Mov, 1, 0, false)]),
        ("xchg_tail", exchange_tail as *const u8, &[(Xchg, 2, 2, true)]),
        ("try_cmpxchg_tail", remove_tail as *const u8, &[(Cmpxchg, 2, 2, true)]),
    ];
    for (name, function, accesses_of_kernel) in expected {
        assert_eq!(accesses(function), accesses_of_kernel, "{name}");
    }
}

#[inline(never)]
fn acquire(lock: &Queued<Native>, cpu: &Cpu<'_, Native>) -> Result<(), Errno> {
    lock.acquire(cpu)
}

#[inline(never)]
fn release(lock: &Queued<Native>, cpu: &Cpu<'_, Native>) {
    lock.release(cpu);
}

#[inline(never)]
fn release_tas(lock: &tas::Tas<Native>, cpu: &Cpu<'_, Native>) {
    lock.release(cpu);
}

/// Uncontended: one locked compare-exchange of the word, and a byte store.
#[test]
fn the_fast_path_is_a_compare_exchange_and_a_byte_store() {
    assert_eq!(accesses(acquire as *const u8), [(Mnemonic::Cmpxchg, 4, 0, true)]);
    for release in [release as *const u8, release_tas as *const u8] {
        assert_eq!(accesses(release), [(Mnemonic::Mov, 1, 0, false)]);
    }
}
