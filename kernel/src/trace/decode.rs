//! Classes of instructions, as far as the cost of synchronisation goes.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction, or along a branch.
    Next,
    /// Into a function.
    Call,
    /// Unconditionally elsewhere.
    Jump,
    /// Back to the caller.
    Return,
    /// Back to what an interrupt or exception interrupted.
    InterruptReturn,
}

/// Use of the interrupt flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// Pushed, by `pushf`.
    Push,
    /// Popped, by `popf`.
    Pop,
    /// Cleared, by `cli`.
    Clear,
    /// Set, by `sti`.
    Set,
}

/// Class of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Mnemonic in lower case, as `cmpxchg`.
    pub mnemonic: String,
    /// With a lock prefix, and no full barrier.
    pub locked: bool,
    /// Locked without a prefix: `xchg` with memory.
    pub implicitly_locked: bool,
    /// `mfence`, or the kernel's `smp_mb()`: a locked addition of zero to the stack.
    pub barrier: bool,
    /// Effect on the interrupt flag.
    pub flags: Option<Flags>,
    /// Where control goes.
    pub flow: Flow,
    /// With a repeat prefix: each repetition is a step of a trace.
    pub repeats: bool,
    /// Moves a word to or from the stack.
    pub stack: bool,
    /// Takes a word from the stack.
    pub pops: bool,
    /// Address, before the CPU's own offset is added, of what it accesses by the gs register.
    pub per_cpu: Option<u64>,
}

fn zero_to_stack(instruction: &Instruction) -> bool {
    let immediate = (0..instruction.op_count()).any(|n| {
        !matches!(instruction.op_kind(n), OpKind::Memory | OpKind::Register)
            && instruction.try_immediate(n).ok() == Some(0)
    });
    instruction.memory_base() == Register::RSP
        && immediate
        && matches!(instruction.mnemonic(), Mnemonic::Add | Mnemonic::Or)
}

impl Class {
    fn of(pc: u64, code: &[u8]) -> Self {
        let instruction = Decoder::with_ip(64, code, pc, DecoderOptions::NONE).decode();
        let mnemonic = instruction.mnemonic();
        let memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
        let lock = instruction.has_lock_prefix();
        let barrier = mnemonic == Mnemonic::Mfence || lock && zero_to_stack(&instruction);
        let flow = match (instruction.flow_control(), mnemonic) {
            (_, Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq) => Flow::InterruptReturn,
            (FlowControl::Call | FlowControl::IndirectCall, _) => Flow::Call,
            (FlowControl::UnconditionalBranch | FlowControl::IndirectBranch, _) => Flow::Jump,
            (FlowControl::Return, Mnemonic::Ret) => Flow::Return,
            _ => Flow::Next,
        };
        let pops = matches!(mnemonic, Mnemonic::Pop);
        let per_cpu = (instruction.segment_prefix() == Register::GS
            && matches!(instruction.memory_base(), Register::None | Register::RIP)
            && instruction.memory_index() == Register::None)
            // Behind a rip-relative operand this is the address already.
            .then(|| instruction.memory_displacement64());
        Self {
            mnemonic: format!("{mnemonic:?}").to_lowercase(),
            locked: lock && !barrier,
            implicitly_locked: mnemonic == Mnemonic::Xchg && memory && !lock,
            barrier,
            flags: match mnemonic {
                Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => Some(Flags::Push),
                Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => Some(Flags::Pop),
                Mnemonic::Cli => Some(Flags::Clear),
                Mnemonic::Sti => Some(Flags::Set),
                _ => None,
            },
            flow,
            repeats: instruction.is_string_instruction()
                && (instruction.has_rep_prefix() || instruction.has_repne_prefix()),
            stack: pops || mnemonic == Mnemonic::Push || matches!(flow, Flow::Call | Flow::Return),
            pops,
            per_cpu,
        }
    }
}

/// Decodes each instruction once.
#[derive(Debug, Default)]
pub struct Classes {
    known: HashMap<(u64, Vec<u8>), std::rc::Rc<Class>>,
}

impl Classes {
    /// Returns what the code at an address is.
    pub fn of(&mut self, pc: u64, code: &[u8]) -> std::rc::Rc<Class> {
        if let Some(class) = self.known.get(&(pc, code.to_owned())) {
            return class.clone();
        }
        let class = std::rc::Rc::new(Class::of(pc, code));
        self.known.insert((pc, code.to_owned()), class.clone());
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: &[u8]) -> Class {
        Class::of(0xffff_ffff_8100_0000, code)
    }

    #[test]
    fn locked_instructions_are_told_from_barriers() {
        let cmpxchg = class(&[0xf0, 0x0f, 0xb1, 0x17]); // lock cmpxchg %edx,(%rdi)
        assert!(cmpxchg.locked && !cmpxchg.implicitly_locked && !cmpxchg.barrier);
        assert_eq!(cmpxchg.mnemonic, "cmpxchg");
        let xchg = class(&[0x48, 0x87, 0x07]); // xchg %rax,(%rdi)
        assert!(!xchg.locked && xchg.implicitly_locked);
        let registers = class(&[0x48, 0x87, 0xc7]); // xchg %rax,%rdi
        assert!(!registers.implicitly_locked);
        // lock addl $0x0,-0x4(%rsp)
        let smp_mb = class(&[0xf0, 0x83, 0x44, 0x24, 0xfc, 0x00]);
        assert!(smp_mb.barrier && !smp_mb.locked);
        // lock addl $0x1,-0x4(%rsp)
        let counter = class(&[0xf0, 0x83, 0x44, 0x24, 0xfc, 0x01]);
        assert!(!counter.barrier && counter.locked);
        assert!(class(&[0x0f, 0xae, 0xf0]).barrier); // mfence
        // What a kernel for one processor makes of a lock prefix.
        assert!(!class(&[0x3e, 0x0f, 0xb1, 0x17]).locked);
    }

    #[test]
    fn the_interrupt_flag_is_seen() {
        let flags = [[0x9c], [0x9d], [0xfa], [0xfb], [0x90]].map(|code| class(&code).flags);
        let some = Some;
        assert_eq!(
            flags,
            [some(Flags::Push), some(Flags::Pop), some(Flags::Clear), some(Flags::Set), None]
        );
    }

    #[test]
    fn control_flow_is_seen() {
        assert_eq!(class(&[0xe8, 0, 0, 0, 0]).flow, Flow::Call);
        assert_eq!(class(&[0xe9, 0, 0, 0, 0]).flow, Flow::Jump);
        assert_eq!(class(&[0x74, 0x00]).flow, Flow::Next);
        assert_eq!(class(&[0xc3]).flow, Flow::Return);
        assert_eq!(class(&[0x48, 0xcf]).flow, Flow::InterruptReturn);
        assert!(class(&[0x41, 0x5f]).pops); // pop %r15
        assert!(class(&[0xf3, 0x48, 0xab]).repeats); // rep stos
        assert!(!class(&[0x48, 0xab]).repeats);
        assert!(!class(&[0xf3, 0x90]).repeats); // pause
    }

    #[test]
    fn per_cpu_addresses_are_those_of_the_symbol() {
        // mov %gs:0x1f4c0,%rax
        let absolute = class(&[0x65, 0x48, 0x8b, 0x04, 0x25, 0xc0, 0xf4, 0x01, 0x00]);
        assert_eq!(absolute.per_cpu, Some(0x1f4c0));
        // mov %gs:0x10(%rip),%rax, 8 bytes long
        let relative = class(&[0x65, 0x48, 0x8b, 0x05, 0x10, 0x00, 0x00, 0x00]);
        assert_eq!(relative.per_cpu, Some(0xffff_ffff_8100_0018));
        assert_eq!(class(&[0x65, 0x48, 0x8b, 0x07]).per_cpu, None); // mov %gs:(%rdi),%rax
    }
}
