//! Counts of an operation, and its access script.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::decode::{Flags, Flow};
use super::objects::{Objects, Place};
use super::path::Operation;
use super::raw::Window;
use super::symbols::Symbols;

/// What an operation executed, in numbers. Lines are those of 64 bytes that other CPUs may use: not
/// those of the stack, of the current task, and of the CPU's own variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Figures {
    /// Instructions; a repeated string instruction is one.
    pub instructions: u32,
    /// With a lock prefix, full barriers not included.
    pub locked: u32,
    /// `xchg` with memory.
    pub implicitly_locked: u32,
    /// `mfence` and `smp_mb()`.
    pub barriers: u32,
    /// `pushf`
    pub pushf: u32,
    /// `cli`
    pub cli: u32,
    /// `sti`
    pub sti: u32,
    /// `popf`
    pub popf: u32,
    /// Calls into parts of the kernel, by part.
    pub calls: BTreeMap<String, u32>,
    /// Distinct shared lines that were read.
    pub lines_read: u32,
    /// Distinct shared lines that were written.
    pub lines_written: u32,
    /// Locks that were taken and released inside, by name, with the instructions in between.
    pub lock_sections: BTreeMap<String, u32>,
    /// Instructions that executed with at least one of these locks held.
    pub instructions_under_lock: u32,
    /// Distinct lines written by object.
    pub lines_written_by_object: BTreeMap<String, u32>,
    /// Accesses by object and field: loads, stores, locked.
    pub fields: BTreeMap<String, [u32; 3]>,
}

impl Figures {
    /// Locked instructions of either kind.
    #[must_use]
    pub fn all_locked(&self) -> u32 {
        self.locked + self.implicitly_locked
    }
}

/// Kinds of steps of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// A load.
    Load,
    /// A plain store.
    Store,
    /// A locked instruction.
    Locked,
    /// A full barrier.
    Barrier,
    /// A lock is held from here; its word was just taken.
    Lock,
    /// A lock is released.
    Unlock,
}

impl Act {
    /// Returns one letter, as scripts have it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Load => 'R',
            Self::Store => 'W',
            Self::Locked => 'X',
            Self::Barrier => 'F',
            Self::Lock => 'L',
            Self::Unlock => 'U',
        }
    }

    fn from_letter(letter: &str) -> Option<Self> {
        let all = [Self::Load, Self::Store, Self::Locked, Self::Barrier, Self::Lock, Self::Unlock];
        all.into_iter().find(|act| letter == act.letter().to_string())
    }
}

/// A step of a script: what is done to which field of which line. Written as `X block#1 cb.refcnt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// What is done.
    pub act: Act,
    /// Object and number of its line: `block#1`; empty for a barrier.
    pub line: String,
    /// Field.
    pub field: String,
}

impl Touch {
    /// Reads what `to_string` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let act = Act::from_letter(words.next()?)?;
        let line = words.next().unwrap_or_default().to_owned();
        Some(Self { act, line, field: words.next().unwrap_or_default().to_owned() })
    }
}

impl std::fmt::Display for Touch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{} {} {}", self.act.letter(), self.line, self.field);
        f.write_str(text.trim_end())
    }
}

/// Returns the part of the kernel that a function belongs to, of those that calls are counted into.
fn part(name: &str) -> Option<&'static str> {
    const PARTS: &[(&str, &[&str])] = &[
        (
            "allocator",
            &[
                "kmalloc",
                "__kmalloc",
                "kmem_cache_",
                "kfree",
                "___slab_alloc",
                "__slab_alloc",
                "bpf_mem_",
                "bpf_map_kmalloc",
                "bpf_map_kzalloc",
                "__alloc_pages",
                "kvfree",
                "unit_alloc",
                "unit_free",
                "__slab_free",
                "slab_free",
                "alloc_bulk",
                "free_bulk",
            ],
        ),
        ("hrtimer", &["hrtimer_", "__hrtimer_", "enqueue_hrtimer", "remove_hrtimer"]),
        ("irq_work", &["irq_work_", "__irq_work_"]),
        (
            "rcu",
            &["call_rcu", "__call_rcu", "call_srcu", "rcu_segcblist", "__rcu_read_unlock_special"],
        ),
        (
            "workqueue",
            &[
                "queue_work",
                "__queue_work",
                "cancel_work",
                "__cancel_work",
                "mod_delayed_work",
                "queue_delayed_work",
                "insert_work",
                "flush_work",
            ],
        ),
        ("task_work", &["task_work_"]),
    ];
    let of = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    PARTS.iter().find(|(_, prefixes)| of(prefixes)).map(|(part, _)| *part)
}

struct Taken {
    step: usize,
    /// Position in the script.
    at: usize,
    word: u64,
}

/// Counts an operation and writes its script down.
#[must_use]
pub fn count(
    operation: &Operation,
    window: &Window,
    symbols: &Symbols,
    objects: &mut Objects<'_>,
) -> (Figures, Vec<Touch>) {
    let mut figures = Figures::default();
    let mut script: Vec<Touch> = Vec::new();
    let steps = || operation.steps.iter().map(|e| (&window.steps[e.at], &e.class));
    let stacks: BTreeSet<u64> = steps()
        .filter(|(_, class)| class.stack)
        .filter_map(|(step, class)| match class.flow {
            // An indirect call loads its target first.
            Flow::Call => step.accesses.iter().rfind(|access| access.store),
            _ => step.accesses.first(),
        })
        .map(|access| access.at >> 14)
        .collect();
    let stacks: Vec<u64> = stacks.into_iter().collect();
    let (mut read, mut written) = (BTreeSet::new(), BTreeSet::new());
    let mut taken: Vec<Taken> = Vec::new();
    let mut under_lock: BTreeSet<usize> = BTreeSet::new();
    let mut before: Option<(u64, Flow, &str)> = None;
    for (index, (step, class)) in steps().enumerate() {
        let repeated = class.repeats && before.is_some_and(|(pc, ..)| pc == step.pc);
        figures.instructions += u32::from(!repeated);
        figures.locked += u32::from(class.locked);
        figures.implicitly_locked += u32::from(class.implicitly_locked);
        figures.barriers += u32::from(class.barrier);
        match class.flags {
            Some(Flags::Push) => figures.pushf += 1,
            Some(Flags::Clear) => figures.cli += 1,
            Some(Flags::Set) => figures.sti += 1,
            Some(Flags::Pop) => figures.popf += 1,
            None => {}
        }
        let function = symbols.name(step.pc).map_or("", |(name, _)| name);
        if let Some((_, flow, from)) = before
            && matches!(flow, Flow::Call | Flow::Jump)
            && symbols.starts(step.pc).is_some()
            && let Some(into) = part(function)
            && part(from) != Some(into)
        {
            *figures.calls.entry(into.to_owned()).or_default() += 1;
        }
        before = Some((step.pc, class.flow, function));
        if class.barrier {
            script.push(Touch { act: Act::Barrier, line: String::new(), field: String::new() });
            continue;
        }
        let locked = class.locked || class.implicitly_locked;
        for access in step.accesses.iter().filter(|_| !class.stack) {
            let place = objects.place(access.at, &stacks);
            if locked && !access.store {
                // The load half of a locked instruction; the store half follows, or the comparison
                // failed and there is none.
                read.extend(place.is_shared().then(|| (place.object.clone(), place.line)));
                if step.accesses.iter().any(|other| other.store && other.at == access.at) {
                    continue;
                }
            }
            let act = match (locked, access.store) {
                (true, _) => Act::Locked,
                (false, true) => Act::Store,
                (false, false) => Act::Load,
            };
            if place.object != "stack" {
                let counts = figures.fields.entry(place.name()).or_default();
                counts[match act {
                    Act::Load => 0,
                    Act::Store => 1,
                    _ => 2,
                }] += 1;
            }
            if act == Act::Store
                && access.size == 1
                && let Some(at) = taken.iter().position(|t| t.word == access.at)
            {
                let lock = taken.remove(at);
                let name = place.name();
                let between = index - lock.step;
                *figures.lock_sections.entry(name).or_default() += between as u32;
                under_lock.extend(lock.step + 1..=index);
                if let Some(touch) = script.get_mut(lock.at) {
                    touch.act = Act::Lock;
                }
                script.push(touch(Act::Unlock, &place));
                written.extend(place.is_shared().then_some((place.object, place.line)));
                continue;
            }
            if place.is_shared() {
                let line = (place.object.clone(), place.line);
                if access.store {
                    written.insert(line)
                } else {
                    read.insert(line)
                };
            }
            if place.is_shared() || act == Act::Locked {
                let touch = touch(act, &place);
                // A field that is loaded again and again is one step of the script.
                if act == Act::Locked || script.last() != Some(&touch) {
                    script.push(touch);
                }
            }
            if class.locked && class.mnemonic == "cmpxchg" && access.size == 4 && access.store {
                taken.retain(|t| t.word != access.at);
                taken.push(Taken { step: index, at: script.len() - 1, word: access.at });
            }
        }
    }
    figures.lines_read = read.len() as u32;
    figures.lines_written = written.len() as u32;
    for (object, _) in written {
        *figures.lines_written_by_object.entry(object).or_default() += 1;
    }
    figures.instructions_under_lock = under_lock.len() as u32;
    (figures, script)
}

fn touch(act: Act, place: &Place) -> Touch {
    Touch { act, line: format!("{}#{}", place.object, place.line), field: place.field.clone() }
}
