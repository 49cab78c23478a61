//! Counts of an operation, and its access script.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::decode::{Flags, Flow};
use super::objects::{Objects, Place};
use super::path::{Executed, Operation};
use super::raw::Window;
use super::symbols::Symbols;

/// Figures of an operation's execution. Lines are those of 64 bytes that other CPUs may use: not those of the
/// stack, of the current task, and of the CPU's own variables.
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
    /// Number of `pushf`.
    pub pushf: u32,
    /// Number of `cli`.
    pub cli: u32,
    /// Number of `sti`.
    pub sti: u32,
    /// Number of `popf`.
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
    /// Rounds of a loop that waits for another processor which only repeat the round before; they are in
    /// none of the other figures.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Figures {
    /// Returns the number of locked instructions of either kind.
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
    /// Action on the field.
    pub act: Act,
    /// Object and number of its line: `block#1`; empty for a barrier.
    pub line: String,
    /// Field by its name.
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

/// Leaves out the rounds of waiting loops that repeat the round before, instruction by instruction; a round
/// begins at a `pause`. Returns how many there were.
fn without_repeated_waits(steps: &[Executed], window: &Window) -> (Vec<Executed>, u32) {
    let pc = |step: &Executed| window.steps[step.at].pc;
    let mut kept: Vec<Executed> = Vec::new();
    let mut pauses: Vec<usize> = Vec::new();
    let mut left_out = 0;
    for step in steps {
        if step.class.mnemonic == "pause" {
            if let [.., before, last] = pauses[..]
                && kept[before..last].iter().map(pc).eq(kept[last..].iter().map(pc))
            {
                kept.truncate(last);
                pauses.pop();
                left_out += 1;
            }
            pauses.push(kept.len());
        }
        kept.push(step.clone());
    }
    (kept, left_out)
}

/// An operation in figures and as a script.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The figures.
    pub figures: Figures,
    /// The script.
    pub script: Vec<Touch>,
    /// For each step of the script, the position in the window of the instruction behind it; none behind
    /// the last.
    pub next: Vec<Option<usize>>,
}

/// Counts an operation and writes its script down.
#[must_use]
pub fn count(
    operation: &Operation,
    window: &Window,
    symbols: &Symbols,
    objects: &mut Objects<'_>,
) -> Counted {
    let mut figures = Figures::default();
    let mut script: Vec<Touch> = Vec::new();
    let (kept, waits) = without_repeated_waits(&operation.steps, window);
    figures.waits = waits;
    let mut next: Vec<Option<usize>> = Vec::new();
    let steps = || kept.iter().map(|e| (&window.steps[e.at], &e.class));
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
        // Behind the instruction before this one, for whatever that one added.
        next.resize(script.len(), kept.get(index).map(|e| e.at));
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
    next.resize(script.len(), None);
    figures.lines_read = read.len() as u32;
    figures.lines_written = written.len() as u32;
    for (object, _) in written {
        *figures.lines_written_by_object.entry(object).or_default() += 1;
    }
    figures.instructions_under_lock = under_lock.len() as u32;
    Counted { figures, script, next }
}

fn touch(act: Act, place: &Place) -> Touch {
    Touch { act, line: format!("{}#{}", place.object, place.line), field: place.field.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::decode::Classes;
    use super::super::raw::Step;
    use super::*;

    /// Returns a window that executes instructions of a loop, by their number; the one numbered 0 is `pause`.
    fn window(numbers: &[u64]) -> (Window, Vec<Executed>) {
        let code = |number: u64| if number == 0 { vec![0xf3, 0x90] } else { vec![0x90] };
        let step = |n: &u64| Step { pc: 0x1000 + n, code: code(*n), accesses: Vec::new() };
        let window = Window { number: 0, steps: numbers.iter().map(step).collect() };
        let mut classes = Classes::default();
        let executed = window.steps.iter().enumerate();
        let executed = executed
            .map(|(at, step)| Executed { at, class: classes.of(step.pc, &step.code) })
            .collect();
        (window, executed)
    }

    #[test]
    fn a_wait_is_one_round_however_long_it_takes() {
        let kept = |numbers: &[u64]| {
            let (window, steps) = window(numbers);
            let (kept, waits) = without_repeated_waits(&steps, &window);
            let pcs = kept.iter().map(|e| window.steps[e.at].pc - 0x1000).collect::<Vec<_>>();
            (pcs, waits)
        };
        let once = vec![1, 2, 0, 2, 0, 2, 3];
        assert_eq!(kept(&once), (once.clone(), 0));
        assert_eq!(kept(&[1, 2, 0, 2, 0, 2, 0, 2, 0, 2, 3]), (once, 2));
        // A round that looks at the clock is another one.
        let other = vec![2, 0, 2, 0, 2, 4, 0, 2, 3];
        assert_eq!(kept(&other), (other.clone(), 0));
        assert_eq!(kept(&[1, 2, 3]), (vec![1, 2, 3], 0));
    }
}
